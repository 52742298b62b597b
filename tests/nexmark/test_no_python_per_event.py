"""What Python does for q3, q4, q6 and q8 goes with ticks and batches, not with events, auctions, sellers or windows."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from typing import Any

import pytest

from megaphone.testing import Simulation
from megaphone.workloads.nexmark.run import build
from megaphone.workloads.nexmark.source import EventSource
from tests.nexmark.running import settings_of

TICKS, EVENTS = 30, 300


def calls(query: str, times: int) -> int:
    """Return how many functions, of Python and of C, are called for so many times the events in the same ticks."""
    asked = settings_of(
        query, workers=1, events=TICKS * EVENTS * times, rate_per_worker=float(EVENTS * times), in_flight=100 * times,
        tick_ns=10**9, q8_window_s=4.0, bin_shift=3,
    )  # fmt: skip
    counted: Counter[str] = Counter()

    def profile(frame: Any, event: str, what: Any) -> None:
        del frame, what
        counted[event] += 1

    with Simulation(partial(build, asked), 1, seed=1, memory="256M", late=False) as simulation:
        source = EventSource(asked, 0, simulation.handles[0].inputs)
        sys.setprofile(profile)
        try:
            while not source.exhausted:
                source.send(1 << 20)
                while simulation.step():
                    pass
            source.close()
            simulation.run()
        finally:
            sys.setprofile(None)
        assert simulation.handles[0].sinks[query].records > 10 * times
    return counted["call"] + counted["c_call"]


@pytest.mark.parametrize("query", ["q3", "q4", "q6", "q8", "q3-flex", "q4-flex", "q6-flex", "q8-flex"])
def test_forty_times_the_events_in_a_tick_are_not_more_calls(query: str, record_property: Any) -> None:
    calls(query, 1)  # what is imported at its first use is not counted
    few, many = calls(query, 1), calls(query, 40)
    record_property("runs", 2)
    # In few events there may be none of a kind, and then what deals with it is not called in some ticks.
    assert many < 1.15 * few, f"{few} calls for {TICKS * EVENTS} events, {many} for forty times as many"
