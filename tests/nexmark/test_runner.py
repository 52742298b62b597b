"""The harness of NEXMark's queries, shown on the simplest of them: what it lets through, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.stream import Stream
from megaphone.migration.operators.control import Control
from megaphone.migration.operators.fold_context import FoldContext
from megaphone.state.stores import HashTable
from tests.nexmark import oracle, runner
from tests.nexmark.oracle import Streams
from tests.nexmark.runner import GENERATORS, LAPS, SCENARIOS, STRATEGIES, TRANSFERS, Scenario, check, shared

COLUMNS = dict.fromkeys(oracle.COLUMNS["q1"], "u8")
EVENTS = 1500


def bids(run: Scenario) -> list[Streams]:
    """Return events that are enough for q1, one each millisecond, whether or not there is a generator."""
    draw = np.random.default_rng(run.seed)
    streams: dict[str, dict[str, Any]] = {
        stream: {name: np.zeros(0, width) for name, width in schema.items()}
        for stream, schema in runner.SCHEMAS.items()
    }
    at = np.arange(EVENTS, dtype=np.uint64)
    few = {name: draw.integers(0, 50, EVENTS).astype(np.uint64) for name in ("auction", "bidder", "price")}
    streams["bid"] = {"seq": at, **few, "date_time": at * np.uint64(runner.MS)}
    return shared(streams, run.slots)


def rows_of(batch: Any) -> Mapping[str, Any]:
    prices = batch["price"] * np.uint64(89) // np.uint64(100)
    return {"time": batch["date_time"], "auction": batch["auction"], "bidder": batch["bidder"], "price": prices}


def q1(change: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda rows: rows, late: int = 0) -> Any:
    """Return q1 for the harness, with a slip: a change of each batch's rows, or a stamp that is too late."""

    def define(person: Stream, auction: Stream, bid: Stream, control: Control | None, run: Scenario) -> Stream:
        def fold(context: FoldContext) -> None:
            for time, segments in context.by_time():
                for segment in segments:
                    context.state.add_emit(segment["auction"])
                    context.output.send(change(rows_of(segment)), time=time + late)

        del person, auction
        if control is None:
            return bid.exchange("auction").flat_map(lambda batch: [change(rows_of(batch))], columns=COLUMNS)
        return bid.stateful_unary(
            key="auction", state=HashTable("u8", {"n": "u8"}), fold=fold, columns=COLUMNS, control=control,
            bin_shift=run.bin_shift, transfer=run.transfer,
        )  # fmt: skip

    return define


FLEX = Scenario("q1", True, 3, "random", "handover", seed=5)


@pytest.mark.parametrize(
    "run", [run for run in SCENARIOS if run.query == "q1" and not run.stress], ids=lambda run: run.name
)
def test_a_query_that_gives_what_it_must_passes(run: Scenario) -> None:
    outcome = check(run, q1(), bids)
    if run.strategy == "random":
        assert outcome.moved == LAPS << run.bin_shift
    elif run.strategy != "none":
        assert outcome.moved == 2 << run.bin_shift


def without_some(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = rows["price"] != 40
    return {name: values[kept] for name, values in rows.items()}


def with_some_twice(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    times = 1 + (rows["price"] == 40)
    return {name: np.repeat(values, times) for name, values in rows.items()}


def rounded(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**rows, "price": rows["price"] // np.uint64(2) * np.uint64(2)}


@pytest.mark.parametrize("run", [FLEX, Scenario("q1", False, 2)], ids=lambda run: run.name)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_some, r"\d missing, 0 too many\n.* price=40: \d expected, \d came"),
        (with_some_twice, r" 0 missing, \d+ too many\n.* price=40: \d expected, \d came"),
        (rounded, r"1500 expected, 1500 came"),
    ],
)
def test_rows_that_are_lost_doubled_or_changed_are_told(
    run: Scenario, change: Callable[[Mapping[str, Any]], Mapping[str, Any]], told: str
) -> None:
    with pytest.raises(AssertionError, match=told):
        check(run, q1(change), bids)


def test_rows_of_a_logical_time_that_is_not_theirs_are_told() -> None:
    check(FLEX, q1(late=0), bids)
    with pytest.raises(AssertionError, match="a row of time .* came at"):
        check(FLEX, q1(late=FLEX.tick), bids)


def test_a_plan_that_moves_nothing_is_told() -> None:
    def still(person: Stream, auction: Stream, bid: Stream, control: Control | None, run: Scenario) -> Stream:
        assert control is not None
        return q1()(person, auction, bid, None, run)  # type: ignore[no-any-return]

    with pytest.raises(AssertionError, match="0 bins have moved"):
        check(FLEX, still, bids)


def test_events_that_make_no_row_are_told() -> None:
    def none(run: Scenario) -> list[Streams]:
        return [{stream: {name: values[:0] for name, values in columns.items()} for stream, columns in one.items()}
                for one in bids(run)]  # fmt: skip

    with pytest.raises(AssertionError, match="no row is expected"):
        check(replace(FLEX, strategy="none"), q1(), none)


def test_the_same_scenario_is_played_the_same_way() -> None:
    first, second = (check(FLEX, q1(), bids) for _ in range(2))
    assert first.moved == second.moved
    for name, values in first.rows.items():
        np.testing.assert_array_equal(values, second.rows[name])
    np.testing.assert_array_equal(first.times, second.times)


def test_the_short_scenarios_have_everything_and_the_long_ones_all_combinations() -> None:
    assert len({run.name for run in SCENARIOS}) == len(SCENARIOS)
    short, long = ([run for run in SCENARIOS if run.stress is stress] for stress in (False, True))
    for query in oracle.QUERIES:
        of_query = [run for run in short if run.query == query]
        assert {run.strategy for run in of_query if run.flex} == set(STRATEGIES)
        assert {run.generator for run in of_query} == set(GENERATORS)
        assert {run.flex for run in of_query} == {True, False}
        assert {run.transfer for run in of_query if run.strategy != "none"} == set(TRANSFERS)
    for strategy in STRATEGIES:
        moving = [run for run in short if run.strategy == strategy and run.flex]
        assert {run.slots for run in moving} >= {2, 3, 4}
        assert {run.transfer for run in moving} == (set(TRANSFERS) if strategy != "none" else {"handover"})
        assert {run.generator for run in moving} == set(GENERATORS)
    assert {run.slots for run in short} == {1, 2, 3, 4}
    assert all(run.slots > 1 for run in SCENARIOS if run.strategy != "none")
    combinations = {(run.query, run.slots, run.strategy, run.transfer, run.generator) for run in long if run.flex}
    assert len(combinations) == len(oracle.QUERIES) * len(GENERATORS) * (len(TRANSFERS) * (1 + 3 * len(STRATEGIES)))
