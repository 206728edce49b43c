"""Base class of rules that learn the last layer in closed form: which samples it counts, and when it is solved."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Layer, Synapses
from lit_meta.core.state import Kept
from lit_meta.functional.packed import packed_size
from lit_meta.rules._readout_head import below, check_size, forms_below, gathered
from lit_meta.rules._readout_memory import ReadoutMemory
from lit_meta.rules._readout_sums import Precision, block_key
from lit_meta.utils.validation import check_class_labels


class ReadoutRule(ReadoutMemory):
    """Learns the head from sums over samples of its input h: Σ h hᵀ, Σ h of each class, and the classes' counts.

    The sums are float64, whatever the network computes in (unless ``precision`` says otherwise), and taken about the first
    batch's mean, so that neither the number of samples nor a large mean costs digits. Sums do not know an order: the weights
    are those of all samples at once, and a class may appear at any time. No sample is kept.

    The weights are worked out when they are looked at: before the head runs in evaluation mode, and when an experience
    ends (`Rule.synchronize`). In training mode the head keeps the weights of the last such moment. Its gradient is
    discarded, and with ``freeze`` that of all other parameters too, since features that drift would make the sums
    speak of features that no longer exist.

    What adds up can be merged (`merge`, and the processes of a distributed training), taken back (`forget`, `forget_class`) and
    weighted (``decay``). Of the symmetric Σ h hᵀ one triangle is stored (`lit_meta.functional.packed`).

    Args:
        head: name of the Linear layer to learn; None for the last one of the network.
        freeze: freeze everything else: gradients are discarded, and everything below the head is in evaluation mode while the
            rule learns (batch normalisation, dropout), whatever mode the host sets.
        block: number of features whose correlations are kept; None for all. Wider heads are split into blocks of
            interleaved features, solved separately and averaged (in discriminant analysis: summed), which bounds the
            memory by ``4 · features · block`` bytes in place of ``4 · features²``.
        after: number of samples to skip at first, while the features below are still learning: the ``samples`` of a
            `CriticalPeriod` that lasts longer than one batch. The batch that reaches this number is counted. A class of which
            no sample was counted by the end of an experience is named in a warning.
        exact: sum products in float64 rather than in float32 over each batch, so that sums do not depend on how samples are
            batched, and forgetting leaves about 14 digits rather than 6. Takes up to twice the time where float64 is slow.
        per_class: keep Σ h hᵀ of every class apart, for `forget_class`: ``classes`` times the memory.
        decay: weight of a sample relative to that of the next one, in (0, 1], for streams that drift; 1 weighs all alike.
        precision: of the stored Σ h hᵀ: "float64", or "float32" for half the memory (``2 · features²`` bytes), where sums of n
            steps are off by about 3e-8 √n of their size (docs/sums.md).
    """

    needs_inputs = False
    needs_labels = True
    stages_memory = True

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
        super().__init__(
            head=head,
            freeze=freeze,
            block=block,
            after=after,
            exact=exact,
            per_class=per_class,
            decay=decay,
            precision=precision,
        )
        self._targets: Tensor | None = None
        self._ran_below: set[str] = set()
        self._layer: nn.Linear | None = None
        self._batch: list[tuple[Tensor, Tensor]] = []
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._warned: set[int] = set()

    def begin_experience(self, synapses: Synapses) -> None:
        self._layer = None
        if self._below_memory is not self.state.overall.get("digest"):
            self._below = None  # The memory is another one, which was counted in another network or loaded with it.

    def sets_weights(self, network: nn.Module) -> Iterable[Layer]:
        head = self._find_head(network)
        return [Layer(next(name for name, module in network.named_modules() if module is head), head)]

    def frozen_below(self, network: nn.Module) -> nn.Module | None:
        return self._current_head(network) if self.freeze else None

    def leave_experience(self) -> None:
        self._warn_of_moving_features()
        self._layer = None  # The head may be replaced before the next experience.
        self._warn_of_uncounted()

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
        check_size(features, f"the input of the head {layer.name!r}")
        self._targets = None
        # Counted when the step is certain, so that an abandoned one leaves no trace.
        self._batch.append((features, targets))

    def after_backward(self, synapses: Synapses) -> None:
        self._pending += self._batch
        self._batch = []

    def gradient(self, synapses: Synapses) -> None:
        if self._targets is not None:
            raise ValueError(f"the head that {type(self).__name__} learns did not run in the forward pass")
        own = set() if self._layer is None else set(self._layer.parameters(recurse=False))
        for parameter in synapses.parameters:
            if self.freeze or parameter in own:
                parameter.grad = None

    def commit(self, synapses: Synapses) -> None:
        pending, self._pending = self._pending, []
        head = self._layer
        if head is not None:
            for features, targets in gathered(pending, head):
                self._count(synapses.network, head, features, targets)
            if self.freeze and not self._sums.empty and self._is_new(synapses.network, head):
                self._below = below(synapses.network, head)

    def leave_batch(self, synapses: Synapses) -> None:
        self._targets = None
        self._batch = []

    def restore(self, synapses: Synapses) -> None:
        self.leave_batch(synapses)
        self._pending = []

    def synchronize(self, synapses: Synapses) -> None:
        self.write(synapses.network)

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        head = self._find_head(network)
        width, blocks = head.in_features, 1 if self.block is None else -(-head.in_features // self.block)
        kept = {
            "shift/*": Kept((width,)),
            "class_sums/*": Kept((head.out_features, width), nonzero=True),
            "class_counts/*": Kept((head.out_features,), nonzero=True),
            "silent/*": Kept((blocks,), always=False),
            "digest/*": Kept((32,), always=False),
            "skipped/*": Kept((None,), always=False),
            "roundings/*": Kept((), always=False),
        }
        for block in range(blocks):
            size = len(range(block, width, blocks))
            for label in range(head.out_features) if self.per_class else (None,):
                # Before matrices were packed, they were square.
                moment = Kept((packed_size(size),), always=label is None, nonzero=True, former=(size, size))
                kept[encode_key("second_moment", block_key(block, label))] = moment
        return kept if self.after == 0 else {**kept, "seen/*": Kept((), nonzero=True)}

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        if "class_counts" not in self.state:
            return {}
        counts = self.state.overall["class_counts"]
        return {"samples": counts.sum().float(), "classes": (counts > 0).sum().float()}

    # Inner workings.

    def _warn_of_moving_features(self) -> None:
        """Warns of features that have moved while the readout counted: its sums are of features that are gone."""
        network, head = self.state.network, self._layer
        self._below_memory = self.state.overall.get("digest")
        if not self.freeze or network is None or head is None or self._is_new(network, head):
            return
        # It is what the next experience is to find again.
        before, self._below = self._below, below(network, head)
        if before == self._below:
            return
        warnings.warn(
            f"the weights below the head changed after {type(self).__name__} had counted samples, whose features are no longer "
            "what they were: where a critical period lasts longer than one batch, give its length (after=...), or let the "
            "first batch be as large as it",
            stacklevel=2,
        )

    def _is_new(self, network: nn.Module, head: nn.Linear) -> bool:
        """Whether the parameters below the head were not looked at yet, or others have come since."""
        return self._below is None or self._below.forms != forms_below(network, head)

    def _warn_of_uncounted(self) -> None:
        """Classes all of whose samples so far came before the features were final."""
        if "skipped" not in self.state:
            return
        skipped = self.state.overall["skipped"]
        counted = torch.zeros_like(skipped)
        if not self._sums.empty:
            known = self._sums.class_counts[: len(skipped)].to(skipped)
            counted[: len(known)] = known
        lost = [
            label
            for label in ((skipped > 0) & (counted == 0)).nonzero().flatten().tolist()
            if label not in self._warned
        ]
        if lost:
            self._warned.update(lost)
            warnings.warn(
                f"{type(self).__name__}(after={self.after}) has counted no sample of class {', '.join(map(str, lost))}: all of "
                "them came while the features were still learning, and are never predicted; let a first batch as large as the "
                "critical period be learned from and counted (a larger batch, after=0), or a shorter critical period",
                stacklevel=2,
            )

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
