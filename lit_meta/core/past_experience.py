"""What rules see of an experience that ends: its network, its data, and the loss of its training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.core.batches import BatchFunction
from lit_meta.core.experience_data import ExperienceData
from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.spiking_state import SpikingState
from lit_meta.core.task import Form, NoOneLoss, Task, class_logits, is_cross_entropy, recorded_outputs
from lit_meta.core.trees import drawn
from lit_meta.core.untouched import state_kept, untouched
from lit_meta.functional._batch_tree import take


class PastExperience:
    """The implementation of `lit_meta.core.rule.Experience`.

    Args:
        network: the network that learned.
        data: its batches, as the training step received them.
        task: the loss that the training step computed from them.
        unpack: splits a batch into (inputs, targets).
    """

    def __init__(self, network: nn.Module, data: Iterable[Any], task: Task, unpack: BatchFunction) -> None:
        self.network = network
        self._data = data
        self._task = task
        self._unpack = unpack
        self._measuring = False
        self._spiking: SpikingState | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        return self.pairs()

    @property
    def batches_per_step(self) -> int:
        """How many consecutive batches one training step saw, in all processes together."""
        return self._data.batches_per_step if isinstance(self._data, ExperienceData) else 1

    def pairs(self, *, samples: int | None = None, seed: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(inputs, targets) of every batch, or of samples drawn from all of them."""
        pairs = map(self._unpack, self._data)
        return pairs if samples is None else drawn(pairs, samples, seed)

    def batches(self, *, samples: int | None = None, seed: int = 0) -> Iterator[Any]:
        """Every batch as the training step received it, or samples drawn from all of them."""
        return iter(self._data) if samples is None else drawn(self._data, samples, seed)

    @property
    def named_form(self) -> Form | None:
        """The form of the task's loss that the host names."""
        return self._task.form

    def check_separable(self) -> None:
        """Checks that one row of every tensor in a batch is one sample.

        Raises:
            NoOneLoss: that is not so, and why.
        """
        if self._task.inseparable is not None:
            raise self._task.inseparable

    @contextmanager
    def measuring(self) -> Iterator[nn.Module]:
        """A context in which the network runs in evaluation mode; it and its host are restored afterwards.

        Yields:
            The module whose code computes the loss; the network is it or a part of it.
        """
        if self._measuring:
            yield self._task.owner
            return
        self._measuring = True
        self._spiking = SpikingState(self._task.owner)
        try:
            with (
                untouched(self._task.owner),
                self._task.alone(),
                torch.enable_grad(),
                self._spiking.reset_before_calls(self.network),
            ):
                yield self._task.owner
        finally:
            self._measuring, self._spiking = False, None

    @contextmanager
    def training(self) -> Iterator[nn.Module]:
        """A context in which the loss of a batch is computed once more as in training, without logging or stepping.

        Nothing is restored: dropout draws anew, and running statistics count the batch again.

        Yields:
            The module whose code computes the loss.
        """
        self._spiking = SpikingState(self._task.owner)
        try:
            with self._task.alone(), torch.enable_grad(), self._spiking.reset_before_calls(self.network):
                yield self._task.owner
        finally:
            self._spiking = None

    def loss(self, batch: Any) -> Tensor:
        """The loss of the training step, with its graph; inside `measuring` or `training`."""
        if not self._spiking:
            return self._task.loss(batch)
        # A training step may call the network once per time step, and neurons must keep their state between these calls.
        with self._spiking.lasting():
            return self._task.loss(batch)

    def outputs(self, batch: Any) -> list[Tensor]:
        """The network's outputs when the training step runs on a batch, with their graph; inside `measuring`.

        Raises:
            ValueError: the training step does not call the network.
        """
        with recorded_outputs(self.network, self._task.owner) as outputs:
            if self._task.plain:
                self.network(self._unpack(batch)[0])
            else:
                self.loss(batch)
        if not outputs:
            raise ValueError(
                f"the training step runs without calling {type(self.network).__name__}, the network to protect"
            )
        return outputs

    def run(self, batch: Any) -> None:
        """Runs the network as training does, for the hooks on it; inside `measuring`."""
        with state_kept(self._task.owner):
            if self._task.plain:
                self.network(self._unpack(batch)[0])
            else:
                self.loss(batch)

    def form(self) -> Form | None:
        """The task's loss as a function of ``network(inputs)``, (batch, classes), and targets; None if it has another form."""
        if self._task.form is not None:
            with self.measuring(), torch.no_grad(), state_kept(self._task.owner):
                parts = self._parts()
                return self._task.form if parts and class_logits(self.network(self._unpack(parts[-1])[0])) else None
        with self.measuring():
            parts = self._parts()
            same = (self._is_cross_entropy(part) for part in parts)
            return "cross_entropy" if parts and all(same) else None

    def classified(self, batch: Any) -> tuple[Tensor, Tensor | None] | None:
        """(inputs, targets) of a batch whose loss is the cross-entropy of ``network(inputs)``; None where it is another.

        A loss may be that of some batches and not of others, as where classes have weights.
        """
        with self.measuring(), torch.no_grad(), state_kept(self._task.owner):
            same = is_cross_entropy(self.loss, self.network, self._unpack, batch, gradients=False)
        return self._unpack(batch) if same else None

    def _is_cross_entropy(self, batch: Any) -> bool:
        with state_kept(self._task.owner):
            return is_cross_entropy(self.loss, self.network, self._unpack, batch)

    def calls_on_inputs(self) -> bool:
        """Whether training calls ``network(inputs)``, and the output is one tensor (batch, features)."""
        with self.measuring(), torch.no_grad():
            try:
                parts = self._parts()
                with state_kept(self._task.owner):
                    direct = self.network(self._unpack(parts[-1])[0])
                if not isinstance(direct, Tensor) or direct.dim() != 2:
                    return False
                with state_kept(self._task.owner):
                    outputs = [direct] if self._task.plain else self.outputs(parts[-1])
            except Exception:
                return False  # A network that fails when called like this is called differently in training.
            return (
                len(outputs) == 1 and outputs[0].shape == direct.shape and torch.allclose(outputs[0], direct, rtol=1e-3)
            )

    def few(self) -> PastExperience:
        """Two samples of the experience, or its first batch if it cannot be split into samples."""
        return PastExperience(self.network, self._parts(2)[-1:], self._task, self._unpack)

    def _parts(self, samples: int = 1) -> list[Any]:
        """The first batch and, if it can be split, its first samples."""
        iterator = iter(self._data)
        first = next(iterator, None)
        if first is None:
            return []
        if isinstance(self._data, Iterator):  # An iterator yields its first batch only once.
            self._data = chain([first], iterator)
        try:
            return [first, take(first, torch.arange(samples))]
        except (ValueError, IndexError, RuntimeError):
            return [first]


def rehearse(
    rules: Iterable[Rule],
    calls: Iterable[Callable[[Synapses, PastExperience], None]],
    synapses: Synapses,
    batch: PastExperience,
) -> None:
    """Tries the rules' consolidation on the first batch of an experience, and restores everything.

    Args:
        rules: those that override `Rule.rehearse`.
        calls: their `Rule.rehearse`, as the session calls it.
        synapses: the parameters.
        batch: an experience of this batch alone.

    Raises:
        ValueError: a rule cannot consolidate this way; the message says why.
    """
    few = batch.few()
    for rule, call in zip(rules, calls, strict=True):
        try:
            with few.measuring():
                call(synapses, few)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            reason += f": {error.advice(rule)}" if isinstance(error, NoOneLoss) else ""
            raise ValueError(
                f"{type(rule).__name__} could not consolidate at the end of this experience, as its first batch shows: {reason}"
            ) from error
