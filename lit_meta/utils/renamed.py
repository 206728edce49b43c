"""Configs and zoo entries that were renamed: the name of an earlier release gives what it is called today, with a warning."""

from __future__ import annotations

import warnings

RENAMED = {
    "ewc-mlp-digits": "mlp.ewc_split-digits",
    "naca-mlp-digits": "mlp.naca_split-digits",
    "naca-mlp-mnist-classification": "mlp.naca_mnist",
    "naca-snn-mnist-classification": "lif-mlp.naca_mnist",
    "recursive-readout-digits": "patch-net.recursive-readout_split-digits",
    "recursive-readout-snn-digits": "spiking-patch-net.recursive-readout_split-digits",
}


def present_name(name: str) -> str:
    """What a config or an entry is called today.

    Args:
        name: of today or of an earlier release; of the latter, a `FutureWarning` gives the new one.

    Example:
        >>> present_name("mlp.ewc_split-digits")
        'mlp.ewc_split-digits'
    """
    if name not in RENAMED:
        return name
    warnings.warn(f"{name} is now {RENAMED[name]}", FutureWarning, stacklevel=3)
    return RENAMED[name]
