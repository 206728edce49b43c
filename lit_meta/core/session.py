"""One or more rules bound to one network: the only code that touches hooks, gradients and parameters.

A host (a plain loop, Lightning, Avalanche) calls the events below in this order; each rule answers those it needs. Hooks and
parameters are bound in `_bound_rules`, the events of a training step stand in `_training_steps`, those of an experience here::

    begin_experience
      before_batch   -> the host's forward and backward pass -> after_backward
      before_step    -> the host's clipping and optimizer step -> after_step
    end_experience
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn

from lit_meta.core import binding, claims
from lit_meta.core._training_steps import NonFinite, TrainingSteps
from lit_meta.core.batches import BatchFunction
from lit_meta.core.batches import unpack as unpack_batch
from lit_meta.core.checks import check_processes
from lit_meta.core.errors import DivergedError
from lit_meta.core.evaluation_hooks import EvaluationWatch
from lit_meta.core.event_calls import Observer
from lit_meta.core.experience_data import ExperienceData, PlainData
from lit_meta.core.past_experience import PastExperience
from lit_meta.core.rule import Rule
from lit_meta.core.step_undo import Mark
from lit_meta.core.task import Criterion
from lit_meta.functional._random_state import random_state_kept
from lit_meta.utils.validation import all_finite


class Session(TrainingSteps):
    """Binds rules to a network.

    A step calls `before_batch` (or `before_forward`), `after_backward`, `before_step` and `after_step`; `step` makes all of
    these calls around a block of code.

    Args:
        network: the network whose trainable parameters are the synapses.
        rules: one rule, or several that answer each event in the given order.
        unpack: splits a batch into (inputs, targets), for rules that need one of them.
        loss: the training loss, a function of outputs and targets; None for the cross-entropy. Rules that measure importances
            differentiate it.
        non_finite: what becomes of a step whose loss or gradients are not finite numbers, or so large that their products are
            not: ``"raise"`` raises a `DivergedError` that names the batch, ``"skip"`` leaves the step out with a warning.

    Raises:
        TypeError: the network is not a module, or a rule is not a `Rule`.
        ValueError: a network without a weight layer, no rule, a rule twice, or more than one rule with local errors.

    Example:
        >>> import torch
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
        non_finite: NonFinite = "raise",
    ) -> None:
        super().__init__(network, rules, unpack, loss, non_finite)
        self._resume: int | None = None  # Steps of the experience that a loaded state was saved in.

    def __getstate__(self) -> dict[str, object]:
        # A copy made inside an experience goes on with it when it begins.
        resume = self._steps if self._in_experience else self._resume
        return {**super().__getstate__(), "_in_experience": False, "_resume": resume}

    def begin_experience(self) -> None:
        """Starts an experience, or resumes the one that a loaded state was saved in.

        Raises:
            ValueError: an experience is under way, another `Session` learns in this network or with one of its
                rules, or the network has changed in a way that the rules' memory cannot follow. Nothing has changed then.
        """
        if self._in_experience and self._resume is None:
            raise ValueError(
                "begin_experience was called inside an experience: call end_experience first, or close() to abandon it"
            )
        check_processes(self.rules)
        claims.check(self)
        for rule in self.rules:
            if not rule.state.belongs(self.network):
                raise ValueError(
                    f"this {type(rule).__name__} has learned in another network, and its memory is of that one's parameters: "
                    "use a new rule for a new network (rule.clone()), or load a memory into it (rule.state.load_state_dict)"
                )
        self.drop_unfinished_step()
        before, mark = self._all, Mark(self.rules)
        try:
            for rule in self.rules:
                rule.state.belong(self.network)
            self._bind()
            if self._answering["synchronize"]:
                # Rebuilt, since the head may have been replaced; it stays for the evaluation after the experience.
                self._close_evaluation()
                self._evaluation = EvaluationWatch(self.network, self._before_evaluation)
            if self._resume is None:
                for begin in self._calls["begin_experience"]:
                    begin(self._all)
        except BaseException:
            self._unbind()
            mark.restore()
            self._all = before
            raise
        self._claim()
        self._begun = mark
        self._rehearsed = self._resume is not None
        self._steps = self._batches = self._resume or 0
        self._resume = None
        self._in_experience = True

    def end_experience(self, data: Iterable[object] | None = None) -> None:
        """Ends an experience: rules that need boundaries consolidate.

        Args:
            data: the experience's training data, needed by rules that consolidate on it: an `ExperienceData` of a host, or
                batches or a `DataLoader`, which are moved to the network's device. A shuffled loader is read in the order of
                its dataset.

        Raises:
            ValueError: no step was taken in this experience, or a rule needs the data and none was given. The experience goes
                on then, and can be ended again.
            DivergedError: a parameter is not finite.
        """
        if not self._in_experience:
            raise ValueError("end_experience was called without begin_experience")
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
        self._unbind()
        mark = Mark(self.rules)
        try:
            self._spiking.reset()
            with random_state_kept(), binding.learnable(self._all):
                for end in self._calls["end_experience"]:
                    end(self._all, self._past(data))
        except BaseException:
            mark.restore()
            self._freeze()
            self._open_watch()
            raise
        self._leave()
        self.experiences += 1

    def _leave(self) -> None:
        self._in_experience = False
        self._begun = None
        self._release()
        for rule in self.rules:
            rule.leave_experience()

    @contextmanager
    def experience(self, data: Iterable[object] | None = None) -> Iterator[None]:
        """An experience as a block of code; when the block raises, the experience is abandoned, see `close`."""
        self.begin_experience()
        try:
            yield
        except BaseException:
            self._abandon()
            raise
        self.end_experience(data)

    def close(self) -> None:
        """Undoes the step under way, if any, abandons the experience, and removes all hooks from the network.

        What was learned in its steps stays; of an experience without one nothing is remembered, not even that it began.
        """
        self._abandon()
        self._close_evaluation()

    def _abandon(self) -> None:
        self.abandon_step()
        self._unbind()
        if self._in_experience and self._begun is not None and not self._steps:
            self._begun.restore()
        self._leave()

    def observe(self, observer: Observer) -> AbstractContextManager[None]:
        """Within the block, every event that a rule answers runs inside a context that the observer returns.

        For instruments that count or time the rules' work. The rules need no change, and without an observer there is no
        overhead.

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
        """The events that at least one rule answers."""
        return frozenset(event for event, rules in self._answering.items() if rules)

    @property
    def data_readers(self) -> list[Rule]:
        """The rules that read an experience's data when it ends."""
        return [rule for rule in self._answering["end_experience"] if rule.needs_data]

    def scalars(self) -> dict[str, Tensor]:
        """The quantities that the rules log, as ``"rule/quantity"``."""
        return {f"{type(r).__name__.lower()}/{k}": v for r in self.rules for k, v in r.scalars(self._all).items()}

    def state_dict(self) -> dict[str, object]:
        """Everything needed to resume: each rule's memory and the position in the stream."""
        return {
            "rules": [{"name": type(rule).__name__, "state": rule.state.state_dict()} for rule in self.rules],
            "experiences": self.experiences,
            "in_experience": self._in_experience,
            "steps": self._steps if self._in_experience else 0,
        }

    def load_state_dict(self, saved: Mapping[str, object]) -> None:
        """Restores a saved state.

        Raises:
            ValueError: it was saved by other rules, or is no memory of theirs; nothing has changed then.
        """
        entries: Sequence[Mapping[str, object]] = saved["rules"]  # type: ignore[assignment]
        saved_names, names = [entry["name"] for entry in entries], [type(rule).__name__ for rule in self.rules]
        if saved_names != names:
            raise ValueError(f"the state was saved by the rules {saved_names}, and the rules here are {names}")
        experiences = int(saved["experiences"])  # type: ignore[call-overload]
        steps = int(saved.get("steps", 0)) if saved["in_experience"] else None  # type: ignore[call-overload]
        self.drop_unfinished_step()
        mark = Mark(self.rules)
        try:
            for rule, entry in zip(self.rules, entries, strict=True):
                rule.state.load_state_dict(entry["state"])  # type: ignore[arg-type]
        except BaseException:
            mark.restore()
            raise
        self._begun = None
        self.experiences = experiences
        self._resume = steps

    def _past(self, data: Iterable[object] | None) -> PastExperience:
        batches = data if isinstance(data, ExperienceData) else PlainData(self.network, data)
        return PastExperience(self.network, batches, self.task, self._unpack)
