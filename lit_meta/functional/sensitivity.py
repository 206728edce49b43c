"""How much a network's output depends on each of its parameters, without labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import Tensor, nn

from lit_meta.functional.per_sample import mean_power


def output_sensitivity(
    network: nn.Module,
    inputs: Tensor,
    *,
    names: Collection[str] | None = None,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    """``E[|∂‖f(x)‖² / ∂θ|]``: the mean over samples of the absolute gradient of the squared norm of *one* output.

    The absolute value is taken for each sample. Taken of the gradient of a batch mean instead, samples of opposite sign
    would cancel, and the result would depend on how samples are batched. The network runs in evaluation mode.

    Args:
        network: gives f(x), (batch, outputs). Only parameters that require a gradient are considered.
        inputs: (samples, ...).
        names: parameters to consider (default: all that require a gradient).
        chunk_size: samples processed at once; None chooses by available memory. It does not change the result.

    Returns:
        For each parameter, by name, its sensitivity in its own shape.

    Raises:
        ValueError: no samples, unknown names, an output that is not (batch, outputs), or nothing that requires a gradient.

    Source: Aljundi et al., ECCV 2018, equations 2 and 4.

    Example:
        >>> import torch
        >>> network = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(network.weight, 1.0)
        >>> output_sensitivity(network, torch.tensor([[1.0, 2.0], [-1.0, 0.0]]))["weight"]
        tensor([[4., 6.]])
    """
    if len(inputs) == 0:
        raise ValueError("expected at least one sample, got none.")

    def twice_the_output(output: Tensor, _: int) -> Iterator[Tensor]:
        yield 2.0 * output  # ∂‖f‖²/∂f

    return mean_power(network, inputs, twice_the_output, power=1, names=names, chunk_size=chunk_size)
