"""The schedule of a step: who is activated, in which order, and where Python is not needed."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph, Operator
from megaphone.dataflow.operators.probe import Probe
from megaphone.dataflow.stream import Stream
from megaphone.errors import InternalError, MegaphoneError
from megaphone.state.stores import DenseArray
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import functions_called

PASSES_MAX = 6
"""As in schedule.c."""


class Noting(Operator):
    """Notes its activations, and hands on what arrives."""

    def __init__(self, stream: Stream, name: str, log: list[str]) -> None:
        super().__init__(stream.graph, name)
        self.log = log
        self.port = self.add_input(stream)
        self.out = self.add_output(stream.schema)

    def setup(self, worker: Any) -> None:
        self._worker = worker
        self._cell, self._port = ffi.new("mp_cell *"), ffi.new("uint32_t[]", [self.port.location])

    def activate(self) -> None:
        self.log.append(self.name)
        slot = self._worker.slot
        lib.mp_begin(slot, self._port, 1)
        while self._worker.check(lib.mp_take(slot, self.port.location, self._cell)):
            self._worker.check(lib.mp_release_later(slot, self._cell.offset64))
            self._worker.push(self.out, self._cell)
        self._worker.check(lib.mp_publish(slot))


def chain(length: int, log: list[str]) -> Any:
    """Return a build of so many operators in a row that note their activations."""

    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        for number in range(length):
            stream = Stream(graph, Noting(stream, f"n{number}", log).out)
        return source, stream.probe()

    return build


def test_one_pass_activates_downstream_first() -> None:
    log: list[str] = []
    with Simulation(chain(3, log), slots=1) as simulation:
        source, _ = simulation.handles[0]
        simulation.run_until(lambda: not simulation.step())
        log.clear()
        source.advance_to(1)  # moves the frontiers of all at once
        simulation.step()
        assert log == ["n2", "n1", "n0"]


def test_what_an_activation_hands_on_is_taken_in_the_same_step_up_to_six_operators_down() -> None:
    log: list[str] = []
    with Simulation(chain(8, log), slots=1) as simulation:
        source, _ = simulation.handles[0]
        simulation.run_until(lambda: not simulation.step())
        log.clear()
        source.send({"n": [1]})
        assert simulation.step()
        assert log == [f"n{number}" for number in range(PASSES_MAX)]
        assert simulation.step()
        assert log == [f"n{number}" for number in range(8)]


def test_a_pass_activates_those_that_were_ready_at_its_begin_also_where_a_loop_leads_upstream() -> None:
    log: list[str] = []

    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        loop, back = graph.feedback({"n": "u8"})
        round_trip = Noting(stream.concat(back), "noting", log)
        loop.connect(Stream(graph, round_trip.out))
        return source

    with Simulation(build, slots=1) as simulation:
        source = simulation.handles[0]
        simulation.run_until(lambda: not simulation.step())
        log.clear()
        source.send({"n": [1]})
        simulation.step()
        # Six passes are concat, noting, feedback, twice: feedback is behind noting in the order, and ready only then.
        assert log == ["noting"] * 2


def test_operators_behind_more_than_64_ports_are_found() -> None:
    log: list[str] = []
    with Simulation(chain(100, log), slots=1, seed=2) as simulation:
        source, probe = simulation.handles[0]
        source.send({"n": [1]})
        source.close()
        simulation.run()
        assert {f"n{number}" for number in range(100)} == set(log)
        assert probe.frontier() == 2**64 - 1


def test_a_step_that_has_nothing_to_do_says_so_and_so_does_the_question_before_parking() -> None:
    log: list[str] = []
    with Simulation(chain(2, log), slots=1) as simulation:
        source, _ = simulation.handles[0]
        worker = simulation.workers[0]
        simulation.run_until(lambda: not simulation.step())
        assert not worker.ready_now()
        source.advance_to(1)
        assert worker.ready_now()
        worker.commit()
        assert worker.ready_now()  # nothing is open any more, and the operators have not been told of the time
        assert worker.step()
        assert not worker.ready_now()
        assert not worker.step()


def test_an_empty_time_runs_no_python_of_any_operator() -> None:
    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        control = graph.control(source)
        counted = stream.stateful_unary(
            key="n", state=DenseArray("u8"), hash="dense", fold=lambda context: context.add_emit("n"),
            columns={"n": "u8", "count": "u8"}, control=control,
        )  # fmt: skip
        spread = counted.distribute("n", control=control).exchange("count")
        shown = spread.map(lambda batch: {"n": batch["n"]}, columns={"n": "u8"})
        odd, even = shown.partition(2, lambda batch: batch["n"] % np.uint64(2))
        by_function = odd.distribute(lambda batch: batch["n"] << np.uint64(32), control=control)
        return source, by_function.concat(even).inspect(lambda _: None).broadcast().probe()

    with Simulation(build, slots=1) as simulation:
        source, probe = simulation.handles[0]
        worker = simulation.workers[0]
        source.send({"n": np.arange(10, dtype=np.uint64)})
        source.advance_to(1)
        simulation.run_until(lambda: probe.frontier() >= 1)
        before = simulation.counter("activations")
        source.advance_to(2)
        called = functions_called(worker.step)
        assert probe.frontier() == 2
        assert called == ["step", "_step"]
        assert simulation.counter("activations") - before >= 11


class Refusing(Operator):
    """Whose activation the core refuses."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.graph, "refusing")
        self.add_input(stream)

    def task(self) -> Any:
        self._run = ffi.callback("int64_t(mp_slot *, void *)", lambda *_: -errno.EPROTO)
        return self._run, ffi.NULL


def test_what_the_core_refuses_is_told_with_the_operators_name_and_the_worker_stays_failed() -> None:
    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        Refusing(stream.exchange("n"))
        return source, stream.probe()

    with Simulation(build, slots=1) as simulation:
        source, probe = simulation.handles[0]
        worker = simulation.workers[0]
        source.send({"n": [1]})
        with pytest.raises(InternalError, match=f"answered -{errno.EPROTO} in operator 'refusing' of worker 0"):
            simulation.run()
        assert worker.current_operator() == "refusing"
        assert probe.frontier() == 0
        with pytest.raises(MegaphoneError, match="has failed before.*'refusing'"):
            worker.step()


def test_a_probe_with_an_activation_of_its_own_runs_that() -> None:
    class Looking(Probe):
        def activate(self) -> None:
            looked.append(lib.mp_drain(self._worker.slot, self.port.location))

    looked: list[int] = []

    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        return source, Looking(stream, "looking")

    with Simulation(build, slots=1) as simulation:
        source, probe = simulation.handles[0]
        source.advance_to(1)
        simulation.step()
        assert (looked, probe.frontier()) == ([], 1)  # no message: the core does it
        source.send({"n": [1]})
        source.close()
        simulation.run()
        assert looked == [1]
