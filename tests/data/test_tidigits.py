"""TIDigits from SPHERE files that the tests write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_meta.data import load_source, scenario
from lit_meta.data.readers.audio import read_audio


def sphere(samples: np.ndarray, *, order: str = "10", **changes: object) -> bytes:
    fields = {
        "utterance_id": "1a",
        "channel_count": 1,
        "sample_count": len(samples),
        "sample_rate": 20000,
        "sample_n_bytes": 2,
        "sample_byte_format": order,
        "sample_coding": "pcm",
        **changes,
    }
    lines = [
        f"{k} -{'i' if isinstance(v, int) else f's{len(str(v))}'} {v}\n" for k, v in fields.items() if v is not None
    ]
    header = ("NIST_1A\n   1024\n" + "".join(lines) + "end_head\n").encode()
    return header.ljust(1024) + samples.astype(">i2" if order == "10" else "<i2").tobytes()


@pytest.mark.parametrize("order", ("01", "10"))
def test_samples_are_read_exactly_in_either_byte_order(order: str, tmp_path: Path) -> None:
    samples = np.array([0, 1, -1, 258, 32767, -32768])
    (tmp_path / "1a.wav").write_bytes(sphere(samples, order=order))
    waveform, rate = read_audio(tmp_path / "1a.wav")
    assert rate == 20000
    assert (waveform * 32768).tolist() == samples.tolist()


def test_a_longer_header_and_what_stands_behind_its_end_are_passed_over(tmp_path: Path) -> None:
    content = sphere(np.array([7, 8]), sample_coding=None)
    header = content[:1024].replace(b"   1024", b"   2048").rstrip() + b"\nsample_count -i 99\n"
    (tmp_path / "1a.wav").write_bytes(header.ljust(2048) + content[1024:])
    assert (read_audio(tmp_path / "1a.wav")[0] * 32768).tolist() == [7, 8]


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (b"RIFF....WAVEfmt ", "is not a readable recording"),
        (b"", "is not a readable recording"),
        (sphere(np.zeros(4))[:100], "is not a readable recording"),
        (sphere(np.zeros(4))[:-1], "announces 4 samples, but 3 follow"),
        (
            sphere(np.zeros(4), sample_coding="pcm,embedded-shorten-v2.00"),
            r"not a readable recording .*unimplemented format",
        ),
        (sphere(np.zeros(4), channel_count=2), "got 2 channels and PCM_16"),
        (sphere(np.zeros(4), sample_n_bytes=1), "not a readable recording"),
        (sphere(np.zeros(4), sample_rate=None), "not a readable recording"),
        (sphere(np.zeros(4), sample_byte_format="1"), "must be 01 or 10, got 1"),
    ),
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "1a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_audio(tmp_path / "1a.wav")


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, speakers in (("train", ("man/ae", "woman/ac")), ("test", ("man/ah",))):
        for speaker in speakers:
            folder = tmp_path / "data" / "tidigits" / "data" / "adults" / part / speaker
            folder.mkdir(parents=True)
            for digit, word in enumerate("z123456789o"):
                tone = 10_000 * np.sin(2 * np.pi * (300 + 300 * digit) * np.arange(3000) / 20_000)
                for recording in "ab":
                    (folder / f"{word}{recording}.wav").write_bytes(sphere(tone))
            (folder / "6z97a.wav").write_bytes(b"not looked at")
            (folder / "notes.txt").write_text("not looked at")
    return tmp_path / "data"


def test_single_digits_are_taken_by_the_official_split(corpus: Path) -> None:
    source = load_source("tidigits", root=corpus)
    assert source.input_shape == (1, 30, 30)
    assert source.train_y.bincount().tolist() == [4] * 11
    assert source.test_y.bincount().tolist() == [2] * 11
    assert source.classes[0] == "zero"
    assert source.classes[10] == "oh"
    # The higher the digit the higher the tone of these recordings, and the band that is loudest: labels are the files' own.
    loudest = source.test_x[source.test_y.argsort(), 0].mean(2).argmax(1)
    assert loudest.diff().min() >= 0
    assert loudest[-1] > loudest[0]
    assert len(scenario("split-tidigits", root=corpus).train_stream) == 11


def test_capital_letters_as_on_some_discs_are_read(corpus: Path) -> None:
    from lit_meta.data.sources import registry

    before = load_source("tidigits", root=corpus)
    for file in (corpus / "tidigits").rglob("?[ab].wav"):
        file.rename(file.with_name(file.name.upper()))
    folder = corpus / "tidigits" / "data" / "adults"
    (folder / "train").rename(folder / "TRAIN")
    registry._load.cache_clear()
    torch.testing.assert_close(load_source("tidigits", root=corpus).train_x.sum(), before.train_x.sum())


def test_what_does_not_belong_is_refused(corpus: Path) -> None:
    from lit_meta.data.sources import registry

    file = corpus / "tidigits" / "data" / "adults" / "train" / "man" / "ae" / "1a.wav"
    file.write_bytes(sphere(np.ones(1000), sample_rate=16000))
    with pytest.raises(ValueError, match="expected 20000 samples per second, got 16000"):
        load_source("tidigits", root=corpus)
    file.rename(file.with_name("one.wav"))
    with pytest.raises(ValueError, match=r"one\.wav: expected a name like 6a\.wav"):
        load_source("tidigits", root=corpus)
    file.with_name("one.wav").unlink()
    registry._load.cache_clear()
    assert len(load_source("tidigits", root=corpus).train_y) == 43


def test_a_half_that_is_missing_is_named(corpus: Path) -> None:
    (corpus / "tidigits" / "data" / "adults" / "test").rename(corpus / "tidigits" / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"TIDigits \(test\) not found.*LDC93S10"):
        load_source("tidigits", root=corpus)
