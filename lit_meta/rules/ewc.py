"""Elastic weight consolidation: a synapse stiffens by how much past experiences' outputs depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from lit_meta.core.rule import Experience, Synapses
from lit_meta.functional.fisher import diagonal_fisher
from lit_meta.rules._importance import Part, averaged, task_parts
from lit_meta.rules._penalty import PenaltyRule
from lit_meta.utils.validation import require_count, require_in, require_one_of


class EWC(PenaltyRule):
    r"""Elastic weight consolidation, offline and online.

    After each experience the diagonal Fisher information F of the network is measured on that experience's data, from
    per-sample gradients (it does not depend on the batch size), and further learning is pulled back by the penalty

    .. math:: \tfrac12 \, strength \sum_i Ω_i (θ_i - θ^*_i)^2

    applied as its gradient, so that the logged loss stays the task's. Libraries differ by a factor of 2 in what they
    call λ: ``strength`` is λ in the formula above, with the ½.

    - ``mode="offline"``: one penalty for each past experience. Their sum is again quadratic, with Ω = Σ F and
      θ* = Σ F θ / Σ F, so that memory and time do not grow with the number of experiences, and nothing is approximated.
    - ``mode="online"``: Ω ← decay · Ω + F, and θ* is the latest.

    The pull is stable only while learning rate × ``strength`` × Ω < 2, see `PenaltyRule`, whose scalars say where that
    stands. Where labels are ``"sample"`` or ``"exact"``, none are read.

    With ``loss="task"`` the gradients are those of the loss that the host's training step computes of one sample: of a
    LightningModule's own ``training_step``, of an Avalanche strategy's criterion, of what `Session` was given. It may be any
    loss of batches of any form. Where it turns out to be the cross-entropy of ``network(inputs)`` and class labels, in value
    and in gradient, the closed form of that is used, which is faster and gives the same.

    Where the loss has no gradient the empirical Fisher information is zero, which is an error, since nothing would be
    protected. Spiking networks with squared error can end an experience of one class like that, their outputs firing at every
    step (surrogate derivative 0) or never (error 0): use ``labels="exact"`` for them.

    Args:
        strength: λ, at least 0; in units of loss per squared change of parameter per unit of information.
        mode: ``"offline"`` or ``"online"``.
        decay: γ of the online form, in [0, 1]; must stay 1 for ``mode="offline"``.
        labels: whose log-likelihood is differentiated: the data's own label (``"true"``, the "empirical Fisher"), one
            drawn from the network's prediction (``"sample"``), or the expectation over it (``"exact"``).
        loss: the loss whose Fisher information it is: ``"task"``, what the host trains for (in a plain loop that tells no
            loss, the cross-entropy); ``"cross_entropy"`` for logits; ``"mse"`` for squared error. Labels that are not the
            data's own need one of the last two, or a task whose loss is one of them.
        samples: use this many samples, drawn from all of the experience; None for all.
        seed: of these, and of the labels drawn by ``labels="sample"``.

    Raises:
        ValueError: a hyperparameter out of range, or without effect in the chosen mode.

    Source:
        Kirkpatrick et al., PNAS 114(13), 2017, equation 3; online form: Schwarz et al., ICML 2018, equation 9. Many
        implementations take F from the gradient of a batch mean, which vanishes as batches grow; this one does not.

    Example:
        >>> EWC(strength=100.0)
        EWC(strength=100.0, mode='offline', decay=1.0, labels='true', loss='task', samples=None, seed=0)
    """

    needs_boundaries = True

    def __init__(
        self,
        *,
        strength: float = 1.0,
        mode: Literal["offline", "online"] = "offline",
        decay: float = 1.0,
        labels: Literal["true", "sample", "exact"] = "true",
        loss: Literal["task", "cross_entropy", "mse"] = "task",
        samples: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(strength=strength)
        require_one_of("mode", mode, ("offline", "online"))
        require_in("decay", decay, 0.0, 1.0)
        require_one_of("labels", labels, ("true", "sample", "exact"))
        require_one_of("loss", loss, ("task", "cross_entropy", "mse"))
        if mode == "offline" and decay != 1.0:
            raise ValueError(f"decay={decay} has no effect with mode='offline': use mode='online'")
        if samples is not None:
            require_count("samples", samples)
        self.mode = mode
        self.decay = decay
        self.labels = labels
        self.loss = loss
        self.samples = self.samples_read = samples
        self.seed = seed
        self.needs_labels = labels == "true"
        self.takes_task_loss = loss == "task"

    def rehearse(self, synapses: Synapses, experience: Experience) -> None:
        if "cross_entropy" in (self.loss, experience.named_form if self.loss == "task" else None):
            with experience.measuring(), torch.no_grad():
                if self.loss == "task":
                    outputs = [output for batch in experience.batches() for output in experience.outputs(batch)]
                else:  # The training step has no part in it, and may have no loss for this batch.
                    outputs = [experience.network(inputs) for inputs, _ in experience.pairs(samples=None, seed=0)]
            if all(output.dim() == 2 and output.shape[1] == 1 for output in outputs):
                raise ValueError(
                    "the network has one output, whose softmax is 1 whatever it is, so that no parameter would have any "
                    "importance for the cross-entropy: say EWC(loss='mse'), EWC(loss='task') where the host has a training "
                    "step, or, in a plain loop, the loss itself, Session(loss=...)"
                )
        for _ in self._fishers(synapses, experience):
            pass

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        fisher = averaged(synapses, self._fishers(synapses, experience), "EWC", protects="importance" in self.state)
        self.consolidate(synapses, fisher, decay=self.decay, merge=self.mode == "offline")

    def _fishers(self, synapses: Synapses, experience: Experience) -> Iterator[Part]:
        """Yields each batch's Fisher information and number of samples."""
        form = experience.form() if self.loss == "task" else self.loss
        if form is None:
            if self.labels != "true":
                raise ValueError(
                    f"labels={self.labels!r} takes labels from the network's own prediction, which is known for the "
                    "cross-entropy of classes and for squared error, and the training step computes another loss: use "
                    "labels='true', or say loss='cross_entropy' or 'mse'"
                )
            yield from task_parts(experience, synapses, experience.loss, power=2, samples=self.samples, seed=self.seed)
            return
        if self.labels == "true" and self.loss == "task" and experience.named_form is None:
            # The first batch has shown the form, and it may be another in later ones.
            for batch in experience.batches(samples=self.samples, seed=self.seed):
                pair = experience.classified(batch)
                if pair is None:
                    yield from task_parts(experience, synapses, experience.loss, power=2, batches=[batch])
                else:
                    yield diagonal_fisher(experience.network, *pair, loss="cross_entropy"), pair[0].shape[0]
            return
        generator = None
        if self.labels == "sample":
            generator = torch.Generator(synapses.parameters[0].device).manual_seed(self.seed)
        for inputs, targets in experience.pairs(samples=self.samples, seed=self.seed):
            information = diagonal_fisher(
                experience.network, inputs, targets, labels=self.labels, loss=form, generator=generator
            )
            yield information, inputs.shape[0]
