"""q3, q4, q6 and q8 against SQL: over generated events with bins that move, and over events made to be awkward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megaphone.migration.control import Move
from tests.nexmark import running
from tests.nexmark.events import LATE, events, streams_of
from tests.nexmark.oracle import Streams, difference, expected
from tests.nexmark.reference import Auction, Bid, Events
from tests.nexmark.runner import SCENARIOS, Scenario, check, definition, generated, joined, play, shared

QUERIES = ("q3", "q4", "q6", "q8")


@pytest.mark.parametrize(
    "run", [run for run in SCENARIOS if run.query in QUERIES and not run.stress], ids=lambda run: run.name
)
def test_rows_are_those_of_sql(run: Scenario) -> None:
    check(run)


def by_date(happened: Events, slots: int) -> list[Streams]:
    """Return events as slots make them: each slot's in the order of their dates, which begin at 0."""
    streams = {}
    for stream, columns in streams_of(happened).items():
        late = {name for name in ("date_time", "expires") if name in columns and (columns[name] >= LATE).any()}
        columns |= {name: columns[name] - np.uint64(LATE) for name in late}
        order = np.argsort(columns["date_time"], kind="stable")
        streams[stream] = {name: values[order] for name, values in columns.items()}
    return shared(streams, slots)


@pytest.mark.parametrize("query", QUERIES)
@given(events(bids_max=40), st.integers(1, 3), st.integers(1, 30), st.booleans(), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_rows_are_those_of_sql_when_events_are_awkward(
    query: str, happened: Events, slots: int, tick: int, flex: bool, seed: int
) -> None:
    # Equal prices and dates, bids on the edges of an auction or of nothing, windows of which a tick has several.
    strategy = "random" if flex and slots > 1 else "none"
    run = Scenario(query, flex, slots, strategy, seed=seed, tick=tick, bin_shift=2, windows=happened.windows)
    by_slot = by_date(happened, slots)
    must = expected(joined(by_slot), run.windows, queries=[query])[query]
    outcome = play(run, definition(query), by_slot)
    wrong = difference(must, outcome.rows, run.name)
    assert wrong is None, wrong
    assert (apart(outcome.rows["time"], outcome.times) < tick).all()


def apart(exact: Any, times: Any) -> Any:
    """Return how far from its event time each row's logical time is."""
    exact = exact.astype(np.uint64)
    return np.maximum(exact, times) - np.minimum(exact, times)


@pytest.mark.parametrize("flex", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auctions_that_close_together_count_for_their_seller_in_the_order_of_their_ids(seed: int, flex: bool) -> None:
    # Ids fall while numbers rise, and are in many bins, so that no order but that of the ids gives these averages.
    draw = np.random.default_rng(seed)
    sellers, each = 4, 14
    auctions, bids = [], []
    for index, (seller, place) in enumerate(
        (seller, place) for seller in range(1, 1 + sellers) for place in range(each)
    ):
        auction = 1000 - index
        auctions.append(Auction(index, auction, 1, 0, place // 5, 40 + place // 7, seller, 10))
        bids.append(Bid(500 + index, auction, 1, int(draw.integers(1, 10**6)), 10 + index % 20))
    run = Scenario("q6", flex, 3, "random" if flex else "none", seed=seed, tick=7, bin_shift=4)
    by_slot = by_date(Events([], auctions, bids, run.windows), run.slots)
    must = expected(joined(by_slot), run.windows, queries=["q6"])["q6"]
    assert len(must["time"]) == sellers * each
    wrong = difference(must, play(run, definition("q6"), by_slot).rows, run.name)
    assert wrong is None, wrong


# --- post-dated records migrate ---------------------------------------------------------------------------------------


class EachTick:
    """Moves every bin to the next slot at every tick: so between any auction's start and its close, both included."""

    def __init__(self, run: Scenario, control: Any, probes: list[Any], duration: int) -> None:
        del probes, duration
        self._control, self._run = control, run
        self.times: list[int] = []
        self.finished = True
        MOVERS.append(self)

    def move(self) -> None:
        now = self._control.time
        if self._control.closed or now in self.times[-1:]:
            return
        self.times.append(now)
        owner = [(b + len(self.times)) % self._run.slots for b in range(1 << self._run.bin_shift)]
        self._control.send_instructions([Move(b, o) for b, o in enumerate(owner)])


MOVERS: list[EachTick] = []


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("query", ["q4", "q6"])
def test_auctions_close_rightly_though_every_bin_moves_between_their_start_and_their_close(
    query: str, slots: int, transfer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.nexmark.runner.Mover", EachTick)
    MOVERS.clear()
    run = Scenario(
        query, True, slots, "random", transfer, ("exact", "fast")[slots % 2], seed=slots, in_flight=50,
        tick=100_000_000, bin_shift=3,
    )  # fmt: skip
    seen: list[list[Streams]] = []

    def noted(run: Scenario) -> list[Streams]:
        seen.append(generated(run))
        return seen[-1]

    outcome = check(run, generate=noted)  # nothing lost, doubled or late
    # A plan with a map at each tick between the first and the last: any auction that closes in them was moved.
    made = np.array(MOVERS[0].times)
    assert (np.diff(made) == run.tick).all()
    assert outcome.moved == len(made) * (2 << run.bin_shift)  # of the operators that close and that average
    auction = joined(seen[0])["auction"]
    start = auction["date_time"] // np.uint64(run.tick) * np.uint64(run.tick)
    close = -(-auction["expires"].astype(np.int64) // run.tick) * run.tick
    moves = np.searchsorted(made, close, side="right") - np.searchsorted(made, start.astype(np.int64), side="right")
    within = (close <= made[-1]) & (start >= made[0])
    assert within.sum() > 100
    assert (moves[within] >= 1).all()
    assert (moves[within] >= 10).any()


# --- side by side -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queries", "workers"),
    [("q4-flex q6-flex", 2), ("q3-flex q8 q4", 3), ("q6 q8-flex q3 q5-flex", 2), ("q4 q4-flex", 2)],
)
def test_queries_of_one_run_do_not_disturb_each_other(queries: str, workers: int) -> None:
    asked = running.settings_of(queries, workers=workers, seed=workers)
    together = running.Run(asked, seed=3, moves=2)
    running.check(together)
    assert together.moved > 0
    for name in asked.query_names:
        alone = running.Run(running.settings_of(name, workers=workers, seed=workers), seed=4)
        for column, values in alone.rows[name].items():
            np.testing.assert_array_equal(np.sort(values), np.sort(together.rows[name][column]))
