"""The source of a run: its events at the times of their ticks, its inputs at the time of the clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.schema import as_schema
from megaphone.workloads.nexmark.queries import find, inputs_of
from megaphone.workloads.nexmark.settings import NexmarkSettings
from megaphone.workloads.nexmark.source import EventDriver, EventSource


class Inlet:
    """An input that notes what it is given."""

    def __init__(self, columns: dict[str, str]) -> None:
        self.columns = columns
        self.schema = as_schema(columns)
        self.time, self.closed = 0, False
        self.sent: list[tuple[int, dict[str, Any]]] = []

    def loan(self, n: int) -> dict[str, Any]:
        assert n
        return {name: np.zeros(n, dtype) for name, dtype in self.columns.items()}

    def send(self, columns: dict[str, Any]) -> None:
        self.sent.append((self.time, columns))

    def advance_to(self, time: int) -> None:
        assert time > self.time
        self.time = time

    def close(self) -> None:
        self.closed = True


def source_of(queries: str = "q0", **given: Any) -> tuple[EventSource, dict[str, Inlet]]:
    settings = NexmarkSettings(queries=queries, in_flight=10, **given)
    inlets = {name: Inlet(columns) for name, columns in inputs_of([find(queries)]).items()}
    inputs: Any = inlets
    return EventSource(settings, 0, inputs), inlets


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("tick", [1, 999_999, 7_000_000])
def test_every_event_is_sent_at_the_time_of_its_tick(workers: int, tick: int) -> None:
    source, inlets = source_of(events=1000, workers=workers, rate_per_worker=500.0, tick_ns=tick)
    while not source.exhausted:
        assert 1 <= source.send(13) <= 13
    assert source.send(13) == 0
    rows = 0
    for inlet in inlets.values():
        for time, columns in inlet.sent:
            date = columns["date_time"]
            rows += len(date)
            assert (date // np.uint64(tick) * np.uint64(tick) == time).all()
    assert rows == sum(source.rows.values()) == 1000 // workers == source.position


def test_all_inputs_are_at_one_time_and_close_together() -> None:
    source, inlets = source_of(events=500)
    while not source.exhausted:
        source.send(100)
        assert {inlet.time for inlet in inlets.values()} == {source.time}
    assert not source.closed
    source.close()
    assert source.closed


def test_columns_that_nobody_reads_are_not_made_and_streams_neither() -> None:
    source, inlets = source_of("q2", events=500)
    while not source.exhausted:
        source.send(100)
    assert list(inlets) == ["bid"]
    assert list(inlets["bid"].sent[0][1]) == ["auction", "price", "date_time"]
    assert source.rows == {"bid": 500 // 2 * 46 // 50}


@pytest.mark.parametrize("dilation", [1, 64])
def test_in_open_loop_time_is_the_clocks_times_the_dilation_but_not_beyond_the_next_event(dilation: int) -> None:
    source, _ = source_of(rate_per_worker=1000.0, workers=1, time_dilation=dilation, tick_ns=1000)
    source.send(1)
    source.advance_to(300_500)
    assert source.time == 300_500 * dilation // 1000 * 1000
    source.advance_to(5_000_000)
    assert source.time == 1_000_000 * dilation  # the second event's
    source.send(1)
    assert source.time == 1_000_000 * dilation


def test_in_closed_loop_time_is_that_of_the_next_event() -> None:
    source, _ = source_of(rate_per_worker=None, workers=1, tick_ns=1000)
    source.send(1)
    source.advance_to(0)
    assert source.time == 10_000


def test_after_the_last_event_time_goes_on_by_ticks() -> None:
    source, _ = source_of(rate_per_worker=1000.0, workers=1, tick_ns=1000)
    source.send(1)
    source.end()
    assert source.exhausted
    for number in range(1, 4):
        source.advance_to(0)
        assert source.time == 1000 * number


TICK = 5_000_000


@pytest.mark.parametrize("dilation", [1, 3])
def test_events_are_ripe_when_their_tick_is_over_on_the_clock(dilation: int) -> None:
    source, _ = source_of(workers=1, rate_per_worker=2000.0, tick_ns=TICK, time_dilation=dilation)
    dates = [source.generator.date_time(k) for k in range(1000)]
    for now in range(0, 100_000_000, 777_777):
        over = now * dilation // TICK * TICK
        assert source.ripe(now) == sum(date < over for date in dates)
        then = now + source.until_tick(now)
        assert then * dilation // TICK > now * dilation // TICK
        assert (then - 1) * dilation // TICK == now * dilation // TICK


def test_a_tick_on_schedule_is_offered_whole_unless_it_is_a_batch_or_the_end() -> None:
    source, _ = source_of(workers=1, rate_per_worker=2000.0, tick_ns=TICK)
    driver = EventDriver.__new__(EventDriver)
    driver._events, driver.step_ns, driver.duration_ns = source, 500_000, 10**9
    driver.sent, driver.batch_records = 0, 50
    assert driver._due(TICK - 1) == 0  # ten are due, and their tick is not over
    assert driver._due(TICK) == 10
    assert driver._due(2 * TICK - 1) == 10
    assert driver._due(6 * TICK - 1) == 60  # more than a batch: it need not wait
    driver.duration_ns = 2 * TICK - 1
    assert driver._due(2 * TICK - 1) == 20  # there is no later look
