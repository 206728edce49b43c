"""Contexts by novelty: a gate that recruits a new set of units when its input is unlike any it has seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_meta.networks._build import class_count, positive, samples
from lit_meta.networks.patches import Precision, RandomExpansion


class NoveltyGate(nn.Module):
    r"""Infers the context of a sample from the sample alone, and recruits a new context when a batch is unlike all before.

    A context is a Gaussian model of the input with a separate variance for each value,

    .. math:: \log p_c(x) = -\tfrac12 \sum_i \Big( \frac{(x_i - μ_{ci})^2}{v_{ci}} + \log v_{ci} \Big), \quad
        v = \text{variance} + \text{floor}

    and a sample belongs to the context under which it is most likely. In training mode a context's running mean and
    variance are updated with the samples assigned to it, as in batch normalisation. If the mean log-likelihood of a batch
    is more than ``novelty`` standard deviations below the usual level of its context, the input is novel and the next free
    context is recruited with this batch; noradrenaline is thought to signal such unexpected uncertainty. No labels, task
    labels or boundaries are used. In evaluation mode nothing changes, and samples do not affect each other.

    Once all contexts are recruited, novel input goes to the most likely one.

    Args:
        inputs: values in a sample.
        contexts: at most this many.
        novelty: of a batch, in standard deviations of the log-likelihood of a context's samples, above 0.
        floor: added to every variance, above 0, in squared units of the input.

    Raises:
        ValueError: a number out of range.

    Source:
        Yu and Dayan, "Uncertainty, neuromodulation, and attention", Neuron 46, 2005 (unexpected uncertainty).

    Example:
        >>> gate = NoveltyGate(2, contexts=3)
        >>> here, there = torch.rand(50, 2), torch.rand(50, 2) + 5
        >>> gate(here).unique(), gate(there).unique(), gate.eval()(torch.tensor([[5.5, 5.5], [0.5, 0.5]]))
        (tensor([0]), tensor([1]), tensor([1, 0]))
    """

    # Contexts are recruited in the forward pass, also where a rule freezes all that gradients would change.
    learns_by_itself = True

    count: Tensor
    mean: Tensor
    square: Tensor
    likelihood: Tensor
    likelihood_square: Tensor

    def __init__(self, inputs: int, contexts: int, *, novelty: float = 2.0, floor: float = 0.01) -> None:
        super().__init__()
        if not novelty > 0:
            raise ValueError(f"novelty must be above 0, got {novelty}")
        if not floor > 0:
            raise ValueError(f"floor must be above 0, got {floor}")
        shape = positive("contexts", contexts), positive("inputs", inputs)
        self.novelty, self.floor = novelty, floor
        self.register_buffer("count", torch.zeros(shape[0]))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("square", torch.zeros(shape))
        self.register_buffer("likelihood", torch.zeros(shape[0]))
        self.register_buffer("likelihood_square", torch.zeros(shape[0]))

    @property
    def recruited(self) -> int:
        """Number of contexts recruited so far."""
        return int((self.count > 0).sum())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs) -> the context of each sample, (batch,) of integers."""
        recruited = self.recruited
        with torch.no_grad():
            likelihood = self.log_likelihood(x)
            if recruited and not (self.training and self._novel(likelihood)):
                context = likelihood.argmax(1)
            else:
                context = torch.full((len(x),), recruited, device=x.device)
            for index in context.unique().tolist() if self.training else ():
                self._update(index, x[context == index])
        return context

    def log_likelihood(self, x: Tensor) -> Tensor:
        """(batch, inputs) -> (batch, contexts recruited), up to a constant."""
        recruited = self.recruited
        mean = self.mean[:recruited]
        precision = ((self.square[:recruited] - mean.square()).clamp(min=0.0) + self.floor).reciprocal()
        constant = (mean.square() * precision - precision.log()).sum(1)
        return x @ (mean * precision).T - (x.square() @ precision.T + constant) / 2

    def _novel(self, likelihood: Tensor) -> bool:
        if likelihood.shape[1] == len(self.count):
            return False
        mean, context = likelihood.mean(0).max(0)
        usual = self.likelihood[context]
        spread = (self.likelihood_square[context] - usual.square()).clamp(min=0.0).sqrt()
        return bool(mean < usual - self.novelty * spread)

    def _update(self, context: int, x: Tensor) -> None:
        total = self.count[context] + len(x)
        share = len(x) / total
        self.count[context] = total
        self.mean[context].lerp_(x.mean(0), share)
        self.square[context].lerp_(x.square().mean(0), share)
        likelihood = self.log_likelihood(x)[:, context]
        self.likelihood[context].lerp_(likelihood.mean(), share)
        self.likelihood_square[context].lerp_(likelihood.square().mean(), share)


class ContextNet(nn.Module):
    """A random expansion whose readout has separate weights for each context that a `NoveltyGate` infers.

    The head sees (batch, units · contexts): the rectified units in the columns of the sample's context and zeros in all
    others, with the columns of a unit side by side. ``RecursiveReadout(block=units)`` splits its memory into exactly these
    contexts, and skips those that are silent in a batch.

    Args:
        inputs: values in a sample.
        units: of the `RandomExpansion`, shared by all contexts.
        classes: outputs, at least 2.
        contexts: at most this many.
        novelty: of a batch that recruits a context, in standard deviations; see `NoveltyGate`.
        floor: added to the variance of each input, in squared units of the input.
        precision: of the expansion, ``"float32"`` or ``"bfloat16"``.
        seed: of the weights, drawn without touching the global random state; None draws them from it.

    Raises:
        ValueError: a number out of range.
        TypeError: a size that is not a whole number.

    Example:
        >>> network = ContextNet(64, units=20, classes=10, contexts=3, seed=0)
        >>> network(torch.rand(2, 1, 8, 8)).shape, network.head
        (torch.Size([2, 10]), Linear(in_features=60, out_features=10, bias=True))
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        classes: int,
        *,
        contexts: int = 10,
        novelty: float = 2.0,
        floor: float = 0.01,
        precision: Precision = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self.contexts = positive("inputs", inputs), positive("contexts", contexts)
        self.gate = NoveltyGate(inputs, contexts, novelty=novelty, floor=floor)
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.expansion = RandomExpansion(inputs, positive("units", units), precision=precision)
            self.head = nn.Linear(units * contexts, class_count(classes))

    def features(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, units · contexts), the input of the head."""
        x = samples(x, (self.inputs,))
        active = self.expansion(x).relu_().float()
        by_context = active.new_zeros(*active.shape, self.contexts)
        context = self.gate(x).view(-1, 1, 1).expand(*active.shape, 1)
        return by_context.scatter_(2, context, active.unsqueeze(2)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, classes)."""
        return self.head(self.features(x))
