"""Selection of an exact method for per-sample gradients: tried on a few samples, cached with the network."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from lit_meta.functional._batch_tree import blank, count_samples, is_blank, sample_leaves, scrambled, take
from lit_meta.functional._counting import uncounted
from lit_meta.functional._gradient_paths import (
    Cotangents,
    Path,
    Power,
    Problem,
    Sums,
    linear_sums,
    loop_sums,
    vmap_sums,
)
from lit_meta.functional._layer_gradients import LayerPath
from lit_meta.functional._module_state import ModuleState, same_values
from lit_meta.functional._random_state import random_state_kept, seed_generators


@dataclass
class Way:
    """How per-sample gradients of a network are computed, and which of its modules change when it runs."""

    path: Path
    changing: frozenset[str] = frozenset()
    # The state tensors, with versions, last found not to affect the gradients.
    checked: list[tuple[ReferenceType[Tensor], int]] = field(default_factory=list)

    def sums(self, problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int = 0) -> Sums:
        """The path's sums, with every run starting from the network's present state; the loop's if the path fails."""
        if not self.changing:
            return self._sums(problem, batch, cotangents, power, start)
        with _keeping(problem, ModuleState(problem.owner, self.changing)) as steady:
            return self._sums(steady, batch, cotangents, power, start)

    def _sums(self, problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int) -> Sums:
        try:
            return self.path(problem, batch, cotangents, power, start)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            if self.path is loop_sums:
                raise
            # The loop is right by definition: if it fails too, the error is the network's or the caller's own.
            sums = loop_sums(problem, batch, cotangents, power, start)
            self.path = loop_sums
            return sums


@contextmanager
def _keeping(problem: Problem, state: ModuleState) -> Iterator[Problem]:
    """The same problem with every run starting in a state, which is restored at the end too."""

    def run(batch: Any) -> Tensor:
        state.restore(parameters=False)
        return problem.run(batch)

    try:
        yield replace(problem, run=run)
    finally:
        state.restore()


# The method chosen for each network, by the form of the problem; entries are released with their network.
_ways: WeakKeyDictionary[nn.Module, dict[object, Way]] = WeakKeyDictionary()


def choose_way(problem: Problem, batch: Any, power: Power) -> Way:
    """The fastest method that agrees with the loop, cached for this network and batches of this form.

    Raises:
        ValueError: the network would continue from a state left by an earlier batch.
    """
    key = _form(problem, batch, power)
    ways = _ways.setdefault(problem.network, {})
    way = ways.get(key)
    if way is None:
        with uncounted(), random_state_kept():
            # Neither the choice nor what is drawn after it may depend on when it is made: a resumed stream makes it anew.
            seed_generators(0, _devices(problem))
            way, told_apart = _probe(problem, batch, power)
        if told_apart:
            ways[key] = way
    if way.changing:
        state = ModuleState(problem.owner, way.changing)
        memory = state.tensors()
        if len(memory) != len(way.checked) or any(
            known() is not tensor or version != _version(tensor)
            for tensor, (known, version) in zip(memory, way.checked, strict=True)
        ):
            with _keeping(problem, state), random_state_kept():
                _require_reset(problem, take(batch, slice(0, 1)), state, _devices(problem))
            way.checked = [(ref(tensor), _version(tensor)) for tensor in state.tensors()]
    return way


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # inference tensors have no version counter


def _devices(problem: Problem) -> list[int]:
    return sorted({p.device.index or 0 for p in problem.parameters.values() if p.is_cuda})


def _form(problem: Problem, batch: Any, power: Power) -> object:
    modules = tuple((path, type(module), module.training) for path, module in problem.owner.named_modules())
    leaves = tuple((leaf.dim(), leaf.dtype, leaf.device) for leaf in sample_leaves(batch))
    code = getattr(problem.run, "__code__", type(problem.run)) if problem.scalar else None
    return modules, tuple(problem.parameters), leaves, code, power


def _ramp(output: Tensor, _: int) -> Iterator[Tensor]:
    # A ramp, not ones: the gradient of a sum over classes vanishes behind a softmax.
    yield torch.linspace(-1.0, 2.0, output.shape[-1], device=output.device, dtype=output.dtype).expand_as(output)


def _probe(problem: Problem, batch: Any, power: Power) -> tuple[Way, bool]:
    """A method, and whether the samples told methods apart: where every gradient is zero any would agree, so it is the loop."""
    devices, state = _devices(problem), ModuleState(problem.owner)
    with torch.random.fork_rng(devices), _keeping(problem, state) as steady:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randperm(count_samples(batch), generator=generator)[:2].sort().values
        samples = take(batch, rows if len(rows) == 2 else rows.repeat(2))
        changing = _require_reset(problem, take(samples, slice(0, 1)), state, devices)
        references = [(samples, loop_sums(steady, samples, _ramp, power))]
        for other in (scrambled(samples, generator), blank(samples)):
            try:
                references.append((other, loop_sums(steady, other, _ramp, power)))
            except Exception:
                continue  # not valid inputs of this network; the samples of the batch decide
        references = [(x, sums) for x, sums in references if all(bool(s.isfinite().all()) for s in sums.values())]
        state.restore()
        known = any(bool(s.any()) for _, sums in references for s in sums.values())
        for path in (linear_sums, vmap_sums, LayerPath(time_first=False), LayerPath(time_first=True)) if known else ():
            equal = _equals(path, steady, references, power)
            changing |= state.changed_paths()
            state.restore()
            if equal:
                return Way(path, changing), True
    return Way(loop_sums, changing), known


def _equals(path: Path, problem: Problem, references: list[tuple[Any, Sums]], power: Power) -> bool:
    for samples, expected in references:
        try:
            sums = path(problem, samples, _ramp, power)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return False  # the loop ran on the same samples, so this path does not support the network
        largest = max(float(s.double().norm()) for s in expected.values())
        for name, right in expected.items():
            epsilon = torch.finfo(right.dtype).eps
            # Normalisation of constant inputs divides by next to nothing, and rounding with it.
            precision = epsilon**0.5 if is_blank(samples) else 64 * epsilon
            difference = float((sums.get(name, torch.zeros_like(right)) - right).double().norm())
            # Gradients that are zero but for rounding (of a bias before a normalisation) are measured by the others.
            allowed = max(1e-5, precision) * float(right.double().norm()) + precision**power * largest
            if not difference <= allowed:
                return False
    return True


def _require_reset(problem: Problem, sample: Any, before: ModuleState, devices: list[int]) -> frozenset[str]:
    """The modules that change when the network runs; refuses a network that continues from an earlier batch."""
    loop_sums(problem, sample, _ramp, 1)
    changes = list(before.changes())
    left_over = {saved: (path, key) for path, key, saved in changes if saved is not None and saved.remembers()}

    def gradient(count: int, forgotten: Collection[Any]) -> list[Tensor | None]:
        before.restore(forgotten=forgotten)
        with torch.random.fork_rng(devices):
            output = problem.outputs(take(sample, torch.zeros(count, dtype=torch.long)))
        parameters = list(problem.parameters.values())
        if not output.requires_grad:
            return [None] * len(parameters)
        return list(torch.autograd.grad(output, parameters, next(_ramp(output, 0)), allow_unused=True))

    def depends(count: int) -> bool:
        # Gradients, since spikes may be the same.
        afresh = gradient(count, left_over)
        try:
            pairs = zip(gradient(count, ()), afresh, strict=True)
        except (RuntimeError, ValueError):
            return True  # the graph of the earlier batch, or a size that does not fit
        return any((a is None) != (b is None) or not (a is None or b is None or same_values(a, b)) for a, b in pairs)

    # A leftover state may affect only batches of the size that left it.
    for count in sorted({1, *(len(saved.value) for saved in left_over if saved.value.dim())}) if left_over else ():
        if depends(count):
            path, key = next(iter(left_over.values()))
            raise ValueError(
                f"{path or 'the network'} keeps a state ({key}) from an earlier batch, which would enter the gradients of "
                "other samples: reset it at the start of the forward pass, or after every training batch "
                "(snntorch.utils.reset(network), spikingjelly's functional.reset_net(network))."
            )
    before.restore()
    return frozenset(path for path, _, _ in changes)
