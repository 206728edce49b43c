"""Hooks that notice an evaluation before it starts, for rules that compute the weights only then."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lit_meta.core.layers import weight_layers


class EvaluationWatch:
    """Forward pre-hooks that let rules bring weights up to date before a network in evaluation mode uses them.

    Args:
        network: the network to watch.
        before_pass: called with every weight layer before it runs; updates the weights if that is an evaluation, and must be
            fast when nothing has changed.
    """

    def __init__(self, network: nn.Module, before_pass: Callable[[nn.Module], None]) -> None:
        self._handles = [
            layer.module.register_forward_pre_hook(_BeforePass(layer.module, before_pass))
            for layer in weight_layers(network)
        ]

    def close(self) -> None:
        """Removes all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _BeforePass:
    """Does nothing in a copy of the module: no rule learns in a copied or unpickled network."""

    def __init__(self, module: nn.Module | None = None, before_pass: Callable[[nn.Module], None] | None = None) -> None:
        self._module = module
        self._before_pass = before_pass

    def __call__(self, module: nn.Module, arguments: tuple[object, ...]) -> None:
        if self._before_pass is not None and module is self._module:
            self._before_pass(module)

    def __reduce__(self) -> tuple[type[_BeforePass], tuple[()]]:
        return type(self), ()
