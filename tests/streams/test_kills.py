"""However often a stream is killed, and wherever, it ends at the same bits: weights, memory, metrics, costs, records."""

from __future__ import annotations

import os
import warnings

import pytest

from tests.streams.kills import torture

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@pytest.mark.parametrize(("rule", "kills"), (("ewc", 14), ("naca", 13), ("bgd", 13), ("owm", 13), ("joint", 6)))
def test_a_killed_stream_ends_where_one_that_was_not_does(rule, kills):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done, found = torture(rule, kills)
    assert done == kills
    assert not found
