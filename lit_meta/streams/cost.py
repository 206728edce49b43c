"""The cost of a stream so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from lit_meta.cost.totals import Cost

# Quantities that the stream measures itself; they are not taken from a callback's counts.
_OWN = ("steps", "samples", "seconds", "state_bytes")
_COUNTED = {field.name for field in fields(Cost)} - set(_OWN)


@dataclass(eq=False)
class StreamCost(Mapping[str, float]):
    """The cost of a stream: a mapping of its quantities to plain numbers, without those that have no value.

    Attributes:
        steps: optimizer steps.
        samples: samples seen, counted again in every epoch.
        seconds: time of training with consolidation, without evaluation.
        counted: the summed counts of a callback such as `lit_meta.CostLedger`; None without one.
        parameter_bytes: size of the module's parameters, known at the end of a stream.
        state_bytes: size of the rules' memory, known at the end of a stream.

    Example:
        >>> cost = StreamCost()
        >>> cost.add(steps=4, samples=50, seconds=0.5, counted=Cost(forward_macs=10))
        >>> cost["steps"], cost["forward_macs"], "state_bytes" in cost
        (4, 10, False)
    """

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    counted: Cost | None = None
    parameter_bytes: int | None = None
    state_bytes: int | None = None

    def add(self, *, steps: int, samples: int, seconds: float, counted: Cost | None = None) -> None:
        """Adds the cost of one experience; of counted memory the maximum is kept."""
        self.steps += steps
        self.samples += samples
        self.seconds += seconds
        if counted is not None:
            # A copy, so that the callback's own record does not change.
            self.counted = replace(counted) if self.counted is None else self.counted + counted

    def to_dict(self) -> dict[str, float]:
        """The quantities that have a value, as plain numbers."""
        numbers: dict[str, float] = {"steps": self.steps, "samples": self.samples, "seconds": self.seconds}
        if self.counted is not None:
            numbers |= {name: value for name, value in self.counted.to_dict().items() if name in _COUNTED}
        ends = {"parameter_bytes": self.parameter_bytes, "state_bytes": self.state_bytes}
        return numbers | {name: value for name, value in ends.items() if value is not None}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float]) -> StreamCost:
        """The cost that `to_dict` has written.

        Raises:
            ValueError: an unknown quantity.

        Example:
            >>> dict(StreamCost.from_dict({"steps": 3, "samples": 9, "seconds": 1.0}))
            {'steps': 3, 'samples': 9, 'seconds': 1.0}
        """
        own = {field.name for field in fields(cls)} - {"counted"}
        if undefined := numbers.keys() - own - _COUNTED:
            raise ValueError(f"the cost of a stream has no quantity {', '.join(map(repr, sorted(undefined)))}")
        counts = {name: value for name, value in numbers.items() if name in _COUNTED}
        # Quantities without a value are absent from the mapping.
        absent = {name: None for name in ("published_operations", "peak_memory_bytes") if name not in counts}
        counted = Cost(**{**counts, **absent}) if counts else None  # type: ignore[arg-type]
        return cls(counted=counted, **{name: value for name, value in numbers.items() if name in own})  # type: ignore[arg-type]

    def __getitem__(self, quantity: str) -> float:
        return self.to_dict()[quantity]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())
