"""The head that a readout learns, and what it receives."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_meta.core.errors import DivergedError
from lit_meta.rules._readout_sums import SAMPLES_AT_ONCE
from lit_meta.utils.modes import modes_kept
from lit_meta.utils.raw import raw_bytes
from lit_meta.utils.validation import extremes


def find_head(network: nn.Module, name: str | None, rule: str) -> nn.Linear:
    """The Linear layer of this name, or the last one.

    Raises:
        ValueError: there is none.
    """
    if name is not None:
        module = dict(network.named_modules()).get(name)
        if not isinstance(module, nn.Linear):
            names = [name for name, other in network.named_modules() if isinstance(other, nn.Linear)]
            raise ValueError(
                f"{rule} learns a Linear layer, and the network has none named {name!r}; "
                f"its Linear layers: {', '.join(names) or 'none'}"
            )
        return module
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{rule} learns a Linear layer, and {type(network).__name__} has none")
    return linear[-1]


def head_input(network: nn.Module, head: nn.Linear, inputs: Tensor) -> Tensor:
    """What the head receives for a batch in evaluation mode, (samples, features).

    Raises:
        ValueError: the head does not run once, on one row a sample.
    """
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        with modes_kept(network), torch.no_grad():
            network.eval()(inputs)
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0].dim() != 2 or len(seen[0]) != len(inputs):
        shapes = ", ".join(str(tuple(x.shape)) for x in seen) or "none"
        raise ValueError(
            f"a readout learns a head that runs once a batch on an input of shape ({len(inputs)}, features), got {shapes}"
        )
    return seen[0]


class Below(NamedTuple):
    """What was below a head when its parameters were last looked at.

    Attributes:
        forms: shapes and types of all parameters but the head's.
        digest: of the same, without buffers: gates and statistics may move.
    """

    forms: tuple[tuple[torch.Size, torch.dtype], ...]
    digest: bytes


def below(network: nn.Module, head: nn.Linear) -> Below:
    """The parameters that compute the features."""
    return Below(forms_below(network, head), _hashed(network.parameters(), head, hashlib.sha256()).digest())


def forms_below(network: nn.Module, head: nn.Linear) -> tuple[tuple[torch.Size, torch.dtype], ...]:
    """As of `Below`."""
    own = {id(parameter) for parameter in head.parameters()}
    return tuple((parameter.shape, parameter.dtype) for parameter in network.parameters() if id(parameter) not in own)


def below_and_digest(network: nn.Module, head: nn.Linear) -> tuple[Below, Tensor]:
    """`below` and `feature_digest`, of which the parameters are read once."""
    parameters = _hashed(network.parameters(), head, hashlib.sha256())
    everything = _hashed(network.buffers(), head, parameters.copy())
    return Below(forms_below(network, head), parameters.digest()), _bytes(everything.digest())


def feature_digest(network: nn.Module, head: nn.Linear) -> Tensor:
    """A digest of all that computes the features: parameters and buffers other than the head's, (32,) bytes.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
        >>> before = feature_digest(network, network[1])
        >>> _ = nn.init.zeros_(network[1].weight)
        >>> bool(torch.equal(before, feature_digest(network, network[1])))
        True
    """
    return below_and_digest(network, head)[1]


def _bytes(digest: bytes) -> Tensor:
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)


def _hashed(tensors: Iterable[Tensor], head: nn.Linear, digest: hashlib._Hash) -> hashlib._Hash:
    own = {id(parameter) for parameter in head.parameters()}
    for tensor in tensors:
        if id(tensor) not in own:
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(raw_bytes(tensor))
    return digest


def check_size(features: Tensor, what: str) -> None:
    """Checks that the features (``what``, for the message) are finite, and so are the products that are summed.

    A bound on each feature, so that not even the sums over `SAMPLES_AT_ONCE` samples about a mean of the same size overflow.
    """
    # In double precision, the squares of eigenvalues must be finite too.
    bound = min(math.sqrt(torch.finfo(features.dtype).max) / (4 * math.sqrt(SAMPLES_AT_ONCE)), 1e60)
    flat = features.flatten()
    if float(flat.dot(flat)) < bound * bound:
        return
    low, high = extremes(flat)
    if -bound < low and high < bound:
        return
    remedy = "nothing was learned from this batch"
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DivergedError(f"{what} is not finite; {remedy}")
    largest = max(-low, high)
    raise ValueError(f"{what} is as large as {largest:.1e}, and sums of its products overflow: normalise it; {remedy}")


def gathered(batches: list[tuple[Tensor, Tensor]], head: nn.Linear) -> list[tuple[Tensor, Tensor]]:
    """The samples of all processes as one batch, in the order of their ranks; in a single process, the batches given."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return batches
    like = head.weight
    features = torch.cat([x for x, _ in batches]) if batches else like.new_zeros(0, head.in_features).float()
    targets = torch.cat([y for _, y in batches]) if batches else torch.zeros(0, dtype=torch.long, device=like.device)
    sizes = [torch.zeros(1, dtype=torch.long, device=like.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, torch.tensor([len(targets)], device=like.device))
    longest = int(torch.cat(sizes).max())
    everyone = []
    for own in (features, targets):
        padded = own.new_zeros(longest, *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        everyone.append(torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)]))
    return [(everyone[0], everyone[1])]
