"""Features of sound: mel bands and log-mel spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor


def hertz_to_mel(frequency: Tensor) -> Tensor:
    """The pitch of a frequency: mel(f) = 2595 log10(1 + f / 700).

    Args:
        frequency: in Hz, any shape.

    Returns:
        In mel, of the same shape.

    Source:
        O'Shaughnessy, Speech Communication, 1987 (the scale of HTK).

    Example:
        >>> round(hertz_to_mel(torch.tensor(1000.0)).item(), 1)
        1000.0
    """
    return 2595 * torch.log10(1 + frequency / 700)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The frequency of a pitch, the inverse of `hertz_to_mel`.

    Args:
        mel: in mel, any shape.

    Returns:
        In Hz, of the same shape.

    Example:
        >>> round(mel_to_hertz(hertz_to_mel(torch.tensor(440.0, dtype=torch.float64))).item(), 6)
        440.0
    """
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filterbank(*, bands: int, fft_size: int, sample_rate: int) -> Tensor:
    """Triangular filters, evenly spaced on the mel scale from 0 Hz to half the sample rate.

    Band b rises linearly (in Hz) from edge b to 1 at edge b + 1 and falls to 0 at edge b + 2, so that between
    the first and the last peak the filters add up to 1.

    Args:
        bands: number of filters.
        fft_size: length of the Fourier transform, in samples.
        sample_rate: in Hz.

    Returns:
        Weights, ``(bands, fft_size // 2 + 1)``.

    Raises:
        ValueError: if an argument is not positive, or if a band is so narrow that no frequency falls into it.

    Example:
        >>> mel_filterbank(bands=30, fft_size=512, sample_rate=8000).shape
        torch.Size([30, 257])
    """
    if bands < 1 or fft_size < 2 or sample_rate < 1:
        raise ValueError(
            f"expected bands >= 1, fft_size >= 2 and sample_rate >= 1, got {bands}, {fft_size} and {sample_rate}"
        )
    frequency = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)
    top = hertz_to_mel(torch.tensor(sample_rate / 2, dtype=torch.float64)).item()
    edge = mel_to_hertz(torch.linspace(0, top, bands + 2, dtype=torch.float64))
    low, peak, high = edge[:-2, None], edge[1:-1, None], edge[2:, None]
    weight = torch.minimum((frequency - low) / (peak - low), (high - frequency) / (high - peak)).clamp(min=0)
    empty = (weight.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"no frequency of a transform of {fft_size} samples at {sample_rate} Hz falls into bands {empty} "
            f"of {bands}; use fewer bands or a longer transform"
        )
    return weight.float()


def log_mel(
    waveform: Tensor,
    *,
    sample_rate: int = 8000,
    bands: int = 30,
    frames: int = 30,
    window: int = 256,
    hop: int = 80,
    fft_size: int = 512,
    dynamic_range: float = 80.0,
) -> Tensor:
    """The log-mel spectrogram of one recording, stretched to a fixed number of frames and scaled to [0, 1].

    Power spectrum (Hann window) -> mel bands -> decibels, clipped ``dynamic_range`` below the maximum ->
    mean over equal parts of the recording's duration -> (dB - min) / (max - min). Every step sees this
    recording only, so the features of a sample never depend on the rest of the data set or of the batch.

    Args:
        waveform: samples, ``(time,)``.
        sample_rate: in Hz.
        bands: number of mel bands.
        frames: number of frames to return, whatever the duration.
        window: length of the window, in samples.
        hop: distance between windows, in samples.
        fft_size: length of the (zero-padded) Fourier transform, in samples.
        dynamic_range: how far below the loudest point the spectrogram is cut off, in dB.

    Returns:
        ``(bands, frames)``, low frequencies first, in [0, 1]; zeros for silence.

    Raises:
        ValueError: if the waveform is not one-dimensional or is empty.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(4000) / 8000)
        >>> log_mel(tone).mean(1).argmax().item()  # the band whose peak is nearest to 1000 Hz
        13
    """
    if waveform.ndim != 1 or len(waveform) == 0:
        raise ValueError(f"expected a waveform of shape (time,) with time > 0, got {tuple(waveform.shape)}")
    spectrum = torch.stft(
        waveform.float(),
        fft_size,
        hop_length=hop,
        win_length=window,
        window=torch.hann_window(window),
        center=True,
        pad_mode="constant",  # Reflection, the default, fails on recordings shorter than half a transform.
        return_complex=True,
    )
    power = mel_filterbank(bands=bands, fft_size=fft_size, sample_rate=sample_rate) @ spectrum.abs().square()
    decibel = 10 * torch.log10(power.clamp(min=1e-10))
    decibel = decibel.clamp(min=decibel.max().item() - dynamic_range)
    # Averages frames where there are more than requested, repeats them where there are fewer.
    features = torch.nn.functional.adaptive_avg_pool1d(decibel, frames)
    low, high = features.min(), features.max()
    return (features - low) / (high - low) if high > low else torch.zeros_like(features)


def without_silence(
    waveform: Tensor, *, sample_rate: int = 8000, quiet: float = 30.0, longest: float = 0.1, frame: float = 0.01
) -> Tensor:
    """A recording without the silence before and behind it.

    An end is silent as far as its frames have less energy than the loudest one, by ``quiet`` decibels: noise of a room does not
    count as sound. Ends that are short are left, so that a recording that was cut already stays as it is.

    Args:
        waveform: samples, ``(time,)``.
        sample_rate: in Hz.
        quiet: in dB below the loudest frame. With 30, an entry of the zoo recognised 99.8 % of 600 training recordings of the
            Free Spoken Digit Dataset amid seconds of noise, of 3 % of their effective value; with 33 dB 94.3 %.
        longest: silence at an end that is left, in seconds.
        frame: over which energy is averaged, in seconds.

    Returns:
        A part of the waveform; the whole of one that is shorter than two frames or silent throughout.

    Example:
        >>> tone = torch.sin(torch.arange(4000) / 2)
        >>> len(without_silence(torch.cat([torch.zeros(8000), tone, torch.zeros(400)])))
        4400
    """
    step = max(1, round(frame * sample_rate))
    frames = len(waveform) // step
    if frames < 2:
        return waveform
    energy = waveform[: frames * step].reshape(frames, step).square().mean(1)
    loud = (energy > energy.max() * 10 ** (-quiet / 10)).nonzero().flatten()
    if not len(loud):
        return waveform
    first, last = int(loud[0]) * step, (int(loud[-1]) + 1) * step
    left = longest * sample_rate
    return waveform[first if first > left else 0 : last if len(waveform) - last > left else len(waveform)]
