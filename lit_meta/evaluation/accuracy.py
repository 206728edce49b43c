"""Accuracy on the test experiences of a stream, measured so that nothing can leak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce

import torch
from torch import Tensor, nn

from lit_meta.core.errors import DivergedError
from lit_meta.core.spiking_state import SpikingState
from lit_meta.data.benchmark import Benchmark
from lit_meta.evaluation.protocols import PROTOCOLS as PROTOCOLS
from lit_meta.evaluation.protocols import Protocol as Protocol
from lit_meta.utils.modes import evaluating
from lit_meta.utils.validation import all_finite, require_one_of

Context = Callable[[Tensor], AbstractContextManager[object]]
"""Takes the experience of each sample in a batch, (batch,), and makes it known for the duration of a forward pass."""


def class_scores(outputs: object, samples: int, *, hint: str = "") -> Tensor:
    """Checks that a model's outputs are one score per sample and class.

    Args:
        outputs: of the model, expected to be (samples, classes).
        samples: number of samples the model was given.
        hint: what to do if they are not; appended to the message.

    Returns:
        The outputs.

    Raises:
        ValueError: the outputs have another shape or type.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[0] != samples:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model must give outputs (batch, classes), got {got} for {samples} samples{hint}")
    return outputs


def predict(
    network: nn.Module,
    inputs: Tensor,
    *,
    batch_size: int = 512,
    device: torch.device | None = None,
    experiences: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """Predicted classes.

    Args:
        network: maps (batch, ...) to (batch, classes).
        inputs: (samples, ...).
        batch_size: samples per forward pass.
        device: where to compute; None is the device of the network.
        experiences: position in the stream of each sample's experience, (samples,); required by ``context``.
        context: surrounds each forward pass, for rules that must be told the task; see `lit_meta.rules.Rule.context`.

    Returns:
        (samples,) of integers, on the CPU.

    Raises:
        ValueError: outputs that are not (batch, classes), or a context without ``experiences``.
        DivergedError: outputs that are not finite.

    Example:
        >>> predict(nn.Identity(), torch.eye(3), batch_size=2)
        tensor([0, 1, 2])
    """
    if device is None:
        device = next((p.device for p in network.parameters()), inputs.device)
    if context is not None and (experiences is None or len(experiences) != len(inputs)):
        raise ValueError("a context needs the experience of every sample")
    predictions = []
    spiking = SpikingState(network)
    with evaluating(network):
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            surrounding: AbstractContextManager[object] = nullcontext()
            if context is not None and experiences is not None:
                surrounding = context(experiences[start : start + batch_size])
            spiking.reset()
            with surrounding:
                outputs = class_scores(network(batch.to(device)), len(batch))
            if not all_finite(outputs):
                raise DivergedError("the network's outputs are not finite: it has diverged")
            predictions.append(outputs.argmax(1).cpu())
        spiking.reset()
    return torch.cat(predictions)


def accuracy_of(
    network: nn.Module,
    experiences: Sequence[tuple[Tensor, Tensor]],
    *,
    protocol: Protocol = "standard",
    batch_size: int = 512,
    seed: int = 0,
    device: torch.device | None = None,
    context: Context | None = None,
) -> Tensor:
    """Accuracy on each test experience.

    Under the ``standard`` protocol all test samples are shuffled together before they are split into batches, so a network
    whose predictions depend on the rest of the batch gains nothing. Under the ``paper`` protocol each experience is tested
    alone, as in the publication of NACA: where an experience holds a single class, this tells a batch-dependent gate the
    class it should predict.

    Args:
        network: maps (batch, ...) to (batch, classes).
        experiences: (inputs, targets) of each.
        protocol: ``"standard"`` or ``"paper"``.
        batch_size: of the test batches.
        seed: of the shuffling.
        device: where to compute; None is the device of the network.
        context: as in `predict`. A network that is told the experience of its samples knows more than one that is not.

    Returns:
        (experiences,) in [0, 1].

    Raises:
        ValueError: an unknown protocol, or an experience without samples.
    """
    require_one_of("protocol", protocol, PROTOCOLS)
    sizes = [len(targets) for _, targets in experiences]
    if not sizes or min(sizes) == 0:
        raise ValueError(f"every test experience needs samples, got {sizes}")
    if protocol == "paper":
        correct = []
        for position, (x, y) in enumerate(experiences):
            positions = torch.full((len(y),), position)
            labels = predict(network, x, batch_size=batch_size, device=device, experiences=positions, context=context)
            correct.append((labels == y).float().mean())
        return torch.stack(correct)
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))
    inputs = _reordered([x for x, _ in experiences], order)
    predictions = torch.empty(sum(sizes), dtype=torch.long)
    positions = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[order]
    predictions[order] = predict(
        network, inputs, batch_size=batch_size, device=device, experiences=positions, context=context
    )
    pairs = zip(predictions.split(sizes), experiences, strict=True)
    return torch.stack([(predicted == targets).float().mean() for predicted, (_, targets) in pairs])


def _reordered(parts: Sequence[Tensor], order: Tensor) -> Tensor:
    """``torch.cat(parts)[order]``, without the concatenation: test samples may be the largest thing in memory."""
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    samples = parts[0].new_empty(len(order), *parts[0].shape[1:], dtype=dtype)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    for part, own in zip(parts, places.split([len(part) for part in parts]), strict=True):
        samples[own.to(samples.device)] = part.to(dtype)
    return samples


def accuracy_by_batching(
    network: nn.Module,
    experiences: Sequence[tuple[Tensor, Tensor]],
    *,
    batch_size: int = 256,
    singles: int = 1000,
    seed: int = 0,
    device: torch.device | None = None,
) -> dict[str, float]:
    """Average accuracy under three ways to make test batches; they agree if a prediction depends on its sample alone.

    Args:
        network: maps (batch, ...) to (batch, classes).
        experiences: (inputs, targets) of each.
        batch_size: of the batches that hold one experience each, and of the shuffled ones.
        singles: number of samples to test one at a time, drawn in equal parts from the experiences (a smaller experience
            contributes all of its samples).
        seed: of the shuffling and of the draw.
        device: where to compute; None is the device of the network.

    Returns:
        ``{"one experience a batch": ..., "shuffled": ..., "one sample a batch": ...}``, each in [0, 1].

    Example:
        >>> x, y = torch.eye(4), torch.arange(4)
        >>> accuracy_by_batching(nn.Identity(), [(x[:2], y[:2]), (x[2:], y[2:])])["shuffled"]
        1.0
    """
    generator = torch.Generator().manual_seed(seed)
    share = max(1, singles // len(experiences))
    drawn = []
    for inputs, targets in experiences:
        chosen = torch.randperm(len(targets), generator=generator)[:share]
        drawn.append((inputs[chosen], targets[chosen]))
    pure = accuracy_of(network, experiences, protocol="paper", batch_size=batch_size, device=device)
    mixed = accuracy_of(network, experiences, batch_size=batch_size, seed=seed, device=device)
    alone = accuracy_of(network, drawn, batch_size=1, device=device)
    return {
        "one experience a batch": float(pure.mean()),
        "shuffled": float(mixed.mean()),
        "one sample a batch": float(alone.mean()),
    }


def evaluate(
    network: nn.Module, benchmark: Benchmark, *, protocol: Protocol = "standard", batch_size: int = 512
) -> Tensor:
    """Accuracy of a network on each test experience of a benchmark; see `accuracy_of`.

    Example:
        >>> from lit_meta import scenario
        >>> from lit_meta.networks import build_network
        >>> evaluate(build_network("mlp", inputs=64, hidden=[8], classes=10), scenario("split-digits", experiences=2)).shape
        torch.Size([2])
    """
    from lit_meta.data import experience_tensors

    experiences = [experience_tensors(experience) for experience in benchmark.test_stream]
    return accuracy_of(network, experiences, protocol=protocol, batch_size=batch_size)
