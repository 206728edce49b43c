"""Context-dependent gating: every task has its own small part of the hidden units."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lit_meta.core.layers import units, weight_layers
from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept
from lit_meta.utils.validation import require_in

_NEEDS_TASK = (
    "XdG needs the task of every sample, also in testing: run the network inside `with rule.in_task(network, task):`, or take "
    "the gates off with rule.detach()"
)


class XdG(Rule):
    r"""Context-dependent gating.

    Every task closes a random part of the units of each hidden layer, in learning and in use:

    .. math:: h ← h ⊙ g_{task}, \qquad g_{task} ∈ \{0, 1\}^{units} \text{ fixed, with a share } X \text{ of zeros}

    A closed unit sends nothing, so its synapses neither act nor learn; the larger X, the fewer units tasks share. The rule is
    meant to be combined with another, as in ``[SI(...), XdG(...)]``.

    **The rule needs the task of every sample, when it learns and when it is tested.** In learning, every experience is
    a task of its own: the first is task 0, and so on (``tasks`` says otherwise). In testing, name the task::

        with rule.in_task(network, 2):                # all samples are of task 2
            network(inputs)
        with rule.in_task(network, task_of_sample):   # an integer tensor (batch,)
            network(inputs)

    `fit_stream` and the Avalanche plugin do so by the position of the test experience in its stream; the tasks of samples
    are then known to the network, so its accuracy must not be compared with that of rules without this knowledge. Outside an
    experience, a forward pass without a context raises, since an ungated network has no meaningful output.

    Gates act on what each weight layer but the first receives: hidden units are the features of a Linear layer's input and
    the channels of a convolution's (all positions of a channel share a gate). A network of one weight layer is refused.
    The indices that an embedding takes are no units and are not gated, nor are the matrices inside `nn.MultiheadAttention`,
    which are not called as layers.

    Args:
        gated: X, the share of units closed, in [0, 1); it is met exactly, up to rounding, in every layer and task.
        tasks: the task of each experience in the order of learning; None makes each a new one.
        seed: of the gates.

    Raises:
        ValueError: a hyperparameter out of range; more experiences than ``tasks``; a network without hidden units.
        RuntimeError: a forward pass outside an experience without a context.

    Source:
        Masse, Grant, Freedman, PNAS 115(44), E10467-E10475, 2018; X = 80%. In the authors' code each gate is drawn by
        itself, with X as its probability; here the number of closed units is X exactly, as their text has it. They gate
        fully connected layers only; freeze or leave out convolutions to have the same.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2))
        >>> rule = XdG(gated=0.8)
        >>> with rule.in_task(network, 0):
        ...     network(torch.ones(3, 4)).shape
        torch.Size([3, 2])
        >>> int(rule.gates("2", 10, 0).sum())
        2
    """

    needs_inputs = False
    needs_boundaries = True
    needs_tasks = True
    stages_memory = True
    lasting = frozenset({"_network", "_handles", "_tables"})

    def __init__(self, *, gated: float = 0.8, tasks: Sequence[int] | None = None, seed: int = 0) -> None:
        super().__init__()
        require_in("gated", gated, 0.0, 1.0)
        if gated == 1.0:
            raise ValueError("gated=1.0 closes every unit: nothing could be learned")
        if tasks is not None and (not tasks or any(isinstance(t, bool) or int(t) != t or t < 0 for t in tasks)):
            raise ValueError(f"tasks must be whole numbers of at least 0, one for each experience, got {tasks!r}")
        self.gated = gated
        self.tasks = None if tasks is None else [int(t) for t in tasks]
        self.seed = seed
        self._context: Tensor | int | None = None
        self._learning = False
        self._task = 0
        self._network: nn.Module | None = None
        self._handles: list[RemovableHandle] = []
        self._tables: dict[tuple[str, int], Tensor] = {}

    # In learning.

    def begin_experience(self, synapses: Synapses) -> None:
        count = int(self.state.overall["experience"]) + 1 if "experience" in self.state else 0
        if self.tasks is not None and count >= len(self.tasks):
            raise ValueError(f"XdG was given the tasks of {len(self.tasks)} experiences, and this is one more")
        self.state.overall["experience"] = torch.tensor(count, device=synapses.parameters[0].device)
        self._start(synapses.network)

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        return {"experience/*": Kept(())}

    def join(self, synapses: Synapses) -> None:
        """Nothing depends on which layers learn."""

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        if not self._learning:  # The stream was resumed from a checkpoint inside an experience.
            self._start(synapses.network)

    def leave_experience(self) -> None:
        self._learning = False

    def task_of(self, experience: int) -> int:
        """The task of an experience, by its position in the stream."""
        if self.tasks is None:
            return experience
        if experience >= len(self.tasks):
            raise ValueError(f"XdG was given the tasks of {len(self.tasks)} experiences, not of number {experience}")
        return self.tasks[experience]

    # In use.

    def context(self, network: nn.Module, experiences: Tensor) -> AbstractContextManager[None]:
        if self.tasks is None:
            return self.in_task(network, experiences)
        task_of = torch.tensor([self.task_of(i) for i in range(int(experiences.max()) + 1)])
        return self.in_task(network, task_of[experiences.cpu()])

    @contextmanager
    def in_task(self, network: nn.Module, task: int | Tensor) -> Iterator[None]:
        """Gates a network as for a task, or each sample as for its own.

        Args:
            network: the network that has learned (or will learn) with this rule.
            task: a task, or integers (batch,), for a batch of as many samples.

        Raises:
            TypeError: tasks that are not integers.
            ValueError: a negative task, or tasks that are not one for each sample.
        """
        if isinstance(task, Tensor):
            if task.is_floating_point() or task.dtype == torch.bool:
                raise TypeError(f"tasks must be integers, got {task.dtype}")
            if task.dim() != 1 or len(task) == 0:
                raise ValueError(f"tasks must be one for each sample, (batch,), got {tuple(task.shape)}")
            least = int(task.min())
        else:
            least = int(task)
        if least < 0:
            raise ValueError(f"a task is a whole number of at least 0, got {least}")
        self._attach(network)
        outer, self._context = self._context, task
        try:
            yield
        finally:
            self._context = outer

    def gates(self, layer: str, units: int, task: int) -> Tensor:
        """g of one task before one weight layer, (units,) of 0 and 1; the same at every call."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{layer}/{task}".encode()))
        gates = torch.ones(units)
        gates[torch.randperm(units, generator=generator)[: round(self.gated * units)]] = 0.0
        if not bool(gates.any()):
            raise ValueError(f"gated={self.gated} closes all {units} units before layer {layer!r}")
        return gates

    def detach(self) -> None:
        """Removes the gates from the network."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._network, self._learning = [], None, False

    # Inner workings.

    def _start(self, network: nn.Module) -> None:
        self._attach(network)
        self._task = self.task_of(int(self.state.overall["experience"]))
        self._learning = True

    def _attach(self, network: nn.Module) -> None:
        if self._network is network:
            return
        # An embedding's inputs are indices, which are no units.
        hidden = [layer for layer in weight_layers(network)[1:] if not isinstance(layer.module, nn.Embedding)]
        if not hidden:
            raise ValueError("XdG gates hidden units, and the network has one weight layer only")
        self.detach()
        for layer in hidden:
            width = _width(layer.module)
            if width is None:
                raise ValueError(
                    "XdG gates the inputs of Linear and convolution layers; "
                    f"{layer.name!r} is of type {type(layer.module).__name__}"
                )
            # First of all hooks, so that rules which watch a layer's input see it gated.
            self._handles.append(layer.module.register_forward_pre_hook(_Gate(self, layer.name, width), prepend=True))
        self._network = network

    def __getstate__(self) -> dict[str, Any]:
        # A copy gates the network that it is used with, and not the one that its original is attached to.
        return {**vars(self), "_network": None, "_handles": [], "_context": None}

    def _gated(self, name: str, width: int, module: nn.Module, inputs: Tensor) -> Tensor:
        task = self._context
        if task is None:
            if not self._learning:
                raise RuntimeError(_NEEDS_TASK)
            task = self._task
        dimension = units(module, inputs)
        shape = [1] * inputs.dim()
        shape[dimension] = width
        if isinstance(task, int):
            gate = self._table(name, width, task, inputs)
        else:
            # SpikingJelly's multi-step layers take (time, batch, ...).
            samples = 1 if getattr(module, "step_mode", "s") == "m" else 0
            gate = self._of_samples(name, width, task, inputs, inputs.shape[samples])
            shape[samples] = len(gate)
        return inputs * gate.view(shape)

    def _table(self, name: str, units: int, task: int, like: Tensor) -> Tensor:
        gates = self._tables.get((name, task))
        if gates is None or gates.dtype != like.dtype or gates.device != like.device or len(gates) != units:
            with torch.inference_mode(False):  # Gates first used in a test are used in training too.
                gates = self.gates(name, units, task).to(dtype=like.dtype, device=like.device)
            self._tables[name, task] = gates
        return gates

    def _of_samples(self, name: str, units: int, tasks: Tensor, inputs: Tensor, samples: int) -> Tensor:
        known, index = tasks.unique(return_inverse=True)
        table = torch.stack([self._table(name, units, int(task), inputs) for task in known])
        steps, rest = divmod(samples, len(tasks))
        if rest or not steps:
            raise ValueError(f"XdG was given the tasks of {len(tasks)} samples, but layer {name!r} got {samples}")
        # Spiking networks send several time steps through a layer at once, one whole batch after another.
        return table[index.to(table.device)].repeat(steps, 1)


class _Gate:
    """The hook on one layer. In a copy of the network it belongs to no rule, and asks for one."""

    def __init__(self, rule: XdG | None = None, name: str = "", width: int = 0) -> None:
        self._rule, self._name, self._width = rule, name, width

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._rule is not None:
            return (self._rule._gated(self._name, self._width, module, arguments[0]), *arguments[1:])
        others = module._forward_pre_hooks.values()
        if not any(isinstance(hook, _Gate) and hook._rule is not None for hook in others):
            raise RuntimeError(_NEEDS_TASK)
        return None

    def __reduce__(self) -> tuple[type[_Gate], tuple[()]]:
        return type(self), ()


def _width(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels
    return None
