"""Rings that are full: nothing is overtaken, and nobody stops receiving."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.graph import Graph
from megaphone.dataflow.stream import Stream
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import Run, rows

RING_CELLS = 64


def to_worker(worker: int, workers: int = 2) -> Any:
    """Return a key function that sends every record to one worker."""
    return lambda b: np.full(b.n, (worker << 64) // workers + 1, np.uint64)


@pytest.mark.parametrize("seed", range(6))
def test_what_one_worker_sends_along_an_edge_arrives_in_its_order_whatever_had_to_wait(seed: int) -> None:
    logs: list[list[int]] = []

    def dataflow(stream: Stream) -> Stream:
        log: list[int] = []
        logs.append(log)
        return stream.exchange(to_worker(1)).inspect(lambda b: log.extend(b["n"].tolist()))

    with Run({"n": "u8"}, dataflow, slots=2, seed=seed, ring_cells=RING_CELLS) as run:
        run.inputs[0].in_flight_bytes_max = 1 << 30
        for number in range(400):
            run.send({"n": [number]})
            if number % 100 == 99:
                # The receiver makes room, and the sender does not step, which would send what waits.
                run.simulation.workers[0].commit()
                run.simulation.step(1)
        assert run.counter("outbox") > 100
        run.finish()
    assert logs == [[], list(range(400))]


def test_counts_that_found_no_room_are_not_overtaken_by_fewer_that_would_find_some() -> None:
    """A batch of many counts needs several cells, one of few needs one; who gives time up must not be told first."""

    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        first, *others = [stream.inspect(lambda _: None) for _ in range(14)]
        return source, first.concat(*others).probe()

    with Simulation(build, slots=2, ring_cells=RING_CELLS, late=False) as simulation:
        (source, _), (other, probe) = simulation.handles
        sender = simulation.workers[0]
        other.close()
        simulation.step(1)
        for time in range(1, RING_CELLS - 1):  # a cell each
            source.advance_to(time)
            sender.commit()
        time = source.time
        source.send({"n": [1]})  # a count for each of the 14 edges
        sender.commit()
        assert sender.counters()["progress_merged"] == 0
        source.advance_to(time + 100)
        sender.commit()
        for _ in range(3):
            simulation.step(1)
            assert probe.frontier() <= time, "the probe has passed a record that is on its way"
        source.close()
        simulation.run()


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_that_wait_for_each_others_room_go_on(workers: int) -> None:
    """All send more than the rings hold before anybody receives: each has to receive while its own output waits."""
    with Run(
        {"n": "u8"}, lambda s: s.exchange("n").exchange("n", hash="fnv"), slots=workers, ring_cells=RING_CELLS
    ) as run:
        for worker in range(workers):
            run.inputs[worker].in_flight_bytes_max = 1 << 30
            for _ in range(3 * RING_CELLS):
                run.send({"n": np.arange(4 * workers)}, worker)
            run.simulation.workers[worker].commit()
        assert run.counter("outbox") > workers * RING_CELLS
        assert len(rows(run.finish())) == workers * 3 * RING_CELLS * 4 * workers


def test_an_operator_whose_output_waits_for_room_is_not_scheduled() -> None:
    """Else what one worker cannot take piles up at the other, and only memory bounds it."""

    def dataflow(stream: Stream) -> Stream:
        return stream.inspect(lambda _: None).exchange(to_worker(1))

    with Run({"n": "u8"}, dataflow, slots=2, ring_cells=RING_CELLS) as run:
        run.inputs[0].in_flight_bytes_max = 1 << 30
        for number in range(10 * RING_CELLS):
            run.send({"n": [number, number]})
        for _ in range(50):
            run.simulation.step(0)
        # The batch that found no room is the last that is made.
        assert run.counter("outbox") == 1
        assert len(rows(run.finish())) == 20 * RING_CELLS
