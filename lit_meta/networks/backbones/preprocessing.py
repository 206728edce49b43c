"""How images become the input of a pretrained network: size, crop, mean and deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_meta.utils.arguments import require_count
from lit_meta.utils.validation import extremes

Interpolation = Literal["bicubic", "bilinear", "nearest"]


@dataclass(frozen=True)
class Preprocessing:
    """Resizes images, cuts out their centre and standardises their channels, in one call for a whole batch.

    The shorter side becomes ``size / crop``, then the central square of ``size`` is kept, as the evaluation transforms of timm
    and torchvision do. Bicubic and bilinear interpolation filter before they shrink (antialiasing), and values are clipped to
    [0, 1] before they are standardised: `(x − mean) / std`.

    Args:
        size: side of the square in pixels.
        mean: of each channel, on the scale [0, 1].
        std: deviation of each channel.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"nearest"``.
        crop: the fraction of the shorter side that is kept, in (0, 1]; 1 keeps whole square images.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> transform = Preprocessing(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> transform(torch.ones(2, 3, 4, 4)).shape, float(transform(torch.ones(1, 1, 4, 4)).max())
        (torch.Size([2, 3, 8, 8]), 1.0)
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bicubic"
    crop: float = 1.0

    def __post_init__(self) -> None:
        require_count("size", self.size)
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(
                f"interpolation must be one of {', '.join(get_args(Interpolation))}, got {self.interpolation!r}"
            )
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be above 0 and at most 1, got {self.crop!r}")
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must have one number a channel, std above 0, got {self.mean} and {self.std}"
            )

    @property
    def channels(self) -> int:
        """Channels of what the network receives."""
        return len(self.mean)

    def blank(self, images: int = 1, device: torch.device | None = None) -> Tensor:
        """Black images as they come out, ``(images, channels, size, size)``: something to call a network on."""
        return torch.zeros(images, self.channels, self.size, self.size, device=device)

    def __call__(self, images: Any) -> Tensor:
        """A batch as the network takes it.

        Args:
            images: ``(batch, channels, height, width)`` or one image without the first dimension, floating point in [0, 1] or
                bytes from 0 to 255; or an image of Pillow. A single channel is repeated.

        Returns:
            float32 (or the dtype of floating-point images), ``(batch, channels, size, size)``; without the first dimension
            for one image.

        Raises:
            TypeError: not images.
            ValueError: another shape, or values outside [0, 1], such as those of images that are standardised already.
        """
        if not isinstance(images, Tensor):
            if not hasattr(images, "getbands"):
                raise TypeError(f"images must be a tensor or an image of Pillow, got {type(images).__name__}")
            from torchvision.transforms.functional import pil_to_tensor

            images = pil_to_tensor(images.convert("RGB" if self.channels == 3 else "L"))
        x = images if images.dim() == 4 else images.unsqueeze(0)
        if x.dim() != 4 or x.shape[1] not in (1, self.channels):
            raise ValueError(
                f"images must be (batch, {self.channels}, height, width), also with a single channel, got {tuple(images.shape)}"
            )
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        if not x.is_floating_point():
            raise TypeError(f"images must be floating point in [0, 1] or bytes, got {x.dtype}")
        low, high = extremes(x) if x.numel() else (0.0, 1.0)
        if not (low > -1e-3 and high < 1 + 1e-3):
            raise ValueError(
                f"images must have values in [0, 1], got {low:.3g} to {high:.3g}: the transform standardises them itself "
                "(preprocess=False for images that are prepared already)"
            )
        x = self._resized(x.expand(-1, self.channels, -1, -1))
        mean, std = (x.new_tensor(numbers).reshape(-1, 1, 1) for numbers in (self.mean, self.std))
        x = (x - mean) / std
        return x if images.dim() == 4 else x[0]

    def _resized(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        shorter = round(self.size / self.crop)
        scale = shorter / min(height, width)
        sides = (max(shorter, round(height * scale)), max(shorter, round(width * scale)))
        if sides != (height, width):
            smooth = self.interpolation != "nearest"
            options = {"antialias": True, "align_corners": False} if smooth else {}
            x = F.interpolate(x, size=sides, mode=self.interpolation, **options).clamp(0.0, 1.0)  # type: ignore[arg-type]
        top, left = ((side - self.size) // 2 for side in sides)
        return x[:, :, top : top + self.size, left : left + self.size]

    def to_dict(self) -> dict[str, Any]:
        """Its arguments, as a file holds them."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """From its arguments; the inverse of `to_dict`.

        Raises:
            TypeError: an argument that does not exist, or one that is missing.
        """
        return cls(**values)


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, one a channel, got {values!r}") from None
    if not numbers or not all(map(isfinite, numbers)):
        raise ValueError(f"{name} must be finite numbers, one a channel, got {values!r}")
    return numbers
