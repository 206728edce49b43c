"""Whether an entry can go on learning: one more class, or one more experience, and what becomes of the old ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.data.benchmark import BenchmarkView
from lit_meta.data.module import experience_tensors
from lit_meta.data.tensors import tensor_benchmark
from lit_meta.evaluation.accuracy import accuracy_of
from lit_meta.evaluation.audit import stratified_subset
from lit_meta.experiments.config import Experiment
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.streams.fit import fit_stream
from lit_meta.utils.modes import matmul_precision

_TEST_SAMPLES = 2000
_TRAIN_SAMPLES = 1000
_EPOCHS = 5
_CHOSEN = 4  # The class whose samples are turned upside down.


@dataclass(frozen=True)
class Continuation:
    """What an entry does with one more experience.

    Attributes:
        learned: what it was.
        new: accuracy on test samples of it, afterwards.
        old_before: average accuracy on the test experiences of the stream, before it.
        old_after: the same, afterwards.
    """

    learned: str
    new: float
    old_before: float
    old_after: float

    def to_dict(self) -> dict[str, Any]:
        """The form that a card has."""
        return asdict(self)


def continue_learning(module: MetaplasticModule, experiment: Experiment, benchmark: Any, seed: int) -> Continuation:
    """Lets a module with its rule's memory learn one more experience, with the settings of its experiment.

    The experience holds samples of one class, turned upside down: things of the same kind that the network has not seen. Where
    the head can grow they are a new class; where it cannot (NACA has drawn its projections for the classes it began with; in a
    domain-incremental stream there are none to add) they are more samples of their own class.

    Args:
        module: as `lit_meta.zoo.load` gives it with its rule; it goes on learning.
        experiment: of the learner.
        benchmark: that it has learned.
        seed: of the order of samples.
    """
    if getattr(benchmark, "form", "") == "class":
        grown = _copy(module, experiment)
        try:
            grow_head(grown.network)
            return _continued(grown, experiment, benchmark, seed, new_class=True)
        except ValueError:
            pass  # A rule that cannot take a new class says so before it learns anything.
    return _continued(module, experiment, benchmark, seed, new_class=False)


def grow_head(network: nn.Module) -> int:
    """Adds an output to the last Linear layer of a network, with weights of 0; old outputs stay as they are.

    Returns:
        The label of the new class.

    Raises:
        ValueError: there is no Linear layer.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 2))
        >>> grow_head(network), network(torch.ones(1, 3)).shape
        (2, torch.Size([1, 3]))
    """
    heads = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise ValueError(f"{type(network).__name__} has no Linear layer that could take a new class")
    head = heads[-1]
    with torch.no_grad():
        head.weight = nn.Parameter(_longer(head.weight), requires_grad=head.weight.requires_grad)
        if head.bias is not None:
            head.bias = nn.Parameter(_longer(head.bias), requires_grad=head.bias.requires_grad)
    head.out_features += 1
    if isinstance(getattr(network, "classes", None), int):
        network.classes = head.out_features  # type: ignore[assignment]
    return head.out_features - 1


def _longer(tensor: Tensor) -> Tensor:
    return torch.cat([tensor.detach(), tensor.new_zeros(1, *tensor.shape[1:])])


def _continued(
    module: MetaplasticModule, experiment: Experiment, benchmark: Any, seed: int, *, new_class: bool
) -> Continuation:
    old = [_some(*experience_tensors(e), len(benchmark.test_stream)) for e in benchmark.test_stream]
    classes = int(max(int(y.max()) for _, y in old)) + 1
    chosen = min(_CHOSEN, classes - 1)
    label = classes if new_class else chosen
    train = _upside_down(benchmark.train_stream, chosen, label, _TRAIN_SAMPLES)
    test = _upside_down(benchmark.test_stream, chosen, label, _TEST_SAMPLES)
    name = benchmark.class_names[chosen] if hasattr(benchmark, "class_names") else str(chosen)
    turned = "upside down" if train[0].dim() > 2 else "in reverse order"
    learned = f"{name}, {turned}, {'as a new class' if new_class else 'as more of its class'}"
    with matmul_precision(experiment.matmul_precision):
        before = accuracy_of(module.network, old, protocol=experiment.protocol)
        fit_stream(
            module,
            BenchmarkView("continuation", list(tensor_benchmark([train], [test]).train_stream), _tests(test)),
            max_epochs=min(experiment.max_epochs, _EPOCHS),
            batch_size=experiment.batch_size,
            seed=seed,
            protocol=experiment.protocol,
            accelerator="cpu",
        )
        after = accuracy_of(module.network, [*old, test], protocol=experiment.protocol)
    return Continuation(learned, float(after[-1]), float(before.mean()), float(after[:-1].mean()))


def _tests(test: tuple[Tensor, Tensor]) -> list[Any]:
    return list(tensor_benchmark([test], [test]).test_stream)


def _some(x: Tensor, y: Tensor, experiences: int) -> tuple[Tensor, Tensor]:
    chosen = stratified_subset(y, max(20, _TEST_SAMPLES // experiences), torch.Generator().manual_seed(0))
    return x[chosen], y[chosen]


def _upside_down(stream: Any, chosen: int, label: int, most: int) -> tuple[Tensor, Tensor]:
    parts = []
    for experience in stream:
        x, y = experience_tensors(experience)
        parts.append(x[y == chosen][:most])
    x = torch.cat(parts)[:most]
    axis = -2 if x.dim() > 2 else -1
    return x.flip(axis).contiguous(), torch.full((len(x),), label)


def _copy(module: MetaplasticModule, experiment: Experiment) -> MetaplasticModule:
    """The module again, with memory of its own: an attempt that fails must leave the original as it was."""
    import copy

    rules = [] if module.plasticity is None else list(module.plasticity.rules)
    clones = []
    for rule in rules:
        clone = rule.clone()
        clone.state.load_state_dict(rule.state.state_dict())
        clones.append(clone)
    return MetaplasticModule(
        copy.deepcopy(module.network), rule=clones or None, loss=experiment.loss, optimizer=module._optimizer
    )
