"""What both generators share: numbers, times and counts in closed form, who has which event, and where columns go."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megaphone.dataflow.stream import Stream
from megaphone.errors import UsageError
from megaphone.workloads.nexmark import names, schemas
from megaphone.workloads.nexmark.events import KINDS, Counts, Events, Generator, GeneratorKind
from megaphone.workloads.nexmark.generate import MergedEvents
from tests.unit.dataflow.runs import Run
from tests.unit.workloads.nexmark import golden

BOTH = pytest.mark.parametrize("kind", KINDS)


def take_all(kind: GeneratorKind, workers: int, events: int, **options: Any) -> list[Events]:
    generators = [Generator(kind, worker, workers, options.get("rate", 1000.0), 50, 5) for worker in range(workers)]
    return [generator.take(generator.share(events)) for generator in generators]


@BOTH
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 50, 255])
def test_every_event_is_made_once_by_the_worker_whose_turn_it_is(kind: GeneratorKind, workers: int) -> None:
    made = take_all(kind, workers, 1234)
    numbers = []
    for worker, events in enumerate(made):
        for columns in events:
            assert (columns["seq"] % workers == worker).all()
            assert (np.diff(columns["seq"].astype(np.int64)) > 0).all()
            numbers += columns["seq"].tolist()
    assert sorted(numbers) == list(range(1234))


@BOTH
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_kind_id_and_time_are_closed_forms_of_the_number(kind: GeneratorKind, workers: int) -> None:
    rate = 333.3
    for person, auction, bid in take_all(kind, workers, 3000, rate=rate):
        assert (person["seq"] % 50 == 0).all()
        np.testing.assert_array_equal(person["id"], person["seq"] // 50 + 1000)
        assert np.isin(auction["seq"] % 50, (1, 2, 3)).all()
        np.testing.assert_array_equal(auction["id"], auction["seq"] // 50 * 3 + auction["seq"] % 50 - 1 + 1000)
        assert (bid["seq"] % 50 >= 4).all()
        for columns in (person, auction, bid):
            np.testing.assert_array_equal(columns["date_time"], np.trunc(columns["seq"] * (1e9 / rate)))


@BOTH
def test_what_events_name_is_at_most_ten_ahead_of_what_exists(kind: GeneratorKind) -> None:
    (events,) = take_all(kind, 1, 100_000)
    person, auction, bid = events
    last_person, last_auction = 1000 + auction["seq"] // 50, 1000 + bid["seq"] // 50 * 3 + 2
    assert (auction["seller"] <= last_person + 10).all()
    assert (auction["seller"] >= 1000).all()
    assert (bid["bidder"] <= 1000 + bid["seq"] // 50 + 10).all()
    assert (bid["auction"] <= last_auction + 10).all()
    # Hot auctions may be up to a hundred old; the others are among the fifty in flight.
    assert (last_auction - bid["auction"].astype(np.int64) < 100).all()
    assert (auction["expires"] > auction["date_time"]).all()
    horizon = int(50 * 50 // 3 * 1e6)
    assert (auction["expires"] <= auction["date_time"] + 1 + 2 * horizon).all()
    assert (auction["reserve"] >= auction["initial_bid"] + 100).all()
    assert set(auction["category"].tolist()) == {10, 11, 12, 13, 14}
    assert int(person["city"].max()) == len(names.CITIES) - 1
    assert int(person["state"].max()) == len(names.STATES) - 1


@given(
    worker_of=st.integers(1, 255).flatmap(lambda workers: st.tuples(st.integers(0, workers - 1), st.just(workers))),
    rate=st.floats(0.01, 1e10),
    time=st.integers(0, 10**15),
    near=st.integers(0, 10**9),
)
def test_as_many_events_are_before_a_time_as_have_an_earlier_one(
    worker_of: tuple[int, int], rate: float, time: int, near: int
) -> None:
    generator = Generator("fast", *worker_of, rate, in_flight=1)
    k = min(near, generator.end - 1)
    for moment in {time, generator.date_time(k), generator.date_time(k) + 1, max(0, generator.date_time(k) - 1)}:
        before = generator.before(moment)
        assert 0 <= before <= generator.end
        assert before == 0 or generator.date_time(before - 1) < moment
        assert before == generator.end or generator.date_time(before) >= moment


@pytest.mark.parametrize("rate", [1e-3, 1.0, 999.7, 1e9, 3e9, 1e11])
def test_no_time_is_too_small_or_too_large_to_count_what_is_before_it(rate: float) -> None:
    generator = Generator("fast", 1, 2, rate, in_flight=1)
    assert generator.before(0) == 0
    assert generator.before(-5) == 0
    assert generator.before(2**63) == generator.end
    assert generator.before(2**70) == generator.end


@given(workers=st.integers(1, 255), data=st.data(), first=st.integers(0, 10**6), events=st.integers(0, 700))
def test_rows_are_counted_as_they_are_made(workers: int, data: st.DataObject, first: int, events: int) -> None:
    worker = data.draw(st.integers(0, workers - 1))
    generator = Generator("fast", worker, workers, 1e6)
    generator.seek(first)
    counts = generator.counts(events)
    made = generator.take(events)
    assert counts == tuple(len(columns["seq"]) for columns in made)
    assert sum(counts) == events
    assert generator.counts_before(first + events) == tuple(
        a + b for a, b in zip(generator.counts_before(first), counts, strict=True)
    )


@BOTH
def test_events_come_by_the_time_as_they_are_due(kind: GeneratorKind) -> None:
    generator = Generator(kind, 2, 3, 700.0)
    seen = 0
    for time in range(0, 10**9, 77_000_001):
        due = generator.due(time)
        made = generator.take(due)
        seen += due
        assert all((columns["date_time"] < time).all() for columns in made)
        assert generator.due(time) == 0
        assert generator.date_time(generator.position) >= time
    assert seen == generator.position > 200


def test_of_a_bounded_run_every_worker_has_its_share() -> None:
    for workers in (1, 2, 3, 7, 255):
        generators = [Generator("exact", worker, workers, 1000) for worker in range(workers)]
        for events in (0, 1, 2, 6, 7, 254, 255, 256, 1000):
            shares = [generator.share(events) for generator in generators]
            assert sum(shares) == events
            assert max(shares) - min(shares) <= 1


@BOTH
def test_only_the_columns_that_are_asked_for_are_written(kind: GeneratorKind) -> None:
    whole = Generator(kind, 0, 1, 1000).take(500)
    for stream, schema in schemas.STREAMS.items():
        columns = getattr(whole, stream)
        for name, dtype in schema.items():
            generator = Generator(kind, 0, 1, 1000)
            # One row more than is needed stays as it was.
            room = np.full(len(columns[name]) + 1, 201, dtype)
            generator.fill(500, **{stream: {name: room}})
            np.testing.assert_array_equal(room[:-1], columns[name])
            assert room[-1] == 201
            assert generator.position == 500


@BOTH
def test_events_are_written_straight_into_a_loan(kind: GeneratorKind) -> None:
    columns = {"price": "u8", "date_time": "u8", "auction": "u8"}
    with Run(columns, lambda stream: stream) as run:
        generator = Generator(kind, 0, 1, 1000)
        for events in (3, 4, 50, 1000):
            counts = generator.counts(events)
            loan = run.inputs[0].loan(counts.bid)
            assert generator.fill(events, bid=loan) == counts
            run.send(loan)
        captured = run.finish()
        assert run.counter("copied_ingest") == 0
    whole = Generator(kind, 0, 1, 1000).take(1057).bid
    for name in columns:
        column = captured.columns[name]
        assert isinstance(column, np.ndarray)
        np.testing.assert_array_equal(np.sort(column), np.sort(whole[name]))


def refused(stream: str, target: Any, events: int = 100) -> str:
    generator = Generator("fast", 0, 1, 1000)
    with pytest.raises(UsageError) as error:
        generator.fill(events, **{stream: target})
    assert generator.position == 0
    return str(error.value)


def test_a_column_that_cannot_be_written_is_refused_in_one_line() -> None:
    room = np.zeros(200, np.uint64)
    assert "unknown column 'cost' of the bid stream: it has seq, auction" in refused("bid", {"cost": room})
    assert "is int64, must be uint64" in refused("bid", {"price": room.view(np.int64)})
    assert "is uint64, must be uint8" in refused("person", {"city": room})
    assert "has room for 91 rows, 92 are to be written" in refused("bid", {"price": room[:91]})
    assert "contiguous" in refused("bid", {"price": room[::2]})
    assert "contiguous" in refused("bid", {"price": room.reshape(100, 2)})
    room.flags.writeable = False
    assert "can be written" in refused("bid", {"price": room})
    assert not room.any()


def test_a_loan_that_is_too_small_or_sent_or_of_other_columns_is_refused() -> None:
    def forward(stream: Stream) -> Stream:
        return stream

    with Run({"price": "u8"}, forward) as run:
        assert "has room for 91 rows" in refused("bid", run.inputs[0].loan(91))
        loan = run.inputs[0].loan(92)
        loan["price"][:] = 1
        run.send(loan)
        assert "has been sent" in refused("bid", loan)
        run.finish()
    with Run({"price": "u4"}, forward) as run:
        assert "is uint32, must be uint64" in refused("bid", run.inputs[0].loan(92))
        run.finish()
    with Run({"price": "bytes"}, forward) as run:
        assert "is bytes, must be uint64" in refused("bid", run.inputs[0].loan(92, bytes_room={"price": 9}))
        run.finish()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("slow", 0, 1, 1000), "generator 'slow': unknown: give one of exact, fast"),
        (("fast", 0, 256, 1000), "workers 256: must be a whole number from 1 to 255"),
        (("fast", 0, 0, 1000), "workers 0"),
        (("fast", 1, 1, 1000), "worker 1: must be a whole number from 0 to 0"),
        (("fast", 0, 1, 0), "rate 0: events per second must be between 0.001 and 1e+11"),
        (("fast", 0, 1, math.nan), "rate nan"),
        (("fast", 0, 1, 1e12), "rate 1000000000000.0"),
        (("fast", 0, 1, 1000, 0), "in_flight 0: must be a whole number from 1"),
        (("fast", 0, 1, 1000, 2.5), "in_flight 2.5"),
        (("fast", 0, 1, 1e-3, 1 << 40), "give fewer auctions in flight, or a higher rate"),
        (("fast", 0, 1, 1000, None, -1), "seed -1"),
        (("fast", 0, 1, 1000, None, 1 << 64), "seed 18446744073709551616"),
    ],
)
def test_an_argument_out_of_range_is_refused_in_one_line(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError) as error:
        Generator(*arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_events_that_are_behind_or_beyond_the_end_are_refused() -> None:
    exact = Generator("exact", 0, 1, 1000)
    exact.seek(10)
    with pytest.raises(UsageError, match="event 9 lies before the next one, 10"):
        exact.seek(9)
    fast = Generator("fast", 0, 1, 1000)
    with pytest.raises(UsageError, match="give at most"):
        fast.fill(fast.end + 1)
    with pytest.raises(UsageError, match="give at most"):
        fast.fill(-1)
    with pytest.raises(UsageError, match="there are 0 to"):
        fast.date_time(fast.end)
    fast.seek(fast.end)
    assert fast.take(0).bid["price"].size == 0


def test_in_flight_is_twelve_hours_of_auctions_unless_said_otherwise() -> None:
    assert Generator("fast", 0, 1, 1000).in_flight == 2_592_000
    assert Generator("fast", 0, 1, 1e-3).in_flight == 2
    assert Generator("exact", 0, 1, 1000, 100).in_flight == 100


def test_codes_have_texts_and_the_counts_that_c_draws_from() -> None:
    assert (len(names.CITIES), len(names.STATES)) == (10, 6)
    assert len(names.NAMES) == 1 + len(names.FIRST_NAMES) * len(names.LAST_NAMES) == 100
    assert names.NAMES[0] == ""
    assert names.NAMES[1 + 10 * len(names.LAST_NAMES) + 8] == f"{names.FIRST_NAMES[10]} {names.LAST_NAMES[8]}"
    assert all(len(set(texts)) == len(texts) for texts in names.TEXTS.values())


@BOTH
@pytest.mark.parametrize("workers", [1, 3])
def test_merged_events_are_those_of_all_workers_in_order(kind: GeneratorKind, workers: int) -> None:
    merged = MergedEvents(kind, 1000, workers=workers, rate=1000.0, in_flight=50, seed=5)
    expected: dict[int, Any] = {}
    for events in take_all(kind, workers, 1000):
        expected.update(golden.rows(events))
    whole = merged.all()
    assert golden.rows(whole) == expected
    assert merged.rows == Counts(20, 60, 920)
    pieces = list(merged.pieces(schemas.STREAMS, 77))
    for stream, schema in schemas.STREAMS.items():
        assert (np.diff(getattr(whole, stream)["seq"].astype(np.int64)) > 0).all()
        for name in schema:
            joined = np.concatenate([getattr(piece, stream)[name] for piece in pieces])
            np.testing.assert_array_equal(joined, getattr(whole, stream)[name])
    (prices,) = merged.pieces({"bid": ("price",)}, 1000)
    assert (prices.person, prices.auction, list(prices.bid)) == ({}, {}, ["price"])
    np.testing.assert_array_equal(prices.bid["price"], whole.bid["price"])
