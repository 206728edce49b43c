"""The memory of a readout: sums over samples of the head's input, which can be added, subtracted and scaled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_meta.core.state import State, apart
from lit_meta.functional.packed import add_outer_products_, pack, packed_size
from lit_meta.functional.scatter import Scatter
from lit_meta.rules._readout_residual import Residual, check_counted

# Products of float32 features are summed in float32 over at most this many samples, then in float64 over all of them.
SAMPLES_AT_ONCE = 4096

Precision = Literal["float64", "float32"]


class ReadoutSums:
    """Sums in a rule's state: Σ h hᵀ (packed, for each block of features), Σ h of each class, and the classes' counts.

    All are float64 (Σ h hᵀ is as ``precision`` says) and taken about a constant near the mean, the *shift* (zero for a head
    without a bias).

    Args:
        state: where the sums are kept.
        block: features of a block at most, None for one block of all.
        exact: sum products in float64, whatever the features' precision.
        per_class: keep Σ h hᵀ of every class apart.
        decay: weight of a sample relative to the one that comes after it.
        precision: in which Σ h hᵀ is stored.
    """

    def __init__(
        self, state: State, *, block: int | None, exact: bool, per_class: bool, decay: float, precision: Precision
    ) -> None:
        self.state = state
        self.block, self.exact, self.per_class, self.decay = block, exact, per_class, decay
        self.precision = precision

    # Reading.

    @property
    def empty(self) -> bool:
        """Whether no sample has been counted."""
        return "class_counts" not in self.state

    @property
    def shift(self) -> Tensor:
        """(features,)."""
        return self.state.overall["shift"]

    @property
    def class_sums(self) -> Tensor:
        """Σ h − shift of each class, (classes, features)."""
        return self.state.overall["class_sums"]

    @property
    def class_counts(self) -> Tensor:
        """(classes,)."""
        return self.state.overall["class_counts"]

    def blocks(self) -> Iterator[tuple[Tensor, Scatter]]:
        """The features of each block, and their second moment about the shift."""
        for number, own in enumerate(self._columns()):
            parts = list(self._parts(number).values())
            # Sums of single classes are added up in a copy.
            scatter = Scatter.of(parts[0] if len(parts) == 1 else sum(parts[1:], parts[0]), torch.float64)
            silent = self._silent(number)
            if silent:
                scatter = scatter.plus(self.shift[own].unsqueeze(0), self.shift.new_tensor([silent]))
            yield own, scatter

    @property
    def rounding(self) -> float:
        """Relative error of what is stored: every rounding adds its own, of either sign."""
        if self.precision == "float64":
            return 2.0**-53
        return 2.0**-24 * math.sqrt(max(float(self.state.overall.get("roundings", torch.ones(()))), 1.0))

    # Changing.

    def add(self, features: Tensor, targets: Tensor, classes: int, *, centered: bool) -> None:
        """Counts samples.

        Args:
            features: h, (samples, features).
            targets: (samples,).
            classes: outputs of the head.
            centered: whether the head has a bias.
        """
        width = features.shape[1]
        if self.empty:
            wide = features.double()
            self.state.overall["shift"] = _single(wide.mean(0)) if centered else torch.zeros_like(wide[0])
            self.state.overall["class_sums"] = wide.new_zeros(classes, width)
            self.state.overall["class_counts"] = wide.new_zeros(classes)
            self.state["second_moment"] = {}
        self.grow(classes)
        if len(self.shift) != width:
            raise ValueError(
                f"the head's input has {width} features, and {len(self.shift)} before: its width must not change"
            )
        weights = None
        if self.decay < 1.0:
            self.scale(self.decay ** len(features))
            age = torch.arange(len(features) - 1, -1, -1, device=features.device, dtype=torch.float64)
            weights = self.decay**age
        self._count(features, targets, weights)

    def _count(self, features: Tensor, targets: Tensor, weights: Tensor | None, sign: float = 1.0) -> None:
        columns, shift, sums = list(self._columns()), self.shift, self.class_sums
        for first in range(0, len(features), SAMPLES_AT_ONCE):
            chosen = slice(first, first + SAMPLES_AT_ONCE)
            part, labels = features[chosen], targets[chosen]
            part = part.double() if self.exact else part
            weight = part.new_full((len(part),), sign) if weights is None else sign * weights[chosen].to(part.dtype)
            one_hot = F.one_hot(labels, len(sums)).to(part.dtype) * weight.unsqueeze(1)
            active = part.any(0) if len(columns) > 1 and not self.per_class else None
            for number, own in enumerate(columns):
                if active is not None and not bool(active[own].any()):
                    # Units of which none was active: their products are known, and added once at the end.
                    if "silent" not in self.state:
                        self.state.overall["silent"] = torch.zeros_like(shift[: len(columns)])
                    self.state.overall["silent"][number] += weight.double().sum()
                    sums[:, own] -= torch.outer(one_hot.double().sum(0), shift[own])
                    continue
                block = (part if len(columns) == 1 else part[:, own]) - shift[own].to(part.dtype)
                for label, rows in self._by_class(labels):
                    packed = self._part(number, label, len(own))
                    alpha = sign if weights is None else weight[rows]
                    add_outer_products_(packed, block[rows], alpha)
                if len(columns) == 1:
                    sums += one_hot.T @ block
                else:
                    sums[:, own] += one_hot.T @ block
            self.class_counts.add_(one_hot.double().sum(0))
            self._rounded()

    def grow(self, classes: int) -> None:
        """Rows for classes that the head has gained."""
        for quantity in ("class_sums", "class_counts"):
            rows = self.state.overall[quantity]
            if classes < len(rows):
                raise ValueError(f"the head has {classes} outputs, and had {len(rows)}: a head may grow, not shrink")
            if classes > len(rows):
                self.state.overall[quantity] = torch.cat([rows, rows.new_zeros(classes - len(rows), *rows.shape[1:])])

    def scale(self, factor: float) -> None:
        """Every sample counts by this factor."""
        for tensor in (*self.state["second_moment"].values(), self.class_sums, self.class_counts):
            tensor.mul_(factor)
        self._rounded()
        if "silent" in self.state:
            self.state.overall["silent"].mul_(factor)

    def merge(self, other: ReadoutSums) -> None:
        """Adds the samples of another memory, which stays as it is; both have features of one width and blocks of one size."""
        added, counts = other.class_sums, other.class_counts
        self.grow(max(len(self.class_counts), len(counts)))
        change = self.shift - other.shift
        for number, own in enumerate(self._columns()):
            for key, packed in other._parts(number).items():
                mine = self.state["second_moment"].setdefault(key, torch.zeros_like(packed))
                mine += packed
                _move_(mine, change[own], *other._active(number, key, own))
        self._rounded(2 + int(other.state.overall.get("roundings", torch.zeros(()))))
        if "silent" in other.state:
            silent = other.state.overall["silent"]
            self.state.overall["silent"] = silent + self.state.overall.get("silent", torch.zeros_like(silent))
        self.class_sums[: len(counts)] += added - torch.outer(counts, change)
        self.class_counts[: len(counts)] += counts

    def forget(self, features: Tensor, targets: Tensor, *, centered: bool) -> Residual:
        """Subtracts samples.

        Raises:
            ValueError: samples that were never counted, as far as sums can tell; nothing is changed.
        """
        left = self.class_counts - torch.bincount(targets, minlength=len(self.class_counts))
        centred = features.double() - self.shift
        tolerance = 1e-9 if self.exact or features.dtype == torch.float64 else 1e-5
        if self.precision == "float32":
            tolerance = max(1e-5, 8 * self.rounding)
        check_counted(
            list(self.blocks()), self.class_sums, self.class_counts, centred, targets, left, tolerance=tolerance
        )
        if not bool((left > 0).any()):
            self.clear()
            return Residual(0.0, math.inf)
        rounding = self.rounding * self._trace()
        if not self.exact and features.dtype != torch.float64:
            rounding += 2.0**-24 * float(centred.square().sum())
        self._count(features, targets, None, sign=-1.0)
        return self._settled(left, centered, rounding * math.sqrt(min(len(features), SAMPLES_AT_ONCE)))

    def forget_class(self, label: int, *, centered: bool) -> Residual:
        """Drops the sums of one class; needs ``per_class``."""
        left = self.class_counts.clone()
        left[label] = 0.0
        if not bool((left > 0).any()):
            self.clear()
            return Residual(0.0, math.inf)
        return self._settled(left, centered, None)

    def clear(self) -> None:
        """Forgets everything."""
        self.state.load_state_dict({})

    # Inner workings.

    def _settled(self, left: Tensor, centered: bool, rounding: float | None) -> Residual:
        """Drops what belongs to classes without samples, and takes the sums about the mean of the samples left.

        The old shift is the mean of the first batch, of which nothing may remain.
        """
        self.class_counts.copy_(left)
        self.class_sums[left == 0] = 0.0
        if self.per_class:
            for label in (left == 0).nonzero().flatten().tolist():
                for number, _ in enumerate(self._columns()):
                    self.state["second_moment"].pop(block_key(number, label), None)
        if rounding is None:
            rounding = self.rounding * self._trace()
        if centered:
            self._recenter(_single(self.shift + self.class_sums.sum(0) / left.sum()))
        remaining = self._trace()
        digits = -math.log10(max(rounding / remaining, 2.0**-53)) if remaining > 0 else 0.0
        return Residual(float(left.sum()), max(digits, 0.0))

    def _recenter(self, shift: Tensor) -> None:
        """Takes the same sums about another constant."""
        change = shift - self.shift
        for number, own in enumerate(self._columns()):
            for key, packed in self._parts(number).items():
                _move_(packed, change[own], *self._active(number, key, own))
        self._rounded()
        self.class_sums.sub_(torch.outer(self.class_counts, change))
        self.state.overall["shift"] = shift

    def _trace(self) -> float:
        return sum(float(scatter.diagonal().sum()) for _, scatter in self.blocks())

    def _columns(self) -> Iterator[Tensor]:
        """The features of each block: every k-th one, so that each block sees all parts of the input."""
        width = len(self.shift)
        blocks = 1 if self.block is None else -(-width // self.block)
        for first in range(blocks):
            yield torch.arange(first, width, blocks, device=self.shift.device)

    def _by_class(self, labels: Tensor) -> Iterator[tuple[int | None, Tensor | slice]]:
        """The samples whose products are summed together, with their class if it is kept apart."""
        if not self.per_class:
            yield None, slice(None)
            return
        for label in labels.unique().tolist():
            yield label, (labels == label).nonzero().flatten()

    def _part(self, number: int, label: int | None, width: int) -> Tensor:
        moments = self.state["second_moment"]
        key = block_key(number, label)
        if key not in moments:
            moments[key] = self.shift.new_zeros(packed_size(width), dtype=self._dtype)
        elif moments[key].dim() == 2:
            moments[key] = pack(moments[key])  # As written before matrices were packed.
        if moments[key].dtype != self._dtype:
            if self._dtype == torch.float64:
                raise ValueError("this memory was summed in float32: build the rule with precision='float32'")
            moments[key] = moments[key].to(self._dtype)
            self._rounded()
        return moments[key]

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32

    def _rounded(self, times: int = 1) -> None:
        """Counts how often single precision has rounded the sums."""
        if self.precision == "float32":
            before = self.state.overall.get("roundings", torch.zeros((), dtype=torch.long))
            self.state.overall["roundings"] = before + times

    def _parts(self, number: int) -> dict[str, Tensor]:
        """The packed matrices of a block, by key: one, or one for each class."""
        width = len(list(self._columns())[number])
        if not self.per_class:
            return {block_key(number): self._part(number, None, width)}
        labels = range(len(self.class_counts))
        keys = {label: block_key(number, label) for label in labels}
        parts = {key: self._part(number, c, width) for c, key in keys.items() if key in self.state["second_moment"]}
        return parts or {keys[0]: self._part(number, 0, width)}

    def _silent(self, number: int) -> float:
        return float(self.state.overall["silent"][number]) if "silent" in self.state else 0.0

    def _active(self, number: int, key: str, own: Tensor) -> tuple[Tensor, float]:
        """Sum about the shift, and number, of the samples in one packed matrix."""
        if self.per_class:
            label = int(key.rpartition(".")[2])
            return self.class_sums[label, own], float(self.class_counts[label])
        silent = self._silent(number)
        return self.class_sums[:, own].sum(0) + silent * self.shift[own], float(self.class_counts.sum()) - silent


def _move_(packed: Tensor, change: Tensor, total: Tensor, count: float) -> None:
    """Takes Σ h hᵀ about another constant, from the sum and the number of the samples."""
    if count > 0 and bool(change.any()):
        mean = total / count
        vectors = torch.stack([mean, change - mean])
        add_outer_products_(packed, vectors, vectors.new_tensor([-count, count]))


def _single(shift: Tensor) -> Tensor:
    """Rounded to float32, so that subtracting it in either precision subtracts the same; what only float64 can hold stays."""
    single = shift.float().double()
    return torch.where(single.isfinite(), single, shift)


def block_key(number: int, label: int | None = None) -> str:
    """Name of a block's second moment in the rule's memory, or of the share of one class."""
    return apart(str(number) if label is None else f"{number}.{label}")
