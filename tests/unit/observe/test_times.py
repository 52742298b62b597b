"""Clocks of copies and allocation: each runs where it should, their parts never overlap, and off they stand still."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import megaphone
from megaphone.dataflow.graph import Graph
from megaphone.migration.control import Map
from megaphone.observe.ledger import TIME_COUNTERS, TIMED_PARTS
from megaphone.shm.counters import COUNTER_NAMES
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation

ROUNDS = 12
RECORDS = 3000
MEASURED = ["ingest", "scatter", "own", "concat", "split", "gather", "pend", "migrate", "grow"]


def mixed(state: Any, hash_name: str, *, is_measured: bool) -> tuple[dict[str, int], int]:
    """Run what copies for every cause; return the sums of counters, and the processor time of it all."""

    def fold(context: Any) -> None:
        context.column("k")  # of several segments at once: joined
        for at, segments in context.by_time():
            for segment in segments:
                context.state.add_emit(segment["k"])
                if at % 4 == 0:
                    context.post_date({"k": segment["k"][segment["k"] % 3 == 0]}, at + 5)

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        control = graph.control(words)
        some = stream.filter(lambda batch: batch["k"] % 7 > 0).inspect(lambda batch: batch.own())
        counts = some.stateful_unary(
            key="k", state=state, hash=hash_name, fold=fold, columns={"k": "u8"}, pending={"k": "u8"}, control=control,
            bin_shift=2, transfer="copy",
        )  # fmt: skip
        return words, control, counts.probe()

    begun = time.thread_time_ns()
    with Simulation(build, slots=2, seed=5) as simulation:
        if is_measured:
            for worker in simulation.workers:
                worker.times.measure()
        for turn in range(ROUNDS):
            if turn == ROUNDS // 2:
                simulation.handles[0][1].send_instructions([Map([1, 0, 0, 1])])
            for words, *_ in simulation.handles:
                keys = np.arange(turn * RECORDS, (turn + 1) * RECORDS, dtype=np.uint64)
                words.send({"k": keys})
                words.send({"k": keys[:100]}, times=turn + (keys[:100] % 2))
                words.advance_to(turn + 1)
            if turn % 3 == 2:
                simulation.run_until(lambda at=turn: all(h[-1].frontier() > at for h in simulation.handles))  # type: ignore[misc]
        for words, *_ in simulation.handles:
            words.close()
        simulation.run()
        names = simulation.workers[0].counters()
        return {name: simulation.counter(name) for name in names}, time.thread_time_ns() - begun


@pytest.fixture(scope="module", params=["vec", "hashmap"])
def measured(request: pytest.FixtureRequest) -> tuple[dict[str, int], int]:
    state: Any = DenseArray("u8") if request.param == "vec" else HashTable("u8", {"n": "u8"})
    return mixed(state, "dense" if request.param == "vec" else "mix", is_measured=True)


@pytest.mark.parametrize("cause", MEASURED)
def test_what_copies_takes_time(measured: tuple[dict[str, int], int], cause: str) -> None:
    sums, _ = measured
    assert sums[f"copied_{cause}"] > 0
    assert sums[f"ns_{cause}"] > 0


def test_counters_have_the_names_and_the_order_of_the_core() -> None:
    header = (Path(megaphone.__file__).parent / "shm" / "base.h").read_text()
    found = re.search(r"enum \{\s*(MP_RECORDS_IN.*?)MP_COUNTER_COUNT", header, re.DOTALL)
    assert found is not None
    names = re.findall(r"MP_(\w+),", re.sub(r"/\*.*?\*/", "", found[1], flags=re.DOTALL))
    assert [name.lower().replace("alloc_", "allocations_") for name in names] == list(COUNTER_NAMES)


def test_every_clock_has_been_tried() -> None:
    assert {*MEASURED, "slab_scan", "slab_fresh", "blocks"} == {*TIMED_PARTS}


@pytest.mark.parametrize("part", ["slab_fresh", "blocks"])
def test_memory_takes_time(measured: tuple[dict[str, int], int], part: str) -> None:
    assert measured[0][f"ns_{part}"] > 0


def test_the_parts_are_less_than_the_processor_time_of_the_whole(measured: tuple[dict[str, int], int]) -> None:
    sums, whole = measured
    assert 0 < sum(sums[name] for name in TIME_COUNTERS) <= whole


def test_clocks_that_nobody_turned_on_stand_still() -> None:
    sums, _ = mixed(HashTable("u8", {"n": "u8"}), "mix", is_measured=False)
    assert sums["copied_scatter"] > 0
    assert {name: sums[name] for name in TIME_COUNTERS if sums[name]} == {}


def numbers(graph: Graph) -> Any:
    handle, stream = graph.input("numbers", {"n": "u8"})
    return handle, stream.probe()


def busy(ns: int) -> int:
    """Work for some time; return how much processor time it was."""
    begun = time.thread_time_ns()
    while time.thread_time_ns() - begun < ns:
        pass
    return time.thread_time_ns() - begun


def test_the_innermost_part_counts_and_the_one_around_it_waits() -> None:
    with Simulation(numbers, slots=1) as simulation:
        (worker,) = simulation.workers
        worker.times.measure()
        begun = time.thread_time_ns()
        with worker.times.of("own"):
            with worker.times.of("gather"):
                inner = busy(3_000_000)
            with worker.times.of("concat"):
                pass
        whole = time.thread_time_ns() - begun
        busy(3_000_000)  # belongs to none
        counters = worker.counters()
        assert counters["ns_gather"] >= inner
        assert sum(counters[name] for name in TIME_COUNTERS) <= whole
        assert 0 < counters["ns_own"] <= whole - inner


def test_sleep_within_a_part_is_nobodys_time() -> None:
    with Simulation(numbers, slots=1) as simulation:
        (worker,) = simulation.workers
        worker.times.measure()
        begun = time.thread_time_ns()
        with worker.times.of("own"):
            time.sleep(0.01)
        assert 0 < worker.counters()["ns_own"] <= time.thread_time_ns() - begun


def test_slabs_that_a_copy_takes_count_as_slabs_and_not_as_the_copy() -> None:
    with Simulation(numbers, slots=1, memory="64M") as simulation:
        (worker,) = simulation.workers
        worker.times.measure()
        begun = time.thread_time_ns()
        with worker.times.of("scatter"):
            worker.prepare_slabs(16)
        whole = time.thread_time_ns() - begun
        counters = worker.counters()
        assert counters["allocations_fresh"] > 1
        assert counters["ns_slab_fresh"] > counters["ns_scatter"] > 0
        assert counters["ns_slab_fresh"] + counters["ns_blocks"] + counters["ns_scatter"] <= whole


def test_a_slab_used_again_was_looked_for() -> None:
    with Simulation(numbers, slots=1) as simulation:
        (worker,) = simulation.workers
        handle = simulation.handles[0][0]
        worker.times.measure()
        worker.prepare_slabs(3)
        for at in range(1, 200):
            handle.send({"n": np.zeros(20_000, np.uint64)})
            handle.advance_to(at)
            simulation.step()
        counters = worker.counters()
        assert counters["allocations_recycled"] > 0
        assert counters["ns_slab_scan"] > 0


def test_a_part_that_fails_ends() -> None:
    with Simulation(numbers, slots=1) as simulation:
        (worker,) = simulation.workers
        worker.times.measure()
        with pytest.raises(ZeroDivisionError), worker.times.of("own"):
            _ = 1 / len(simulation.workers[1:])
        counted = worker.counters()["ns_own"]
        with worker.times.of("gather"):
            busy(100_000)
        assert worker.counters()["ns_own"] == counted


def test_a_batch_that_outlives_its_worker_has_no_clock() -> None:
    kept: list[Any] = []

    def build(graph: Graph) -> Any:
        handle, stream = graph.input("numbers", {"n": "u8"})
        return handle, stream.inspect(kept.append).probe()

    with Simulation(build, slots=1) as simulation:
        simulation.workers[0].times.measure()
        handle = simulation.handles[0][0]
        handle.send({"n": [1, 2]})
        handle.close()
        simulation.run()
        kept[0].hold()
    assert kept[0].own()["n"].tolist() == [1, 2]
