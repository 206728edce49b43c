"""The base class of rules: the events that a rule may answer, and its view of a network."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from lit_meta.core.layers import Layer
from lit_meta.core.state import Kept, State

EVENTS = (
    "begin_experience",
    "rehearse",
    "before_forward",
    "layer_input",
    "local_error",
    "after_backward",
    "repeat",
    "gradient",
    "update",
    "commit",
    "end_experience",
    "synchronize",
)


@dataclass(frozen=True)
class Synapses:
    """Parameters of a network as parallel lists, the form that fused operations take.

    Attributes:
        network: the network that they belong to.
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
    """A rule's view of an experience that ends: its network and its data, in a fixed order.

    The batches are those that the training step received. A rule that needs only inputs and labels iterates over pairs of
    them; one that runs the network again as training does takes whole batches, and `loss`, `outputs` or `run` of each inside
    `measuring`.
    """

    network: nn.Module

    @property
    def named_form(self) -> Literal["cross_entropy", "mse"] | None:
        """The form of the task's loss that the host names; in a plain loop without a loss argument, the cross-entropy."""
        ...

    @property
    def batches_per_step(self) -> int:
        """How many consecutive batches one training step saw: as many as processes share its samples, otherwise 1."""
        ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields (inputs, targets) batches on the network's device, never shuffled."""
        ...

    def pairs(self, *, samples: int | None = None, seed: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields (inputs, targets) of all samples, or of this many, drawn from all of them."""
        ...

    def batches(self, *, samples: int | None = None, seed: int = 0) -> Iterator[Any]:
        """Yields batches in the form that the training step receives, or this many samples, drawn from all of them."""
        ...

    def measuring(self) -> AbstractContextManager[nn.Module]:
        """A context for running the network in evaluation mode and restoring it; yields the module that computes the loss."""
        ...

    def training(self) -> AbstractContextManager[nn.Module]:
        """A context for computing the loss of a batch once more as in training; yields the module that computes it."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """The training step's own loss of a batch."""
        ...

    def outputs(self, batch: Any) -> list[Tensor]:
        """The network's outputs when the training step runs on a batch."""
        ...

    def run(self, batch: Any) -> None:
        """Runs the network on a batch as training does, for the hooks on it."""
        ...

    def form(self) -> Literal["cross_entropy", "mse"] | None:
        """The task's loss as a function of ``network(inputs)``, (batch, classes), and targets; None if it has another form."""
        ...

    def classified(self, batch: Any) -> tuple[Tensor, Tensor | None] | None:
        """(inputs, targets) of a batch whose loss is the cross-entropy of ``network(inputs)``; None where it is another."""
        ...

    def calls_on_inputs(self) -> bool:
        """Whether training calls ``network(inputs)`` and gets (batch, features)."""
        ...

    def check_separable(self) -> None:
        """Checks that one row of every tensor in a batch is one sample."""
        ...


class Rule:
    """A metaplasticity rule: what a synapse remembers and how that changes its next update.

    A rule is independent of the host. It overrides those of the events below that it needs; an event that is not overridden has
    no overhead. All memory is in `state`, so that it is saved, moved and grown without further code. One instance learns in one
    network; use `clone` for another.

    Attributes of the class, which an instance may refine by its hyperparameters:
        needs_inputs: `before_forward` uses the inputs themselves, not only their batch size. If no rule does, a batch may have
            any form, and one of its tensors stands for the inputs.
        needs_labels: every batch must have integer class labels.
        takes_task_loss: labels are needed for the loss only, so they are not required if the host has a training step that
            computes it.
        needs_boundaries: the rule consolidates at the end of experiences, so a stream must announce them.
        needs_data: `end_experience` reads the experience's data.
        samples_read: the number of samples that it reads, at most; None for all.
        makes_update: the rule updates the parameters itself and keeps the optimizer from doing so.
        reads_task_gradient: the rule needs the gradient of the task's loss as the backward pass left it, before other
            rules have changed it.
        head_only: the rule learns the head and freezes all other parameters.
        needs_tasks: the rule needs the task of every sample at test time, see `context`.
        limits: hosts that refuse the rule, and why: ``"fp16"`` (scaled losses), ``"distributed"`` (several processes).
        stages_memory: within a step, the rule changes tensors of its memory in place in `commit` alone. The memory of any other
            rule is copied before every step, so that a step that fails can be undone.
        lasting: attributes that stay as they are when a step is undone: hooks on the network, and what belongs to them.

    Attributes of an instance:
        loss_divisor: in `after_backward`, the number by which the host divided the loss of that pass, as it does when it
            accumulates gradients; None if unknown.
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
    stages_memory: ClassVar[bool] = False
    lasting: ClassVar[frozenset[str]] = frozenset()
    loss_divisor: float | None = None

    def __init__(self) -> None:
        self.state = State()

    # Events, in the order in which they occur.

    def begin_experience(self, synapses: Synapses) -> None:
        """Before the first batch of an experience, after a head has grown."""

    def rehearse(self, synapses: Synapses, experience: Experience) -> None:
        """Before the first step of an experience: tries on two samples of its first batch what `end_experience` will do.

        A consolidation that cannot work raises here rather than after hours of training. The rule's memory must not change; the
        network is restored.
        """

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        """Before the forward pass of a training batch. May perturb the parameters; see `restore`."""

    def layer_input(self, layer: Layer, inputs: Tensor) -> None:
        """At each weight layer of a training forward pass, with the layer's inputs."""

    def local_error(self, layer: Layer, output: Tensor, targets: Tensor) -> Tensor:
        """The local error of a hidden block, of its output's shape; replaces the backpropagated one.

        Args:
            layer: the weight layer that the block begins with.
            output: the block's output, which the next weight layer receives, (batch, ...); `lit_meta.core.layers.units` gives
                the dimension of its units.
            targets: integer class labels, (batch,).
        """
        raise NotImplementedError

    def after_backward(self, synapses: Synapses) -> None:
        """After every backward pass; there are several before one step if gradients are accumulated.

        A rule that perturbed the parameters in `before_forward` restores them here.
        """

    def repeat(self, synapses: Synapses, batch: Experience) -> None:
        """After `after_backward`: the batch once more, for rules that need its gradient at other weights too.

        Args:
            synapses: the parameters, with the gradients of the host's backward pass.
            batch: an experience of this batch alone; `loss` of it inside `training`.
        """

    def gradient(self, synapses: Synapses) -> None:
        """After the backward pass and before clipping; changes `Synapses.gradients` in place.

        Only parameters with a gradient are in ``synapses``. A rule that makes the whole update itself
        sets ``parameter.grad = None``, and the optimizer leaves that parameter alone.
        """

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        """After the optimizer's step, with the parameters' values before it; may correct the step."""

    def commit(self, synapses: Synapses) -> None:
        """After everything else in a step: nothing can undo it any more, so memory may be changed in place.

        Until then a step may fail (in any rule, in the host's clipping, in the optimizer), and the session restores what the
        memory held before: tensors that the rule has replaced, not tensors that it has changed in place; see `stages_memory`.
        """

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        """After the last batch of an experience: consolidate."""

    def synchronize(self, synapses: Synapses) -> None:
        """Before the parameters are used: updates them from the memory.

        For rules that compute parameters from their memory rather than step by step. It is called before every forward pass
        of a weight layer in evaluation mode, at any point of a stream, and when an experience ends; it needs no data.
        """

    # Around the events.

    def sets_weights(self, network: nn.Module) -> Iterable[Layer]:
        """The layers whose weights the rule computes and writes itself: these must be parameters of no other module."""
        return ()

    def reads_weights(self, network: nn.Module) -> Iterable[Layer]:
        """The layers whose weights the rule reads directly: these must be parameters, but may be shared."""
        return ()

    def frozen_below(self, network: nn.Module) -> nn.Module | None:
        """The one module that learns, if the rule freezes all others; None if it does not.

        Called before every training pass, so it must be fast. All other modules are in evaluation mode during the pass,
        whatever mode the host sets, and a change of their buffers is an error; see `lit_meta.core.frozen`.
        """
        return None

    def join(self, synapses: Synapses) -> None:
        """Before the first step of parameters that were unfrozen during an experience.

        Args:
            synapses: those parameters alone.

        Raises:
            ValueError: the rule must know all trainable parameters when an experience begins.
        """
        if self.overrides("begin_experience"):
            raise ValueError(
                f"{synapses.names[0]!r} was unfrozen inside an experience, and {type(self).__name__} must know all trainable "
                "parameters when the experience begins: unfreeze between experiences"
            )

    def leave_batch(self, synapses: Synapses) -> None:
        """No backward pass followed the last `before_forward`: discards what the rule has recorded of that batch."""
        self.restore(synapses)

    def renew(self, synapses: Synapses) -> None:
        """Parameters were replaced by new ones of the same name: drops the memory of the old ones.

        By default, every tensor stored under the name of such a parameter or of its layer.
        """
        self.state.forget({*synapses.names, *(name.rpartition(".")[0] for name in synapses.names)} - {""})

    def leave_experience(self) -> None:
        """After all rules have consolidated, or when an experience is abandoned: training has stopped."""

    def context(self, network: nn.Module, experiences: Tensor) -> AbstractContextManager[None]:
        """A context in which a network is tested, for rules that need the task of each sample.

        Args:
            network: the network.
            experiences: the position in the stream of each sample's experience, (batch,).
        """
        return nullcontext()

    def restore(self, synapses: Synapses) -> None:
        """Undoes the perturbation of `before_forward`, and discards the passes of a step that is abandoned."""

    def unperturbed(self) -> list[tuple[Tensor, Tensor]]:
        """The parameters that `before_forward` has perturbed for the present pass, each with its unperturbed value."""
        return []

    def remembers(self, network: nn.Module) -> dict[str, Kept] | None:
        """What is in the rule's memory after it has learned in a network, by ``"quantity/name"``.

        Memory from a file is held to it: a tensor that was dropped, renamed, resized or zeroed would leave the network
        unprotected. None, the default, if the rule does not say.
        """
        return None

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        """Quantities to log, such as the value of a penalty; called at logging steps only."""
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
