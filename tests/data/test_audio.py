"""Log-mel features: the filterbank's known properties, tones, recordings made on the spot."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_meta.data import load_source
from lit_meta.data.readers.audio import read_audio
from lit_meta.functional.audio import hertz_to_mel, log_mel, mel_filterbank, mel_to_hertz


def write_wav(file: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1) -> None:
    with wave.open(str(file), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())


def tone(frequency: float, samples: int = 4000) -> torch.Tensor:
    return torch.sin(2 * torch.pi * frequency * torch.arange(samples) / 8000)


@given(st.floats(0, 20_000))
def test_the_two_mel_conversions_are_inverse(frequency: float) -> None:
    value = torch.tensor(frequency, dtype=torch.float64)
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(value)), value, rtol=1e-9, atol=1e-9)


def test_the_filters_are_triangles_that_add_up_to_one() -> None:
    bands, fft_size, rate = 30, 4096, 8000
    weight = mel_filterbank(bands=bands, fft_size=fft_size, sample_rate=rate)
    edges = mel_to_hertz(torch.linspace(0, hertz_to_mel(torch.tensor(4000.0)).item(), bands + 2))
    frequency = torch.linspace(0, rate / 2, fft_size // 2 + 1)
    inside = (frequency >= edges[1]) & (frequency <= edges[-2])
    torch.testing.assert_close(weight[:, inside].sum(0), torch.ones(int(inside.sum())), atol=1e-4, rtol=0)
    assert weight.min() >= 0
    assert weight.max() <= 1
    spacing = frequency[1]
    for band in range(bands):
        assert abs(frequency[weight[band].argmax()] - edges[band + 1]) <= spacing
        support = frequency[weight[band] > 0]
        assert edges[band] <= support[0] <= edges[band] + 1.01 * spacing
        assert edges[band + 2] - 1.01 * spacing <= support[-1] <= edges[band + 2]
        rising = weight[band][(frequency > edges[band]) & (frequency < edges[band + 1])]
        torch.testing.assert_close(rising.diff(2), torch.zeros(len(rising) - 2), atol=1e-4, rtol=0)


def test_a_filterbank_with_an_empty_band_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer bands or a longer transform"):
        mel_filterbank(bands=64, fft_size=128, sample_rate=8000)
    with pytest.raises(ValueError, match="bands >= 1"):
        mel_filterbank(bands=0, fft_size=128, sample_rate=8000)


@pytest.mark.parametrize("frequency", (300.0, 700.0, 1500.0, 3000.0))
def test_a_tone_is_loudest_in_the_band_around_it(frequency: float) -> None:
    peaks = mel_to_hertz(torch.linspace(0, hertz_to_mel(torch.tensor(4000.0)).item(), 32))[1:-1]
    nearest = (hertz_to_mel(peaks) - hertz_to_mel(torch.tensor(frequency))).abs().argmin()
    features = log_mel(tone(frequency))
    assert (features.argmax(0) == nearest).all()


def test_a_click_lights_up_its_own_part_of_the_time() -> None:
    waveform = torch.zeros(8000)
    waveform[4000] = 1
    assert log_mel(waveform).sum(0).argmax().item() in (14, 15)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9000), st.integers(0, 10))
def test_features_of_any_duration_have_one_shape_and_the_unit_range(samples: int, seed: int) -> None:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    features = log_mel(noise)
    assert features.shape == (30, 30)
    assert features.min() == 0
    assert features.max() == 1


def test_features_do_not_depend_on_loudness_and_silence_is_zero() -> None:
    waveform = tone(500) + 0.1 * tone(2000)
    torch.testing.assert_close(log_mel(waveform), log_mel(0.5 * waveform), atol=1e-4, rtol=0)
    assert log_mel(torch.zeros(1000)).abs().sum() == 0


@pytest.mark.parametrize("shape", ((0,), (2, 100)))
def test_a_waveform_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a waveform of shape \(time,\)"):
        log_mel(torch.zeros(shape))


def test_wav_files_are_read_exactly(tmp_path: Path) -> None:
    samples = np.array([0, 1, -1, 32767, -32768])
    write_wav(tmp_path / "a.wav", samples)
    waveform, rate = read_audio(tmp_path / "a.wav")
    assert rate == 8000
    assert (waveform * 32768).tolist() == samples.tolist()


def test_wav_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "stereo.wav", np.zeros(8), channels=2)
    with pytest.raises(ValueError, match="expected mono and 16 bits, got 2 channels"):
        read_audio(tmp_path / "stereo.wav")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(ValueError, match="not a readable recording"):
        read_audio(tmp_path / "text.wav")
    write_wav(tmp_path / "short.wav", np.zeros(8))
    (tmp_path / "short.wav").write_bytes((tmp_path / "short.wav").read_bytes()[:-6])
    with pytest.raises(ValueError, match="its header announces 8 samples, but 5 follow"):
        read_audio(tmp_path / "short.wav")


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for index in (0, 4, 5, 49):
            samples = 10_000 * tone(300 + 200 * digit, 1000 + 100 * index).numpy()
            write_wav(folder / f"{digit}_anna_{index}.wav", samples)
    return tmp_path


def test_fsdd_has_the_official_split_and_is_cached_outside_the_data(recordings: Path) -> None:
    source = load_source("fsdd", root=recordings / "data")
    assert source.train_y.tolist() == source.test_y.tolist() == [d for d in range(10) for _ in range(2)]
    waveform, _ = read_audio(recordings / "data" / "fsdd" / "recordings" / "3_anna_4.wav")
    torch.testing.assert_close(source.test_x[7, 0], log_mel(waveform), rtol=0, atol=0)
    assert len(list((recordings / "cache" / "lit_meta" / "tensors").iterdir())) == 1
    assert {path.name for path in (recordings / "data").iterdir()} == {"fsdd"}


def test_the_cache_is_used_renewed_and_not_needed(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_meta.data.sources import registry, spoken_digits

    folder = recordings / "data" / "fsdd" / "recordings"
    first = load_source("fsdd", root=recordings / "data")
    registry._load.cache_clear()

    def refuse(file: Path) -> None:
        raise AssertionError(f"{file} was read though it is in the cache")

    with monkeypatch.context() as context:
        context.setattr(spoken_digits, "read_audio", refuse)
        again = load_source("fsdd", root=recordings / "data")
    torch.testing.assert_close(again.train_x, first.train_x, rtol=0, atol=0)

    write_wav(folder / "0_anna_7.wav", 1000 * tone(300).numpy())
    registry._load.cache_clear()
    assert len(load_source("fsdd", root=recordings / "data").train_y) == len(first.train_y) + 1

    for file in (recordings / "cache" / "lit_meta" / "tensors").iterdir():
        file.write_bytes(b"damaged")
    registry._load.cache_clear()
    assert len(load_source("fsdd", root=recordings / "data").train_y) == len(first.train_y) + 1

    (recordings / "a file").write_text("so that no folder can be made below it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(recordings / "a file"))
    registry._load.cache_clear()
    assert len(load_source("fsdd", root=recordings / "data").train_y) == len(first.train_y) + 1
    registry._load.cache_clear()


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    (("seven.wav", 8000, "expected a name like"), ("7_anna_1.wav", 16000, "expected 8000 samples per second")),
)
def test_a_recording_that_does_not_belong_is_refused(recordings: Path, name: str, rate: int, message: str) -> None:
    write_wav(recordings / "data" / "fsdd" / "recordings" / name, np.ones(1000), rate)
    with pytest.raises(ValueError, match=message):
        load_source("fsdd", root=recordings / "data")
