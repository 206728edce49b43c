"""Sums over samples of a function of each sample's own gradient, from which importances are computed.

Per-sample gradients are computed by the first of these methods that is exact for a network; it is determined on a few
samples and cached for the lifetime of the network:

1. ``(|δ|^power)ᵀ (|a|^power)``, one matrix product a layer (a its input, δ the gradient at its output), where every
   parameter belongs to an `nn.Linear` that runs once on (batch, features);
2. `torch.func`: ``vmap`` of ``grad``, recurrent layers written out step by step;
3. layer by layer, from the input of each and the gradient at its output, where functions between the layers have a
   gradient of their own (surrogate gradients of spikes);
4. a loop over the samples, for networks that none of the others supports.

Each is compared with the loop on samples of the batch, on random ones and on blank ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.functional._batch_tree import count_samples, take
from lit_meta.functional._gradient_paths import Cotangents, Power, Problem, Sums, linear_sums
from lit_meta.functional._path_choice import choose_way

# Elements of per-sample gradients in memory at once on the general path: 2²⁵ are 128 MiB in single precision.
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
    """``E[|g|^power]`` over samples, g the gradient ``Jᵀv`` of *one* sample, v the value of ``cotangents`` for its output.

    The network is in eval mode during the computation, so that normalisation layers treat every sample separately, and is
    restored afterwards.

    Args:
        network: returns (batch, classes) for `inputs`. Only parameters that require a gradient are considered.
        inputs: (samples, ...), at least one.
        cotangents: see above.
        power: 1 or 2.
        names: the parameters to include (default: all that require a gradient).
        chunk_size: samples at once; None chooses by memory. It does not change the result.

    Returns:
        The mean for each parameter, by name, in the parameter's shape.

    Raises:
        ValueError: unknown names, an output that is not (batch, classes), a state left over from an earlier batch, or
            no parameter that requires a gradient.
    """
    problem = Problem(network, wanted(network, names), network, scalar=False, owner=network)
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
    owner: nn.Module | None = None,
) -> Sums:
    """``Σ |g|^power`` over the samples of a batch, g the gradient of ``function`` on *one* sample.

    Sums of several batches can be added; divided by the number of samples they give the expectation. Memory is bounded: at
    most `chunk_size` per-sample gradients exist at once.

    The owner is in eval mode during the computation. The state that it keeps beside its parameters (buffers, membrane
    potentials, counters, metrics) is the same at the start of every sample, and is restored afterwards.

    Args:
        function: maps a batch of any number of samples, in the form of `batch`, to the mean of their losses, a
            scalar. It runs the network. Its value for a batch of one sample is that sample's loss. If it draws noise,
            each sample's gradient is random, from a single draw.
        batch: tensors (samples, ...) in any nesting of dictionaries, lists and tuples.
        network: the module with the parameters; `function` may run a larger module that contains it.
        power: 2 for squares, 1 for absolute values.
        names: the parameters to include (default: all of the network that require a gradient).
        chunk_size: samples at once; None chooses by memory. It does not change the result.
        owner: contains every module that `function` runs or whose attributes it changes, such as the LightningModule
            of a training step; None if that is the network.

    Returns:
        The sum for each parameter, by name, in the parameter's shape; zero for one that the loss does not depend on.

    Raises:
        ValueError: unknown names, tensors of a batch that disagree in their first dimension, no samples, a result that
            is not a scalar, a state left over from an earlier batch, or no parameter that requires a gradient.

    Example:
        >>> network = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.zeros_(network.weight)
        >>> batch = {"x": torch.tensor([[1.0, 2.0], [3.0, 0.0]]), "y": torch.tensor([[1.0], [1.0]])}
        >>> def loss(batch):
        ...     return 0.5 * nn.functional.mse_loss(network(batch["x"]), batch["y"])
        >>> gradient_power_sums(loss, batch, network)
        {'weight': tensor([[10.,  4.]])}
    """

    def ones(output: Tensor, _: int) -> Iterator[Tensor]:
        yield torch.ones_like(output)

    owner = network if owner is None else owner
    if all(module is not network for module in owner.modules()):
        owner = nn.ModuleList([owner, network])
    problem = Problem(network, wanted(network, names), function, scalar=True, owner=owner)
    return _sums(problem, batch, ones, power, chunk_size)


def _sums(problem: Problem, batch: Any, cotangents: Cotangents, power: Power, chunk_size: int | None) -> Sums:
    count = count_samples(batch)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")
    totals = {name: torch.zeros_like(parameter) for name, parameter in problem.parameters.items()}
    with evaluating(problem.owner), torch.enable_grad():
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
    """The parameters with these names (default: all) among those that require a gradient."""
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
    """Sets eval mode, and afterwards restores the mode of every module (that of a frozen part may have differed).

    Recurrent layers on a GPU stay in training mode, without dropout: cuDNN has no backward pass in eval mode. The fused
    kernel of `nn.MultiheadAttention`, which has none either, is disabled.
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
