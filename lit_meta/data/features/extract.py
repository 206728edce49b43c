"""Runs a frozen backbone over a data source once; goes on where it stopped."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lit_meta.data.features.store import Description, FeatureStore
from lit_meta.data.sources.base import Source, cache_folder
from lit_meta.data.sources.registry import load_source
from lit_meta.networks.backbones.forms import BATCHES, Form, fastest_form, make_form
from lit_meta.networks.backbones.network import Backbone
from lit_meta.utils.specs import Specification
from lit_meta.utils.validation import all_finite, require_count

_DIGESTED = 1_000  # Samples at a time.
Progress = Callable[[int, int, float], None]


def print_progress(done: int, total: int, seconds: float) -> None:
    """One line on the error stream: how many of how many images, and the time left."""
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {(total - done) / rate / 60:.0f} min left" if rate else ""
    end = "\n" if done == total else ""
    sys.stderr.write(f"\rfeatures of {done:,} of {total:,} images ({rate:.0f} a second{left})   {end}")
    sys.stderr.flush()


def extract_features(
    network: Backbone,
    source: Specification | Source,
    folder: str | Path | None = None,
    *,
    root: str | Path | None = None,
    form: str | None = None,
    batch_size: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    shard: int = 500,
    progress: Progress | None = print_progress,
) -> FeatureStore:
    """Features of all images of a source, from disk where they are there already.

    The folder's name has digests of weights, transform, stages and data, so that other features are never taken for these.
    A run that is stopped goes on after the last shard. How the network is run (memory format, folded batch normalisation,
    size of batches) is measured first, on a few images; a form whose features differ by more than 1e-4 is not used.

    Args:
        network: the backbone.
        source: of images, or its spec; see `lit_meta.data.load_source`.
        folder: where features are kept; by default ``features`` in the per-user cache folder. Each set has a folder of its own
            in it.
        root: the folder of the data sets.
        form: one of `lit_meta.networks.backbones.forms.FORMS`, in place of the fastest one.
        batch_size: images at once, in place of the fastest number.
        dtype: how features are stored; float16 halves the space, at no measured cost (docs/backbones.md).
        shard: samples in a file.
        progress: called with images done, all images, and seconds; None says nothing.

    Returns:
        The store; ``.source()`` makes a source of it.

    Raises:
        TypeError: not a `Backbone`.
        ValueError: images that the network cannot take, features that are not finite, or an option out of range.
        FileNotFoundError: the data are absent.

    Example:
        >>> import tempfile
        >>> network = Backbone("torchvision:resnet18", classes=10, size=32, pretrained=False)
        >>> source = load_source("digits")
        >>> few = Source("few", source.train_x[:6], source.train_y[:6], source.test_x[:2], source.test_y[:2], source.classes)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     extract_features(network, few, folder, form="eager", batch_size=2, progress=None).source().train_x.shape
        torch.Size([6, 512])
    """
    if not isinstance(network, Backbone):
        raise TypeError(f"features are those of a Backbone, see lit_meta.backbone, got {type(network).__name__}")
    require_count("shard", shard)
    if batch_size is not None:
        require_count("batch_size", batch_size)
    images = load_source(source, root)
    described = Description(
        source=images.name,
        network=network.digest,
        data=data_digest(images),
        parts=network.parts,
        classes=images.classes,
        samples={"train": len(images.train_y), "test": len(images.test_y)},
        held_out=0 if images.held_out_y is None else len(images.held_out_y),
        shard=shard,
        dtype=dtype,
        details={"weights": asdict(network.weights), "transform": network.preparation.to_dict()},
    )
    store = _store(folder, described)
    missing = store.missing()
    if not missing:
        return store
    network.extract(images.train_x[:2].to(network.device))  # Checks of images, mode and features.
    fastest = _form(network, images.train_x, form, batch_size)
    total, done, started = sum(described.samples.values()), 0, time.perf_counter()
    before = total - sum(where.stop - where.start for _, _, where in missing)
    for split, number, where in missing:
        x, y = (images.train_x, images.train_y) if split == "train" else (images.test_x, images.test_y)
        store.write(split, number, _features(network, fastest, x[where]), y[where])
        done += where.stop - where.start
        if progress is not None:
            # Seconds as if those of an earlier run had taken as long each.
            progress(before + done, total, (time.perf_counter() - started) * (before + done) / done)
    return store


def data_digest(source: Source) -> str:
    """Sixteen hexadecimal digits that change with any sample or label of a source."""
    digest = hashlib.sha256()
    for tensor in (source.train_x, source.train_y, source.test_x, source.test_y):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        for start in range(0, len(tensor), _DIGESTED):  # Samples may lie on the disk.
            digest.update(tensor[start : start + _DIGESTED].contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _store(folder: str | Path | None, described: Description) -> FeatureStore:
    kept = cache_folder() / "features" if folder is None else Path(folder)
    place = (
        kept / f"{described.source}-{described.network[:8]}-{described.data[:8]}-{described.dtype}-{described.shard}"
    )
    if not (place / "features.json").is_file():
        return FeatureStore.create(place, described)
    store = FeatureStore(place)
    same = ("source", "network", "data", "parts", "samples", "shard", "dtype")
    different = [key for key in same if getattr(store.description, key) != getattr(described, key)]
    if different:
        raise ValueError(f"{place} holds features of another {different[0]}: use another folder")
    return store


def _form(network: Backbone, images: Tensor, form: str | None, batch_size: int | None) -> Form:
    if form is not None and batch_size is not None:
        return make_form(network, form, batch_size)
    forms = None if form is None else [form]
    return fastest_form(network, images, forms=forms, batches=BATCHES if batch_size is None else [batch_size])[0]


def _features(network: Backbone, form: Form, images: Tensor) -> Tensor:
    parts = []
    with torch.inference_mode():
        for x in images.split(form.batch):
            # A traced form takes batches of one size: the last one is filled up.
            filled = x if len(x) == form.batch else torch.cat([x, x[:1].expand(form.batch - len(x), *x.shape[1:])])
            filled = filled.to(network.device)
            parts.append(form.run(network.prepared(filled))[: len(x)].cpu())
    features = torch.cat(parts)
    if not all_finite(features):
        raise ValueError("features are not finite: check the weights and the images; nothing was stored of this shard")
    return features
