"""DvsGesture from files that the tests write: the bits of an event, packets, labels, the source as a whole."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_meta.data import load_source, scenario
from lit_meta.data.readers.aedat import Events, read_aedat
from lit_meta.data.sources.dvs_gesture import event_counts, read_gestures

Event = tuple[int, int, int, int]  # x, y, polarity, time
HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2017-01-01 00:00:00 (TZ+0000)\r\n#!END-HEADER\r\n"


def packet(events: Sequence[Event], *, kind: int = 1, overflow: int = 0, valid: int = 1) -> bytes:
    body = b"".join(struct.pack("<Ii", x << 17 | y << 2 | on << 1 | valid, time) for x, y, on, time in events)
    return struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, len(events), len(events), len(events)) + body


def write(file: Path, *packets: bytes, header: bytes = HEADER) -> Path:
    file.write_bytes(header + b"".join(packets))
    return file


def test_events_are_read_bit_by_bit(tmp_path: Path) -> None:
    packets = (
        packet([(0, 127, 1, 5), (127, 0, 0, 6)]),
        packet([(1, 2, 1, 7)], kind=0),  # Special events, which have the same size and other bits.
        packet([(9, 9, 1, 8)], valid=0),
        packet([]),
        packet([(64, 3, 1, 35)], overflow=2),
    )
    events = read_aedat(write(tmp_path / "a.aedat", *packets))
    assert events.x.tolist() == [0, 127, 64]
    assert events.y.tolist() == [127, 0, 3]
    assert events.on.tolist() == [True, False, True]
    assert events.time.tolist() == [5, 6, 2 * 2**31 + 35]


def test_an_event_whose_first_byte_is_a_hash_is_no_header(tmp_path: Path) -> None:
    # Type 35 is "#", which ends at #!END-HEADER all the same.
    events = read_aedat(write(tmp_path / "a.aedat", packet([(1, 1, 1, 1)], kind=35), packet([(2, 2, 1, 2)])))
    assert events.x.tolist() == [2]


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (b"#!AER-DAT2.0\r\n", "is not AEDAT 3.1"),
        (b"", "is not AEDAT 3.1"),
        (b"#!AER-DAT3.1\r\n#Format: RAW", "cut off in its header"),
        (b"#!AER-DAT3.1\r\n#Format: SerialTS\r\n#!END-HEADER\r\n", "expected #Format: RAW"),
        (HEADER + packet([(1, 1, 1, 1)])[:20], "cut off in the header of a packet"),
        (HEADER + packet([(1, 1, 1, 1)])[:-1], "announces 1 events of 8 bytes, but 7 bytes follow"),
        (
            HEADER + struct.pack("<hhiiiiii", 1, 1, 12, 4, 0, 1, 1, 1) + bytes(12),
            "expected polarity events of 8 bytes, got 12",
        ),
        (HEADER + struct.pack("<hhiiiiii", 1, 1, 0, 4, 0, 9, 9, 9), "is damaged"),
    ),
)
def test_a_damaged_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.aedat").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_aedat(tmp_path / "a.aedat")


def events_of(*events: Event) -> Events:
    x, y, on, time = np.array(events).T
    return Events(x, y, on.astype(bool), time)


def test_counts_fall_into_their_part_row_and_column() -> None:
    events = events_of(
        (0, 0, 1, 100), (0, 0, 0, 119), (127, 0, 1, 120), (0, 127, 1, 199), (5, 5, 1, 99), (5, 5, 1, 200)
    )
    counts = event_counts(events, start=100, end=200, parts=5, cells=20)
    expected = torch.zeros(5, 20, 20)
    expected[0, 0, 0] = 1  # log 3 / log 3
    expected[1, 0, 19] = expected[4, 19, 0] = np.log(2) / np.log(3)
    torch.testing.assert_close(counts, expected)
    assert event_counts(events, start=300, end=400).abs().sum() == 0


def test_cells_share_the_pixels_evenly() -> None:
    events = events_of(*[(x, 0, 1, 0) for x in range(128)])
    counts = event_counts(events, start=0, end=1, parts=1)[0, 0]
    # 6 or 7 of 128 pixels a cell.
    assert set(counts.mul(np.log(8)).exp().sub(1).round().int().tolist()) == {6, 7}


def test_impossible_gestures_and_events_are_refused() -> None:
    with pytest.raises(ValueError, match="must end after it begins"):
        event_counts(events_of((0, 0, 1, 0)), start=5, end=5)
    with pytest.raises(ValueError, match=r"expected y to be 0..127, got 128"):
        event_counts(events_of((0, 128, 1, 0)), start=0, end=5)


def test_labels_are_read_in_order_and_do_not_run_into_each_other(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("class,startTime_usec,endTime_usec\n2,300,400\n1,100,350\n11,400,500\n\n")
    assert read_gestures(file) == [(0, 100, 300), (1, 300, 400), (10, 400, 500)]
    for line, message in (("12,1,2", "expected a class 1..11"), ("1,2,2", "start < end"), ("a,b", "as integers")):
        file.write_text(f"class,startTime_usec,endTime_usec\n{line}\n")
        with pytest.raises(ValueError, match=rf"line 2: .*{message}"):
            read_gestures(file)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "DvsGesture"
    folder.mkdir(parents=True)
    for part, users in (("train", ("user01_led", "user02_lab")), ("test", ("user24_led",))):
        (folder / f"trials_to_{part}.txt").write_text("".join(f"{user}.aedat\n" for user in users))
        for user in users:
            write(folder / f"{user}.aedat", packet([(11 * label, 64, 1, 1000 * label + 1) for label in range(11)]))
            rows = [f"{label + 1},{1000 * label},{1000 * label + 900}\n" for label in range(11)]
            (folder / f"{user}_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + "".join(rows))
    (folder / "gesture_mapping.csv").write_text("action,label\nhand_clapping,1\nair_guitar,10\n")
    return tmp_path / "data"


def test_the_source_has_the_official_split_and_the_published_number_of_inputs(recorded: Path) -> None:
    source = load_source("dvs-gesture", root=recorded)
    assert source.train_y.tolist() == [*range(11), *range(11)]
    assert source.test_y.tolist() == list(range(11))
    assert torch.Size(source.input_shape).numel() == 2000
    assert source.train_x[4, 0, 10, 44 * 20 // 128] == 1
    assert source.train_x[4].sum() == 1
    assert source.classes[0] == "hand_clapping"
    assert source.classes[1] == "2"
    stream = scenario("split-dvs-gesture", root=recorded)
    assert len(stream.train_stream) == 11
    assert stream.input_shape == (5, 20, 20)


@pytest.mark.parametrize("name", ("user02_lab.aedat", "user24_led_labels.csv", "trials_to_test.txt"))
def test_the_file_that_is_missing_is_named(recorded: Path, name: str) -> None:
    (recorded / "DvsGesture" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"DvsGesture not found: expected .*{name}.*research.ibm.com"):
        load_source("dvs-gesture", root=recorded)
