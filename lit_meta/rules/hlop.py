"""Hebbian orthogonal projection: lateral neurons learn the subspace of old inputs, and learning stays out of it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_meta.core.errors import DivergedError
from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Experience, Layer, Synapses
from lit_meta.core.state import Kept
from lit_meta.functional.projection import hebbian_subspace_step, less_product, subspace_activity
from lit_meta.rules._projected import ProjectedRule, Rest, gained
from lit_meta.rules._receptive import Receptive
from lit_meta.utils.validation import require_count, require_in


class HLOP(ProjectedRule):
    r"""Hebbian learning based orthogonal projection.

    Beside the presynaptic neurons of every layer stand subspace neurons y = Hx with lateral connections H. During an
    experience the newest of them, H', learn the principal subspace of the layer's inputs x that the older ones, H, leave
    unexplained, by Hebbian learning forward and anti-Hebbian learning back:

    .. math:: ΔH' = η\, \overline{y' (x - H^T y - H'^T y')^T}, \qquad y = Hx, \; y' = H'x

    With the next experience they become fixed, and from then on synapses learn from what the subspace neurons leave of
    their input, x − HᵀHx, which for a step ΔW = δ xᵀ is

    .. math:: ΔW ← ΔW (I - H^T H)

    so that, where the rows of H are an orthonormal basis of the old inputs, old outputs do not change.

    Inputs are extended by a 1 where the layer has a bias, and are the patches of a convolution. A spiking network is
    served as well: the inputs are then its spikes, those of the time steps that have a gradient. Groups of a convolution have
    subspace neurons of their own. An embedding needs none: its inputs are one-hot, and the rows of all that occurred in
    past experiences keep still. What has no such inputs (normalisation, class tokens, recurrent weights, and the matrices
    inside `nn.MultiheadAttention`, which are not called as layers) is treated as ``rest`` says, and `coverage` lists it.

    Args:
        neurons: subspace neurons of each layer for the first experience, at least 1.
        neurons_added: more of them for every further experience, at least 0. A layer never has more than inputs.
        learning_rate: η of the lateral connections, in units of one over the mean squared length of the inputs in the
            batch, in (0, 1]: at most 1 is stable whatever the inputs.
        iterations: Hebbian steps on each batch.
        spike_levels: None for lateral neurons that answer in real numbers; T for spiking ones that fire up to T spikes of
            either sign. What their rounding leaves unexplained is learned again by later neurons, so that I − HᵀH would come to
            amplify steps (from the fourth permutation of MNIST on, with 20 levels): rows become orthonormal when they become
            fixed.
        spike_range: s, the activity at which spiking lateral neurons fire all T spikes.
        seed: of the initial lateral connections (orthonormal rows, orthogonal to those of older neurons).
        rest: what becomes of trainable parameters that cannot be projected, and of running statistics. ``"freeze"``: they
            learn in the first experience they take part in and are kept from then on, which the guarantee for old outputs
            needs. ``"train"``: they go on learning, and can change old outputs. ``"refuse"``: the network is refused.

    Raises:
        ValueError: a hyperparameter out of range; when an experience begins, parameters that cannot be projected under
            ``rest="refuse"``, or a layer that has lost inputs.

    Source:
        Xiao, Meng, Zhang, He, Lin, ICLR 2024 (arXiv 2402.11984), and the authors' code for the order of events. The
        differences: η is relative to the inputs' size, where the authors clip ΔH at ± 10 and add momentum; the step is
        projected rather than each trace (the authors' ``proj_type="weight"``, equal to it), also where lateral neurons
        spike, so that spikes limit how H is learned and not how it is applied; weight and bias together.

    Example:
        >>> HLOP(neurons=80, neurons_added=70).spike_levels is None
        True
    """

    needs_data = False
    sees_attention: ClassVar[bool] = False
    limits: ClassVar[Mapping[str, str]] = {
        "distributed": "its subspace neurons learn from the batches of one process",
    }

    def __init__(
        self,
        *,
        neurons: int = 64,
        neurons_added: int = 64,
        learning_rate: float = 0.5,
        iterations: int = 5,
        spike_levels: int | None = None,
        spike_range: float = 20.0,
        seed: int = 0,
        rest: Rest = "freeze",
    ) -> None:
        super().__init__(rest=rest)
        for name, value, least in (
            ("neurons", neurons, 1),
            ("neurons_added", neurons_added, 0),
            ("iterations", iterations, 1),
            ("spike_levels", 1 if spike_levels is None else spike_levels, 1),
        ):
            require_count(name, value, least)
        require_in("learning_rate", learning_rate, 0.0, 1.0, open_low=True)
        require_in("spike_range", spike_range, 0.0, float("inf"), open_low=True)
        if spike_levels is None and spike_range != 20.0:
            raise ValueError(f"spike_range={spike_range} has no effect without spikes: set spike_levels")
        self.neurons = neurons
        self.neurons_added = neurons_added
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.spike_levels = spike_levels
        self.spike_range = spike_range
        self.seed = seed
        self._by_name: dict[str, Receptive] = {}
        self._seen: set[str] = set()
        self._batch: list[tuple[str, Tensor]] = []

    def begin_experience(self, synapses: Synapses) -> None:
        super().begin_experience(synapses)
        self._seen = set()
        fixed = dict(self.memory("subspace"))
        learning = dict(self.memory("learning"))
        occurred = dict(self.memory("occurred"))
        occurring = dict(self.memory("occurring"))
        for layer in self.layers(synapses):
            if layer.one_hot:
                none = torch.zeros(layer.width, dtype=torch.bool, device=layer.parameter.device)
                past = [
                    gained(h[layer.name], layer.width, layer.name, "HLOP")
                    for h in (occurred, occurring)
                    if layer.name in h
                ]
                occurred[layer.name], occurring[layer.name] = torch.stack([none, *past]).any(0), none
                continue
            parts = [widened(h[layer.name], layer.width, layer.name) for h in (fixed, learning) if layer.name in h]
            count = self.neurons_added if parts else self.neurons
            like = layer.parameter
            leading = () if layer.groups == 1 else (layer.groups,)
            rows = torch.cat(parts, -2) if parts else like.new_zeros(*leading, 0, layer.width)
            if self.spike_levels is not None:
                rows = orthonormal(rows)
            fixed[layer.name] = rows.detach().to(like)
            count = min(count, layer.width - rows.shape[-2])
            learning[layer.name] = self._initial(layer, count, fixed[layer.name])
        self.state["subspace"], self.state["learning"] = fixed, learning
        if occurred:
            self.state["occurred"], self.state["occurring"] = occurred, occurring

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        kept = super().remembers(network)
        for layer in self.receptive(network):
            if layer.one_hot:
                for quantity in ("occurred", "occurring"):
                    kept[encode_key(quantity, layer.name)] = Kept((layer.width,))
                continue
            groups = () if layer.groups == 1 else (layer.groups,)
            for quantity in ("subspace", "learning"):  # Either may be without neurons: no zeros to speak of.
                kept[encode_key(quantity, layer.name)] = Kept((*groups, None, layer.width), nonzero=True)
        return kept

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        super().before_forward(synapses, inputs, targets)
        self._by_name = {layer.name: layer for layer in self.layers(synapses)}

    def layer_input(self, layer: Layer, inputs: Tensor) -> None:
        if layer.name in self._by_name:  # A frozen layer has nothing to protect.
            self._batch.append((layer.name, inputs))

    def after_backward(self, synapses: Synapses) -> None:
        # Not before: a batch that is left out teaches nothing.
        batch, self._batch = self._batch, []
        for name, inputs in batch:
            self._learn(name, inputs)

    def restore(self, synapses: Synapses) -> None:
        self._batch = []

    def _learn(self, name: str, inputs: Tensor) -> None:
        known = self._by_name[name]
        self._seen.add(name)
        if known.one_hot:
            self.state["occurring"][name] = self.state["occurring"][name] | (known.rows(inputs)[0] > 0)
            return
        learning, fixed = self.state["learning"][name], self.state["subspace"][name]
        if learning.shape[-2] == 0:
            return
        with torch.no_grad():
            rows = known.rows(inputs).to(learning.dtype)
            rate = self._rate(rows)
            if rate is None:
                return  # All inputs are 0: there is nothing to learn.
            residual = rows
            if fixed.shape[-2]:
                residual = less_product(rows, self._activity(fixed, rows), fixed)
            for _ in range(self.iterations):
                step = hebbian_subspace_step(
                    learning,
                    rows,
                    residual,
                    learning_rate=rate,
                    spike_levels=self.spike_levels,
                    spike_range=self.spike_range,
                )
                learning = step.add_(learning)  # Not in place: a step that fails is undone.
            self.state["learning"][name] = learning

    def projected(self, layer: Receptive, step: Tensor) -> Tensor | None:
        fixed = self.state["subspace"].get(layer.name)
        if fixed is None or fixed.shape[-2] == 0:
            return None
        return less_product(step, step @ fixed.mT, fixed)

    def free(self, layer: Receptive) -> Tensor | None:
        return ~self.state["occurred"][layer.name]

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        self.keep_rest(synapses, self._seen)

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        """How far the fixed lateral connections are from orthonormal rows: mean |HHᵀ − I|², averaged over layers."""
        if "subspace" not in self.state:
            return {}
        fixed = [h for h in self.state["subspace"].values() if h.shape[-2]]
        errors = [(h @ h.mT - torch.eye(h.shape[-2], dtype=h.dtype, device=h.device)).square().mean() for h in fixed]
        return {**({"orthonormality_error": torch.stack(errors).mean()} if errors else {}), **self.kept_share(synapses)}

    def _rate(self, rows: Tensor) -> float | Tensor | None:
        """η over the mean squared length of the rows, for each group where there are any; None in silence."""
        if rows.dim() == 2:
            size = float(rows.square().sum()) / len(rows)
            self._check_size(math.isfinite(size))
            return self.learning_rate / size if size else None
        sizes = rows.square().sum(-1, keepdim=True).mean(-2, keepdim=True)
        self._check_size(bool(sizes.isfinite().all()))
        return torch.where(sizes > 0, self.learning_rate / sizes, torch.zeros_like(sizes))

    def _check_size(self, finite: bool) -> None:
        if not finite:
            raise DivergedError(
                "the inputs of a layer are so large that HLOP's sums of their squares overflow: scale them down; nothing was "
                "learned from this batch"
            )

    def _activity(self, weights: Tensor, rows: Tensor) -> Tensor:
        return subspace_activity(weights, rows, spike_levels=self.spike_levels, spike_range=self.spike_range)

    def _initial(self, layer: Receptive, count: int, fixed: Tensor) -> Tensor:
        """Orthonormal rows, orthogonal to those of the fixed neurons.

        Oja's rule would not remove an overlap: after a few experiences some eigenvalues of HᵀH would exceed 2, and I − HᵀH
        would amplify steps that it should remove.
        """
        if count == 0:
            return fixed.new_zeros(*fixed.shape[:-2], 0, layer.width)
        # A generator for each layer and experience: nothing depends on the host or on the order of layers.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{layer.name}/{fixed.shape[-2]}".encode()))
        shape = (*fixed.shape[:-2], layer.width, count)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        columns = torch.cat([fixed.mT.to("cpu", torch.float64), drawn], -1)
        return torch.linalg.qr(columns).Q[..., fixed.shape[-2] :].mT.to(fixed, copy=True).contiguous()


def orthonormal(rows: Tensor) -> Tensor:
    """An orthonormal basis of the space of some rows, in their order and directions.

    Args:
        rows: (..., n, width), n at most width.

    Example:
        >>> rows = orthonormal(torch.tensor([[2.0, 0.0, 0.0], [1.0, -1.0, 0.0]]))
        >>> (rows @ rows.mT).round(decimals=4)
        tensor([[1., 0.],
                [0., 1.]])
    """
    triangular = torch.linalg.qr(rows.mT.to("cpu", torch.float64))
    signs = torch.where(triangular.R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return (triangular.Q * signs.unsqueeze(-2)).mT.to(rows).contiguous()


def widened(rows: Tensor, width: int, name: str) -> Tensor:
    """Lateral connections of a layer that has gained inputs, which no old input has used."""
    if width < rows.shape[-1]:
        raise ValueError(
            f"layer {name!r} sees {width} inputs, but HLOP remembers {rows.shape[-1]}: a layer cannot lose inputs"
        )
    return torch.nn.functional.pad(rows, (0, width - rows.shape[-1]))
