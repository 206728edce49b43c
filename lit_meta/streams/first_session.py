"""First-session adaptation: a pretrained backbone learns the first experience by gradient, and is frozen from then on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.core.errors import DivergedError
from lit_meta.data.module import experience_tensors
from lit_meta.networks.backbones.low_rank import low_rank
from lit_meta.networks.backbones.network import Backbone
from lit_meta.networks.backbones.stages import find_stages, probe, tensor_of
from lit_meta.utils.modes import modes_kept
from lit_meta.utils.validation import require_count, require_in, require_one_of

Method = Literal["lora", "last-block"]


class Adaptation(NamedTuple):
    """What an adaptation did.

    Attributes:
        parameters: how many numbers were trained, without the classifier that is thrown away.
        losses: mean loss of each epoch.
    """

    parameters: int
    losses: list[float]


def adapt_backbone(
    network: nn.Module,
    experience: Any,
    *,
    method: Method = "lora",
    rank: int = 4,
    epochs: int = 5,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
) -> Adaptation:
    """Adapts the pretrained part of a network to the first experience of a stream, before a readout learns.

    A linear classifier of the experience's classes is trained on the last features by Adam and cross-entropy, together with
    low-rank changes of the Linear layers and 1 x 1 convolutions below (``"lora"``), or with the last stage (``"last-block"``).
    Then the changes are added to the weights, the classifier is thrown away, and the network is as frozen as it was, so a
    readout that follows, from the first experience on, is as exact as before. Normalisation stays in evaluation mode.

    Args:
        network: a `Backbone`, or a network that has one as its attribute ``network`` or ``backbone`` (a `MetaplasticModule`).
        experience: the first of a stream (``benchmark.train_stream[0]``), or its (images, labels).
        method: what is trained.
        rank: of the low-rank changes.
        epochs: passes over the experience.
        batch_size: images of a step.
        lr: Adam's learning rate, which falls to 0 along a cosine.
        seed: of the changes' first values and of the order of images.

    Returns:
        How many numbers were trained, and the loss of each epoch.

    Raises:
        TypeError: no `Backbone` in the network.
        ValueError: a setting out of range, features in place of images, fewer than two classes, a readout that has already
            learned, or nothing that the method could train; nothing is changed.
        DivergedError: a loss that is not finite; the weights are as before.

    Source:
        Panos et al., "First session adaptation", ICCV 2023; low-rank changes: Hu et al., "LoRA", ICLR 2022.

    Example:
        >>> from lit_meta import MetaplasticModule, RecursiveReadout, backbone, fit_stream, scenario
        >>> body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
        >>> network = backbone(body, classes=10, transform={"size": 8, "mean": [0.5], "std": [0.5]})
        >>> benchmark = scenario("split-digits", experiences=5)
        >>> adapt_backbone(network, benchmark.train_stream[0], rank=2, epochs=1).parameters
        32
        >>> module = MetaplasticModule(network, rule=RecursiveReadout(ridge=1e-3))
        >>> fit_stream(module, benchmark, accelerator="cpu").accuracy_matrix.shape
        torch.Size([5, 5])
    """
    require_one_of("method", method, ("lora", "last-block"))
    for name, number in (("rank", rank), ("epochs", epochs), ("batch_size", batch_size)):
        require_count(name, number)
    require_in("lr", lr, 0.0, float("inf"), open_low=True)
    trunk = _backbone_of(network)
    _check_not_learned(network)
    images, labels = experience if isinstance(experience, tuple) else experience_tensors(experience)
    if images.dim() != 4:
        raise ValueError(
            f"a backbone is adapted to images (samples, channels, height, width), got {tuple(images.shape)}: features that "
            "were computed before belong to the weights as they are"
        )
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"the first experience has images of class {', '.join(map(str, classes.tolist()))} alone: cross-entropy needs two "
            "classes or more; begin with a larger experience, or leave the backbone as it is"
        )
    with _restored_on_failure(trunk.features), _trained(trunk, method, rank, seed) as parameters:
        losses = _train(trunk, parameters, images, targets, epochs, batch_size, lr, seed)
    trunk.weights = replace(trunk.weights, adapted=method)
    return Adaptation(sum(parameter.numel() for parameter in parameters), losses)


def _train(
    trunk: Backbone,
    parameters: list[nn.Parameter],
    images: Tensor,
    targets: Tensor,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> list[float]:
    device = trunk.head.weight.device
    # Zeros, so that the first steps pull on no direction that was drawn.
    weight = torch.zeros(int(targets.max()) + 1, trunk.parts["last"], device=device, requires_grad=True)
    bias = torch.zeros(len(weight), device=device, requires_grad=True)
    optimizer = torch.optim.Adam([*parameters, weight, bias], lr=lr)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(batch_size):
            inputs, labels = images[chosen].to(device), targets[chosen].to(device)
            with torch.enable_grad():
                features = tensor_of(trunk.features(trunk.prepared(inputs)))
                loss = F.cross_entropy(F.linear(features, weight, bias), labels)  # type: ignore[arg-type]
            if not bool(loss.isfinite()):
                raise DivergedError(
                    "the loss of the adaptation is not finite: the weights are as before; use a smaller lr"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        losses.append(total / len(images))
    return losses


@contextmanager
def _trained(trunk: Backbone, method: Method, rank: int, seed: int) -> Iterator[list[nn.Parameter]]:
    """The parameters that the method trains, with gradients inside the block alone."""
    training = low_rank(trunk.features, rank, seed) if method == "lora" else _last_block(trunk)
    with modes_kept(trunk), training as chosen:
        trunk.eval()
        if not chosen:
            raise ValueError(
                "the backbone has no Linear layer or 1 x 1 convolution to change: method='last-block' trains its last stage"
                if method == "lora"
                else "the backbone has no stage that could be trained: method='lora' changes its Linear layers"
            )
        yield chosen


@contextmanager
def _last_block(trunk: Backbone) -> Iterator[list[nn.Parameter]]:
    stages = find_stages(probe(trunk.features, trunk.preparation.blank()))
    block = trunk.features.get_submodule(stages[-1].name) if stages else nn.Module()
    parameters = list(block.parameters())
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


@contextmanager
def _restored_on_failure(features: nn.Module) -> Iterator[None]:
    before = {name: tensor.clone() for name, tensor in features.state_dict().items()}
    try:
        yield
    except BaseException:
        features.load_state_dict(before)
        raise


def _backbone_of(network: nn.Module) -> Backbone:
    for candidate in (network, getattr(network, "network", None), getattr(network, "backbone", None)):
        if isinstance(candidate, Backbone):
            return candidate
    raise TypeError(
        f"only a pretrained part can be adapted, and {type(network).__name__} has none: build the network by "
        "lit_meta.backbone(module, classes=..., transform=...)"
    )


def _check_not_learned(network: nn.Module) -> None:
    plasticity = getattr(network, "plasticity", None)
    for rule in getattr(plasticity, "rules", ()):
        if len(rule.state):
            raise ValueError(
                f"{type(rule).__name__} has already learned on the features as they are: adapt the backbone before the stream"
            )
