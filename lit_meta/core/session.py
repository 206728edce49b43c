"""One or more rules bound to one network: the only code that touches hooks, gradients and parameters.

A host (a plain loop, Lightning, Avalanche) calls the events below in this order; each rule answers those it needs::

    begin_experience
      before_batch   -> the host's forward and backward pass -> after_backward
      before_step    -> the host's clipping and optimizer step -> after_step
    end_experience
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_meta.core import binding
from lit_meta.core._buffers import Scratch
from lit_meta.core.batches import BatchFunction, UnpackOnce, as_pair
from lit_meta.core.batches import unpack as unpack_batch
from lit_meta.core.block_hooks import LayerWatch
from lit_meta.core.checks import check_inputs, check_processes, check_rules, check_weights
from lit_meta.core.errors import DivergedError
from lit_meta.core.evaluation_hooks import EvaluationWatch
from lit_meta.core.event_calls import EventCalls, Observer
from lit_meta.core.experience_data import ExperienceData, PlainData
from lit_meta.core.frozen import Frozen
from lit_meta.core.layers import uncompiled, weight_layers
from lit_meta.core.local_learning import LocalGradients
from lit_meta.core.past_experience import PastExperience, rehearse
from lit_meta.core.rule import EVENTS, Layer, Rule, Synapses
from lit_meta.core.spiking_state import SpikingState
from lit_meta.core.task import Criterion, PlainTask, Task
from lit_meta.core.trees import tensors
from lit_meta.core.untouched import random_state_kept
from lit_meta.utils.validation import all_finite


class Session:
    """Binds rules to a network.

    Args:
        network: the network whose trainable parameters are the synapses.
        rules: one rule, or several that answer each event in the given order.
        unpack: takes a batch apart into (inputs, targets), for rules that need one of them.
        loss: what the network is trained for, a function of its outputs and the targets; None for the cross-entropy. Rules
            that measure importances differentiate it.

    Raises:
        TypeError: something that is no rule or no network.
        ValueError: a network without a weight layer, no rule, a rule twice, or more than one rule with local errors.

    Example:
        >>> from lit_meta.rules import EWC
        >>> network = nn.Sequential(nn.Linear(4, 2))
        >>> session, optimizer = Session(network, EWC()), torch.optim.SGD(network.parameters(), lr=0.1)
        >>> x, y = torch.ones(3, 4), torch.tensor([0, 1, 0])
        >>> with session.experience([(x, y)]):
        ...     with session.step(x, y, optimizer):
        ...         nn.functional.cross_entropy(network(x), y).backward()
        >>> sorted(session.rules[0].state)
        ['anchor', 'importance']
    """

    def __init__(
        self,
        network: nn.Module,
        rules: Rule | Sequence[Rule],
        *,
        unpack: BatchFunction = unpack_batch,
        loss: Criterion | None = None,
    ) -> None:
        if not isinstance(network, nn.Module):
            raise TypeError(f"a network is a torch.nn.Module, got {type(network).__name__}")
        self.network = uncompiled(network)
        self._unpack = unpack if isinstance(unpack, UnpackOnce) else UnpackOnce(unpack)
        self._loss = loss
        self.task: Task = PlainTask(self.network, self._unpack, loss)
        self.rules = check_rules(rules)
        weight_layers(self.network)
        self._answer = {event: [rule for rule in self.rules if rule.overrides(event)] for event in EVENTS}
        self._calls = EventCalls(self._answer)
        self._watch: LayerWatch | None = None
        self._evaluation: EvaluationWatch | None = None
        self._freezing = [rule for rule in self.rules if type(rule).frozen_below is not Rule.frozen_below]
        self._frozen: Frozen | None = None
        self._all = Synapses(network, (), [])
        self._of_optimizer: dict[tuple[int, int], Synapses] = {}
        self._local = LocalGradients()
        self._before: tuple[Synapses, list[Tensor]] | None = None
        self._scratch = Scratch()
        self._spiking = SpikingState(self.network)
        self._targets: Tensor | None = None
        self._in_experience = False
        self._rehearsed = False
        self._rehearsing = False
        self._resume = False
        self._steps = 0
        # A batch is open from before_forward to after_backward; passes are those since the last step.
        self._batch_is_open = False
        self._passes = 0
        self._needs_backward = [
            rule for rule in self.rules if any(map(rule.overrides, ("after_backward", "local_error", "layer_input")))
        ]
        self.experiences = 0

    # Experiences.

    def begin_experience(self) -> None:
        """Starts an experience; goes on with the one a loaded state was saved in.

        Raises:
            ValueError: the network has changed in a way that the rules' memory cannot follow.
        """
        check_processes(self.rules)
        resumed, self._resume = self._resume, False
        self.drop_unfinished_step()
        self._bind()
        if self._answer["synchronize"]:
            # Anew, since the head may have been replaced; and not taken off when the experience ends.
            self._close_evaluation()
            self._evaluation = EvaluationWatch(self.network, self._before_evaluation)
        self._steps = 0
        self._in_experience = True
        self._rehearsed = False
        if not resumed:
            for begin in self._calls["begin_experience"]:
                begin(self._all)

    def end_experience(self, data: Iterable[object] | None = None) -> None:
        """Ends an experience: rules that need boundaries consolidate.

        Args:
            data: the experience's training data, needed by rules that consolidate on it: an `ExperienceData` of a host, or
                batches or a `DataLoader`, which are moved to the network's device. A shuffled loader is read in the order of
                its data set.

        Raises:
            ValueError: no step was taken in this experience, or a rule needs the data and there is none.
            DivergedError: a parameter is not finite.
        """
        if not self._in_experience:
            raise ValueError("end_experience came without begin_experience")
        self._thaw()
        self.drop_unfinished_step()
        if self._steps == 0:
            raise ValueError("the experience is empty: no training step was taken in it")
        readers = self.data_readers
        if readers and data is None:
            raise ValueError(
                f"{type(readers[0]).__name__} consolidates on the experience's data: end_experience needs it"
            )
        self.refresh()
        self.synchronize()
        for name, parameter in zip(self._all.names, self._all.parameters, strict=True):
            if not all_finite(parameter):
                raise DivergedError(
                    f"parameter {name!r} is not finite: training has diverged, try a smaller learning rate"
                )
        self._in_experience = False
        self._unbind()
        self._spiking.reset()
        with random_state_kept():
            for end in self._calls["end_experience"]:
                end(self._all, self._past(data))
        for rule in self.rules:
            rule.leave_experience()
        self.experiences += 1

    def refresh(self) -> None:
        """Takes up parameters that were unfrozen inside the experience, before their first step.

        A host calls it once an epoch; it comes by itself where an optimizer is new or has gained a group of parameters.

        Raises:
            ValueError: a rule must know at the beginning of an experience what learns in it.
        """
        new = binding.newcomers(self.network, self._all)
        if not len(new):
            return
        self._fit_memory(new)
        for rule in self.rules:
            rule.join(new)
        self._all = binding.trainable(self.network, self._all)
        self._of_optimizer = {}
        self._open_watch()

    @contextmanager
    def experience(self, data: Iterable[object] | None = None) -> Iterator[None]:
        """An experience as a block of code; its end is not reached when the block fails."""
        self.begin_experience()
        yield
        self.end_experience(data)

    # Steps.

    def before_batch(self, batch: object) -> None:
        """Before the forward pass of a training batch, of whatever form.

        Args:
            batch: as the training step gets it.

        Raises:
            TypeError: a form that is not known, and a rule that needs inputs or labels.
            ValueError: inputs that are empty or not finite, no labels for a rule that needs them, or, with the first batch of
                an experience, something that a rule will need at its end and cannot have.
        """
        if not self._in_experience:
            raise ValueError("a batch came outside an experience: call begin_experience first")
        try:
            inputs, targets = self._unpack(batch)
        except TypeError as error:
            if asking := self._first_reader():
                raise TypeError(f"{type(asking).__name__} needs to know inputs and labels, and {error}") from None
            inputs, targets = next(iter(tensors(batch)), torch.zeros(1)), None
        else:
            check_inputs(inputs)
        self._begin_batch(inputs, targets, PastExperience(self.network, [batch], self.task, self._unpack))

    def before_forward(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Before the forward pass of a training batch that a plain loop has taken apart, see `before_batch`.

        Args:
            inputs: (batch, ...).
            targets: class labels (batch,), or whatever the loss takes; None where there are none.
        """
        if not self._in_experience:
            raise ValueError("before_forward came outside an experience: call begin_experience first")
        check_inputs(inputs)
        task = PlainTask(self.network, as_pair, self._loss)
        self._begin_batch(inputs, targets, PastExperience(self.network, [(inputs, targets)], task, as_pair))

    def _begin_batch(self, inputs: Tensor, targets: Tensor | None, batch: PastExperience) -> None:
        if self._batch_is_open:
            self.leave_batch()
        if self._passes and all(p.grad is None for p in self._all.parameters):
            self.abandon_step()  # The host has thrown away what was accumulated.
        if targets is None:
            for rule in self.rules:
                if self._asks_labels(rule):
                    raise ValueError(f"{type(rule).__name__} needs labels, and the batch has none")
        if self._spiking:
            self._spiking.reset_used()
        if not self._rehearsed:
            self._rehearse(batch)
        self._targets = targets
        self._batch_is_open = True
        for before in self._calls["before_forward"]:
            before(self._all, inputs, targets)
        if self._freezing:
            self._freeze()
            if self._frozen is not None:
                self._frozen.hold()
        if self._watch is not None:
            self._watch.start()

    def leave_batch(self) -> None:
        """Leaves out a batch that no backward pass followed; does nothing where there is no such batch.

        Parameters that a rule perturbed for it get their values back, and nothing that was seen of it counts. It comes by
        itself before the next batch and at the end of an experience; a host calls it as soon as it knows.
        """
        if not self._batch_is_open:
            return
        self._batch_is_open = False
        if self._watch is not None:
            self._watch.stop()
        for rule in self.rules:
            rule.leave_batch(self._all)

    def drop_unfinished_step(self) -> None:
        """Forgets backward passes that no step will follow, since the host has thrown their gradients away."""
        self.leave_batch()
        if self._passes:
            self.abandon_step()

    def unperturbed(self) -> dict[int, Tensor]:
        """The values of parameters that a rule has perturbed for the present pass, by the address of what they hold now."""
        return {p.data_ptr(): value for rule in self.rules for p, value in rule.unperturbed()}

    def after_backward(self, *, loss_divisor: float | None = None) -> None:
        """After the backward pass of a batch: hidden blocks learn from their local errors, perturbed parameters are restored.

        Args:
            loss_divisor: what the host divided the loss by, as it does when it accumulates gradients; None where it does not
                know.

        Raises:
            ValueError: the forward pass went around the weight layers, a local error is wrong, or this is the second
                backward pass of a batch for a rule that learns from one.
        """
        if not self._batch_is_open and self._needs_backward:
            raise ValueError(
                f"{_name(self._needs_backward)} learns from one backward pass for each batch, and this had no before_forward; "
                "several in one training step (several losses, a GAN, an optimizer with a closure) are not supported"
            )
        self._batch_is_open = False
        self._passes += 1
        if self._watch is not None:
            try:
                self._watch.check_seen()
                for rule, error in zip(self._answer["local_error"], self._calls["local_error"], strict=True):
                    self._local.learn(self._watch, rule, error, self._targets, loss_divisor or 1.0)
            finally:
                self._watch.stop()
        for rule, after in zip(self._answer["after_backward"], self._calls["after_backward"], strict=True):
            rule.loss_divisor = loss_divisor
            after(self._all)

    def before_step(self, optimizer: Optimizer | None = None) -> None:
        """Before the optimizer's step (and before clipping): rules change the gradients.

        Where the loss was scaled (half precision), unscale the gradients first (``scaler.unscale_(optimizer)``, as Lightning
        does): local gradients are never scaled.

        Args:
            optimizer: the one about to step; None where there is one only.

        Raises:
            ValueError: a backward pass was not announced to a rule that needs it, or the optimizer is LBFGS.
        """
        synapses = self._of(optimizer)
        if self._batch_is_open and self._needs_backward and any(p.grad is not None for p in synapses.parameters):
            raise ValueError(
                f"{_name(self._needs_backward)} was not told of the backward pass before this step: call after_backward; in a "
                "LightningModule with manual optimization, self.manual_backward(loss) in place of loss.backward()"
            )
        self._passes = 0
        self._local.hand_over(synapses)
        pairs = [(n, p) for n, p in zip(synapses.names, synapses.parameters, strict=True) if p.grad is not None]
        if not pairs:
            return  # All batches of this step were left out: the optimizer changes nothing.
        if len(pairs) != len(synapses):
            synapses = binding.subset(self.network, pairs)
        for gradient in self._calls["gradient"]:
            gradient(synapses)
        if self._answer["update"]:
            self._before = (synapses, self._scratch.copy(synapses.names, synapses.parameters))
        self._steps += 1

    def after_step(self, optimizer: Optimizer | None = None) -> None:
        """After the optimizer's step: rules see, and may correct, what it did."""
        if self._before is None:
            return
        synapses, before = self._before
        self._before = None
        with torch.no_grad():
            for update in self._calls["update"]:
                update(synapses, before)

    @contextmanager
    def step(self, inputs: Tensor, targets: Tensor | None, optimizer: Optimizer) -> Iterator[None]:
        """A whole training step; the block of code makes the forward and backward pass."""
        optimizer.zero_grad()
        try:
            self.before_forward(inputs, targets)
            yield
            self.after_backward()
            self.before_step(optimizer)
        except BaseException:
            self.abandon_step()
            raise
        optimizer.step()
        self.after_step(optimizer)

    def abandon_step(self) -> None:
        """Forgets a step that failed; parameters that a rule perturbed get their values back."""
        self._batch_is_open, self._passes = False, 0
        if self._watch is not None:
            self._watch.stop()
        self._thaw()
        self._local.clear()
        self._before = None
        for rule in self.rules:
            rule.restore(self._all)

    def close(self) -> None:
        """Abandons what is under way and removes all hooks from the network."""
        self.abandon_step()
        self._unbind()
        self._close_evaluation()
        for rule in self.rules:
            rule.leave_experience()

    def synchronize(self) -> None:
        """Brings parameters that rules work out from their memory up to date; comes by itself before evaluation."""
        # Tensors made in inference mode could not be changed outside it; what a rule keeps must outlive an evaluation.
        if self._rehearsing:
            return  # What is only tried out leaves the weights alone.
        with torch.inference_mode(False), torch.no_grad():
            for synchronize in self._calls["synchronize"]:
                synchronize(self._all)

    def observe(self, observer: Observer) -> AbstractContextManager[None]:
        """Within the block, every event that a rule answers runs inside a context that the observer gives.

        For instruments that count or time what rules do: the rules do not know, and where nobody observes nothing is paid.

        Args:
            observer: called with the rule and the event's name just before the rule answers.

        Example:
            >>> from contextlib import nullcontext
            >>> from lit_meta.rules import NACA
            >>> events = []
            >>> session = Session(nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)), NACA())
            >>> with session.observe(lambda rule, event: nullcontext(events.append((type(rule).__name__, event)))):
            ...     session.begin_experience()
            >>> events
            [('NACA', 'begin_experience')]
        """
        return self._calls.observe(observer)

    @property
    def answers(self) -> frozenset[str]:
        """The events that some rule answers."""
        return frozenset(event for event, rules in self._answer.items() if rules)

    @property
    def data_readers(self) -> list[Rule]:
        """The rules that read an experience's data when it ends."""
        return [rule for rule in self._answer["end_experience"] if rule.needs_data]

    @property
    def steps(self) -> int:
        """Optimizer steps taken in the present experience."""
        return self._steps

    def scalars(self) -> dict[str, Tensor]:
        """What the rules have to log, as ``"rule/quantity"``."""
        return {f"{type(r).__name__.lower()}/{k}": v for r in self.rules for k, v in r.scalars(self._all).items()}

    # Saving.

    def state_dict(self) -> dict[str, object]:
        """Everything needed to go on: each rule's memory, and where in the stream it stands."""
        return {
            "rules": [{"name": type(rule).__name__, "state": rule.state.state_dict()} for rule in self.rules],
            "experiences": self.experiences,
            "in_experience": self._in_experience,
        }

    def load_state_dict(self, saved: Mapping[str, object]) -> None:
        """Takes up a saved state.

        Raises:
            ValueError: it was saved by other rules.
        """
        rules: Sequence[Mapping[str, object]] = saved["rules"]  # type: ignore[assignment]
        was, now = [r["name"] for r in rules], [type(r).__name__ for r in self.rules]
        if was != now:
            raise ValueError(f"the saved state is of the rules {was}, these are {now}")
        for rule, entry in zip(self.rules, rules, strict=True):
            rule.state.load_state_dict(entry["state"])  # type: ignore[arg-type]
        self.experiences = int(saved["experiences"])  # type: ignore[call-overload]
        self._resume = bool(saved["in_experience"])

    # Inner workings.

    def _bind(self) -> None:
        """Looks at the network anew: it may have grown, moved, or had parameters frozen or replaced."""
        self._unbind()
        before, self._all = self._all, binding.trainable(self.network)
        self._forget(binding.replaced(before, self._all))
        self._spiking = SpikingState(self.network)
        self._fit_memory(self._all)
        self._open_watch()

    def _forget(self, names: list[str]) -> None:
        """Makes rules forget parameters that were replaced, and says so where one had a memory of them."""
        if not names:
            return
        new = binding.subset(self.network, [(n, p) for n, p in self.network.named_parameters() if n in names])
        sizes = [len(rule.state.state_dict()) for rule in self.rules]
        for rule in self.rules:
            rule.forget(new)
        forgetful = [r for r, size in zip(self.rules, sizes, strict=True) if len(r.state.state_dict()) < size]
        if forgetful:
            warnings.warn(
                f"{', '.join(names)} were replaced by new parameters since the last experience: {_name(forgetful)} forgets "
                "what it remembered of the old ones (copy the old values into the new parameters to keep it)",
                stacklevel=4,
            )

    def _fit_memory(self, synapses: Synapses) -> None:
        for rule in self.rules:
            rule.state.grow(synapses.names, synapses.parameters)
            rule.state.to(self._all.parameters[0].device)
        check_weights(self.network, self.rules)
        self._freeze()

    def _open_watch(self) -> None:
        inputs = self._answer["layer_input"] or self._freezing
        if inputs or self._answer["local_error"]:

            def on_input(layer: Layer, x: Tensor) -> None:
                if self._frozen is not None and layer.module in self._frozen.heads:
                    self._frozen.check()
                for layer_input in self._calls["layer_input"]:
                    layer_input(layer, x)

            if self._watch is not None and self._watch.fits(self.network):
                self._watch.open()
            else:
                if self._watch is not None:
                    self._watch.close()
                self._watch = LayerWatch(
                    self.network, detach=bool(self._answer["local_error"]), on_input=on_input if inputs else None
                )

    def _past(self, data: Iterable[object] | None) -> PastExperience:
        batches = data if isinstance(data, ExperienceData) else PlainData(self.network, data)
        return PastExperience(self.network, batches, self.task, self._unpack)

    def _rehearse(self, batch: PastExperience) -> None:
        """Tries on the first batch of an experience what rules will do at its end; leaves no trace."""
        self._rehearsed = True
        if not self._answer["rehearse"]:
            return
        self._rehearsing = True
        try:
            rehearse(self._answer["rehearse"], self._calls["rehearse"], self._all, batch)
        finally:
            self._rehearsing = False

    def _first_reader(self) -> Rule | None:
        """A rule that needs inputs or labels of every batch."""
        inputs = (rule for rule in self._answer["before_forward"] if rule.needs_inputs)
        labels = (rule for rule in self.rules if self._asks_labels(rule))
        return next(inputs, None) or next(labels, None)

    def _asks_labels(self, rule: Rule) -> bool:
        return rule.needs_labels and not (rule.takes_task_loss and not self.task.plain)

    def _freeze(self) -> None:
        """Finds out what keeps still now: a head may have been replaced, a rule may freeze only after a time."""
        heads = tuple(head for rule in self._freezing if (head := rule.frozen_below(self.network)) is not None)
        if self._frozen is None or self._frozen.heads != heads:
            self._thaw()
            self._frozen = Frozen(self.network, heads) if heads else None

    def _thaw(self) -> None:
        if self._frozen is not None:
            self._frozen.release()

    def _before_evaluation(self, module: nn.Module) -> None:
        # What is frozen is in evaluation mode while it is trained; only its head tells the host's mode.
        if self._frozen.evaluates if self._frozen is not None else not module.training:
            self.synchronize()

    def _unbind(self) -> None:
        self._thaw()
        self._frozen = None
        if self._watch is not None:
            self._watch.close()
        self._of_optimizer = {}

    def _close_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def _of(self, optimizer: Optimizer | None) -> Synapses:
        if optimizer is None:
            return self._all
        # Parameters that are unfrozen come to an optimizer as a group more.
        key = id(optimizer), len(optimizer.param_groups)
        if key not in self._of_optimizer:
            binding.check_optimizer(optimizer)
            self.refresh()
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            pairs = zip(self._all.names, self._all.parameters, strict=True)
            self._of_optimizer[key] = binding.subset(self.network, [(n, p) for n, p in pairs if id(p) in held])
        return self._of_optimizer[key]


def _name(rules: Sequence[Rule]) -> str:
    return " and ".join(type(rule).__name__ for rule in rules)
