"""NEXMark's queries against SQL, plain and flex; and what a run of several adds."""

from __future__ import annotations

import gc
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from megaphone._core import lib
from megaphone.testing import Simulation
from megaphone.workloads.nexmark import queries
from megaphone.workloads.nexmark.run import build
from megaphone.workloads.nexmark.schemas import STREAMS
from megaphone.workloads.nexmark.settings import QUERIES, QUERY_NAMES
from megaphone.workloads.nexmark.source import EventSource
from tests.nexmark import oracle, runner
from tests.nexmark.running import Run, check, settings_of

HERE = [scenario for scenario in runner.SCENARIOS if scenario.query in QUERIES]
SHORT = [scenario for scenario in HERE if not scenario.stress]
LONG = [scenario for scenario in HERE if scenario.stress]


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_a_query_gives_what_sql_gives_whatever_moves(scenario: runner.Scenario) -> None:
    runner.check(scenario)


@pytest.mark.stress
@pytest.mark.parametrize("scenario", LONG, ids=lambda scenario: scenario.name)
def test_a_query_gives_what_sql_gives_in_long_runs(scenario: runner.Scenario) -> None:
    runner.check(scenario)


@pytest.mark.parametrize("name", QUERY_NAMES)
def test_a_querys_module_says_what_the_oracle_knows_of_it(name: str) -> None:
    query = queries.find(name)
    assert tuple(query.columns) == oracle.COLUMNS[name.removesuffix("-flex")]
    assert query.reads
    assert all(set(columns) <= STREAMS[stream].keys() for stream, columns in query.reads.items())
    assert query.texts.keys() <= query.columns.keys()


def bursts(run: runner.Scenario) -> list[oracle.Streams]:
    """Return bids in a few short bursts, far apart: between them nothing comes, and windows slide all the same."""
    draw = np.random.default_rng(run.seed)
    at = np.sort((draw.choice([3, 900, 2500], 40) * runner.MS + draw.integers(0, 3, 40)).astype(np.uint64))
    streams = {
        stream: {name: np.zeros(0, width) for name, width in schema.items()}
        for stream, schema in runner.SCHEMAS.items()
    }
    few = {name: draw.integers(0, 9, 40).astype(np.uint64) for name in ("auction", "bidder", "price")}
    streams["bid"] = {"seq": np.arange(40, dtype=np.uint64), **few, "date_time": at}
    return runner.shared(streams, run.slots)


@pytest.mark.parametrize("strategy", ["none", "fluid", "random"])
@pytest.mark.parametrize("flex", [False, True])
@pytest.mark.parametrize("tick", [runner.MS, 7 * runner.MS, 200 * runner.MS])
def test_q5_answers_windows_in_which_nothing_happens(tick: int, flex: bool, strategy: str) -> None:
    windows = oracle.Windows(q5_size=730 * runner.MS, q5_slide=50 * runner.MS)
    scenario = runner.Scenario("q5", flex, 3, strategy if flex else "none", tick=tick, windows=windows, seed=tick)
    runner.check(scenario, generate=bursts)


@pytest.mark.parametrize("size", [10, 50, 120])
def test_q5_has_windows_longer_and_shorter_than_its_slide(size: int) -> None:
    windows = oracle.Windows(q5_size=size * runner.MS, q5_slide=50 * runner.MS)
    runner.check(runner.Scenario("q5", True, 2, "random", tick=3 * runner.MS, windows=windows, events=1000))


FLEX = tuple(name for name in QUERY_NAMES if name.endswith("-flex"))
TOGETHER = (QUERIES, FLEX, QUERY_NAMES)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("names", TOGETHER, ids=["plain", "flex", "both"])
def test_queries_in_one_run_do_not_disturb_each_other(workers: int, names: tuple[str, ...]) -> None:
    """Each has the inputs, the control and the probe in common with the others, and nothing else."""
    transfer = "copy" if workers % 2 else "handover"
    settings = settings_of(" ".join(names), workers=workers, transfer=transfer, tick_ns=30_000_000, seed=workers)
    run = Run(settings, seed=workers, moves=2)
    check(run)
    assert (run.moved > 0) == (workers > 1 and settings.migrates)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_makes_the_events_of_its_settings_whatever_the_order_of_its_steps(seed: int) -> None:
    kind = "exact" if seed % 2 else "fast"
    settings = settings_of("q0", workers=1 + seed, generator=kind, seed=seed, tick_ns=7_000_001)
    check(Run(settings, seed=seed))


def test_only_columns_that_a_query_reads_are_made() -> None:
    together = queries.inputs_of([queries.find("q2"), queries.find("q7-flex")])
    assert together == {"bid": {"auction": "u8", "bidder": "u8", "price": "u8", "date_time": "u8"}}
    assert list(queries.inputs_of([queries.find("q2")])["bid"]) == ["auction", "price", "date_time"]


# --- memory -----------------------------------------------------------------------------------------------------------


def live_rows(simulation: Simulation) -> int:
    """Return how many keys the states of all workers hold."""
    found = [
        operator.state.live()  # type: ignore[attr-defined]
        for worker in simulation.workers
        for operator in worker.graph.operators
        if getattr(operator, "state", None) is not None
    ]
    assert found
    return sum(found)


@pytest.mark.parametrize("name", ["q5", "q5-flex", "q7", "q7-flex"])
def test_state_is_flat_over_a_long_run_and_gone_at_its_end(name: str) -> None:
    """Ten times as long a run holds no more, in keys and in committed memory, once its windows have filled."""
    settings = settings_of(name, workers=2, events=60_000, tick_ns=20_000_000)
    held, committed = [], []
    with Simulation(partial(build, settings), 2, 0, memory="64M", late=False) as simulation:
        sources = [EventSource(settings, index, handles.inputs) for index, handles in enumerate(simulation.handles)]
        for part in range(1, 11):
            while any(source.generator.position < part * 3000 for source in sources):
                for index, source in enumerate(sources):
                    source.send(1000)
                    source.advance_to(0)
                    simulation.step(index)
            for _ in range(100):
                simulation.step()
            held.append(live_rows(simulation))
            committed.append(int(lib.mp_committed_bytes(simulation.memory.control)))
        for source in sources:
            source.close()
        simulation.run()
        assert live_rows(simulation) == 0
    assert max(held[2:]) <= 2 * max(held[:2]) + 4, held
    assert committed[-1] == committed[1], committed


# --- Python runs per batch, never per event ---------------------------------------------------------------------------


MANY = 120
"""Thousand events per second; of a sixth of them, each batch still has a row for every query."""


def calls_of(name: str, scale: int) -> int:
    """Return the Python and C calls of a run of so many events per tick; its ticks, batches and steps are the same."""
    settings = settings_of(
        name, workers=2, events=4000 * scale, rate_per_worker=1000.0 * scale, in_flight=50 * scale,
        tick_ns=100_000_000, bin_shift=4 if scale == MANY // 6 else 7, output_path=None,
    )  # fmt: skip
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with Simulation(partial(build, settings), 2, 0, memory="256M", late=False, ring_cells=256) as simulation:
        sources = [EventSource(settings, index, handles.inputs) for index, handles in enumerate(simulation.handles)]
        gc.collect()
        gc.disable()
        sys.setprofile(count)
        try:
            while any(not source.exhausted for source in sources):
                for source in sources:
                    source.send(1 << 20)
                    source.advance_to(0)
                for step in range(12):
                    simulation.step(step % 2)
            for source in sources:
                source.close()
            for step in range(400):
                simulation.step(step % 2)
        finally:
            sys.setprofile(None)
            gc.enable()
        assert simulation.done
    return calls


COUNTED = tuple(name for name in QUERY_NAMES if name.removesuffix("-flex") not in ("q3", "q4", "q6", "q8"))
"""The others, most of whose ticks have few rows, are counted in test_no_python_per_event.py."""


@pytest.mark.parametrize("name", COUNTED)
def test_six_times_the_events_auctions_and_bins_make_no_more_python_calls(name: str) -> None:
    calls_of(name, 1)  # what is imported on its first use is not counted
    few, many = calls_of(name, MANY // 6), calls_of(name, MANY)
    assert few > 100
    assert many - few <= few / 20, f"{few} calls, {many} with six times as much"
