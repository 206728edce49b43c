"""Base class of rules that learn the last layer in closed form: statistics of its input, and when it is solved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.core.errors import DivergedError
from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Layer, Rule, Synapses
from lit_meta.core.state import Kept, apart
from lit_meta.functional.readout import CenteredMoments, Readout, centered_moments
from lit_meta.utils.validation import check_class_labels

# Products of float32 features are summed in float32 over at most this many samples, then in float64 over all of them.
_SAMPLES_AT_ONCE = 4096
# Only the lower triangle of a second moment is computed, in strips of this many rows.
_ROWS_AT_ONCE = 1024


class ReadoutRule(Rule):
    """Learns the head from sums over samples of its input h: Σ h hᵀ, Σ h of each class, and the classes' counts.

    The sums are float64, whatever the network computes in, and taken about the first batch's mean, so that neither the
    number of samples nor a large mean costs digits. Sums do not know an order: the weights are those of all samples at
    once, and a class may appear at any time. No sample is kept.

    The weights are worked out when they are looked at: before the head runs in evaluation mode, and when an experience
    ends (`Rule.synchronize`). In training mode the head keeps the weights of the last such moment. Its gradient is
    discarded, and with ``freeze`` that of all other parameters too, since features that drift would make the sums
    speak of features that no longer exist.

    Args:
        head: name of the Linear layer to learn; None for the last one of the network.
        freeze: freeze everything else: gradients are discarded, and everything below the head is in evaluation mode while the
            rule learns (batch normalisation, dropout), whatever mode the host sets.
        block: number of features whose correlations are kept; None for all. Wider heads are split into blocks of
            interleaved features, solved separately and averaged (in discriminant analysis: summed), which bounds the
            memory by ``8 · features · block`` bytes in place of ``8 · features²``.
        after: number of samples to skip at first, while the features below are still learning: the ``samples`` of a
            `CriticalPeriod` that lasts longer than one batch. The batch that reaches this number is counted.
    """

    needs_inputs = False
    needs_labels = True
    limits: ClassVar[Mapping[str, str]] = {
        "distributed": "its sums are over the samples of one process",
    }

    def __init__(self, *, head: str | None, freeze: bool, block: int | None, after: int) -> None:
        super().__init__()
        if block is not None and (isinstance(block, bool) or not isinstance(block, int) or block < 1):
            raise ValueError(f"block must be a whole number of features, at least 1, or None, got {block!r}")
        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            raise ValueError(f"after must be a whole number of samples, at least 0, got {after!r}")
        self.head = head
        self.after = after
        self.freeze = freeze
        self.head_only = freeze
        self.block = block
        self._targets: Tensor | None = None
        self._ran_below: set[str] = set()
        self._layer: nn.Linear | None = None
        self._batch: list[tuple[Tensor, Tensor]] = []
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._solved: tuple[Tensor, int, nn.Linear] | None = None

    # To be given by the rule itself.

    def solve(self, moments: CenteredMoments, class_counts: Tensor) -> Readout:
        """The readout of one block of features; may overwrite ``moments``."""
        raise NotImplementedError

    def combine(self, blocks: list[Readout]) -> tuple[Tensor, Tensor]:
        """Weights (classes, features of all blocks, one block after the other) and bias from those of the blocks."""
        raise NotImplementedError

    # Events.

    def begin_experience(self, synapses: Synapses) -> None:
        self._layer = None

    def sets_weights(self, network: nn.Module) -> Iterable[Layer]:
        head = self._find_head(network)
        return [Layer(next(name for name, module in network.named_modules() if module is head), head)]

    def frozen_below(self, network: nn.Module) -> nn.Module | None:
        return self._current_head(network) if self.freeze else None

    def leave_experience(self) -> None:
        self._layer = None  # The head may be replaced before the next experience.

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        self._layer = self._current_head(synapses.network)
        if targets is None:
            raise ValueError(f"{type(self).__name__} needs labels, and the batch has none")
        check_class_labels(targets, self._layer.out_features, type(self).__name__)
        self._targets = targets
        self._ran_below.clear()

    def layer_input(self, layer: Layer, inputs: Tensor) -> None:
        if layer.module is not self._layer:
            self._check_last(layer, inputs)
            return
        targets = self._targets
        if targets is None or inputs.dim() != 2 or inputs.shape[0] != targets.shape[0]:
            expected = "to run once a batch" if targets is None else f"an input of shape ({targets.shape[0]}, features)"
            raise ValueError(
                f"{type(self).__name__} expects the head {layer.name!r} {expected}, got an input of shape "
                f"{tuple(inputs.shape)}; a head that runs at several time steps or positions has no single input to learn"
            )
        features = inputs if inputs.dtype == torch.float64 else inputs.float()
        _check_size(features, layer.name)
        self._targets = None
        # Counted when the step is certain, so that an abandoned one leaves no trace.
        self._batch.append((features, targets))

    def after_backward(self, synapses: Synapses) -> None:
        self._pending += self._batch
        self._batch = []

    def gradient(self, synapses: Synapses) -> None:
        if self._targets is not None:
            raise ValueError(f"the head that {type(self).__name__} learns did not run in the forward pass")
        for features, targets in self._pending:
            if self._counts(len(targets)):
                self._accumulate(features, targets)
        self._pending = []
        own = set() if self._layer is None else set(self._layer.parameters(recurse=False))
        for parameter in synapses.parameters:
            if self.freeze or parameter in own:
                parameter.grad = None

    def leave_batch(self, synapses: Synapses) -> None:
        self._targets = None
        self._batch = []

    def restore(self, synapses: Synapses) -> None:
        self.leave_batch(synapses)
        self._pending = []

    def synchronize(self, synapses: Synapses) -> None:
        if "class_counts" not in self.state:
            return
        head = self._find_head(synapses.network)
        self._grow(head.out_features)
        counts = self.state.overall["class_counts"]
        samples = int(counts.sum())
        if self._solved is not None and self._solved[0] is counts and self._solved[1:] == (samples, head):
            return
        shift, class_sums = self.state.overall["shift"], self.state.overall["class_sums"]
        moments = self.state["second_moment"]
        columns = list(self._columns(class_sums.shape[1]))
        solutions = []
        for number, chosen in enumerate(columns):
            second_moment, sums = moments[_key(number)], class_sums[:, chosen]
            silent = float(self.state.overall["silent"][number]) if "silent" in self.state else 0.0
            if silent:
                second_moment = second_moment.addr(shift[chosen], shift[chosen], alpha=silent)
            if head.bias is None:
                centered = CenteredMoments(second_moment.clone(), sums, torch.zeros_like(sums[0]))
            else:
                centered = centered_moments(second_moment, sums, counts)
            solutions.append(self.solve(centered, counts))
        weight, bias = self.combine(solutions)
        weight = torch.empty_like(weight).index_copy_(1, torch.cat(columns), weight)
        with torch.no_grad():
            head.weight.copy_(weight)
            if head.bias is not None:
                head.bias.copy_(bias - weight @ shift)
        self._solved = (counts, samples, head)

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        head = self._find_head(network)
        width, blocks = head.in_features, 1 if self.block is None else -(-head.in_features // self.block)
        sizes = [len(range(first, width, blocks)) for first in range(blocks)]
        kept = {
            "shift/*": Kept((width,)),
            "class_sums/*": Kept((head.out_features, width), nonzero=True),
            "class_counts/*": Kept((head.out_features,), nonzero=True),
            "silent/*": Kept((blocks,), always=False),
            **{encode_key("second_moment", _key(i)): Kept((n, n), nonzero=True) for i, n in enumerate(sizes)},
        }
        return kept if self.after == 0 else {**kept, "seen/*": Kept((), nonzero=True)}

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        if "class_counts" not in self.state:
            return {}
        counts = self.state.overall["class_counts"]
        return {"samples": counts.sum().float(), "classes": (counts > 0).sum().float()}

    # Inner workings.

    def _counts(self, samples: int) -> bool:
        """Whether the features of a batch are final."""
        if self.after == 0:
            return True
        seen = self.state.overall["seen"] if "seen" in self.state else torch.zeros((), dtype=torch.long)
        self.state.overall["seen"] = seen + samples
        return bool(seen + samples >= self.after)

    def _accumulate(self, features: Tensor, targets: Tensor) -> None:
        layer = self._layer
        if layer is None:
            raise ValueError(f"{type(self).__name__} has seen no forward pass")
        width = features.shape[1]
        if "shift" not in self.state:
            wide = features.double()
            self.state.overall["shift"] = torch.zeros_like(wide[0]) if layer.bias is None else wide.mean(0)
            self.state.overall["class_sums"] = wide.new_zeros(layer.out_features, width)
            self.state.overall["class_counts"] = wide.new_zeros(layer.out_features)
            sizes = [len(chosen) for chosen in self._columns(width)]
            self.state["second_moment"] = {_key(i): wide.new_zeros(size, size) for i, size in enumerate(sizes)}
        self._grow(layer.out_features)
        shift, sums = self.state.overall["shift"], self.state.overall["class_sums"]
        if len(shift) != width:
            raise ValueError(
                f"the head's input has {width} features, and {len(shift)} before: its width must not change"
            )
        columns = list(self._columns(width))
        for part, labels in zip(features.split(_SAMPLES_AT_ONCE), targets.split(_SAMPLES_AT_ONCE), strict=True):
            one_hot = F.one_hot(labels, sums.shape[0]).to(part.dtype)
            active = part.any(0) if len(columns) > 1 else None
            for number, chosen in enumerate(columns):
                if active is None:
                    block = part - shift.to(part.dtype)
                elif bool(active[chosen].any()):
                    block = part[:, chosen] - shift[chosen].to(part.dtype)
                else:
                    # Units of which none was active: their products are known, and added once at the end.
                    if "silent" not in self.state:
                        self.state.overall["silent"] = torch.zeros_like(shift[: len(columns)])
                    self.state.overall["silent"][number] += len(part)
                    sums[:, chosen] -= torch.outer(one_hot.sum(0), shift[chosen])
                    continue
                add_second_moment_(self.state["second_moment"][_key(number)], block)
                sums[:, chosen] += one_hot.T @ block
        self.state.overall["class_counts"] += torch.bincount(targets, minlength=sums.shape[0])

    def _grow(self, classes: int) -> None:
        """Rows for classes that the head has gained."""
        for quantity in ("class_sums", "class_counts"):
            rows = self.state.overall[quantity]
            if classes < len(rows):
                raise ValueError(f"the head has {classes} outputs, and had {len(rows)}: a head may grow, not shrink")
            if classes > len(rows):
                self.state.overall[quantity] = torch.cat([rows, rows.new_zeros(classes - len(rows), *rows.shape[1:])])

    def _columns(self, width: int) -> Iterator[Tensor]:
        """The features of each block: every k-th one, so that each block sees all parts of the input."""
        device = self.state.overall["shift"].device
        blocks = 1 if self.block is None else -(-width // self.block)
        for first in range(blocks):
            yield torch.arange(first, width, blocks, device=device)

    def _check_last(self, layer: Layer, inputs: Tensor) -> None:
        """Checks that no layer after the head computes the outputs.

        A layer that runs after the head does so if the head was not named, or if its input has the width of the head's output.
        """
        head = self._layer
        if self._targets is not None or head is None:
            self._ran_below.add(layer.name)
            return
        if self.head is None or (isinstance(layer.module, nn.Linear) and inputs.shape[-1] == head.out_features):
            if layer.name in self._ran_below:
                raise ValueError(
                    f"{type(self).__name__} learns a head that runs once a batch, but the layer {layer.name!r} runs again "
                    "after the head: a head that runs at several time steps or positions has no single input to learn"
                )
            raise ValueError(
                f"{type(self).__name__} learns the layer that gives the outputs, but the layer {layer.name!r} runs after "
                f"the one {'named' if self.head else 'registered last'}: name the right one (head=...); "
                "nothing was learned from this batch"
            )

    def _current_head(self, network: nn.Module) -> nn.Linear:
        return self._find_head(network) if self._layer is None else self._layer

    def _find_head(self, network: nn.Module) -> nn.Linear:
        if self.head is not None:
            module = dict(network.named_modules()).get(self.head)
            if not isinstance(module, nn.Linear):
                names = [name for name, other in network.named_modules() if isinstance(other, nn.Linear)]
                raise ValueError(
                    f"{type(self).__name__} learns a Linear layer, and the network has none named {self.head!r}; "
                    f"its Linear layers: {', '.join(names) or 'none'}"
                )
            return module
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(f"{type(self).__name__} learns a Linear layer, and {type(network).__name__} has none")
        return linear[-1]


def _check_size(features: Tensor, head: str) -> None:
    """Checks that the features are finite, and so are the products that are summed.

    A bound on each feature, so that not even the sums over `_SAMPLES_AT_ONCE` samples about a mean of the same size overflow.
    """
    # In double precision, the squares of eigenvalues must be finite too.
    bound = min(math.sqrt(torch.finfo(features.dtype).max) / (4 * math.sqrt(_SAMPLES_AT_ONCE)), 1e60)
    flat = features.flatten()
    if float(flat.dot(flat)) < bound * bound:
        return
    low, high = (float(extreme) for extreme in torch.aminmax(flat))
    if -bound < low and high < bound:
        return
    what, remedy = f"the input of the head {head!r} is", "nothing was learned from this batch"
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DivergedError(f"{what} not finite; {remedy}")
    largest = max(-low, high)
    raise ValueError(f"{what} as large as {largest:.1e}, and sums of its products overflow: normalise it; {remedy}")


def add_second_moment_(total: Tensor, features: Tensor) -> None:
    """Adds Σ h hᵀ to the lower triangle of ``total``, and some of it to the upper one.

    Args:
        total: (features, features), changed in place; may be of higher precision.
        features: h, (samples, features).

    Example:
        >>> total = torch.zeros(2, 2, dtype=torch.float64)
        >>> add_second_moment_(total, torch.tensor([[1.0, 2.0]]))
        >>> total.tril()
        tensor([[1., 0.],
                [2., 4.]], dtype=torch.float64)
    """
    for start in range(0, features.shape[1], _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, features.shape[1])
        total[start:stop, :stop] += features[:, start:stop].T @ features[:, :stop]


def _key(block: int) -> str:
    return apart(str(block))
