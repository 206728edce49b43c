"""Makes the small features that come with the package: ``python -m docs.tables.shipped_features [--folder FOLDER]``.

The last features of 1,000 training and 500 test images of CIFAR-10 in float16, from those of `docs.tables.backbones`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from docs.tables.backbones import features
from lit_meta.data.features.source import SHIPPED
from lit_meta.data.features.store import FeatureStore

NAME, TRAIN, TEST = "cifar10-lite0", 1_000, 500


def make(store: FeatureStore, target: Path, *, train: int = TRAIN, test: int = TEST) -> FeatureStore:
    """A small copy: the first samples of both splits, the last features only."""
    described = replace(
        store.description,
        parts={"last": store.description.parts["last"]},
        samples={"train": train, "test": test},
        held_out=0,
        shard=max(train, test),
        dtype="float16",
    )
    small = FeatureStore.create(target, described)
    for split, number, where in small.shards():
        x, y = store.load(split, ["last"])
        small.write(split, number, x[where], y[where])
    return small


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="of the features (default: the per-user cache)")
    print(make(features(parser.parse_args().folder), SHIPPED / NAME).folder)
