"""What a rule is: the events it may answer, and what it sees of a network."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from lit_meta.core.layers import Layer
from lit_meta.core.state import State

EVENTS = (
    "begin_experience",
    "before_forward",
    "layer_input",
    "local_error",
    "after_backward",
    "gradient",
    "update",
    "end_experience",
    "synchronize",
)


@dataclass(frozen=True)
class Synapses:
    """Parameters of a network as parallel lists, the form that fused operations take.

    Attributes:
        network: the network they are in.
        names: parameter names, relative to the network.
        parameters: the parameters themselves, to be changed in place only.
    """

    network: nn.Module
    names: tuple[str, ...]
    parameters: list[nn.Parameter]

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients, to be changed in place; only for parameters that have one."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def __len__(self) -> int:
        return len(self.names)


class Experience(Protocol):
    """What a rule sees of an experience that ends: its network and its data, in a fixed order."""

    network: nn.Module

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields (inputs, targets) batches on the network's device, each sample once, never shuffled."""
        ...


class Rule:
    """A metaplasticity rule: what a synapse remembers and how that changes its next update.

    A rule knows no host. It overrides those of the events below that it needs; an event that is not
    overridden costs nothing. All memory lives in `state`, so that it is saved, moved and grown without
    further code. One instance learns in one network; use `clone` for another.

    Attributes of the class, which an instance may refine by its hyperparameters:
        needs_labels: every batch must come with integer class labels.
        needs_boundaries: the rule consolidates at the end of experiences, so a stream must announce them.
        needs_data: `end_experience` reads the experience's data.
        makes_update: the rule moves the parameters itself and keeps the optimizer from doing so.
        reads_task_gradient: the rule needs the gradient of the task's loss as the backward pass left it, before other
            rules have changed it.
        head_only: the rule learns the head and keeps all other parameters still.
        settles: hidden layers learn at first only, and keep still then.
        needs_tasks: the rule must be told the task of every sample in testing, see `context`.
        limits: situations that the rule refuses with an error, and why: ``"growth"`` (parameters that gain rows), ``"layers"``
            (layers added between experiences), ``"shared"`` (one parameter in several layers), ``"heads"`` (a head that is
            not used in an experience), ``"accumulation"`` (several backward passes for a step), ``"half"`` (bfloat16
            parameters), ``"fp16"`` (scaled losses), ``"distributed"`` (several processes).
    """

    needs_labels: bool = False
    needs_boundaries: bool = False
    needs_data: bool = True
    head_only: bool = False
    settles: ClassVar[bool] = False
    needs_tasks: ClassVar[bool] = False
    makes_update: ClassVar[bool] = False
    reads_task_gradient: ClassVar[bool] = False
    limits: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self.state = State()

    # Events, in the order in which they come.

    def begin_experience(self, synapses: Synapses) -> None:
        """Before the first batch of an experience, after a head has grown."""

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        """Before the forward pass of a training batch. May perturb the parameters; see `restore`."""

    def layer_input(self, layer: Layer, inputs: Tensor) -> None:
        """At each weight layer of a training forward pass, with what the layer is about to receive."""

    def local_error(self, layer: Layer, output: Tensor, targets: Tensor) -> Tensor:
        """The local error of a hidden block, of its output's shape; replaces the backpropagated one.

        Args:
            layer: the weight layer that the block begins with.
            output: what the block hands to the next weight layer, (batch, ...).
            targets: integer class labels, (batch,).
        """
        raise NotImplementedError

    def after_backward(self, synapses: Synapses) -> None:
        """After every backward pass; several come before one step where gradients are accumulated.

        A rule that perturbed the parameters in `before_forward` gives them their values back here.
        """

    def gradient(self, synapses: Synapses) -> None:
        """After the backward pass and before clipping; changes `Synapses.gradients` in place.

        Only parameters with a gradient are in ``synapses``. A rule that makes the whole update itself
        sets ``parameter.grad = None``, and the optimizer leaves that parameter alone.
        """

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        """After the optimizer's step, with the parameters' values from before it; may correct the step."""

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        """After the last batch of an experience: consolidate."""

    def synchronize(self, synapses: Synapses) -> None:
        """Before the parameters are looked at: brings them up to date with the memory.

        For rules that work out parameters from their memory rather than step by step. It comes before every forward pass
        of a weight layer in evaluation mode, at any point of a stream, and when an experience ends; it needs no data.
        """

    # Around the events.

    def leave_experience(self) -> None:
        """After all rules have consolidated, or when an experience is given up: nothing is being learned any more."""

    def context(self, network: nn.Module, experiences: Tensor) -> AbstractContextManager[None]:
        """Tells a rule that needs tasks, while a network is tested, what each sample of a batch is of.

        Args:
            network: the network.
            experiences: of each sample, the position of its experience in the stream, (batch,).
        """
        return nullcontext()

    def restore(self, synapses: Synapses) -> None:
        """Undoes what `before_forward` did to the parameters, when a step is abandoned by an error."""

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        """What is worth logging, such as the value of a penalty; called at logging steps only."""
        return {}

    def overrides(self, event: str) -> bool:
        """Whether this rule answers ``event``."""
        return getattr(type(self), event) is not getattr(Rule, event)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments with their present values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def clone(self) -> Rule:
        """A new rule with the same hyperparameters and no memory."""
        return type(self)(**self.hyperparameters)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters.items())
        return f"{type(self).__name__}({arguments})"
