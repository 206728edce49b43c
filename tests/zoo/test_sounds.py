"""Recordings of one's own: they become the spectrograms that an entry of spoken words has learned."""

from __future__ import annotations

import wave

import numpy as np
import pytest
import torch

from lit_meta import zoo
from lit_meta.cli import main
from lit_meta.data import load_source
from lit_meta.functional.audio import log_mel, without_silence
from lit_meta.zoo.preprocessing import Transform

pytest.importorskip("soundfile")
NAME = "patch-net.recursive-readout_split-fsdd"
SOUND = Transform((1, 30, 30), "sound")


def recording(path, values, rate=8000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * np.asarray(values)).astype("<i2").tobytes())
    return path


def voice(rate, seconds=0.6, pitch=1.0):
    """Tones in every band, which swell and fade at different times."""
    time = np.arange(int(rate * seconds)) / rate
    tones = (
        np.sin(2 * np.pi * (pitch * 60 * k * time + 0.1 * k * k)) * (1.1 + np.sin(9 * time + k)) for k in range(2, 60)
    )
    return 0.005 * sum(tones)


def test_a_recording_becomes_its_spectrogram(tmp_path):
    path = recording(tmp_path / "a.wav", voice(8000))
    waveform = torch.from_numpy((32767 * voice(8000)).astype("<i2").astype("float32")) / 32768
    assert torch.equal(SOUND(path), log_mel(waveform)[None, None])


@pytest.mark.parametrize("rate", (16000, 22050, 44100))
def test_a_recording_at_another_rate_is_resampled(tmp_path, rate):
    expected = SOUND(recording(tmp_path / "own.wav", voice(8000)))
    assert float((SOUND(recording(tmp_path / "other.wav", voice(rate), rate)) - expected).abs().mean()) < 0.03
    deeper = SOUND(recording(tmp_path / "deeper.wav", voice(8000, pitch=0.5)))
    assert float((deeper - expected).abs().mean()) > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    (
        (lambda path: recording(path, np.zeros(16000), channels=2), "expected mono"),
        (lambda path: recording(path, []), "up to 60 seconds"),
        (lambda path: recording(path, np.zeros(8000 * 61)), "up to 60 seconds"),
        (lambda path: path.write_bytes(b"RIFF of nothing"), "not a readable recording"),
        (lambda path: recording(path, np.zeros(8000)), "holds no sound"),
    ),
)
def test_what_is_no_recording_of_a_word_is_refused(tmp_path, make, message):
    make(tmp_path / "x.wav")
    with pytest.raises(ValueError, match=message):
        SOUND(tmp_path / "x.wav")


@pytest.mark.parametrize("rate", (8000, 44100))
def test_silence_around_a_word_makes_no_difference(tmp_path, rate):
    word, silence = voice(rate), np.zeros(rate)
    expected = SOUND(recording(tmp_path / "word.wav", word, rate))
    around = SOUND(recording(tmp_path / "around.wav", np.concatenate([silence, word, silence]), rate))
    assert float((around - expected).abs().mean()) < 0.05
    pause = SOUND(recording(tmp_path / "pause.wav", np.concatenate([word, silence, word]), rate))
    assert float((pause - expected).abs().mean()) > 0.1


@pytest.mark.parametrize("rate", (8000, 16000))
def test_the_noise_of_a_room_is_silence_and_short_silence_stays(rate):
    word = torch.from_numpy(voice(rate)).float()
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * word.square().mean().sqrt() * torch.randn(3 * rate, generator=generator)
    cut = without_silence(torch.cat([noise[:rate], word, noise[rate:]]), sample_rate=rate)
    assert abs(len(cut) - len(word)) <= 0.02 * rate
    for short in (noise[: rate // 20], noise[:0]):
        whole = torch.cat([short, word, short])
        assert torch.equal(without_silence(whole, sample_rate=rate), whole)
    for nothing in (torch.zeros(rate), torch.zeros(3)):
        assert torch.equal(without_silence(nothing, sample_rate=rate), nothing)


def test_a_shape_that_is_no_spectrogram_is_refused():
    with pytest.raises(ValueError, match="a spectrogram has 1 channel"):
        Transform((3, 30, 30), "sound")


def test_spoken_digits_are_recognised_from_their_files(data_root, capsys):
    source = load_source("fsdd")
    names = [
        f"{digit}_{speaker}_{index}.wav"
        for digit, speaker, index in ((3, "jackson", 0), (7, "nicolas", 1), (0, "theo", 2))
    ]
    files = [data_root / "fsdd" / "recordings" / name for name in names]
    network = zoo.load(NAME)
    predictions = zoo.predict(network, files)
    for file, prediction in zip(files, predictions, strict=True):
        x = network.transform(file)
        assert bool((source.test_x == x).flatten(1).all(1).any()), "the spectrogram of the data set"
        assert prediction.label == int(network(x).argmax())
    assert sum(p.class_name == name[0] for p, name in zip(predictions, names, strict=True)) >= 2
    assert main(["predict", NAME, str(files[0])]) == 0
    assert predictions[0].class_name in capsys.readouterr().out
