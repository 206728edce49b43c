"""Recursive least squares of the head: exact, in any order of samples and classes."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_meta.functional.readout import CenteredMoments, Readout, cross_validated_ridge, ridge_readout
from lit_meta.rules._readout import ReadoutRule
from lit_meta.rules._readout_sums import Precision
from lit_meta.utils.validation import require_in


class RecursiveReadout(ReadoutRule):
    r"""Learns the head by recursive least squares: after every sample it is the ridge regression on all samples so far.

    With h the head's input (and an intercept where the head has a bias), y the one-hot label and P the inverse of
    :math:`λI + \sum h h^T`, recursive least squares is

    .. math:: k = \frac{P h}{1 + h^T P h}, \quad ΔW = (y - W h) k^T, \quad P \leftarrow P - k (P h)^T

    P is a history of activity that sets how plastic each synapse still is: metaplasticity in the literal sense. Laterally
    it decorrelates, as anti-Hebbian inhibition does. The result is that of the regression on all samples together,
    so one class at a time ends where joint training ends.

    The same weights come from ``W = (Σ y hᵀ)(λI + Σ h hᵀ)⁻¹``. This rule keeps these sums (the *information form*) and
    solves by Cholesky when the weights are needed. In single precision P drifts: every step subtracts nearly equal
    matrices, P loses its symmetry and at last its positive definiteness. A sum in float64 does neither, takes one matrix
    product a batch instead of one matrix-vector product a sample, and leaves λ free to the end. It is only the head that
    becomes float32.

    The features below the head must not change: see ``freeze``, and `CriticalPeriod` for features that learn first.
    To spare their backward pass, which would be discarded, set ``requires_grad_(False)`` on them.

    Args:
        ridge: λ as a fraction of the mean eigenvalue of the features' scatter, in (0, ∞). None chooses it by generalised
            cross-validation from the same sums, without held-out data, at every solution; that costs an eigendecomposition,
            which takes ten times a Cholesky factorisation and more, so give a number for wide heads.
        head: name of the Linear layer to learn; None for the last one of the network.
        freeze: freeze everything else: gradients are discarded, and everything below the head is in evaluation mode while the
            rule learns (batch normalisation, dropout), whatever mode the host sets.
        block: split wider heads into blocks of at most this many interleaved features, whose solutions are averaged; the
            memory is then ``4 · features · block`` bytes in place of ``4 · features²``. None solves for all at once.
        after: number of samples to skip at first, while the features below are still learning: the ``samples`` of a
            `CriticalPeriod` that lasts longer than one batch.
        exact: sum products in float64 rather than in float32 over each batch, so that sums do not depend on how samples are
            batched, and forgetting leaves about 14 digits rather than 6. Takes up to twice the time where float64 is slow.
        per_class: keep Σ h hᵀ of every class apart, for `forget_class`: ``classes`` times the memory.
        decay: weight of a sample relative to that of the next one, in (0, 1], for streams that drift; 1 weighs all alike.
        precision: of the stored Σ h hᵀ: "float64", or "float32" for half the memory (``2 · features²`` bytes), where sums of n
            steps are off by about 3e-8 √n of their size (docs/sums.md).

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Haykin, Adaptive Filter Theory, chapter 10 (P form and information form). Ridge regression as analytic continual
        learning: Zhuang et al., "ACIL", NeurIPS 2022; McDonnell et al., "RanPAC", NeurIPS 2023.

    Example:
        >>> from lit_meta import Session
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> session = Session(network, RecursiveReadout(ridge=1e-3))
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> x = torch.eye(4)
        >>> with session.experience():
        ...     for label in (0, 1):  # one class after the other
        ...         inputs, targets = x[2 * label : 2 * label + 2], torch.tensor([label, label])
        ...         with session.step(inputs, targets, optimizer):
        ...             torch.nn.functional.cross_entropy(network(inputs), targets).backward()
        >>> network.eval()(x).argmax(1)
        tensor([0, 0, 1, 1])
    """

    def __init__(
        self,
        *,
        ridge: float | None = None,
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
        if ridge is not None:
            require_in("ridge", ridge, 0.0, float("inf"), open_low=True)
        self.ridge = ridge

    def solve(self, moments: CenteredMoments, class_counts: Tensor) -> Readout:
        if self.ridge is None:
            # At least that of products of float32 features.
            precision = max(2 * self._sums.rounding, torch.finfo(torch.float32).eps)
            ridge = cross_validated_ridge(moments, class_counts, precision=precision)
            return ridge_readout(moments, class_counts, ridge)
        scale = float(moments.scatter.diagonal().mean())
        return ridge_readout(moments, class_counts, self.ridge * scale if scale > 0 else 1.0)

    def combine(self, blocks: list[Readout]) -> tuple[Tensor, Tensor]:
        weight = torch.cat([block.weight for block in blocks], dim=1) / len(blocks)
        return weight, torch.stack([block.bias for block in blocks]).mean(0)
