"""Sums over samples of a function of each sample's own gradient: the machinery behind importances.

Per-sample gradients are computed by the first of these ways that is right for a network, tried on a few samples and
remembered for as long as the network lives:

1. ``(|δ|^power)ᵀ (|a|^power)``, one matrix product a layer (a its input, δ the gradient at its output), where every
   parameter belongs to an `nn.Linear` that runs once on (batch, features);
2. `torch.func`: ``vmap`` of ``grad``;
3. a loop over the samples, for what the others cannot follow.

Each is compared with the loop on samples of the batch, on random ones and on blank ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lit_meta.functional._batch_tree import blank, count_samples, sample_leaves, scrambled, take
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
from lit_meta.functional._module_state import ModuleState

# Per-sample gradients held at once by the general path: 2²⁵ numbers are 128 MiB in single precision.
_GRADIENTS_AT_ONCE = 2**25
_SAMPLES_AT_ONCE = 1024


def mean_power(
    network: nn.Module,
    inputs: Tensor,
    cotangents: Cotangents,
    *,
    power: Power,
    names: Collection[str] | None = None,
    chunk_size: int | None = None,
) -> Sums:
    """``E[|g|^power]`` over samples, g the gradient ``Jᵀv`` of *one* sample, v what ``cotangents`` gives for its output.

    The network is in eval mode meanwhile, so that a normalisation layer treats every sample alone too, and is put back
    as it was.

    Args:
        network: gives (batch, classes) from `inputs`. Only parameters that require a gradient are considered.
        inputs: (samples, ...), at least one.
        cotangents: see above.
        power: 1 or 2.
        names: the parameters wanted (default: all that require a gradient).
        chunk_size: samples at once; None chooses by memory. It does not change the result.

    Returns:
        For each parameter, by name, the mean in its own shape.

    Raises:
        ValueError: unknown names, an output that is not (batch, classes), a state left over from an earlier batch, or
            nothing that requires a gradient.
    """
    problem = Problem(network, wanted(network, names), network, scalar=False)
    totals = _sums(problem, inputs, cotangents, power, chunk_size)
    return {name: total / len(inputs) for name, total in totals.items()}


def gradient_power_sums(
    function: Callable[[Any], Tensor],
    batch: Any,
    network: nn.Module,
    *,
    power: Power = 2,
    names: Collection[str] | None = None,
    chunk_size: int | None = None,
) -> Sums:
    """``Σ |g|^power`` over the samples of a batch, g the gradient of ``function`` on *one* sample.

    Sums of several batches add up; divided by the number of samples they are the expectation. Memory is bounded: no more
    per-sample gradients exist at once than `chunk_size` says.

    The network is in eval mode meanwhile, and whatever it keeps beside its parameters (buffers, membrane potentials,
    counters) starts for every sample as it was before the call, and is put back after it.

    Args:
        function: from a batch of any number of samples, in the form of `batch`, to the mean of their losses, a
            scalar. It runs the network. What it gives for a batch of one sample is that sample's loss. Noise that it
            draws makes each sample's gradient a random one, from a single draw.
        batch: tensors (samples, ...) in any nesting of dictionaries, lists and tuples.
        network: owns the parameters. It may be a part of what `function` runs.
        power: 2 for squares, 1 for absolute values.
        names: the parameters wanted (default: all of the network that require a gradient).
        chunk_size: samples at once; None chooses by memory. It does not change the result.

    Returns:
        For each parameter, by name, the sum in its own shape; zero for one that the loss does not depend on.

    Raises:
        ValueError: unknown names, tensors of a batch that disagree in their first dimension, no samples, a result that
            is not a scalar, a state left over from an earlier batch, or nothing that requires a gradient.

    Example:
        >>> network = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.zeros_(network.weight)
        >>> batch = {"x": torch.tensor([[1.0, 2.0], [3.0, 0.0]]), "y": torch.tensor([[1.0], [1.0]])}
        >>> def loss(batch):
        ...     return 0.5 * nn.functional.mse_loss(network(batch["x"]), batch["y"])
        >>> gradient_power_sums(loss, batch, network)
        {'weight': tensor([[10.,  4.]])}
    """

    def one(output: Tensor, _: int) -> Iterator[Tensor]:
        yield torch.ones_like(output)

    return _sums(Problem(network, wanted(network, names), function, scalar=True), batch, one, power, chunk_size)


def _sums(problem: Problem, batch: Any, cotangents: Cotangents, power: Power, chunk_size: int | None) -> Sums:
    count = count_samples(batch)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")
    totals = {name: torch.zeros_like(parameter) for name, parameter in problem.parameters.items()}
    with evaluating(problem.network), torch.enable_grad():
        way = choose_way(problem, batch, power)
        size = chunk_size or (
            _SAMPLES_AT_ONCE
            if way.path is linear_sums
            else max(1, _GRADIENTS_AT_ONCE // sum(p.numel() for p in problem.parameters.values()))
        )
        for start in range(0, count, size):
            chunk = batch if size >= count else take(batch, slice(start, start + size))
            for name, total in way.sums(problem, chunk, cotangents, power, start).items():
                totals[name] += total
    return totals


def wanted(network: nn.Module, names: Collection[str] | None) -> dict[str, nn.Parameter]:
    """The parameters of these names (default: all) among those that require a gradient."""
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if isinstance(names, str):
        raise ValueError(f"names must be a collection of parameter names, got the string {names!r}: write [{names!r}].")
    if names is not None:
        missing = sorted(set(names) - set(trainable))
        if missing:
            raise ValueError(
                f"no trainable parameter named {', '.join(missing)}; there are: {', '.join(trainable) or 'none'}."
            )
        trainable = {name: p for name, p in trainable.items() if name in set(names)}
    if not trainable:
        raise ValueError("no parameter to compute the gradient of: none requires a gradient (or is named).")
    return trainable


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, then every module back in the mode it was in (a frozen part may have been in another).

    Recurrent layers on a GPU stay in training mode, without dropout: cuDNN has no backward pass in eval mode. The fused
    kernel of `nn.MultiheadAttention`, which has none either, is off meanwhile.
    """
    modes = [(module, module.training) for module in network.modules()]
    dropouts = [(m, m.dropout) for m in network.modules() if isinstance(m, nn.RNNBase) and next(m.parameters()).is_cuda]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        network.eval()
        for layer, _ in dropouts:
            layer.train()
            layer.dropout = 0.0
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for layer, dropout in dropouts:
            layer.dropout = dropout
        for module, mode in modes:
            module.training = mode


@dataclass
class Way:
    """How per-sample gradients of a network are computed, and which of its modules change when it runs."""

    path: Path
    changing: frozenset[str] = frozenset()

    def sums(self, problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int = 0) -> Sums:
        """As the path gives them, every run from the state the network is in now; by the loop if the path fails."""
        with _keeping_state(problem, self.changing) as steady:
            if self.path is not loop_sums:
                try:
                    return self.path(steady, batch, cotangents, power, start)
                except torch.OutOfMemoryError:
                    raise
                except Exception:
                    # The loop is right by definition: if it fails too, the error is the network's or the caller's own.
                    sums = loop_sums(steady, batch, cotangents, power, start)
                    self.path = loop_sums
                    return sums
            return loop_sums(steady, batch, cotangents, power, start)


@contextmanager
def _keeping_state(problem: Problem, paths: Collection[str] | None) -> Iterator[Problem]:
    """The same problem with every run starting in the present state of these modules (None: all), restored at the end."""
    if paths is not None and not paths:
        yield problem
        return
    state = ModuleState(problem.network, paths)

    def run(batch: Any) -> Tensor:
        state.restore(parameters=False)
        return problem.run(batch)

    try:
        yield Problem(problem.network, problem.parameters, run, problem.scalar)
    finally:
        state.restore()


# What was found out about a network, by the form of the problem; a network that is gone takes it along.
_ways: WeakKeyDictionary[nn.Module, dict[object, Way]] = WeakKeyDictionary()


def choose_way(problem: Problem, batch: Any, power: Power) -> Way:
    """The fastest way that equals the loop, remembered for this network and batches of this form."""
    key = _form(problem, batch, power)
    ways = _ways.setdefault(problem.network, {})
    if key not in ways:
        ways[key] = _probe(problem, batch, power)
    return ways[key]


def _form(problem: Problem, batch: Any, power: Power) -> object:
    modules = tuple((path, type(module), module.training) for path, module in problem.network.named_modules())
    leaves = tuple((leaf.dim(), leaf.dtype, leaf.device) for leaf in sample_leaves(batch))
    code = getattr(problem.run, "__code__", type(problem.run)) if problem.scalar else None
    return modules, tuple(problem.parameters), leaves, code, power


def _ramp(output: Tensor, _: int) -> Iterator[Tensor]:
    # A ramp, not ones: the gradient of a sum over classes vanishes behind a softmax.
    yield torch.linspace(-1.0, 2.0, output.shape[-1], device=output.device, dtype=output.dtype).expand_as(output)


def _probe(problem: Problem, batch: Any, power: Power) -> Way:
    devices = sorted({p.device.index or 0 for p in problem.parameters.values() if p.is_cuda})
    before = ModuleState(problem.network)
    with torch.random.fork_rng(devices):
        generator = torch.Generator().manual_seed(0)
        rows = torch.randperm(count_samples(batch), generator=generator)[:2].sort().values
        samples = take(batch, rows if len(rows) == 2 else rows.repeat(2))
        try:
            changing = _require_reset(problem, take(samples, slice(0, 1)), before, devices)
            references = [(samples, loop_sums(_from(before, problem), samples, _ramp, power))]
            for other in (scrambled(samples, generator), blank(samples)):
                try:
                    references.append((other, loop_sums(_from(before, problem), other, _ramp, power)))
                except Exception:
                    continue  # such samples are none to this network; those of the batch are what counts
            references = [(x, sums) for x, sums in references if all(bool(s.isfinite().all()) for s in sums.values())]
            path: Path = loop_sums
            if any(bool(s.any()) for _, sums in references for s in sums.values()):
                for candidate in (linear_sums, vmap_sums):
                    matches = _equals(candidate, _from(before, problem), references, power)
                    changing |= before.changed_paths()
                    before.restore()
                    if matches:
                        path = candidate
                        break
        finally:
            before.restore()
    return Way(path, changing)


def _from(state: ModuleState, problem: Problem) -> Problem:
    def run(batch: Any) -> Tensor:
        state.restore(parameters=False)
        return problem.run(batch)

    return Problem(problem.network, problem.parameters, run, problem.scalar)


def _equals(path: Path, problem: Problem, references: list[tuple[Any, Sums]], power: Power) -> bool:
    for samples, expected in references:
        try:
            sums = path(problem, samples, _ramp, power)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return False  # the loop has run on the same samples: it is the path that cannot follow
        largest = max(float(s.double().norm()) for s in expected.values())
        for name, right in expected.items():
            epsilon = torch.finfo(right.dtype).eps
            difference = float((sums.get(name, torch.zeros_like(right)) - right).double().norm())
            # Gradients that are zero but for rounding (of a bias before a normalisation) are measured by the others.
            allowed = max(1e-5, 64 * epsilon) * float(right.double().norm()) + (64 * epsilon) ** power * largest
            if not difference <= allowed:
                return False
    return True


def _require_reset(problem: Problem, sample: Any, before: ModuleState, devices: list[int]) -> frozenset[str]:
    """The modules that change when the network runs; refuses one that goes on from an earlier batch."""

    def gradient() -> Sums:
        with torch.random.fork_rng(devices):
            return loop_sums(problem, sample, _ramp, 1)

    first = gradient()
    changes = list(before.changes())
    if not changes:
        return frozenset()
    left_over = [(path, key) for path, key, saved in changes if saved is not None and saved.remembers()]
    if left_over:
        try:
            again = gradient()
            depends = any(not torch.equal(first[name], again[name]) for name in first)
        except Exception:
            depends = True
        if depends:
            path, key = left_over[0]
            raise ValueError(
                f"{path or 'the network'} keeps a state ({key}) from an earlier batch, which would enter the gradients of "
                "other samples: reset it where the forward pass begins, or after every training batch "
                "(snntorch.utils.reset(network), spikingjelly's functional.reset_net(network))."
            )
    before.restore()
    return frozenset(path for path, _, _ in changes)
