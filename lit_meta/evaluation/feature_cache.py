"""Features of test samples, kept as long as everything below the head stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lit_meta.core.layers import weight_layers
from lit_meta.core.rule import Rule
from lit_meta.utils.raw import raw_bytes

# More than this is computed anew rather than kept.
_MOST_BYTES = 2**30
_Summary = tuple[tuple[int, ...], torch.dtype, torch.device, bytes]


class KeptFeatures(nn.Module):
    """A network tested again and again on the same batches, of which only the head changes.

    Where a rule learns the head alone, features of test samples are the same after every experience. In the first test the
    head's inputs are kept; in later ones the head alone runs, on the same numbers and so to the same bits, as long as no
    parameter and no buffer below it has changed. A batch is recognised by its content, whenever it comes. Where the network's
    output is not what its head gives, or features would take more than a GiB, nothing is kept.

    Args:
        network: whose last weight layer is the head.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        >>> kept, x = KeptFeatures(network), torch.rand(5, 3)
        >>> with torch.inference_mode():
        ...     kept.begin(); first = kept(x)
        ...     kept.begin(); torch.equal(kept(x), first), kept.kept
        (True, 1)
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._head = [weight_layers(network)[-1].module]  # In a list: it is the network's, not a child of this one.
        self._features: dict[_Summary, tuple[Tensor, torch.dtype]] = {}
        self._below: list[tuple[int, int, Tensor]] = []
        self._bytes = 0
        self._keeps = True

    @staticmethod
    def serves(rules: Iterable[Rule]) -> bool:
        """Whether rules leave everything below the head alone, at least after a time."""
        return any(rule.head_only for rule in rules)

    @property
    def kept(self) -> int:
        """Batches whose features are kept."""
        return len(self._features)

    def begin(self) -> None:
        """A test begins: what was kept is forgotten if anything below the head has changed."""
        below = self._fingerprint()
        if not _same(below, self._below):
            self._features, self._bytes = {}, 0
        self._below = below

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for a batch."""
        (head,) = self._head
        summary = _summary(x) if self._keeps else None
        if summary in self._features:
            features, dtype = self._features[summary]
            return head(features.to(dtype))
        seen: list[tuple[Tensor, Tensor]] = []
        handle = head.register_forward_hook(lambda module, given, output: seen.append((given[0], output)))
        try:
            output = self.network(x)
        finally:
            handle.remove()
        if summary is not None:
            self._keeps = len(seen) == 1 and seen[0][1] is output
            if self._keeps:
                given = seen[0][0]
                features = _narrowed(given)
                self._bytes += features.nbytes
                self._keeps = self._bytes <= _MOST_BYTES
                self._features[summary] = features, given.dtype
            if not self._keeps:
                self._features = {}
        return output

    def _fingerprint(self) -> list[tuple[int, int, Tensor]]:
        own = {id(p) for p in self._head[0].parameters()}
        tensors = [t for t in (*self.network.parameters(), *self.network.buffers()) if id(t) not in own]
        # The version counts every change in place; the sum also tells of one behind its back.
        return [(t.data_ptr(), 0 if t.is_inference() else t._version, t.detach().sum()) for t in tensors]


def _narrowed(features: Tensor) -> Tensor:
    """The same numbers in half the memory, where bfloat16 has all of their digits, as of layers that compute in it."""
    narrow = features.bfloat16() if features.dtype == torch.float32 else features
    return narrow if torch.equal(narrow.to(features.dtype), features) else features


def _summary(x: Tensor) -> _Summary:
    """What two batches share if they are the same, and by all odds only then: a digest needs no copy of the batch."""
    return tuple(x.shape), x.dtype, x.device, hashlib.blake2b(raw_bytes(x), digest_size=16).digest()


def _same(one: Sequence[tuple[int, int, Tensor]], other: Sequence[tuple[int, int, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a[:2] == b[:2] and bool(torch.equal(a[2], b[2])) for a, b in zip(one, other, strict=True)
    )
