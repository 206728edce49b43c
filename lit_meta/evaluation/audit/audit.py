"""Accuracy under every way to make test batches, and why it differs if it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_meta.evaluation.accuracy import class_scores
from lit_meta.evaluation.audit.causes import Cause, Memory, first_difference, inspect, left_in_training
from lit_meta.evaluation.audit.report import AuditReport, Condition
from lit_meta.evaluation.audit.samples import samples_of, stratified_subset
from lit_meta.utils.modes import modes_kept
from lit_meta.utils.validation import require_count, require_one_of

Forward = Callable[[Tensor], Tensor]

# Two outputs that differ by less than this share of the largest are a tie, which rounding may decide either way.
_TIE = 1e-5
_PROBE = 8
_HINT = "; pass a function that returns them as the argument forward"


def audit(
    model: nn.Module,
    scenario: Any,
    *,
    threshold: float = 0.005,
    batch_size: int = 256,
    singles: int | None = 1000,
    samples: int | None = None,
    mode: Literal["eval", "as_given"] = "eval",
    forward: Forward | None = None,
    seed: int = 0,
    device: torch.device | None = None,
) -> AuditReport:
    """Tests a model under every way to make test batches: its accuracy must not depend on it.

    The same samples are predicted in shuffled batches, in the same batches again, with the samples of each batch in another
    order, with the batches in reverse order, in another shuffle with mixed batch sizes, in class-pure batches, one by one,
    and among outliers (half of every batch is replaced by samples three times as bright, whose predictions do not count). A
    condition fails if its accuracy, or the share of predictions that changed, differs by more than ``threshold`` from that
    in shuffled batches of the same samples (ties that rounding may decide are counted but not judged). Accuracy in training
    mode is reported as well but never judged, since dropout and the like may differ there.

    If something fails, the causes are named: by inspecting the modules (batch normalisation with batch statistics, a
    batch-dependent gate or spike encoding, dropout left on), by finding tensors that change during prediction, and by
    finding the first module whose output for the same samples depends on the other samples. The model's parameters,
    buffers and modes and the random state are restored.

    Args:
        model: maps (batch, ...) to (batch, classes); any module, including a LightningModule.
        scenario: a scenario's name, an Avalanche benchmark (its ``test_stream`` is used), or a sequence of
            (inputs, targets) pairs.
        threshold: the largest difference that passes, as a fraction.
        batch_size: of the shuffled batches.
        singles: number of samples predicted one by one, drawn evenly over the classes; None for all.
        samples: test at most this many, drawn evenly over the classes; None for all.
        mode: ``"eval"``, or ``"as_given"`` to leave every module in its current mode.
        forward: called with the inputs in place of the model, such as ``model.predict_logits``.
        seed: of all drawing and shuffling.
        device: where to compute; None is the device of the model.

    Returns:
        The report; ``report.passed`` is the verdict.

    Raises:
        ValueError: outputs that are not (batch, classes), no samples, or an argument out of range.
        KeyError: an unknown scenario.

    Example:
        >>> batches = [(torch.randn(64, 4), torch.arange(64) % 2)]
        >>> leaky = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False))
        >>> report = audit(leaky, batches)
        >>> report.passed, str(report.causes[0])
        (False, '1: BatchNorm1d with track_running_stats=False normalises with the mean and variance of each batch')
        >>> audit(nn.Linear(4, 2), batches).passed
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is a torch.nn.Module, got {type(model).__name__}")
    require_one_of("mode", mode, ("eval", "as_given"))
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is a fraction in [0, 1), got {threshold}")
    for name, value in (("batch_size", batch_size), ("singles", singles), ("samples", samples)):
        if value is not None:
            require_count(name, value)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = samples_of(scenario)
    if samples is not None and samples < len(targets):
        chosen = stratified_subset(targets, samples, generator)
        inputs, targets = inputs[chosen], targets[chosen]
    device = device or next((p.device for p in model.parameters()), inputs.device)
    call = forward if forward is not None else model
    with _untouched(model, seed, device):
        if mode == "eval":
            model.eval()
        return _Audit(model, call, inputs, targets, threshold, batch_size, device, generator).run(singles)


class _Audit:
    """Runs the conditions, one after another, on a model in the mode to be tested."""

    def __init__(
        self,
        model: nn.Module,
        forward: Forward,
        inputs: Tensor,
        targets: Tensor,
        threshold: float,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self.model, self.forward, self.threshold, self.device = model, forward, threshold, device
        self.inputs, self.targets, self.generator = inputs, targets, generator
        self.batch_size = min(batch_size, len(targets))
        self.reference, self.tie = torch.empty(0), torch.empty(0)

    def run(self, singles: int | None) -> AuditReport:
        every = torch.arange(len(self.targets))
        shuffled = list(self._shuffle(every).split(self.batch_size))
        memory = Memory(self.model)
        causes = inspect(self.model)
        self.reference, self.tie = self._predict(shuffled)
        changed = memory.changed()
        accuracy = float((self.reference == self.targets).float().mean())
        few = every if singles is None else stratified_subset(self.targets, singles, self.generator)
        pure = [self._shuffle((self.targets == label).nonzero()[:, 0]) for label in self.targets.unique()]
        conditions = [
            Condition("shuffled", f"shuffled, {self.batch_size} at a time", len(every), accuracy, accuracy, 0),
            self._condition("repeated", "the same batches again", shuffled),
            self._condition("permuted", "the same batches, samples in another order", [b.flip(0) for b in shuffled]),
            self._condition("reordered", "the same batches, last to first", shuffled[::-1]),
            self._condition("mixed", f"another shuffle, 1 to {2 * self.batch_size} at a time", self._mixed(every)),
            self._condition(
                "class-pure",
                f"one class a batch, up to {self.batch_size} at a time",
                [b for p in pure for b in p.split(self.batch_size)],
            ),
            self._condition("single", f"one sample a batch ({len(few)} samples)", list(few.split(1))),
        ]
        if self.inputs.is_floating_point():
            conditions.append(self._among_outliers(every))
        failed = any(c.fails(self.threshold) for c in conditions)
        if failed:
            causes += [cause for cause in left_in_training(self.model) if not _named(cause, causes)]
            causes += self._behaviour(conditions, changed, causes)
        conditions.append(self._in_training(memory, shuffled))
        return AuditReport(len(every), self.threshold, accuracy, conditions, causes)

    def _shuffle(self, indices: Tensor) -> Tensor:
        return indices[torch.randperm(len(indices), generator=self.generator)]

    def _mixed(self, every: Tensor) -> list[Tensor]:
        sizes, left = [], len(every)
        while left:
            size = int(torch.randint(1, 2 * self.batch_size + 1, (), generator=self.generator))
            sizes.append(min(size, left))
            left -= sizes[-1]
        return list(self._shuffle(every).split(sizes))

    def _predict(self, batches: Sequence[Tensor], *, outliers: bool = False) -> tuple[Tensor, Tensor]:
        """Predicted class of every sample (-1 if not in any batch), and whether it is a tie within rounding."""
        predicted = torch.full_like(self.targets, -1)
        tie = torch.zeros(len(self.targets), dtype=torch.bool)
        with torch.no_grad():
            for batch in batches:
                x = self.inputs[batch].to(self.device)
                if outliers:
                    x = torch.cat([x, 3 * x.flip(0) - x.mean()])
                outputs = class_scores(self.forward(x), len(x), hint=_HINT)[: len(batch)]
                best = outputs.float().topk(min(2, outputs.shape[1]), dim=1)
                predicted[batch] = best.indices[:, 0].cpu()
                gap = best.values[:, 0] - best.values[:, -1]
                tie[batch] = (gap <= _TIE * outputs.float().abs().amax()).cpu()
        return predicted, tie

    def _among_outliers(self, every: Tensor) -> Condition:
        batches = self._shuffle(every).split(max(1, self.batch_size // 2))
        condition = self._condition("outliers", "shuffled, half of each batch outliers", batches, outliers=True)
        # A model may reject such samples, which says nothing about the others.
        return condition if condition.error is None else replace(condition, judged=False)

    def _condition(
        self, name: str, description: str, batches: Sequence[Tensor], *, judged: bool = True, outliers: bool = False
    ) -> Condition:
        tested = torch.cat(list(batches))
        reference = float((self.reference[tested] == self.targets[tested]).float().mean())
        try:
            predicted, tie = self._predict(batches, outliers=outliers)
        except (RuntimeError, ValueError, IndexError) as error:
            message = " ".join(str(error).split())
            return Condition(name, description, len(tested), None, reference, 0, error=message, judged=judged)
        differ = predicted[tested] != self.reference[tested]
        return Condition(
            name,
            description,
            len(tested),
            float((predicted[tested] == self.targets[tested]).float().mean()),
            reference,
            int(differ.sum()),
            ties=int((differ & (tie | self.tie)[tested]).sum()),
            judged=judged,
        )

    def _in_training(self, memory: Memory, batches: Sequence[Tensor]) -> Condition:
        with modes_kept(self.model):
            self.model.train()
            try:
                return self._condition(
                    "training mode", "shuffled, in training mode (not judged)", batches, judged=False
                )
            finally:
                memory.restore()

    def _behaviour(self, conditions: Sequence[Condition], changed: list[str], known: Sequence[Cause]) -> list[Cause]:
        """Causes that only running the model reveals, if the known ones leave something unexplained."""
        count = min(_PROBE, max(1, len(self.targets) // 3))
        order = torch.argsort(self.targets, stable=True)
        # The same samples, once among those of the first classes and once among those of the last.
        probe, rest = order[:count], order[count:]
        half = max(1, len(rest) // 2)
        size = max(1, min(self.batch_size - count, half))
        early = self.inputs[torch.cat([probe, rest[:size]])].to(self.device)
        late = self.inputs[torch.cat([probe, rest[-size:]])].to(self.device)
        causes: list[Cause] = []
        with torch.no_grad():
            carried = self._first(early, early, count, same_seed=True)
            if carried is not None:
                which = f" ({', '.join(changed)})" if changed else ""
                message = f"carries state from one batch to the next{which}: the same batch gives two different results"
                causes.append(Cause(carried, "carried state", message))
            drawn = self._first(early, early, count, same_seed=False) if carried is None else None
            if drawn is not None and not any(c.module == drawn for c in known):
                message = "depends on chance: the same batch gives another result with another random state"
                causes.append(Cause(drawn, "chance", message))
            among = self._first(early, late, count, same_seed=True) if carried is None else None
            by_batch = [c for c in known if c.kind.startswith("batch")]
            if among is not None and not any(_inside(c.module, among) for c in by_batch):
                message = "gives the same samples another output when the rest of the batch changes"
                causes.append(Cause(among, "other samples", message))
        for condition in conditions:
            if condition.error is not None:
                message = f"fails with {condition.batches}: {condition.error}"
                causes.append(Cause("", "batch size", message))
        return causes

    def _first(self, first: Tensor, second: Tensor, rows: int, *, same_seed: bool) -> str | None:
        seeds = iter((1, 1 if same_seed else 2))

        def seeded(batch: Tensor) -> Tensor:
            torch.manual_seed(next(seeds))
            return self.forward(batch)

        return first_difference(self.model, seeded, first, second, rows)


def _named(cause: Cause, among: Sequence[Cause]) -> bool:
    return any(other.module == cause.module for other in among)


def _inside(part: str, whole: str) -> bool:
    return not whole or part == whole or part.startswith(f"{whole}.")


@contextmanager
def _untouched(model: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Restores everything the audit may disturb: parameters, buffers, modes and the random state."""
    memory = Memory(model)
    with modes_kept(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            memory.restore()
