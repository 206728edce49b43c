"""Networks of patch features below a linear head, for features learned without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.networks._build import class_count, image_shape, positive, samples, widths

Precision = Literal["float32", "bfloat16"]

# Maps of more images (in bytes) are never in memory together; larger ones would also be faulted in anew for every batch.
_BYTES_AT_ONCE = 2**24
_UNITS_AT_ONCE = 1024  # Of an expansion.


class PatchConv2d(nn.Conv2d):
    """A convolution of contrast-normalised patches, ``W (p − mean(p)) / √(var(p) + contrast) + b``.

    The normalisation divides the map by its local standard deviation, so no patch is ever extracted. The mean drops out
    if the weights of every filter sum to 0, as `CriticalPeriod` leaves them; other filters are centred here.

    Weights receive no gradients: a local rule writes them.

    Args:
        inputs: channels of the input.
        units: filters.
        kernel: side of the square patches; with ``padding`` the input is padded by half of it.
        contrast: variance of a patch that counts as noise, above 0.
        stride: distance between patches.
        padding: pad with zeros by half the kernel, so that a map keeps its size.
        precision: ``"bfloat16"`` computes the convolution in half the bits, several times faster if the processor has
            instructions for it.

    Example:
        >>> layer = PatchConv2d(1, 4, 3, contrast=0.01)
        >>> bool(torch.allclose(layer(torch.rand(2, 1, 5, 5)), layer(torch.rand(2, 1, 5, 5))))
        False
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        kernel: int,
        *,
        contrast: float,
        stride: int = 1,
        padding: bool = True,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(inputs, units, kernel, stride=stride, padding=kernel // 2 if padding else 0)
        if not contrast > 0:
            raise ValueError(f"contrast must be above 0, got {contrast}")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
        self.contrast = contrast
        self.precision = precision
        self.requires_grad_(False)

    def forward(self, inputs: Tensor, outputs: bool = True) -> Tensor:
        """(batch, inputs, height, width) -> (batch, units, height', width').

        Without ``outputs`` nothing is computed: the call shows the inputs of a whole batch, whose maps are then computed in
        parts, to a rule that learns this layer.
        """
        if not outputs:
            return inputs.new_empty(len(inputs), self.out_channels, 0, 0)
        side, stride = self.kernel_size[0], self.stride[0]
        padded = F.pad(inputs, (self.padding[0],) * 4)  # type: ignore[arg-type]
        mean = F.avg_pool2d(padded.mean(1, keepdim=True), side, stride)
        square = F.avg_pool2d(padded.square().mean(1, keepdim=True), side, stride)
        scale = ((square - mean.square()).clamp(min=0.0) + self.contrast).rsqrt()
        dtype = torch.bfloat16 if self.precision == "bfloat16" else inputs.dtype
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        maps = F.conv2d(
            padded.to(dtype).contiguous(memory_format=torch.channels_last),
            weight.to(dtype).contiguous(memory_format=torch.channels_last),
            stride=stride,
        )
        bias = torch.zeros_like(self.weight[:, 0, 0, 0]) if self.bias is None else self.bias
        return maps.mul_(scale.to(dtype)).add_(bias.to(dtype).view(1, -1, 1, 1))


class RandomExpansion(nn.Linear):
    """Many units with fixed random directions, each with a threshold relative to its own drive.

    Initially, unit k computes ``r_k h`` with r_k a random unit vector. `CriticalPeriod` turns that into
    ``(r_k h − μ_k) / σ_k − threshold``, with μ and σ the mean and standard deviation of the unit's own drive: the directions
    stay random, the excitability adapts to the input. A rectified expansion lets a linear head separate what the features
    below do not separate linearly, and it learns nothing that could be forgotten.

    Weights receive no gradients: a local rule writes them.

    Args:
        inputs: number of features of the layer below.
        units: number of units, usually more than inputs.
        threshold: in standard deviations of a unit's drive.
        precision: ``"bfloat16"`` computes the product in half the bits.

    Source:
        Huang, Zhu and Siew, "Extreme learning machine", Neurocomputing 70, 2006 (random hidden units below a
        least-squares readout); Dasgupta, Stevens and Navlakha, Science 358, 2017 (the expansion of the fly's mushroom body).

    Example:
        >>> layer = RandomExpansion(3, 5)
        >>> layer(torch.ones(2, 3)).shape, bool(torch.allclose(layer.weight.norm(dim=1), torch.ones(5)))
        (torch.Size([2, 5]), True)
    """

    def __init__(self, inputs: int, units: int, *, threshold: float = 0.25, precision: Precision = "float32") -> None:
        super().__init__(inputs, units)
        with torch.no_grad():
            # In place: the weights are the largest thing in the network.
            self.weight.normal_().div_(self.weight.norm(dim=1, keepdim=True))
            self.bias.zero_()
        self.drive_threshold = threshold
        self.precision = precision
        self.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., inputs) -> (..., units), before rectification."""
        if self.precision == "float32":
            return super().forward(inputs)
        # In parts, so that no second copy of the weights is made.
        narrow, weights, biases = inputs.bfloat16(), self.weight.split(_UNITS_AT_ONCE), self.bias.split(_UNITS_AT_ONCE)
        parts = [F.linear(narrow, w.bfloat16(), b.bfloat16()) for w, b in zip(weights, biases, strict=True)]
        return torch.cat(parts, dim=-1)


class PatchNet(nn.Module):
    """Layers of patch features, pooled over a grid, below a linear head.

    Each layer is a `PatchConv2d` followed by rectification. Between layers, maps are averaged over ``pooling`` x
    ``pooling`` cells; the last map is averaged over the cells of a grid. All of this is learned locally and without labels:
    see `CriticalPeriod`. The head receives the features, (batch, units · grid²) for one grid.

    Args:
        input_shape: (channels, height, width).
        filters: units of each layer.
        kernels: side of the patches of each layer.
        classes: outputs, at least 2.
        grids: the head sees averages over each of these grids (4: 4 x 4 cells).
        strides: distance between patches of each layer; None is 1 everywhere.
        parallel: every layer sees the image, with patches of its own size, and the head (or the expansion) sees the
            averages of all of them; False stacks the layers.
        pooling: side of the cells averaged between layers.
        contrast: variance of a patch that counts as noise, for each layer (or a single value for all).
        padding: pad every layer's input, so that a map keeps its size.
        both_signs: the last layer's units also respond to the opposite patch, as separate features.
        root: take square roots of the averages, so that a strong response does not drown out a weak one.
        mirror: average the features of an image and its mirror image, so that the head learns from both at once.
        expansion: units of a rectified `RandomExpansion` between the features and the head; None puts the head on the
            features.
        expansion_threshold: of these units, in standard deviations of their drive.
        precision: of the convolutions and the expansion, ``"float32"`` or ``"bfloat16"``.
        seed: of the initial weights, drawn without touching the global random state; None draws them from it.

    Raises:
        ValueError: a size out of range, or lists of different lengths.
        TypeError: a size that is not a whole number.

    Source:
        Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS 2011.

    Example:
        >>> network = PatchNet((1, 28, 28), filters=[16, 32], kernels=[7, 3], classes=10, seed=0)
        >>> network(torch.rand(2, 1, 28, 28)).shape, network.head
        (torch.Size([2, 10]), Linear(in_features=512, out_features=10, bias=True))
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        filters: Sequence[int],
        kernels: Sequence[int],
        classes: int,
        *,
        grids: Sequence[int] = (4,),
        strides: Sequence[int] | None = None,
        parallel: bool = False,
        pooling: int = 2,
        contrast: Sequence[float] = (0.01,),
        padding: bool = True,
        both_signs: bool = False,
        root: bool = False,
        mirror: bool = False,
        expansion: int | None = None,
        expansion_threshold: float = 0.25,
        precision: Precision = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = image_shape(input_shape)
        self.classes = class_count(classes)
        maps = [self.input_shape[0], *widths("filters", filters)]
        sides, self.grids = widths("kernels", kernels), tuple(widths("grids", grids))
        steps = [1] * len(sides) if strides is None else widths("strides", strides)
        noise = list(contrast) * (len(sides) if len(contrast) == 1 else 1)
        if not sides or not self.grids or {len(sides), len(steps), len(noise)} != {len(maps) - 1}:
            raise ValueError(
                f"expected filters, kernels, strides and contrast of equal length and at least one grid, got {filters}, "
                f"{kernels}, {strides}, {contrast} and {grids}"
            )
        if any(side % 2 == 0 for side in sides):
            raise ValueError(f"kernels must be odd, so that padding keeps maps in place, got {kernels}")
        self.parallel, self.pooling = parallel, positive("pooling", pooling)
        self.both_signs = both_signs
        self.root, self.mirror = root, mirror
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.layers = nn.ModuleList(
                PatchConv2d(
                    maps[0 if parallel else i],
                    maps[i + 1],
                    sides[i],
                    contrast=noise[i],
                    stride=steps[i],
                    padding=padding,
                    precision=precision,
                )
                for i in range(len(sides))
            )
            features = (
                (sum(maps[1:]) if parallel else maps[-1])
                * (2 if both_signs else 1)
                * sum(grid * grid for grid in self.grids)
            )
            self.expansion = expand(features, expansion, expansion_threshold, precision)
            self.head = nn.Linear(expansion or features, self.classes)
        sizes, probe = [], torch.zeros(1, *self.input_shape)
        for layer in self.layers:
            last = layer(probe)
            sizes.append(last.numel() * last.element_size())
            probe = probe if parallel else F.avg_pool2d(last, self.pooling).float()
            if (parallel or layer is self.layers[-1]) and last.shape[-1] < max(self.grids):
                raise ValueError(
                    f"the last map is smaller than the grid {max(self.grids)}: use smaller strides or pooling"
                )
        self._images_at_once = max(1, _BYTES_AT_ONCE // max(sizes))

    def features(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, features), the input of the head."""
        x = samples(x, self.input_shape)
        # Each layer learns from an image and its mirror image at once.
        pooled = self._pooled(torch.cat([x, x.flip(-1)]) if self.mirror else x)
        if self.mirror:
            pooled = pooled.view(2, len(x), -1).mean(0)
        if self.root:
            pooled = pooled.sqrt()
        return pooled.float() if self.expansion is None else self.expansion(pooled).relu_().float()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, classes)."""
        return self.head(self.features(x))

    def _pooled(self, x: Tensor) -> Tensor:
        """Rectified responses of the layers that the head sees, averaged over the cells of the grids."""
        if self.parallel:
            return torch.cat([self._in_parts(layer, x, self._grid_averages) for layer in self.layers], dim=1)
        for layer in self.layers[:-1]:
            x = self._in_parts(layer, x, self._cell_averages)
        return self._in_parts(self.layers[-1], x, self._grid_averages)

    def _in_parts(self, layer: nn.Module, x: Tensor, pool: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """Averages of a layer's maps, which are computed for a few images at a time."""
        if torch.is_grad_enabled():
            if x.requires_grad or any(parameter.requires_grad for parameter in layer.parameters()):
                return pool(layer, layer(x))
            layer(x, outputs=False)
        with torch.no_grad():
            return torch.cat([pool(layer, layer(part)) for part in x.split(self._images_at_once)])

    def _cell_averages(self, layer: nn.Module, maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps.relu_(), self.pooling).float()

    def _grid_averages(self, layer: nn.Module, maps: Tensor) -> Tensor:
        averages = self._averages(maps.relu() if self.both_signs else maps.relu_())
        if not self.both_signs:
            return averages
        # The opposite filter with the same bias: −(y − b) + b.
        offset = 2 * layer.bias.to(maps.dtype).view(1, -1, 1, 1)  # type: ignore[operator, union-attr]
        return torch.cat([averages, self._averages(maps.neg_().add_(offset).relu_())], dim=1)

    def _averages(self, maps: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(maps, grid).flatten(1) for grid in self.grids], dim=1)


def expand(inputs: int, units: int | None, threshold: float, precision: Precision) -> RandomExpansion | None:
    """The expansion below a head, or None if ``units`` is None.

    Raises:
        ValueError: fewer than one unit.
        TypeError: a number of units that is not an integer.
    """
    if units is None:
        return None
    return RandomExpansion(inputs, positive("expansion", units), threshold=threshold, precision=precision)
