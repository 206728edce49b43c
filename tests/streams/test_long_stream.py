"""A short version of the long stream: nothing grows with the number of experiences or of steps."""

from __future__ import annotations

from tests.streams.long_stream import measure


def test_memory_does_not_grow_with_the_stream():
    measured = measure(experiences=200, steps=2)
    assert measured["steps"] == 400
    assert measured["memory_growth"] < 0.05
