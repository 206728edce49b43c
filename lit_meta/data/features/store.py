"""A folder of features: shards of safetensors, and a file that says what they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_meta.data.sources.base import Source
from lit_meta.utils.io import load_json, load_tensors, save_json, save_tensors
from lit_meta.utils.registry import unknown

_FORMAT = 1
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Description:
    """What the features in a folder are of; the content of its ``features.json``.

    Attributes:
        source: the name of the data source.
        network: its digest (`lit_meta.networks.Backbone.digest`).
        data: the digest of images and labels.
        parts: widths of the features by part, in their order.
        classes: names of the labels.
        samples: of ``"train"`` and ``"test"``.
        held_out: how many of the test samples, at their end, are of the official training set.
        shard: samples in a shard.
        dtype: ``"float32"`` or ``"float16"``.
        details: what else is worth knowing: weights, transform, the form that was measured to be fastest.
    """

    source: str
    network: str
    data: str
    parts: dict[str, int]
    classes: tuple[str, ...]
    samples: dict[str, int]
    held_out: int
    shard: int
    dtype: str
    details: Mapping[str, Any]


class FeatureStore:
    """Features on disk, of which a source can be made.

    ``train-00000.safetensors`` and so on hold one tensor a part, (samples of the shard, width), and ``labels``.

    Args:
        folder: of the features.

    Raises:
        FileNotFoundError: there are none.
        ValueError: ``features.json`` is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / "features.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"there are no features in {self.folder}: make them with extract_features(network, source)"
            )
        values = load_json(file)
        if values.pop("format", None) != _FORMAT:
            raise ValueError(f"{file} is of another format than {_FORMAT}: extract the features again")
        try:
            self.description = Description(**{**values, "classes": tuple(values["classes"])})
            self._check(file)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}): extract the features again") from None

    @classmethod
    def create(cls, folder: Path, description: Description) -> FeatureStore:
        """An empty store."""
        save_json(folder / "features.json", {"format": _FORMAT, **asdict(description)})
        return cls(folder)

    def _check(self, file: Path) -> None:
        d = self.description
        whole = [*d.parts.values(), *d.samples.values(), d.shard, d.held_out]
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in whole) or d.shard < 1 or not d.parts:
            raise ValueError(f"{file} is damaged (widths and counts): extract the features again")
        if d.dtype not in _DTYPES or set(d.samples) != {"train", "test"}:
            raise ValueError(f"{file} is damaged (dtype or samples): extract the features again")

    @property
    def dtype(self) -> torch.dtype:
        """How features are stored; sources hold float32."""
        return _DTYPES[self.description.dtype]

    def shards(self) -> list[tuple[str, int, slice]]:
        """Split, number and samples of every shard."""
        d = self.description
        return [
            (split, number, slice(start, min(start + d.shard, count)))
            for split, count in d.samples.items()
            for number, start in enumerate(range(0, count, d.shard))
        ]

    def path(self, split: str, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{split}-{number:05d}.safetensors"

    def missing(self) -> list[tuple[str, int, slice]]:
        """The shards that are still to be computed."""
        return [shard for shard in self.shards() if not self.path(*shard[:2]).is_file()]

    def write(self, split: str, number: int, features: Tensor, labels: Tensor) -> None:
        """Stores a shard.

        Args:
            split: ``"train"`` or ``"test"``.
            number: of the shard.
            features: (samples, width).
            labels: (samples,).

        Raises:
            ValueError: features that the dtype cannot hold.
        """
        stored = features.to(self.dtype)
        if not bool(torch.isfinite(stored).all()):
            raise ValueError(
                f"features up to {float(features.abs().max()):.3g} do not fit into {self.description.dtype}"
            )
        parts = dict(
            zip(self.description.parts, stored.split(list(self.description.parts.values()), dim=1), strict=True)
        )
        save_tensors(self.path(split, number), {**parts, "labels": labels})

    def load(self, split: str, parts: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
        """Features and labels.

        Args:
            split: ``"train"`` or ``"test"``.
            parts: which, in the order of the store; None for all.

        Returns:
            float32 (samples, width) and int64 (samples,).

        Raises:
            KeyError: an unknown part.
            ValueError: shards are missing or damaged.
        """
        chosen = self.chosen(parts)
        absent = self.missing()
        if absent:
            raise ValueError(
                f"{len(absent)} of the {len(self.shards())} shards in {self.folder} are missing: "
                "run extract_features again, which computes those"
            )
        samples = self.description.samples[split]
        features = torch.empty(samples, sum(chosen.values()))
        labels = torch.empty(samples, dtype=torch.long)
        for _, number, where in (shard for shard in self.shards() if shard[0] == split):
            tensors = load_tensors(self.path(split, number))
            rows = where.stop - where.start
            wrong = [name for name in chosen if name not in tensors or tensors[name].shape != (rows, chosen[name])]
            if wrong or "labels" not in tensors or tensors["labels"].shape != (rows,):
                raise ValueError(
                    f"{self.path(split, number)} is damaged ({(wrong or ['labels'])[0]}): delete it and extract again"
                )
            features[where] = torch.cat([tensors[name] for name in chosen], dim=1).float()
            labels[where] = tensors["labels"]
        return features, labels

    def chosen(self, parts: Sequence[str] | None) -> dict[str, int]:
        """Widths of the chosen parts, in the order of the store.

        Raises:
            KeyError: an unknown part; the nearest are named.
        """
        known = self.description.parts
        for part in parts or ():
            if part not in known:
                raise unknown("part of the features", part, known)
        return {name: width for name, width in known.items() if parts is None or name in parts}

    def source(self, parts: Sequence[str] | None = None) -> Source:
        """The features as a source, over which scenarios are made.

        Args:
            parts: which, in the order of the store; None for all.

        Raises:
            KeyError: an unknown part.
            ValueError: shards are missing or damaged, or every feature is constant.
        """
        train_x, train_y = self.load("train", parts)
        test_x, test_y = self.load("test", parts)
        if len(train_x) > 1 and bool((train_x == train_x[0]).all()):
            raise ValueError(f"all features in {self.folder} are constant: the network does not see the images")
        count = self.description.held_out
        held = (test_x[-count:], test_y[-count:]) if count else (None, None)
        return Source(
            f"features-{self.description.source}",
            train_x,
            train_y,
            test_x,
            test_y,
            tuple(self.description.classes),
            held_out_x=held[0],
            held_out_y=held[1],
        )
