"""AEDAT 3.1 files, recordings of event cameras.

Our own reader: tonic's (1.7) fails on every such file (`read_dvs_ibm` unpacks two of three values), takes packets of all kinds
for polarity events, and counts events that are marked invalid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

_PACKET = np.dtype(
    [
        ("type", "<i2"),
        ("source", "<i2"),
        ("size", "<i4"),
        ("ts_offset", "<i4"),
        ("ts_overflow", "<i4"),
        ("capacity", "<i4"),
        ("number", "<i4"),
        ("valid", "<i4"),
    ]
)
_POLARITY = 1
_EVENT = np.dtype([("data", "<u4"), ("timestamp", "<i4")])


@dataclass(frozen=True, eq=False)
class Events:
    """Changes of brightness reported by an event camera, in the order of the file.

    Attributes:
        x: column, from the left, (events,).
        y: row, from the top, (events,).
        on: whether the pixel became brighter, (events,).
        time: in microseconds, (events,).
    """

    x: np.ndarray
    y: np.ndarray
    on: np.ndarray
    time: np.ndarray

    def between(self, start: int, end: int) -> Events:
        """The events with ``start <= time < end``, both in microseconds."""
        inside = (self.time >= start) & (self.time < end)
        return Events(self.x[inside], self.y[inside], self.on[inside], self.time[inside])


def read_aedat(file: Path) -> Events:
    """Reads the polarity events of an AEDAT 3.1 file.

    The file begins with lines that start with ``#`` (the first ``#!AER-DAT3.1``, the last ``#!END-HEADER``). Packets follow,
    little-endian: a header of 28 bytes (int16 type and source; int32 size of an event, offset of its timestamp, overflow of
    the timestamps, capacity, number of events, number of valid events), then the events. A polarity event (type 1) is 8
    bytes: 32 bits of data (bit 0: valid, bit 1: brighter, from bit 2: y, from bit 17: x) and an int32 timestamp in
    microseconds; the overflow counts multiples of 2³¹. Packets of other types and invalid events are skipped.

    Args:
        file: the file.

    Returns:
        The events.

    Raises:
        ValueError: the file is not AEDAT 3.1, is in a format other than RAW, or is truncated.

    Source:
        iniVation, AEDAT 3.1 (docs.inivation.com, file formats). The masks of x and y (13 bits each) follow IBM's
        description of the data set.
    """
    content = file.read_bytes()
    if not content.startswith(b"#!AER-DAT3."):
        raise ValueError(f"{file} is not AEDAT 3.1: expected it to begin with #!AER-DAT3.1, got {content[:12]!r}")
    start = 0
    while content[start : start + 1] == b"#":
        end = content.find(b"\n", start) + 1
        line = content[start:end].strip() if end else b""
        if not end:
            raise ValueError(f"{file} is cut off in its header; download it again")
        if line.startswith(b"#Format:") and line.split(b":")[1].strip() != b"RAW":
            raise ValueError(f"{file} is packed ({line.decode(errors='replace')}), expected #Format: RAW; convert it")
        start = end
        if line == b"#!END-HEADER":
            break
    packed: list[np.ndarray] = []
    times: list[np.ndarray] = []
    while start < len(content):
        if len(content) - start < _PACKET.itemsize:
            raise ValueError(f"{file} is cut off in the header of a packet, at byte {start}; download it again")
        packet = np.frombuffer(content, _PACKET, count=1, offset=start)[0]
        start += _PACKET.itemsize
        number, size = int(packet["number"]), int(packet["size"])
        if number < 0 or size < 1 or len(content) - start < number * size:
            raise ValueError(
                f"{file} is damaged: at byte {start} a packet announces {number} events of {size} bytes, but "
                f"{len(content) - start} bytes follow; download it again"
            )
        if packet["type"] == _POLARITY:
            if size != _EVENT.itemsize:
                raise ValueError(f"{file}: expected polarity events of {_EVENT.itemsize} bytes, got {size}")
            events = np.frombuffer(content, _EVENT, count=number, offset=start)
            packed.append(events["data"])
            times.append(events["timestamp"].astype(np.int64) + (int(packet["ts_overflow"]) << 31))
        start += number * size
    data = np.concatenate(packed) if packed else np.empty(0, np.uint32)
    time = np.concatenate(times) if times else np.empty(0, np.int64)
    valid = (data & 1).astype(bool)
    data, time = data[valid], time[valid]
    return Events(
        ((data >> 17) & 0x1FFF).astype(np.int64), ((data >> 2) & 0x1FFF).astype(np.int64), (data & 2) != 0, time
    )
