"""The memory of rules that learn the last layer in closed form: learned, merged, forgotten, and solved for the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from lit_meta.core.layers import uncompiled
from lit_meta.core.rule import Rule
from lit_meta.functional.readout import CenteredMoments, Readout, centered_moments
from lit_meta.rules._readout_head import Below, below_and_digest, check_size, feature_digest, find_head, head_input
from lit_meta.rules._readout_residual import Residual
from lit_meta.rules._readout_sums import Precision, ReadoutSums
from lit_meta.utils.heap import return_free_memory
from lit_meta.utils.modes import matmul_precision
from lit_meta.utils.validation import check_class_labels, require_count, require_in, require_one_of

_unsolved_from: ContextVar[float] = ContextVar("unsolved_from", default=math.inf)


@contextmanager
def wide_heads_unsolved(width: int) -> Iterator[None]:
    """Within the block heads of more than ``width`` features count samples and keep their weights.

    A solution takes cubic time: minutes from 20,000 features on, which nobody waits for where the weights are thrown away.
    """
    token = _unsolved_from.set(width)
    try:
        yield
    finally:
        _unsolved_from.reset(token)


class ReadoutMemory(Rule):
    """What a readout does with its sums, beside a training loop; see `ReadoutRule` for the arguments."""

    def __init__(
        self,
        *,
        head: str | None,
        freeze: bool,
        block: int | None,
        after: int,
        exact: bool,
        per_class: bool,
        decay: float,
        precision: Precision,
    ) -> None:
        super().__init__()
        if block is not None:
            require_count("block", block)
        require_count("after", after, 0)
        require_in("decay", decay, 0.0, 1.0, open_low=True)
        self.head = head
        self.after = after
        require_one_of("precision", precision, ("float64", "float32"))
        if exact and precision == "float32":
            raise ValueError("exact=True sums products in float64, which precision='float32' would round: choose one")
        self.exact, self.per_class, self.decay, self.precision = exact, per_class, decay, precision
        self.freeze = freeze
        self.head_only = freeze
        self.block = block
        self._solved: tuple[Tensor, int, nn.Linear] | None = None
        self._changes = 0
        self._below: Below | None = None
        self._below_memory: Tensor | None = None  # The memory's digest that `_below` was looked at beside.

    # To be given by the rule itself.

    def solve(self, moments: CenteredMoments, class_counts: Tensor) -> Readout:
        """The readout of one block of features."""
        raise NotImplementedError

    def combine(self, blocks: list[Readout]) -> tuple[Tensor, Tensor]:
        """Weights (classes, features of all blocks, one block after the other) and bias from those of the blocks."""
        raise NotImplementedError

    def learn(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Counts samples outside a training loop: runs the network once over batches, in evaluation mode.

        Args:
            network: its head is left alone until `write`.
            batches: (inputs, targets) pairs on the network's device.

        Raises:
            ValueError: labels outside the head, features that are not finite, or a memory of another network's features.

        Example:
            >>> from lit_meta.rules import RecursiveReadout
            >>> network = nn.Sequential(nn.Linear(4, 2))
            >>> rule = RecursiveReadout(ridge=1e-3)
            >>> rule.learn(network, [(torch.eye(4), torch.tensor([0, 0, 1, 1]))])
            >>> rule.write(network)
            >>> network(torch.eye(4)).argmax(1)
            tensor([0, 0, 1, 1])
        """
        head = self._find_head(network)
        for inputs, targets in batches:
            features = self._features(network, head, inputs, targets)
            self._count(network, head, features, targets)

    def write(self, network: nn.Module) -> None:
        """Solves for the weights, if samples have come or gone since the last time, and writes them to the head."""
        if self._sums.empty:
            return
        head = self._find_head(network)
        if head.in_features > _unsolved_from.get():
            return
        sums = self._sums
        sums.grow(head.out_features)
        counts = sums.class_counts
        if self._solved is not None and self._solved[0] is counts and self._solved[1:] == (self._changes, head):
            return
        return_free_memory()  # Of the batches: a solution needs a block of half the sums' size, and more.
        shift, solutions, columns = sums.shift, [], []
        # Products of rounded factors would spoil the solution, which is exact whatever precision training chose.
        with torch.no_grad(), matmul_precision("highest"):
            for own, scatter in sums.blocks():
                own_sums = sums.class_sums[:, own]
                if head.bias is None:
                    moments = CenteredMoments(scatter, own_sums, torch.zeros_like(own_sums[0]))
                else:
                    moments = centered_moments(scatter, own_sums, counts)
                solutions.append(self.solve(moments, counts))
                columns.append(own)
            weight, bias = self.combine(solutions)
            weight = torch.empty_like(weight).index_copy_(1, torch.cat(columns), weight)
            head.weight.copy_(weight)
            if head.bias is not None:
                head.bias.copy_(bias - weight @ shift)
        self._solved = (counts, self._changes, head)

    def merge(self, other: ReadoutMemory) -> None:
        """Adds what another rule has learned, as if all samples had come to this one; the other stays as it is.

        Args:
            other: a rule of the same class and settings that learned other samples, in a copy of the same network.

        Raises:
            TypeError: a rule of another class.
            ValueError: other settings, or features of another network; nothing is changed.

        Example:
            >>> from lit_meta.rules import RecursiveReadout
            >>> network = nn.Sequential(nn.Linear(4, 2))
            >>> one, other = RecursiveReadout(ridge=1e-3), RecursiveReadout(ridge=1e-3)
            >>> one.learn(network, [(torch.eye(4)[:2], torch.tensor([0, 0]))])
            >>> other.learn(network, [(torch.eye(4)[2:], torch.tensor([1, 1]))])
            >>> one.merge(other)
            >>> one.state.overall["class_counts"]
            tensor([2., 2.], dtype=torch.float64)
        """
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__} can be merged with its like, got {type(other).__name__}")
        if other is self:
            raise ValueError("a rule cannot be merged with itself: its samples would count twice")
        for name in ("block", "per_class", "exact", "precision"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"rules to be merged have the same {name}, got {mine!r} and {theirs!r}")
        if other._sums.empty:
            return
        if self._sums.empty:
            self.state.load_state_dict(other.state.state_dict())
        else:
            if len(self._sums.shift) != len(other._sums.shift):
                raise ValueError(
                    f"rules to be merged have the same features, got {len(self._sums.shift)} and "
                    f"{len(other._sums.shift)} of them; nothing was changed"
                )
            mine, theirs = (rule.state.overall.get("digest") for rule in (self, other))
            if mine is None or theirs is None or not torch.equal(mine.cpu(), theirs.cpu()):
                raise ValueError(
                    "rules to be merged have learned in copies of one network, and below the head these differ (or one memory "
                    "is older than the digest that tells): nothing was changed"
                )
            for quantity in ("seen", "skipped"):
                self._add_up(quantity, other.state.overall.get(quantity))
            self._sums.merge(other._sums)
        self._changes += 1

    def forget(self, inputs: Tensor, targets: Tensor, *, network: nn.Module | None = None) -> Residual:
        """Unlearns samples: afterwards the sums are those of the other samples, to the digits that are returned.

        The weights follow when they are next looked at (or by `write`). Features that a `CriticalPeriod` learned from these
        samples stay as they are.

        Args:
            inputs: (samples, ...), as they were learned.
            targets: (samples,).
            network: the network that was learned in; None for the one that the rule is bound to.

        Returns:
            The number of samples left, and the digits to which the sums are as if the others had never been seen.

        Raises:
            ValueError: samples that cannot have been counted, features of another network, or ``decay`` below 1; nothing is
                changed.

        Example:
            >>> from lit_meta.rules import RecursiveReadout
            >>> network = nn.Sequential(nn.Linear(4, 2))
            >>> rule = RecursiveReadout(exact=True)
            >>> x, y = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
            >>> rule.learn(network, [(x, y)])
            >>> left = rule.forget(x[:5], y[:5], network=network)
            >>> left.samples, left.digits > 13
            (15.0, True)
        """
        if self.decay < 1.0:
            raise ValueError(
                f"with a decay of {self.decay} a sample's weight depends on when it came: none can be forgotten"
            )
        if self._sums.empty:
            raise ValueError("there is nothing to forget: no sample has been learned")
        network = self.state.network if network is None else uncompiled(network)
        if network is None:
            raise ValueError("this rule is bound to no network: give the one that it learned in (network=...)")
        head = self._find_head(network)
        features = self._features(network, head, inputs, targets)
        self._changes += 1
        return self._sums.forget(features, targets, centered=head.bias is not None)

    def forget_class(self, label: int) -> Residual:
        """Unlearns all samples of one class, without them; needs ``per_class=True``.

        Raises:
            ValueError: the sums of the classes were not kept apart, or no sample of the class was counted; nothing is changed.
        """
        if not self.per_class:
            raise ValueError(
                "sums over all classes do not tell what one of them added: build the rule with per_class=True (classes times "
                "the memory), or forget the class's samples (forget(inputs, targets))"
            )
        if self._sums.empty or not 0 <= label < len(self._sums.class_counts) or not self._sums.class_counts[label] > 0:
            raise ValueError(f"no sample of class {label} has been learned: there is nothing to forget")
        self._changes += 1
        return self._sums.forget_class(label, centered=bool(self._sums.shift.any()))

    def adopt(self, other: ReadoutMemory) -> None:
        """Takes over another rule's memory, without a copy."""
        self.state = other.state
        self._changes += 1

    # Inner workings.

    @property
    def _sums(self) -> ReadoutSums:
        return ReadoutSums(
            self.state,
            block=self.block,
            exact=self.exact,
            per_class=self.per_class,
            decay=self.decay,
            precision=self.precision,
        )

    def _count(self, network: nn.Module, head: nn.Linear, features: Tensor, targets: Tensor) -> None:
        """Counts samples, unless the features are not final yet."""
        if not len(targets):
            return
        if self.after:
            seen = self.state.overall["seen"] if "seen" in self.state else torch.zeros((), dtype=torch.long)
            self.state.overall["seen"] = seen + len(targets)
            if seen + len(targets) < self.after:
                self._add_up("skipped", torch.bincount(targets, minlength=head.out_features))
                return
        sums = self._sums
        first = sums.empty
        sums.add(features, targets, head.out_features, centered=head.bias is not None)
        if first:
            self._below, digest = below_and_digest(network, head)
            self.state.overall["digest"] = self._below_memory = digest.to(features.device)
        self._changes += 1

    def _features(self, network: nn.Module, head: nn.Linear, inputs: Tensor, targets: Tensor) -> Tensor:
        """The head's input, checked like that of a training step."""
        check_class_labels(targets, head.out_features, type(self).__name__)
        if len(targets) != len(inputs):
            raise ValueError(f"every sample has a label, got {len(inputs)} samples and {len(targets)} labels")
        digest = self.state.overall.get("digest")
        if digest is not None and not torch.equal(digest.cpu(), feature_digest(network, head)):
            raise ValueError(
                "the network below the head is not the one whose features were learned: nothing was changed"
            )
        features = head_input(network, head, inputs)
        features = features if features.dtype == torch.float64 else features.float()
        check_size(features, f"the input of the head {self.head or 'head'!r}")
        return features

    def _add_up(self, quantity: str, more: Tensor | None) -> None:
        """Adds to counts, which may have grown."""
        if more is None:
            return
        before = self.state.overall.get(quantity)
        if before is None:
            self.state.overall[quantity] = more.clone()
            return
        total = (
            before if before.numel() >= more.numel() else torch.cat([before, before.new_zeros(len(more) - len(before))])
        )
        total = total.clone()
        (total[: len(more)] if more.dim() else total).add_(more)
        self.state.overall[quantity] = total

    def _find_head(self, network: nn.Module) -> nn.Linear:
        return find_head(network, self.head, type(self).__name__)
