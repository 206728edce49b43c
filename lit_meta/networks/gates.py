"""The gate of a network as a module without parameters: one mask per hidden layer, computed from the raw input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lit_meta.functional.gates import batch_gate, nearest_index, sample_gate, top_k_gate
from lit_meta.utils.registry import unknown

GateKind = Literal["none", "batch", "sample", "top_k"]
GATES = ("none", "batch", "sample", "top_k")
_DEFAULT_MARGIN = 0.2


class InputGate(nn.Module):
    """Masks for the hidden layers, computed from the raw input.

    Args:
        kind: ``"batch"`` is the published gate, with which a prediction depends on the rest of its batch;
            ``"sample"`` and ``"top_k"`` look at each sample separately; ``"none"`` is no gate.
        inputs: values in a raw input.
        units: width of each hidden layer.
        margin: δ of ``"batch"`` and ``"sample"``: a unit opens if its input is within δ of the largest (default
            0.2).
        threshold: an absolute threshold in place of the margin.
        slope: steepness of the logistic of ``"batch"`` and ``"sample"`` (default 1000).
        active_units: number of units that ``"top_k"`` opens in every hidden layer; required there.

    Raises:
        KeyError: an unknown kind.
        ValueError: an option that the kind does not have, or an option out of range.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023 (``"batch"``).

    Example:
        >>> gate = InputGate("sample", inputs=4, units=[6, 2])
        >>> [mask.shape for mask in gate(torch.rand(3, 4))]
        [torch.Size([3, 6]), torch.Size([3, 2])]
    """

    def __init__(
        self,
        kind: GateKind,
        *,
        inputs: int,
        units: Sequence[int],
        margin: float | None = None,
        threshold: float | None = None,
        slope: float | None = None,
        active_units: int | None = None,
    ) -> None:
        super().__init__()
        if kind not in GATES:
            raise unknown("gate", kind, GATES)
        given = {"margin": margin, "threshold": threshold, "slope": slope, "active_units": active_units}
        allowed: dict[str, set[str]] = {"none": set(), "top_k": {"active_units"}}
        extra = [
            name
            for name, value in given.items()
            if value is not None and name not in allowed.get(kind, {"margin", "threshold", "slope"})
        ]
        if extra:
            raise ValueError(f"gate={kind!r} has no {' and no '.join(extra)}: leave it out or choose another gate.")
        if kind != "none" and not units:
            raise ValueError(f"gate={kind!r} acts on hidden layers and there are none: use gate='none'.")
        if kind == "top_k":
            if active_units is None:
                raise ValueError("gate='top_k' needs active_units, the number of units it opens.")
            if not 1 <= active_units <= min(units):
                raise ValueError(
                    f"active_units must be from 1 to {min(units)}, the narrowest hidden layer, got {active_units}."
                )
        if kind in ("batch", "sample"):
            if margin is not None and threshold is not None:
                raise ValueError(
                    f"a gate takes a margin or an absolute threshold, not both: got {margin} and {threshold}."
                )
            margin = _DEFAULT_MARGIN if margin is None and threshold is None else margin
            if margin is not None and not margin >= 0:
                raise ValueError(f"margin must not be negative (every unit would be closed), got {margin}.")
            slope = 1000.0 if slope is None else slope
            if not slope > 0:
                raise ValueError(f"slope must be positive, got {slope}.")
        self.kind = kind
        self.units = tuple(units)
        self.margin, self.threshold, self.slope, self.active_units = margin, threshold, slope, active_units
        if kind != "none":
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
        options = {
            "margin": self.margin,
            "threshold": self.threshold,
            "slope": self.slope,
            "active_units": self.active_units,
        }
        return ", ".join([self.kind, *(f"{name}={value}" for name, value in options.items() if value is not None)])
