"""A critical period: features learn without labels from the first samples, and are frozen by metaplasticity."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.core.layers import AdaptsToDrive, NormalizesContrast, weight_layers
from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Layer, Rule, Synapses
from lit_meta.core.state import Kept, apart
from lit_meta.functional.patches import competitive_hebbian, contrast_normalize, whitening_matrix
from lit_meta.utils.heap import return_free_memory
from lit_meta.utils.validation import require_count, require_in

# Patches with less contrast than this, after normalisation, have no structure: features would learn the blank background.
_FAINTEST = 0.1
# With fewer samples, random patches have been better: 87.1 against 83.5 % of 17 letters, from 15 images.
_FEW = 20
# Units of an expansion that are computed together: of thousands with thousands of inputs, copies would be larger than all else.
_UNITS_AT_ONCE = 512


class CriticalPeriod(Rule):
    r"""Learns the layers below the head by competitive Hebbian learning of whitened patches, then freezes them.

    In the first ``samples`` samples every such layer learns from its own input alone, just before it is used, so that all
    layers learn in one forward pass, each from the layer below as just updated. Patches p of the input (for a Linear
    layer: the input) are normalised in contrast if the layer does so itself, and whitened, z = M (p − m). Units
    compete, and the winner turns towards the patch; its plasticity falls with the number of patches it has won
    (`lit_meta.functional.patches.competitive_hebbian`). The response of unit k is then

    .. math:: d_k M (p - m) - threshold

    which is written as weight and bias of the layer. After the critical period plasticity is zero: gradients of these
    layers are discarded, and everything below the head is in evaluation mode from then on while the head learns
    (statistics of batch normalisation are fixed, dropout is off). No label is used.

    Where the first batch has as many samples as the critical period, the features are final before that batch's forward
    pass, and a `RecursiveReadout` that comes after this rule loses no sample. Where it is smaller, features still move while
    the readout counts; `RecursiveReadout(after=...)` lets it wait.

    Args:
        samples: length of the critical period; it ends with the batch in which this many have been seen.
        patches: drawn from each batch of the critical period, for each layer.
        whitening: floor of the eigenvalues of the patches' covariance, above 0; relative to their mean.
        threshold: of the units, in standard deviations of a whitened patch.
        sweeps: assignments over the patches of one batch. 0 leaves the directions as they begin, random whitened patches: the
            control, and the better choice where the critical period sees few samples.
        head: name of the layer above the features; None for the last Linear layer. It is not learned.
        seed: of the patches drawn and the units' first directions.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Coates, Lee and Ng, AISTATS 2011 (whitened patches, k-means); Rumelhart and Zipser, Cognitive Science 9, 1985
        (competitive learning).

    Example:
        >>> from lit_meta import Session
        >>> from lit_meta.networks import PatchNet
        >>> network = PatchNet((1, 8, 8), filters=[6], kernels=[3], classes=2)
        >>> rule = CriticalPeriod(samples=20, patches=200)
        >>> session, optimizer = Session(network, rule), torch.optim.SGD(network.head.parameters(), lr=0.1)
        >>> x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> y = torch.zeros(20, dtype=torch.long)
        >>> with session.experience(), session.step(x, y, optimizer):
        ...     torch.nn.functional.cross_entropy(network(x), y).backward()
        >>> int(rule.state.overall["samples"])
        20
    """

    needs_inputs = False
    stages_memory = True
    limits: ClassVar[Mapping[str, str]] = {"distributed": "features learn from the samples of one process"}

    def __init__(
        self,
        *,
        samples: int = 1000,
        patches: int = 60_000,
        whitening: float = 0.1,
        threshold: float = 0.25,
        sweeps: int = 8,
        head: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (("samples", samples, 1), ("patches", patches, 1), ("sweeps", sweeps, 0)):
            require_count(name, value, least)
        require_in("whitening", whitening, 0.0, float("inf"), open_low=True)
        self.samples = samples
        self.patches = patches
        self.whitening = whitening
        self.threshold = threshold
        self.sweeps = sweeps
        self.head = head
        self.seed = seed
        self._learned: set[str] = set()
        self._written: list[tuple[Tensor, Tensor]] = []

    def sets_weights(self, network: nn.Module) -> Iterable[Layer]:
        learned = self._features(network)
        return [layer for layer in weight_layers(network) if layer.name in learned]

    def begin_experience(self, synapses: Synapses) -> None:
        for layer in self.sets_weights(synapses.network):
            _check_layer(layer.name, layer.module)

    def frozen_below(self, network: nn.Module) -> nn.Module | None:
        return self._above if not self._open else None

    def leave_experience(self) -> None:
        self._above = None  # The head may be replaced before the next experience.

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        self._written = []
        self._learned = self._features(synapses.network)
        self._above = synapses.network.get_submodule(self._head_name(synapses.network))
        seen = self.state.overall.get("samples", torch.zeros((), dtype=torch.long))
        self._open = bool(seen < self.samples)
        if self._open:
            if "samples" not in self.state:
                self.state["patch_count"], self.state["patch_sum"], self.state["patch_moment"] = {}, {}, {}
                self.state["history"], self.state["direction"] = {}, {}
                self.state["drive_sum"], self.state["drive_square"] = {}, {}
            total = seen + inputs.shape[0]
            self.state.overall["samples"] = total
            if self.sweeps and self.samples <= total < _FEW:
                warnings.warn(
                    f"CriticalPeriod learns features from {int(total)} samples; with fewer than {_FEW}, random patches "
                    "(sweeps=0) are likely to be better: give it more samples, or compare the two",
                    stacklevel=2,
                )

    def layer_input(self, layer: Layer, inputs: Tensor) -> None:
        if self._open and layer.name in self._learned:
            self._learn(layer, inputs)
            return_free_memory()  # Patches and their responses take far more than what comes next.

    def _learn(self, layer: Layer, inputs: Tensor) -> None:
        module: Any = layer.module
        key = apart(layer.name)
        if isinstance(module, AdaptsToDrive):
            self._adapt(key, layer.module, inputs, module.drive_threshold)
            return
        count = int(self.state.overall["samples"])
        generator = torch.Generator().manual_seed(self.seed + count)
        patches = draw_patches(module, inputs.float(), self.patches, generator)
        contrast = module.contrast if isinstance(module, NormalizesContrast) else None
        if contrast is not None:
            patches = contrast_normalize(patches, contrast)
            patches = patches[patches.square().mean(1) > _FAINTEST]
        if len(patches) < 2:
            raise ValueError(f"CriticalPeriod found no patch with any contrast in the input of layer {layer.name!r}")
        mean, matrix = self._whitening(key, patches)
        whitened = (patches - mean) @ matrix
        units = module.weight.shape[0]
        if key in self.state["direction"]:
            directions, history = self.state["direction"][key], self.state["history"][key]
        else:
            chosen = torch.randint(len(whitened), (units,), generator=generator).to(whitened.device)
            directions = F.normalize(whitened[chosen] + 1e-6, dim=1)
            history = torch.zeros_like(directions)
        directions, history = competitive_hebbian(whitened, directions, history, sweeps=self.sweeps)
        self.state["direction"][key], self.state["history"][key] = directions, history
        weight = directions @ matrix
        bias = -(weight @ mean) - self.threshold
        if contrast is not None:
            # A normalised patch has mean 0, so the weights' own mean is free; without it the raw patch need not be centred.
            weight = weight - weight.mean(1, keepdim=True)
        self._write(module.weight, weight.reshape(module.weight.shape))
        if module.bias is not None:
            self._write(module.bias, bias)

    def gradient(self, synapses: Synapses) -> None:
        own = set() if self._above is None else set(self._above.parameters())
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            # What is not a weight layer, such as a normalisation, learns by the loss until the critical period is over.
            if name.rpartition(".")[0] in self._learned or not (self._open or parameter in own):
                parameter.grad = None

    def commit(self, synapses: Synapses) -> None:
        self._written = []

    def restore(self, synapses: Synapses) -> None:
        for parameter, before in reversed(self._written):
            with torch.no_grad():
                parameter.copy_(before)
        self._written = []

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        kept = {"samples/*": Kept((), nonzero=True)}
        for layer in self.sets_weights(network):
            module: Any = layer.module
            key = apart(layer.name)
            units, values = module.weight.shape[0], module.weight[0].numel()
            shapes: dict[str, tuple[int, ...]] = {"patch_count": ()}
            if isinstance(module, AdaptsToDrive):
                shapes |= {"drive_sum": (units,), "drive_square": (units,)}
            else:
                shapes |= {"patch_sum": (values,), "patch_moment": (values, values)}
                shapes |= {"history": (units, values), "direction": (units, values)}
            for quantity, shape in shapes.items():
                kept[encode_key(quantity, key)] = Kept(shape, nonzero=quantity not in ("history", "patch_sum"))
        return kept

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        if "samples" not in self.state:
            return {}
        return {"plastic": (self.state.overall["samples"] < self.samples).float()}

    # Inner workings.

    _open = False
    _above: nn.Module | None = None

    def _head_name(self, network: nn.Module) -> str:
        layers = weight_layers(network)
        linear = [layer.name for layer in layers if isinstance(layer.module, nn.Linear)]
        head = self.head if self.head is not None else (linear[-1] if linear else None)
        if head is None:
            raise ValueError(
                "CriticalPeriod learns the layers below the head, and no Linear layer can be the head: name it (head=...)"
            )
        if head not in {layer.name for layer in layers}:
            raise ValueError(f"CriticalPeriod learns the layers below the head, and there is no layer {head!r}")
        return head

    def _features(self, network: nn.Module) -> set[str]:
        features = {layer.name for layer in weight_layers(network)} - {self._head_name(network)}
        if not features:
            raise ValueError("CriticalPeriod learns the layers below the head, and there are none")
        return features

    def _whitening(self, key: str, patches: Tensor) -> tuple[Tensor, Tensor]:
        wide = patches.double()
        totals = {
            "patch_count": torch.tensor(float(len(wide)), dtype=torch.float64, device=wide.device),
            "patch_sum": wide.sum(0),
            "patch_moment": wide.T @ wide,
        }
        count, total, moment = self._add_up(key, totals)
        mean = total / count
        covariance = moment / count - torch.outer(mean, mean)
        floor = self.whitening * max(float(covariance.diagonal().mean()), torch.finfo(torch.float32).tiny)
        return mean.float(), whitening_matrix(covariance, floor).float()

    def _adapt(self, key: str, module: nn.Module, inputs: Tensor, threshold: float) -> None:
        """Sets each unit's gain and threshold by the mean and deviation of its own drive; directions stay as they are."""
        weight: Tensor = module.weight.detach()  # type: ignore[operator, union-attr, assignment]
        rows, sums, squares = inputs.detach().float().flatten(0, -2), [], []
        for units in weight.split(_UNITS_AT_ONCE):
            drive = (rows @ F.normalize(units.float(), dim=1).T).double()
            sums.append(drive.sum(0))
            squares.append(drive.square().sum(0))
        totals = {
            "patch_count": torch.tensor(float(len(rows)), dtype=torch.float64, device=rows.device),
            "drive_sum": torch.cat(sums),
            "drive_square": torch.cat(squares),
        }
        count, total, square = self._add_up(key, totals)
        mean = total / count
        # A unit whose drive never varied gets a share of the others' deviation: dividing by its own would amplify noise.
        deviation = (square / count - mean.square()).clamp(min=0.0).sqrt()
        deviation = deviation.clamp(min=1e-3 * float(deviation.mean()) or 1.0)
        self._keep(module.weight)  # type: ignore[arg-type]
        for units, scale in zip(weight.split(_UNITS_AT_ONCE), deviation.split(_UNITS_AT_ONCE), strict=True):
            units.copy_(F.normalize(units.float(), dim=1) / scale.unsqueeze(1))
        self._write(module.bias, -mean / deviation - threshold)  # type: ignore[arg-type]

    def _add_up(self, key: str, totals: Mapping[str, Tensor]) -> list[Tensor]:
        """Adds a batch's sums to those of a layer so far, by quantity; returns them in the same order."""
        for quantity, value in totals.items():
            sums = self.state[quantity]
            sums[key] = sums[key] + value if key in sums else value
        return [self.state[quantity][key] for quantity in totals]

    def _keep(self, parameter: Tensor) -> None:
        self._written.append((parameter, parameter.detach().clone()))

    def _write(self, parameter: Tensor, value: Tensor) -> None:
        self._keep(parameter)
        with torch.no_grad():
            parameter.copy_(value)


def draw_patches(module: nn.Conv2d | nn.Linear, inputs: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Random patches of a layer's input.

    Args:
        module: the layer.
        inputs: its input, (batch, channels, height, width), or (batch, ..., features) for a Linear layer.
        number: number of patches; for a Linear layer, at most the number of its inputs.
        generator: draws them, on the CPU.

    Returns:
        (number, values), with the values in the order of the layer's weight.

    Raises:
        ValueError: a convolution with groups, dilation or a padding given by name.

    Example:
        >>> layer = nn.Conv2d(1, 4, 2)
        >>> draw_patches(layer, torch.arange(4.0).reshape(1, 1, 2, 2), 1, torch.Generator())
        tensor([[0., 1., 2., 3.]])
    """
    if isinstance(module, nn.Linear):
        flat = inputs.flatten(0, -2)
        return flat if len(flat) <= number else flat[torch.randperm(len(flat), generator=generator)[:number]]
    _check_layer("module", module)
    padding: Any = module.padding
    (height, width), (down, across) = module.kernel_size, padding
    x = F.pad(inputs, (across, across, down, down))
    device = x.device

    def draw(high: int) -> Tensor:
        return torch.randint(high, (number, 1, 1, 1), generator=generator).to(device)

    sample = draw(x.shape[0])
    row = draw(x.shape[2] - height + 1) + torch.arange(height, device=device).view(1, 1, -1, 1)
    column = draw(x.shape[3] - width + 1) + torch.arange(width, device=device).view(1, 1, 1, -1)
    channel = torch.arange(x.shape[1], device=device).view(1, -1, 1, 1)
    return x[sample, channel, row, column].flatten(1)


def _check_layer(name: str, module: nn.Module) -> None:
    """Checks that patches can be drawn of what a layer receives."""
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        raise ValueError(f"CriticalPeriod learns Linear and Conv2d layers, {name!r} is {type(module).__name__}")
    if isinstance(module, nn.Linear):
        return
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        raise ValueError(
            "CriticalPeriod learns convolutions without groups and dilation, with zero padding in numbers; "
            f"{name!r} is {module}"
        )
