"""What a rule is: the events it may answer, and what it sees of a network."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from lit_meta.core.layers import Layer
from lit_meta.core.state import State

EVENTS = (
    "begin_experience",
    "rehearse",
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
    """What a rule sees of an experience that ends: its network and its data, in a fixed order.

    The batches are those that the training step got. A rule that needs no more than inputs and labels iterates over pairs of
    them; one that runs the network again as training does takes whole batches, and `loss`, `outputs` or `run` of each inside
    `measuring`.
    """

    network: nn.Module

    @property
    def named_form(self) -> Literal["cross_entropy", "mse"] | None:
        """The form of the task's loss that the host names; in a plain loop that names none, the cross-entropy."""
        ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields (inputs, targets) batches on the network's device, never shuffled."""
        ...

    def pairs(self, *, samples: int | None = None, seed: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields (inputs, targets) of all samples, or of this many, drawn from all of them."""
        ...

    def batches(self, *, samples: int | None = None, seed: int = 0) -> Iterator[Any]:
        """Yields batches of whatever form the training step gets, or this many samples, drawn from all of them."""
        ...

    def measuring(self) -> AbstractContextManager[nn.Module]:
        """While the network runs again: in evaluation mode, and without a trace. Gives the module that computes the loss."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """The training step's own loss of a batch."""
        ...

    def outputs(self, batch: Any) -> list[Tensor]:
        """What the network gives when the training step runs on a batch."""
        ...

    def run(self, batch: Any) -> None:
        """Runs the network on a batch as training does, for the hooks that watch it."""
        ...

    def form(self) -> Literal["cross_entropy", "mse"] | None:
        """That loss as a function of ``network(inputs)``, (batch, classes), and targets; None where it is another."""
        ...

    def classified(self, batch: Any) -> tuple[Tensor, Tensor | None] | None:
        """(inputs, targets) of a batch whose loss is the cross-entropy of ``network(inputs)``; None where it is another."""
        ...

    def calls_on_inputs(self) -> bool:
        """Whether training calls ``network(inputs)`` and gets (batch, features)."""
        ...

    def check_separable(self) -> None:
        """Checks that one row of every tensor of a batch is one sample."""
        ...


class Rule:
    """A metaplasticity rule: what a synapse remembers and how that changes its next update.

    A rule knows no host. It overrides those of the events below that it needs; an event that is not
    overridden costs nothing. All memory lives in `state`, so that it is saved, moved and grown without
    further code. One instance learns in one network; use `clone` for another.

    Attributes of the class, which an instance may refine by its hyperparameters:
        needs_inputs: `before_forward` looks at the inputs, and not only at how many samples they are. Where no rule does, a
            batch may be of any form, and one of its tensors stands for the inputs.
        needs_labels: every batch must come with integer class labels.
        takes_task_loss: labels are needed for the loss alone, and where the host has a training step that computes it, are left
            to that.
        needs_boundaries: the rule consolidates at the end of experiences, so a stream must announce them.
        needs_data: `end_experience` reads the experience's data.
        samples_read: of how many samples, at most; None for all.
        makes_update: the rule moves the parameters itself and keeps the optimizer from doing so.
        reads_task_gradient: the rule needs the gradient of the task's loss as the backward pass left it, before other
            rules have changed it.
        head_only: the rule learns the head and keeps all other parameters still.
        needs_tasks: the rule must be told the task of every sample in testing, see `context`.
        limits: hosts that refuse the rule, and why: ``"fp16"`` (scaled losses), ``"distributed"`` (several processes).

    Attributes of an instance:
        loss_divisor: in `after_backward`, what the host has divided the loss of that pass by, as it does where gradients are
            accumulated; None where the host does not say.
    """

    needs_inputs: bool = True
    needs_labels: bool = False
    takes_task_loss: bool = False
    needs_boundaries: bool = False
    needs_data: bool = True
    samples_read: int | None = None
    head_only: bool = False
    needs_tasks: ClassVar[bool] = False
    makes_update: ClassVar[bool] = False
    reads_task_gradient: ClassVar[bool] = False
    limits: ClassVar[Mapping[str, str]] = {}
    loss_divisor: float | None = None

    def __init__(self) -> None:
        self.state = State()

    # Events, in the order in which they come.

    def begin_experience(self, synapses: Synapses) -> None:
        """Before the first batch of an experience, after a head has grown."""

    def rehearse(self, synapses: Synapses, experience: Experience) -> None:
        """Before the first step of an experience: tries on two samples of its first batch what its end will need.

        What cannot work raises here, rather than after hours of training. The rule's memory must not change, and the network
        is put back as it was.
        """

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        """Before the forward pass of a training batch. May perturb the parameters; see `restore`."""

    def layer_input(self, layer: Layer, inputs: Tensor) -> None:
        """At each weight layer of a training forward pass, with what the layer is about to receive."""

    def local_error(self, layer: Layer, output: Tensor, targets: Tensor) -> Tensor:
        """The local error of a hidden block, of its output's shape; replaces the backpropagated one.

        Args:
            layer: the weight layer that the block begins with.
            output: what the block hands to the next weight layer, (batch, ...); `lit_meta.core.layers.units` gives the
                dimension of its units.
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

    def sets_weights(self, network: nn.Module) -> Iterable[Layer]:
        """The layers whose weights the rule computes and writes itself: these must be parameters that no other module has."""
        return ()

    def reads_weights(self, network: nn.Module) -> Iterable[Layer]:
        """The layers whose weights the rule looks up and works on as they are: these must be parameters, also shared ones."""
        return ()

    def frozen_below(self, network: nn.Module) -> nn.Module | None:
        """The one module that learns, where the rule keeps all others still; None where it does not.

        Asked before every training pass, so it must be quick. All other modules are in evaluation mode during the pass,
        whatever the host says, and a buffer of theirs that moves all the same is an error; see `lit_meta.core.frozen`.
        """
        return None

    def join(self, synapses: Synapses) -> None:
        """Before the first step of parameters that were unfrozen inside an experience.

        Args:
            synapses: those parameters alone.

        Raises:
            ValueError: the rule must know all parameters of an experience when it begins.
        """
        if self.overrides("begin_experience"):
            raise ValueError(
                f"{synapses.names[0]!r} was unfrozen inside an experience, and {type(self).__name__} must know what learns in "
                "it when it begins: unfreeze between experiences"
            )

    def leave_batch(self, synapses: Synapses) -> None:
        """No backward pass followed the last `before_forward`: undoes what the rule has noted of that batch."""
        self.restore(synapses)

    def forget(self, synapses: Synapses) -> None:
        """Parameters were replaced by new ones of the same name: drops what is remembered of the old ones.

        Here, every tensor that is kept by the name of such a parameter or of its layer.
        """
        self.state.forget({*synapses.names, *(name.rpartition(".")[0] for name in synapses.names)} - {""})

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
        """Undoes what `before_forward` did to the parameters, and forgets the passes of a step that is abandoned."""

    def unperturbed(self) -> list[tuple[Tensor, Tensor]]:
        """The parameters that `before_forward` has perturbed for the present pass, each with its own value."""
        return []

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
