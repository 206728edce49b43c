"""The gate of a network as a module without parameters: one mask per hidden layer, computed from the raw input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_meta.functional.gates import batch_gate, nearest_index, sample_gate, top_k_gate
from lit_meta.networks._build import one_of
from lit_meta.utils.annotations import Options
from lit_meta.utils.options import grouped

GateKind = Literal["none", "batch", "sample", "top_k"]
_DEFAULT_MARGIN = 0.2


@dataclass(frozen=True)
class GateOptions(Options):
    """Which hidden units an `InputGate` opens; networks take them also as ``gate="sample", gate_margin=0.1``.

    Attributes:
        name: ``"batch"`` is the published gate, with which a prediction depends on the rest of its batch; ``"sample"`` and
            ``"top_k"`` look at each sample separately; ``"none"`` is no gate.
        margin: δ of ``"batch"`` and ``"sample"``: a unit opens if its input is within δ of the largest (default 0.2).
        threshold: an absolute threshold in place of the margin.
        slope: steepness of the logistic of ``"batch"`` and ``"sample"`` (default 1000).
        active_units: number of units that ``"top_k"`` opens in every hidden layer; required there.

    Raises:
        KeyError: an unknown name.
        ValueError: an option that the gate does not have, or one out of range.
    """

    name: GateKind = "none"
    margin: float | None = None
    threshold: float | None = None
    slope: float | None = None
    active_units: int | None = None

    def __post_init__(self) -> None:
        one_of("gate", self.name, GateKind)
        allowed = {"none": (), "top_k": ("active_units",)}.get(self.name, ("margin", "threshold", "slope"))
        given = [name for name, value in vars(self).items() if name != "name" and value is not None]
        extra = [name for name in given if name not in allowed]
        if extra:
            raise ValueError(
                f"gate={self.name!r} has no {' and no '.join(extra)}: leave it out or choose another gate."
            )
        if self.name == "top_k" and self.active_units is None:
            raise ValueError("gate='top_k' needs active_units, the number of units it opens.")
        if self.margin is not None and self.threshold is not None:
            raise ValueError(
                f"a gate takes a margin or an absolute threshold, not both: got {self.margin} and {self.threshold}."
            )
        if self.margin is not None and not self.margin >= 0:
            raise ValueError(f"margin must not be negative (every unit would be closed), got {self.margin}.")
        if self.slope is not None and not self.slope > 0:
            raise ValueError(f"slope must be positive, got {self.slope}.")


class InputGate(nn.Module):
    """Masks for the hidden layers, computed from the raw input.

    Args:
        kind: `GateOptions`, or the name of the gate with its options beside it.
        inputs: values in a raw input.
        units: width of each hidden layer.
        **flat: fields of `GateOptions`.

    Raises:
        KeyError: an unknown gate.
        ValueError: an option that the gate does not have, one out of range, or no hidden layer to act on.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023 (``"batch"``).

    Example:
        >>> gate = InputGate("sample", inputs=4, units=[6, 2], margin=0.1)
        >>> [mask.shape for mask in gate(torch.rand(3, 4))]
        [torch.Size([3, 6]), torch.Size([3, 2])]
    """

    @grouped(kind="")
    def __init__(
        self, kind: GateOptions | GateKind = GateOptions(), *, inputs: int, units: Sequence[int], **flat: Any
    ) -> None:
        super().__init__()
        assert isinstance(kind, GateOptions)  # As `grouped` gives it.
        if kind.name != "none" and not units:
            raise ValueError(f"gate={kind.name!r} acts on hidden layers and there are none: use gate='none'.")
        if kind.active_units is not None and not 1 <= kind.active_units <= min(units):
            raise ValueError(
                f"active_units must be from 1 to {min(units)}, the narrowest hidden layer, got {kind.active_units}."
            )
        self.kind, self.units = kind.name, tuple(units)
        self.margin, self.threshold = kind.margin, kind.threshold
        self.slope, self.active_units = kind.slope, kind.active_units
        if self.kind in ("batch", "sample"):
            self.margin = _DEFAULT_MARGIN if kind.margin is None and kind.threshold is None else kind.margin
            self.slope = 1000.0 if kind.slope is None else kind.slope
        if self.kind != "none":
            for i, width in enumerate(self.units):
                # Determined by the sizes alone, so it need not be in a checkpoint.
                self.register_buffer(f"index_{i}", nearest_index(inputs, width), persistent=False)

    def _mask(self, x: Tensor, layer: int) -> Tensor:
        index: Tensor = getattr(self, f"index_{layer}")
        units = self.units[layer]
        if self.kind == "top_k":
            assert self.active_units is not None
            mask = top_k_gate(x, units, self.active_units, index=index)
        else:
            assert self.slope is not None
            gate = batch_gate if self.kind == "batch" else sample_gate
            mask = gate(x, units, margin=self.margin, threshold=self.threshold, slope=self.slope, index=index)
        return mask.to(x.dtype) if x.is_floating_point() else mask

    def forward(self, x: Tensor) -> list[Tensor | None]:
        """Masks (units,) or (batch, units), one per hidden layer; None stands for no mask."""
        if self.kind == "none":
            return [None] * len(self.units)
        with torch.no_grad():
            return [self._mask(x, layer) for layer in range(len(self.units))]

    def extra_repr(self) -> str:
        names = ("margin", "threshold", "slope", "active_units")
        options = {name: getattr(self, name) for name in names}
        return ", ".join([self.kind, *(f"{name}={value}" for name, value in options.items() if value is not None)])
