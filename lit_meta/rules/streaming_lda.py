"""Streaming linear discriminant analysis of the head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_meta.core.rule import Synapses
from lit_meta.functional.readout import CenteredMoments, Readout, discriminant_readout
from lit_meta.rules._readout import ReadoutRule
from lit_meta.rules._readout_sums import Precision
from lit_meta.utils.validation import require_in, require_one_of


class StreamingLDA(ReadoutRule):
    r"""Learns the head by linear discriminant analysis: class means, and one covariance that all classes share.

    .. math:: w_c = Σ^{-1} μ_c, \quad b_c = -\tfrac12 μ_c^T Σ^{-1} μ_c + \log π_c

    Each class mean is a Hebbian average that only the samples of that class move; the shared covariance acts as lateral
    inhibition. It keeps the same sums as `RecursiveReadout`, in float64, and is equally exact: the weights do not
    depend on the order of samples or classes. Outputs are log-likelihoods up to a constant of the sample.

    Args:
        shrinkage: s in (0, 1], how far the covariance is shrunk towards a multiple of the identity; None takes the
            oracle-approximating shrinkage, which needs no held-out data.
        prior: ``"empirical"``, classes are as likely as they came, or ``"uniform"`` over the classes seen.
        head: name of the Linear layer to learn; None for the last one of the network. It needs a bias.
        freeze: freeze everything else: gradients are discarded, and everything below the head is in evaluation mode while the
            rule learns (batch normalisation, dropout), whatever mode the host sets.
        block: split wider heads into blocks of at most this many interleaved features, treated as independent of each other;
            the memory is then ``4 · features · block`` bytes in place of ``4 · features²``.
        after: number of samples to skip at first, while the features below are still learning.
        exact: sum products in float64 rather than in float32 over each batch, so that sums do not depend on how samples are
            batched, and forgetting leaves about 14 digits rather than 6. Takes up to twice the time where float64 is slow.
        per_class: keep Σ h hᵀ of every class apart, for `forget_class`: ``classes`` times the memory.
        decay: weight of a sample relative to that of the next one, in (0, 1], for streams that drift; 1 weighs all alike.
        precision: of the stored Σ h hᵀ: "float64", or "float32" for half the memory (``2 · features²`` bytes), where sums of n
            steps are off by about 3e-8 √n of their size (docs/sums.md).

    Raises:
        ValueError: a hyperparameter out of range, or a head without a bias.

    Source:
        Hayes and Kanan, "Lifelong machine learning with deep streaming linear discriminant analysis", CVPR Workshops
        2020. They update the covariance sample by sample, which depends on the order; the sums here do not.

    Example:
        >>> StreamingLDA(shrinkage=1e-3)
        StreamingLDA(shrinkage=0.001, prior='empirical', head=None, freeze=True, block=None, after=0,
                     exact=False, per_class=False, decay=1.0, precision='float64')
    """

    def __init__(
        self,
        *,
        shrinkage: float | None = None,
        prior: Literal["empirical", "uniform"] = "empirical",
        head: str | None = None,
        freeze: bool = True,
        block: int | None = None,
        after: int = 0,
        exact: bool = False,
        per_class: bool = False,
        decay: float = 1.0,
        precision: Precision = "float64",
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
        if shrinkage is not None:
            require_in("shrinkage", shrinkage, 0.0, 1.0, open_low=True)
        require_one_of("prior", prior, ("empirical", "uniform"))
        self.shrinkage = shrinkage
        self.prior = prior

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        super().before_forward(synapses, inputs, targets)
        if self._layer is not None and self._layer.bias is None:
            raise ValueError("StreamingLDA needs a head with a bias: build it with bias=True")

    def solve(self, moments: CenteredMoments, class_counts: Tensor) -> Readout:
        uniform = self.prior == "uniform"
        return discriminant_readout(moments, class_counts, shrinkage=self.shrinkage, uniform_prior=uniform)

    def combine(self, blocks: list[Readout]) -> tuple[Tensor, Tensor]:
        # A sum of log-likelihoods; the prior counts once for each block, as it does in each one's own prediction.
        return torch.cat([block.weight for block in blocks], dim=1), torch.stack([block.bias for block in blocks]).sum(
            0
        )
