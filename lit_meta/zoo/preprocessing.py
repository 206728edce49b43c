"""What stands between an image or a recording of one's own and the input of a network; stated on the card, in numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_meta.utils.arguments import require_keys

if TYPE_CHECKING:
    from torch import Tensor

_KEYS = ("kind", "size", "channels", "mean", "std", "background", "box")
_KINDS = ("image", "sound", "tensor")
_RATE = 8000  # Of recordings, in Hz, as those of the Free Spoken Digit Dataset.
_LONGEST = 60  # Seconds of a recording.
_LARGEST = 4096  # Pixels of a side.
_BEYOND = 1e-3  # Of rounding beyond [0, 1].


@dataclass(frozen=True)
class Transform:
    """Turns an image, an array or a tensor into the input of a network, ``(1, *shape)``.

    An image is made grey or coloured, resized (bilinear, antialiased), scaled to [0, 1], and standardised as
    ``(x - mean) / std``. Its proportions are kept: one of other proportions than `shape` is centred on the background, or where
    that is not known cut to its centre. Transparency is laid on paper as `lit_meta.data.readers.image.pixels` does. Tensors of
    the input's own shape, with values in [0, 1], are standardised only.

    Attributes:
        shape: of one sample, such as (1, 28, 28): channels, height, width.
        kind: ``"image"``; ``"sound"`` for recordings of a spoken word, which lose the silence around it and become a log-mel
            spectrogram (`without_silence` and `log_mel` of `lit_meta.functional.audio`); or ``"tensor"`` for other samples
            (events), given as arrays.
        mean: subtracted from each channel, on the scale of [0, 1].
        std: divides each channel.
        background: the value that surrounds what the network has learned, 0 (dark) or 1 (light): an image whose border is
            nearer to the other one is inverted, so that dark ink on white paper is read by a network that learned light ink on
            black. None leaves images as they are.
        box: the longer side of the ink, in pixels: an image of another size than `shape` is cropped to what differs from
            the background, scaled to this and centred by its centre of mass, as the images of MNIST were. None resizes the
            image.

    Example:
        >>> transform = Transform((1, 2, 2), mean=(0.5,), std=(0.5,))
        >>> transform([[0.0, 1.0], [0.5, 0.5]])
        tensor([[[[-1.,  1.],
                  [ 0.,  0.]]]])
    """

    shape: tuple[int, ...]
    kind: str = "image"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    background: float | None = None
    box: int | None = None

    def __post_init__(self) -> None:
        channels = self.shape[0]
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {self.kind!r}")
        if self.kind == "image" and (len(self.shape) != 3 or channels not in (1, 3) or max(self.shape) > _LARGEST):
            raise ValueError(f"images have 1 or 3 channels, height and width, got the shape {list(self.shape)}")
        if self.kind == "sound" and (len(self.shape) != 3 or channels != 1 or max(self.shape) > _LARGEST):
            raise ValueError(f"a spectrogram has 1 channel, bands and frames, got the shape {list(self.shape)}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels) or not all(_is_number(v) and abs(v) < 1e6 for v in values):
                raise ValueError(f"{name} must be one number or {channels}, one a channel, got {list(values)}")
        if min(self.std) < 1e-6:
            raise ValueError(f"std must be above 0, got {list(self.std)}")
        if self.background not in (None, 0, 1):
            raise ValueError(f"background must be 0, 1 or null, got {self.background!r}")
        if self.box is not None and not (type(self.box) is int and 1 <= self.box <= min(self.shape[1:])):
            raise ValueError(f"box must be a number of pixels up to {min(self.shape[1:])}, or null, got {self.box!r}")
        if self.box is not None and (self.background is None or self.shape[0] != 1):
            raise ValueError("box needs a background and one channel")

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], shape: Sequence[int] | None) -> Transform:
        """The transform that a card describes.

        Raises:
            TypeError, ValueError: it describes none.
        """
        values = require_keys("preprocessing", given, _KEYS, needed=_KEYS)
        for key in ("mean", "std"):
            if not isinstance(values[key], (list, tuple)):
                raise ValueError(f"preprocessing: {key} must be a list of numbers, got {values[key]!r}")
        if shape is None:
            raise ValueError("preprocessing needs input_shape")
        size = list(shape[1:]) if values["kind"] == "image" else None
        if values["size"] != size or values["channels"] != shape[0]:
            raise ValueError(f"preprocessing: size and channels must be those of input_shape, {list(shape)}")
        try:
            return cls(
                tuple(shape),
                kind=values["kind"],  # type: ignore[arg-type]
                mean=tuple(values["mean"]),  # type: ignore[arg-type]
                std=tuple(values["std"]),  # type: ignore[arg-type]
                background=values["background"],  # type: ignore[arg-type]
                box=values["box"],  # type: ignore[arg-type]
            )
        except (TypeError, IndexError) as error:
            raise ValueError(f"preprocessing: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The form that a card has."""
        size = list(self.shape[1:]) if self.kind == "image" else None
        scale = {"mean": list(self.mean), "std": list(self.std)}
        ink = {"background": self.background, "box": self.box}
        return {"kind": self.kind, "size": size, "channels": self.shape[0], **scale, **ink}

    def __call__(self, sample: Any) -> Tensor:
        """A sample as the network takes it.

        Args:
            sample: the path of an image file, or for sounds of a mono recording of 16 bits; a PIL image; or an array or
                tensor: (height, width) or (height, width, channels) in bytes or in [0, 1], or of the input's own shape in
                [0, 1].

        Returns:
            (1, *shape), float32.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no image, of a shape that does not fit, or has values that are not finite or, of an image, neither
                bytes nor in [0, 1].
        """
        import torch

        if isinstance(sample, (str, Path)):
            sample = _read(Path(sample), self)
        values = self._picture(sample) if hasattr(sample, "convert") else self._values(sample)
        if not bool(torch.isfinite(values).all()):
            raise ValueError("the sample has NaN or infinite values")
        shape = (-1, *(1 for _ in self.shape[1:]))
        mean, std = (torch.tensor(numbers, dtype=torch.float32).reshape(shape) for numbers in (self.mean, self.std))
        return ((values - mean) / std).unsqueeze(0)

    def _values(self, sample: Any) -> Tensor:
        import numpy as np
        import torch

        values = torch.as_tensor(np.asarray(sample) if not isinstance(sample, torch.Tensor) else sample)
        if values.dtype == torch.bool or values.is_complex():
            raise ValueError(f"a sample has bytes or numbers in [0, 1], got {values.dtype}")
        scaled = values.float() / 255 if values.dtype == torch.uint8 else values.float()
        if self.kind == "image" and scaled.numel():
            low, high = (float(extreme) for extreme in torch.aminmax(scaled))
            if low < -_BEYOND or high > 1 + _BEYOND:
                raise ValueError(
                    f"an image has bytes (uint8) or numbers in [0, 1], got {values.dtype} from {low:g} to {high:g}"
                )
        if scaled.shape == self.shape:
            return scaled
        if self.kind == "image" and scaled.dim() in (2, 3):
            if scaled.dim() == 2:
                scaled = scaled.unsqueeze(0)
            elif scaled.shape[-1] in (1, 3):
                scaled = scaled.permute(2, 0, 1)
            if scaled.shape[0] in (1, 3):
                if scaled.shape[0] != self.shape[0]:
                    scaled = scaled.mean(0, keepdim=True) if self.shape[0] == 1 else scaled.expand(3, -1, -1)
                return self._fitted(scaled)
        raise ValueError(f"a sample has the shape {self.shape}, got {tuple(values.shape)}")

    def _picture(self, image: Any) -> Tensor:
        from lit_meta.data.readers.image import pixels

        if self.kind != "image":
            raise ValueError(f"the network takes arrays of shape {self.shape}, not images: see its card")
        return self._fitted(pixels(image, channels=1 if self.shape[0] == 1 else 3))

    def _fitted(self, values: Tensor) -> Tensor:
        """(channels, any height, any width) in [0, 1] -> the shape of the network's input."""
        if 0 in values.shape:
            raise ValueError("the image is empty")
        if self.background is not None:
            edge = [values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1]]
            border = sum(float(line.mean()) for line in edge) / 4
            if abs(border - self.background) > 0.5:
                values = 1 - values
        if values.shape == self.shape:
            return values
        if self.box is not None:
            return self._boxed(values)
        return self._cut(values) if self.background is None else self._centred(values)

    def _cut(self, values: Tensor) -> Tensor:
        """The centre of an image, in the proportions of the network's input."""
        (height, width), (rows, columns) = values.shape[1:], self.shape[1:]
        kept = [max(1, min(height, round(width * rows / columns))), max(1, min(width, round(height * columns / rows)))]
        top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
        return _resized(values[:, top : top + kept[0], left : left + kept[1]], self.shape[1:])

    def _centred(self, values: Tensor) -> Tensor:
        """A whole image in its own proportions, in the middle of the background."""
        import torch

        (height, width), (rows, columns) = values.shape[1:], self.shape[1:]
        scale = min(rows / height, columns / width)
        whole = _resized(values, [max(1, round(height * scale)), max(1, round(width * scale))])
        canvas = torch.full(self.shape, float(self.background or 0))
        top, left = (rows - whole.shape[1]) // 2, (columns - whole.shape[2]) // 2
        canvas[:, top : top + whole.shape[1], left : left + whole.shape[2]] = whole
        return canvas

    def _boxed(self, values: Tensor) -> Tensor:
        import torch

        ink = (values - float(self.background or 0)).abs()
        rows, columns = (torch.nonzero(ink[0].amax(d) > 0.2).flatten() for d in (1, 0))
        height, width = self.shape[1:]
        canvas = torch.full(self.shape, float(self.background or 0))
        if not len(rows) or self.box is None:
            return canvas
        crop = values[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        scale = self.box / max(crop.shape[1:])
        crop = _resized(crop, [max(1, round(side * scale)) for side in crop.shape[1:]])
        mass = (crop - float(self.background or 0)).abs()[0]
        total = float(mass.sum()) or 1.0
        y = float((mass.sum(1) * torch.arange(mass.shape[0])).sum()) / total
        x = float((mass.sum(0) * torch.arange(mass.shape[1])).sum()) / total
        top = min(max(round((height - 1) / 2 - y), 0), height - mass.shape[0])
        left = min(max(round((width - 1) / 2 - x), 0), width - mass.shape[1])
        canvas[:, top : top + mass.shape[0], left : left + mass.shape[1]] = crop
        return canvas


def _resized(values: Tensor, size: Sequence[int]) -> Tensor:
    from torch.nn import functional as F

    resized = F.interpolate(values.unsqueeze(0), tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return resized.squeeze(0).clamp(0, 1)


def _read(path: Path, transform: Transform) -> Any:
    """An image file as a PIL image, a recording as its spectrogram, an ``.npy`` file as an array."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".npy":
        import numpy as np

        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} is no array: {error}") from None
    if transform.kind == "sound":
        return spectrogram(path, transform.shape)
    if transform.kind != "image":
        raise ValueError(
            f"the network takes arrays of shape {transform.shape} (.npy files), not {path.name}: see its card"
        )
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path)
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no image that can be read: {error}") from None
    return image


def spectrogram(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The log-mel spectrogram of the word in a recording, of (1, bands, frames); at another rate than 8 kHz it is resampled.

    Raises:
        ImportError: soundfile is not installed.
        ValueError: the file is no mono recording of 16 bits, is empty or silent, or is longer than a minute.
    """
    from math import gcd

    import torch
    from scipy.signal import resample_poly

    from lit_meta.data.readers.audio import read_audio
    from lit_meta.functional.audio import log_mel, without_silence

    waveform, rate = read_audio(path)
    if not 0 < len(waveform) <= _LONGEST * rate:
        raise ValueError(f"{path} must be a recording of up to {_LONGEST} seconds, it has {len(waveform) / rate:.1f}")
    if rate != _RATE:
        common = gcd(rate, _RATE)
        waveform = torch.from_numpy(resample_poly(waveform.double().numpy(), _RATE // common, rate // common)).float()
    if not bool(waveform.any()):
        raise ValueError(f"{path} holds no sound: all its samples are 0")
    return log_mel(without_silence(waveform, sample_rate=_RATE), bands=shape[1], frames=shape[2])[None]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
