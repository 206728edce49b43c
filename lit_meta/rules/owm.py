"""Orthogonal weights modification: new learning does not change the outputs for old inputs."""

from __future__ import annotations

from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Experience, Synapses
from lit_meta.core.state import Kept
from lit_meta.functional.projection import gram_rows, shrink_projector
from lit_meta.rules._coverage import recording
from lit_meta.rules._projected import ProjectedRule, Rest, gained, grown
from lit_meta.rules._receptive import Receptive
from lit_meta.utils.validation import require_in, require_one_of


class OWM(ProjectedRule):
    r"""Orthogonal weights modification: every layer changes only orthogonally to the inputs of past experiences.

    For the inputs x of each layer in past experiences, P = α (α I + Σ x xᵀ)⁻¹ is kept by recursive least squares,

    .. math:: k = \frac{P x}{α + x^T P x}, \qquad P ← P - k x^T P, \qquad P_0 = I

    and every step is multiplied by it, ΔW ← ΔW P. As α → 0, P is the projector onto what is orthogonal to all old
    inputs, and in a linear layer ΔW P x = 0 for each of them: old outputs do not change at all. P is the synapses'
    metaplastic state: it says which of their directions can still learn.

    Symbols: κ is the optimizer's learning rate; l and j, layer and experience, are the loops; x is extended by a 1 where
    the layer has a bias, so that weight and bias are projected together; a convolution's x are its patches, each group of
    channels with a P of its own; an embedding's x are one-hot, so that its P is diagonal, α / (α + occurrences), and words
    that no experience has used learn freely. What has no such inputs (normalisation, class tokens, recurrent weights) is
    treated as ``rest`` says, and `coverage` lists it.

    Args:
        regularization: α, above 0, in squared units of a layer's input. Larger leaves more of the old directions free.
        inputs: which inputs are remembered: ``"mean"``, the mean of each batch (and, for convolutions, over all its
            patches), as published, or ``"samples"``, every sample (every patch), which is what the guarantee for old
            outputs needs. A mean over b samples spreads about b times less, so it needs a smaller α. For an embedding,
            occurrences are counted as shares of a batch or one by one.
        rest: what becomes of trainable parameters that cannot be projected, and of running statistics. ``"freeze"``: they
            learn in the first experience they take part in and are kept from then on, which the guarantee for old outputs
            needs. ``"train"``: they go on learning, and can change old outputs. ``"refuse"``: the network is refused.

    Raises:
        ValueError: a hyperparameter out of range; when an experience begins, parameters that cannot be projected under
            ``rest="refuse"``, or a layer that has lost inputs.

    Numerical stability:
        P is kept in double precision and applied in the parameters' own. Along old inputs the recursion takes P down to
        α / (α + Σx²) by cancellation: in single precision with an error of about 1e-6, and without a positive definite
        result below about 1e-10 (a small α after many inputs), in place of which the nearest one is taken. Applying P in
        single precision lets through about 1e-7 of a step along old inputs.

    Source:
        Zeng, Chen, Cui, Yu, Nature Machine Intelligence 1, 364-372, 2019 (arXiv 1810.01256), algorithm OWM. As there, P is
        brought up to date after an experience, from inputs that the learned network then gives, and the first experience
        learns freely. Differences: weight and bias together (the authors have no biases); the step, not the gradient, is
        projected, which under SGD is the same; α is constant, where code circulated with the paper shrinks it over
        an experience and updates P at every training step; rows are taken in by blocks, which is the same P.

    Example:
        >>> OWM(regularization=0.1)
        OWM(regularization=0.1, inputs='mean', rest='freeze')
    """

    def __init__(
        self, *, regularization: float = 1.0, inputs: Literal["mean", "samples"] = "mean", rest: Rest = "freeze"
    ) -> None:
        super().__init__(rest=rest)
        require_in("regularization", regularization, 0.0, float("inf"), open_low=True)
        require_one_of("inputs", inputs, ("mean", "samples"))
        self.regularization = regularization
        self.inputs = inputs
        self._working: dict[str, tuple[Tensor, Tensor]] = {}

    def begin_experience(self, synapses: Synapses) -> None:
        super().begin_experience(synapses)
        for layer in self.layers(synapses):
            memory = self.memory("occurrences" if layer.one_hot else "projector")
            if layer.name not in memory or memory[layer.name].shape[-1] == layer.width:
                continue
            if layer.one_hot:
                memory[layer.name] = gained(memory[layer.name], layer.width, layer.name, "OWM")
            else:
                memory[layer.name] = grown(memory[layer.name], layer.width, layer.name, "OWM")

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        kept = super().remembers(network)
        for layer in self.receptive(network):
            if layer.one_hot:
                kept[encode_key("occurrences", layer.name)] = Kept((layer.width,), nonzero=True)
            else:
                groups = () if layer.groups == 1 else (layer.groups,)
                kept[encode_key("projector", layer.name)] = Kept((*groups, layer.width, layer.width), nonzero=True)
        return kept

    def projected(self, layer: Receptive, step: Tensor) -> Tensor | None:
        if "projector" not in self.state or layer.name not in self.state["projector"]:
            return None
        return step @ self._projector(layer.name, step)

    def free(self, layer: Receptive) -> Tensor | None:
        occurrences = self.memory("occurrences").get(layer.name)
        return None if occurrences is None else self.regularization / (self.regularization + occurrences)

    def rehearse(self, synapses: Synapses, experience: Experience) -> None:
        with experience.measuring(), recording(experience.network, self.layers(synapses)):
            for batch in experience.batches():
                experience.run(batch)

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        layers = self.layers(synapses)
        memory = {layer.name: _Rows(layer.width, means=self.inputs == "mean") for layer in layers}
        with experience.measuring(), recording(experience.network, layers) as seen:
            batches = iter(experience.batches())
            # A mean is over what one step saw, whichever process read it.
            while step := list(islice(batches, experience.batches_per_step)):
                for batch in step:
                    experience.run(batch)
                for layer in layers:
                    if rows := seen[layer.name]:
                        if layer.one_hot:
                            memory[layer.name].count(torch.cat(rows).sum(0))
                        else:
                            memory[layer.name].add(torch.cat(rows, -2).double())
                        rows.clear()
        projectors, occurrences = dict(self.memory("projector")), dict(self.memory("occurrences"))
        recorded = set()
        for layer in layers:
            kept = memory[layer.name].rows()
            if kept is None:
                continue  # A layer that the network does not use has nothing to protect.
            recorded.add(layer.name)
            if layer.one_hot:
                old = occurrences.get(layer.name)
                occurrences[layer.name] = kept if old is None else old + kept
                continue
            old = projectors.get(layer.name)
            if old is None:
                old = torch.eye(layer.width, dtype=torch.float64, device=kept.device)
                if layer.groups > 1:
                    old = old.expand(layer.groups, -1, -1)
            projectors[layer.name] = shrink_projector(old, kept, regularization=self.regularization)
        if not recorded:
            raise ValueError("OWM consolidates on the experience's data, and there is none")
        self.state["projector"] = projectors
        if occurrences:
            self.state["occurrences"] = occurrences
        self.keep_rest(synapses, recorded)

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        """The share of each layer's directions that is still free to learn, averaged over layers; and what is kept."""
        if "projector" not in self.state:
            return {}
        shares = [p.diagonal(dim1=-2, dim2=-1).mean() for p in self.state["projector"].values()]
        alpha = self.regularization
        shares += [(alpha / (alpha + counts)).mean() for counts in self.memory("occurrences").values()]
        return {**({"free": torch.stack(shares).mean()} if shares else {}), **self.kept_share(synapses)}

    def _projector(self, name: str, like: Tensor) -> Tensor:
        """P in the parameters' own precision; it changes between experiences only."""
        exact = self.state["projector"][name]
        cached = self._working.get(name)
        if cached is None or cached[0] is not exact or cached[1].dtype != like.dtype:
            cached = (exact, exact.to(like.dtype))
            self._working[name] = cached
        return cached[1]


class _Rows:
    """The inputs of an experience, condensed as they arrive: at most as many rows are kept as the layer has inputs."""

    def __init__(self, width: int, *, means: bool) -> None:
        self._width, self._means = width, means
        self._few: list[Tensor] = []
        self._gram: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Adds inputs, (..., rows, width)."""
        self._few.append(rows.mean(-2, keepdim=True) if self._means else rows)
        if sum(part.shape[-2] for part in self._few) > self._width:
            whole = torch.cat(self._few, -2)
            self._few = []
            if self._gram is None:
                self._gram = whole.mT @ whole
            else:
                (self._gram.addmm_ if whole.dim() == 2 else self._gram.baddbmm_)(whole.mT, whole)

    def count(self, occurrences: Tensor) -> None:
        """Adds the number of occurrences in a batch of each of an embedding's inputs, (width,)."""
        if self._means:
            occurrences = occurrences / occurrences.sum()
        self._few = [occurrences if not self._few else self._few[0] + occurrences]

    def rows(self) -> Tensor | None:
        """The rows to remember, (..., rows, width), or the counts, (width,)."""
        parts = self._few if self._gram is None else [gram_rows(self._gram), *self._few]
        return torch.cat(parts, -2 if parts[0].dim() > 1 else 0) if parts else None
