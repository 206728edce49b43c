"""Training steps of a session: the events from a batch's forward pass to the optimizer's step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_meta.core import binding, claims
from lit_meta.core._bound_rules import BoundRules, class_names
from lit_meta.core._buffers import Scratch
from lit_meta.core.batches import BatchFunction, UnpackOnce, as_pair
from lit_meta.core.checks import check_gradients, check_inputs, check_types
from lit_meta.core.errors import DivergedError
from lit_meta.core.local_learning import LocalGradients
from lit_meta.core.past_experience import PastExperience, rehearse
from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.step_undo import Mark, interrupts_deferred
from lit_meta.core.task import Criterion, PlainTask, Task
from lit_meta.core.trees import tensors
from lit_meta.utils.validation import require_one_of

# What becomes of a step whose loss or gradients are not finite.
NonFinite = Literal["raise", "skip"]


class TrainingSteps(BoundRules):
    """Takes bound rules through training steps; `Session` adds the experiences around them.

    A batch is open from `before_forward` (or `before_batch`) to `after_backward` or `leave_batch`; a step may accumulate the
    gradients of several. What the rules remember is marked when a step begins, and put back if the step fails.

    Args:
        network: as of `Session`.
        rules: as of `Session`.
        unpack: as of `Session`.
        loss: as of `Session`.
        non_finite: as of `Session`.

    Attributes:
        experiences: experiences that have ended.
        batch_name: how errors name the present batch; a host that counts batches itself sets it.
    """

    def __init__(
        self,
        network: nn.Module,
        rules: Rule | Sequence[Rule],
        unpack: BatchFunction,
        loss: Criterion | None,
        non_finite: NonFinite,
    ) -> None:
        super().__init__(network, rules)
        require_one_of("non_finite", non_finite, ("raise", "skip"))
        self.non_finite: NonFinite = non_finite
        self.batch_name = ""
        self.experiences = 0
        # A host that scales losses skips the steps whose gradients overflow, and looks for a scale at which they do not.
        self.scales_losses = False
        self._unpack = unpack if isinstance(unpack, UnpackOnce) else UnpackOnce(unpack)
        self._loss = loss
        self.task: Task = PlainTask(self.network, self._unpack, loss)
        self._local = LocalGradients()
        self._before: tuple[Synapses, list[Tensor]] | None = None
        self._scratch = Scratch()
        self._targets: Tensor | None = None
        self._in_experience = False
        self._rehearsed = False
        # Whether other sessions may learn in the same network, since a host calls their events in turn.
        self.shares_network = False
        self._claims = False
        self._steps = 0
        self._batches = 0
        self._batch_is_open = False
        self._present: Callable[[], PastExperience] | None = None
        self._passes = 0  # Backward passes since the last step.
        self._step_mark: Mark | None = None  # At the step's first batch.
        self._batch_mark: Mark | None = None
        self._begun: Mark | None = None  # What the rules remembered when the experience began, until its first step.
        self._stepping: Synapses | None = None  # Those of a step that the optimizer is about to take, or has taken.
        self._needs_backward = [
            rule for rule in self.rules if any(map(rule.overrides, ("after_backward", "local_error", "layer_input")))
        ]

    def __getstate__(self) -> dict[str, object]:
        last = {
            "_before": None,
            "_targets": None,
            "_step_mark": None,
            "_batch_mark": None,
            "_stepping": None,
            "_begun": None,
        }
        fresh = {
            "_claims": False,
            "_scratch": Scratch(),
            "_local": LocalGradients(),
            "_batch_is_open": False,
            "_passes": 0,
        }
        return {**super().__getstate__(), **last, **fresh}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self.task = PlainTask(self.network, self._unpack, self._loss)

    @property
    def steps(self) -> int:
        """Optimizer steps taken in the present experience."""
        return self._steps

    def before_batch(self, batch: object) -> None:
        """Before the forward pass of a training batch, in any form.

        Args:
            batch: as the training step receives it.

        Raises:
            TypeError: the batch has an unknown form, and a rule needs inputs or labels.
            ValueError: inputs that are empty or not finite, no labels for a rule that needs them, or, with the first batch of
                an experience, something that a rule needs when the experience ends is unavailable.
        """
        if not self._in_experience:
            raise ValueError("before_batch was called outside an experience: call begin_experience first")
        self._resolve_last_step()
        try:
            inputs, targets = self._unpack(batch)
        except TypeError as error:
            if reader := self._first_reader():
                raise TypeError(f"{type(reader).__name__} needs to know inputs and labels, and {error}") from None
            inputs, targets = next(iter(tensors(batch)), torch.zeros(1)), None
        else:
            check_inputs(inputs)
        self._begin_batch(inputs, targets, lambda: PastExperience(self.network, [batch], self.task, self._unpack))

    def before_forward(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Before the forward pass of a training batch that a plain loop has unpacked, see `before_batch`.

        Args:
            inputs: (batch, ...).
            targets: class labels (batch,), or whatever the loss takes; None if there are none.
        """
        if not self._in_experience:
            raise ValueError("before_forward was called outside an experience: call begin_experience first")
        self._resolve_last_step()
        check_inputs(inputs)
        self._begin_batch(inputs, targets, lambda: self._plain_batch(inputs, targets))

    def _plain_batch(self, inputs: Tensor, targets: Tensor | None) -> PastExperience:
        task = PlainTask(self.network, as_pair, self._loss)
        return PastExperience(self.network, [(inputs, targets)], task, as_pair)

    def _resolve_last_step(self) -> None:
        """Before a batch: commits the last step, if the host has not said that it was taken, and drops what was given up."""
        self._commit()
        if self._batch_is_open:
            self.leave_batch()
        if self._passes and not binding.has_gradient(self._all):
            self._give_up()  # The host has discarded the accumulated gradients.

    def _begin_batch(self, inputs: Tensor, targets: Tensor | None, batch: Callable[[], PastExperience]) -> None:
        self._claim()
        check_types(self._all, self._types)
        if targets is None:
            for rule in self.rules:
                if self._asks_labels(rule):
                    raise ValueError(f"{type(rule).__name__} needs labels, and the batch has none")
        if self._spiking:
            self._spiking.reset_used()
        if not self._rehearsed:
            self._rehearse(batch())
        self._batch_mark = Mark(self.rules)
        if self._step_mark is None:
            self._step_mark = self._batch_mark
            self._surroundings.mark()
        self._targets = targets
        self._batch_is_open = True
        self._present = batch
        self._batches += 1
        with self._undone_on_error():
            for before in self._calls["before_forward"]:
                before(self._all, inputs, targets)
            if self._freezing:
                self._freeze()
                if self._frozen is not None:
                    self._frozen.hold()
            if self._watch is not None:
                self._watch.start()

    def _rehearse(self, batch: PastExperience) -> None:
        """Tries the rules' consolidation on the first batch of an experience, without side effects."""
        if self._answering["rehearse"]:
            self._rehearsing = True
            try:
                rehearse(self._answering["rehearse"], self._calls["rehearse"], self._all, batch)
            finally:
                self._rehearsing = False
        self._rehearsed = True

    def leave_batch(self) -> None:
        """Discards a batch that no backward pass followed; does nothing if there is no such batch.

        Parameters that a rule perturbed for it are restored, and nothing observed in its forward pass counts. It is called
        automatically before the next batch and at the end of an experience; a host calls it as soon as it knows.
        """
        if not self._batch_is_open:
            return
        self._batch_is_open = False
        if self._watch is not None:
            self._watch.stop()
        for rule in self.rules:
            rule.leave_batch(self._all)
        if self._batch_mark is not None:
            self._batch_mark.restore()
        if not self._passes:
            self._step_mark = None
        self._batch_mark = None

    def drop_unfinished_step(self) -> None:
        """Discards backward passes that no step will follow, since the host has discarded their gradients."""
        self._commit()
        self.leave_batch()
        if self._passes:
            self._give_up()

    def abandon_step(self) -> None:
        """Undoes a step that failed.

        Weights, the rules' memory and generators, the network's statistics and torch's random state are as before the step.
        Does nothing if no step is open.
        """
        if self._step_mark is not None:
            self._surroundings.restore()
        self._give_up()

    def _give_up(self) -> None:
        """Undoes what the rules have done in the step under way; what the host has done is its own business."""
        self._batch_is_open, self._passes = False, 0
        if self._watch is not None:
            self._watch.stop()
        self._thaw()
        self._local.clear()
        if self._before is not None:  # The optimizer may have moved the parameters already.
            synapses, before = self._before
            with torch.no_grad():
                torch._foreach_copy_([p.detach() for p in synapses.parameters], before)
            self._before = None
        if self._step_mark is not None:
            for rule in self.rules:
                rule.restore(self._all)
            self._step_mark.restore()
        if self._stepping is not None:
            self._steps -= 1
        self._step_mark = self._batch_mark = self._stepping = None

    def _commit(self) -> None:
        """The last step was taken: rules write what they have staged."""
        if self._stepping is None:
            return
        synapses, self._stepping, self._before = self._stepping, None, None
        self._step_mark = self._batch_mark = self._begun = None
        with torch.no_grad():
            for commit in self._calls["commit"]:
                commit(synapses)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abandon_step()
            self._release()  # Whoever called may not come back.
            raise

    def _claim(self) -> None:
        """Checks that no other session learns with this network or these rules, and keeps others from it."""
        if not self._claims:
            claims.check(self)
            claims.claim(self)
            self._claims = True

    def _release(self) -> None:
        claims.release(self)
        self._claims = False

    def after_backward(self, *, loss_divisor: float | None = None) -> None:
        """After the backward pass of a batch: hidden blocks learn from their local errors, perturbed parameters are restored.

        Args:
            loss_divisor: the number by which the host divided the loss, as it does when it accumulates gradients; None if
                unknown.

        Raises:
            ValueError: the forward pass bypassed the weight layers, a local error has the wrong shape, or this is the second
                backward pass of a batch and a rule learns from one only.
        """
        if not self._batch_is_open and self._needs_backward:
            raise ValueError(
                f"{class_names(self._needs_backward)} learns from one backward pass for each batch, and this one had no "
                "before_forward; several in one training step (several losses, a GAN, an optimizer with a closure) are not "
                "supported"
            )
        self._batch_is_open = False
        self._passes += 1
        with self._undone_on_error():
            if self._watch is not None:
                try:
                    self._watch.check_seen()
                    for rule, error in zip(self._answering["local_error"], self._calls["local_error"], strict=True):
                        self._local.learn(self._watch, rule, error, self._targets, loss_divisor or 1.0)
                finally:
                    self._watch.stop()
            for rule in self._answering["after_backward"]:
                rule.loss_divisor = loss_divisor
            for after in self._calls["after_backward"]:
                after(self._all)
            present, self._present = self._present, None
            if present is not None:
                for repeat in self._calls["repeat"]:
                    repeat(self._all, present())

    def before_step(self, optimizer: Optimizer | None = None) -> None:
        """Before the optimizer's step (and before clipping): rules change the gradients.

        Where the loss was scaled (half precision), unscale the gradients first (``scaler.unscale_(optimizer)``, as Lightning
        does): local gradients are never scaled.

        Args:
            optimizer: the one about to step; None if there is only one.

        Raises:
            ValueError: a rule needs the backward pass and `after_backward` was not called, or the optimizer is LBFGS.
        """
        synapses = self._of(optimizer)
        if self._batch_is_open and self._needs_backward and binding.has_gradient(synapses):
            raise ValueError(
                f"{class_names(self._needs_backward)} was not notified of the backward pass before this step: call "
                "after_backward; in a LightningModule with manual optimization, self.manual_backward(loss) in place of "
                "loss.backward()"
            )
        self._passes = 0
        if self._stepping is not None:
            self._commit()  # Of another optimizer.
        if self._step_mark is None:
            self._step_mark = Mark(self.rules)
            self._surroundings.mark()
        with self._undone_on_error():
            self._local.hand_over(synapses)
            if not binding.has_gradient(synapses):
                self._step_mark = self._batch_mark = None
                return  # All batches of this step were discarded: the optimizer changes nothing.
            if not self._finite(synapses, optimizer):
                return
            self._stepping = synapses
            self._steps += 1
            if self._answering["gradient"] or self._answering["update"] or self._answering["commit"]:
                pairs = [(n, p) for n, p in zip(synapses.names, synapses.parameters, strict=True) if p.grad is not None]
                if len(pairs) != len(synapses):
                    self._stepping = synapses = binding.subset(self.network, pairs)
                for gradient in self._calls["gradient"]:
                    gradient(synapses)
            if self._answering["update"]:
                self._before = (synapses, self._scratch.copy(synapses.names, synapses.parameters))

    def _finite(self, synapses: Synapses, optimizer: Optimizer | None) -> bool:
        """Whether a step can be taken: its gradients, and their products, are numbers."""
        problem = check_gradients(synapses, every=self.scales_losses)
        if problem is None:
            return True
        batch = self.batch_name or f"batch {self._batches - 1} of experience {self.experiences} (both counted from 0)"
        if not self.scales_losses and self.non_finite == "raise":
            raise DivergedError(
                f"the step on {batch} was not taken, since {problem}: weights and memory are as before it; look at that batch, "
                "lower the learning rate, or leave such steps out (non_finite='skip')"
            )
        self._give_up()
        if not self.scales_losses:
            warnings.warn(f"the step on {batch} was left out, since {problem}", stacklevel=4)
            groups = [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]
            for parameter in (*synapses.parameters, *groups):
                parameter.grad = None
        return False

    def after_step(self, optimizer: Optimizer | None = None) -> None:
        """After the optimizer's step: rules see its update and may correct it."""
        if self._stepping is None:
            return
        with self._undone_on_error(), interrupts_deferred():
            if self._before is not None:
                with torch.no_grad():
                    for update in self._calls["update"]:
                        update(*self._before)
            self._commit()

    @contextmanager
    def step(self, inputs: Tensor, targets: Tensor | None, optimizer: Optimizer) -> Iterator[None]:
        """A whole training step; the block runs the forward and backward pass.

        Whatever fails in it, weights and memory are as before it.
        """
        optimizer.zero_grad()
        with self._undone_on_error():
            self.before_forward(inputs, targets)
            yield
            self.after_backward()
            self.before_step(optimizer)
            with interrupts_deferred():
                optimizer.step()
                self.after_step(optimizer)

    def unperturbed(self) -> dict[int, Tensor]:
        """Unperturbed values of parameters that a rule has perturbed for the present pass, by the data pointer of each."""
        return {p.data_ptr(): value for rule in self.rules for p, value in rule.unperturbed()}

    def _first_reader(self) -> Rule | None:
        """A rule that needs inputs or labels of every batch."""
        inputs = (rule for rule in self._answering["before_forward"] if rule.needs_inputs)
        labels = (rule for rule in self.rules if self._asks_labels(rule))
        return next(inputs, None) or next(labels, None)

    def _asks_labels(self, rule: Rule) -> bool:
        return rule.needs_labels and not (rule.takes_task_loss and not self.task.plain)
