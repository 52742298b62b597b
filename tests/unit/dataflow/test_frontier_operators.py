"""Operators that wait for time: frontiers, capabilities, notifications, and loops."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.batch import Batch
from megaphone.dataflow.capability import Capability
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.notificator import FrontierNotificator
from megaphone.dataflow.operators.unary_frontier import FrontierInput, FrontierOutput
from megaphone.dataflow.stream import Stream
from megaphone.errors import GraphError, MegaphoneError, TimeError
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import Run, assert_at_rest, one, references, rows

N = {"n": "u8"}
NEVER = 2**64 - 1


def count_by_time(stream: Stream) -> Stream:
    """Send, for each complete time, how many records it had on this worker."""
    counts: dict[int, int] = {}

    def count(source: FrontierInput, output: FrontierOutput, notificator: FrontierNotificator) -> None:
        for batch in source:
            if batch.time not in counts:
                notificator.notify_at(output.capability())
            counts[batch.time] = counts.get(batch.time, 0) + batch.n
        for time, _ in notificator:
            output.send({"n": [counts.pop(time)]})

    return stream.unary_frontier(count)


class Held:
    """An operator that keeps a capability for each time it sees, for the test to use; and the probe behind it."""

    def __init__(self, slots: int = 1) -> None:
        self.kept: list[Capability] = []

        def keep(source: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
            self.kept.extend(output.capability(batch.time) for batch in source)

        def build(graph: Graph) -> Any:
            source, stream = graph.input("source", N)
            return source, stream.unary_frontier(keep, name="keep").probe()

        self.simulation = Simulation(build, slots=slots)
        self.source, self.probe = self.simulation.handles[0]

    def __enter__(self) -> Held:
        self.source.advance_to(5)
        self.source.send({"n": [1]})
        self.source.advance_to(100)
        self.settle()
        return self

    def __exit__(self, *error: object) -> None:
        self.simulation.close()

    def settle(self) -> None:
        """Let everything be seen by everybody."""
        self.simulation._settled()


# -- notificator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3])
def test_a_time_is_told_once_and_only_when_it_is_complete(slots: int) -> None:
    with Run(N, lambda s: count_by_time(s.exchange("n")), slots, seed=slots) as run:
        for time in (0, 3, 4):
            for slot in range(slots):
                run.inputs[slot].advance_to(time)
                run.send({"n": np.full(10, 7)}, slot)
        run.simulation._settled()
        # The inputs stand at the last time: it is not complete, all before it are.
        assert rows(run.result()) == [(0, 10 * slots), (3, 10 * slots)]
        assert rows(run.finish()) == [(0, 10 * slots), (3, 10 * slots), (4, 10 * slots)]


def test_notifications_come_in_the_order_of_times_with_their_data() -> None:
    told: list[tuple[int, list[Any]]] = []

    def ask(source: FrontierInput, output: FrontierOutput, notificator: FrontierNotificator) -> None:
        for batch in source:
            for later in (9, 2, 2, 30):
                notificator.notify_at(output.capability(), later, time=batch.time + later)
            assert notificator.pending() == [(2, 2), (2, 2), (9, 9), (30, 30)]
            assert len(notificator) == 4
        told.extend((time, data) for time, data in notificator)

    one(N, lambda s: s.unary_frontier(ask), {"n": [1]})
    assert told == [(2, [2, 2]), (9, [9]), (30, [30])]


def test_what_is_post_dated_beyond_the_end_is_told_at_the_end() -> None:
    def ask(source: FrontierInput, output: FrontierOutput, notificator: FrontierNotificator) -> None:
        for _ in source:
            notificator.notify_at(output.capability(), time=NEVER - 1)
        for time, _ in notificator:
            output.send({"n": [time]})

    assert rows(one(N, lambda s: s.unary_frontier(ask), {"n": [1]})) == [(NEVER - 1, NEVER - 1)]


def test_a_notification_may_ask_for_the_next() -> None:
    def ask(source: FrontierInput, output: FrontierOutput, notificator: FrontierNotificator) -> None:
        for _ in source:
            notificator.notify_at(output.capability())
        for time, _ in notificator:
            output.send({"n": [time]})
            if time < 3:
                notificator.notify_at(output.capability(), time=time + 1)

    assert rows(one(N, lambda s: s.unary_frontier(ask), {"n": [1]})) == [(t, t) for t in range(4)]


def test_leaving_the_loop_over_notifications_keeps_the_rest_for_later() -> None:
    told: list[int] = []

    def ask(source: FrontierInput, output: FrontierOutput, notificator: FrontierNotificator) -> None:
        for batch in source:
            notificator.notify_at(output.capability(), time=batch.time)
        for time, _ in notificator:
            told.append(time)
            break

    with Run(N, lambda s: s.unary_frontier(ask), slots=1) as run:
        for time in range(3):
            run.inputs[0].advance_to(time)
            run.send({"n": [1]})
        run.simulation._settled()
        assert told == [0]
        run.inputs[0].advance_to(10)
        run.simulation._settled()
        run.inputs[0].advance_to(11)
        run.simulation._settled()
        assert told == [0, 1, 2]
        run.finish()


def test_a_full_ring_stops_between_two_times_and_the_rest_follows() -> None:
    calls = 0

    def ask(source: FrontierInput, output: FrontierOutput, notificator: FrontierNotificator) -> None:
        nonlocal calls
        calls += 1
        for batch in source:
            for later in range(300):
                notificator.notify_at(output.capability(), time=batch.time + later)
        for time, _ in notificator:
            output.send({"n": [time]})

    with Run(N, lambda s: s.unary_frontier(ask).broadcast(), slots=2, ring_cells=64) as run:
        run.send({"n": [1]})
        assert rows(run.finish()) == sorted([(t, t) for t in range(300)] * 2)
        assert calls > 4  # of them two on the worker that had no input
        assert run.counter("outbox") < 40


# -- what may be sent when ---------------------------------------------------------------------------------------


def test_a_send_before_the_time_of_what_was_taken_is_refused() -> None:
    def early(source: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
        for batch in source:
            output.send({"n": [1]}, time=batch.time - 1)

    with Run(N, lambda s: s.unary_frontier(early, name="early"), slots=1) as run:
        run.inputs[0].advance_to(4)
        run.send({"n": [1]})
        with pytest.raises(TimeError, match="operator 'early' may send at 4 or later, not at 3"):
            run.finish()


def test_a_send_that_nothing_justifies_is_refused() -> None:
    def unfounded(source: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
        if source.frontier == 7:
            output.send({"n": [1]}, time=9)

    with Run(N, lambda s: s.unary_frontier(unfounded, name="unfounded"), slots=1) as run:
        run.inputs[0].advance_to(7)
        with pytest.raises(TimeError, match="operator 'unfounded' sends and holds no time"):
            run.simulation._settled()


def test_a_dropped_capability_justifies_nothing_in_the_same_call() -> None:
    kept: list[Capability] = []

    def late(source: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
        kept.extend(output.capability(batch.time) for batch in source)
        if source.frontier == 7:
            kept[0].drop()
            output.send({"n": [1]}, time=9)

    with Run(N, lambda s: s.unary_frontier(late, name="late"), slots=1) as run:
        run.send({"n": [1]})
        run.simulation._settled()
        run.inputs[0].advance_to(7)
        with pytest.raises(TimeError, match="operator 'late' sends and holds no time"):
            run.simulation._settled()


def test_a_send_without_a_time_after_nothing_was_looked_at_is_refused() -> None:
    kept: list[Capability] = []

    def vague(source: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
        kept.extend(output.capability(batch.time) for batch in source)
        if source.frontier == 7:
            output.send({"n": [1]})

    with Run(N, lambda s: s.unary_frontier(vague, name="vague"), slots=1) as run:
        run.send({"n": [1]})
        run.simulation._settled()
        run.inputs[0].advance_to(7)
        with pytest.raises(TimeError, match="operator 'vague' sends without a time .* give time="):
            run.simulation._settled()
        kept.clear()


def test_an_output_is_shut_outside_the_function() -> None:
    outputs: list[Any] = []

    def steal(batch: Batch, output: Any) -> None:
        outputs.append(output)
        output.forward(batch)

    with Run(N, lambda s: s.unary(steal, name="steal"), slots=1) as run:
        run.send({"n": [1]})
        run.finish()
        with pytest.raises(TimeError, match="operator 'steal' sends and holds no time"):
            outputs[0].send({"n": [1]}, time=5)


def test_batches_and_capabilities_may_be_kept_until_a_time_is_complete() -> None:
    kept: dict[int, list[tuple[Batch, Capability]]] = {}

    def hold(source: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
        for batch in source:
            kept.setdefault(batch.time, []).append((batch, output.capability()))
        for time in sorted(time for time in kept if source.done(time)):
            for batch, capability in kept.pop(time):
                with capability:
                    output.forward(batch, time=capability.time + 1)

    with Run(N, lambda s: s.unary_frontier(hold), slots=1) as run:
        for time in (1, 4):
            run.inputs[0].advance_to(time)
            run.send({"n": [time, time]})
        assert rows(run.finish()) == [(2, 1), (2, 1), (5, 4), (5, 4)]
        assert run.counter("views_escaped") == 2
        assert run.counter("copied_ingest") == 32


# -- capabilities ------------------------------------------------------------------------------------------------


def test_a_capability_holds_the_frontier_until_it_is_dropped() -> None:
    with Held() as held:
        assert held.probe.frontier() == 5
        held.kept[0].drop()
        held.kept[0].drop()
        held.settle()
        assert held.probe.frontier() == 100
        held.source.close()
        held.simulation.run()
        assert_at_rest(held.simulation)


def test_a_capability_dropped_in_another_thread_lets_time_go_on() -> None:
    with Held(slots=2) as held:
        held.simulation.handles[1][0].close()
        thread = threading.Thread(target=held.kept[0].drop)
        thread.start()
        thread.join()
        held.settle()
        assert held.probe.frontier() == 100
        held.source.close()
        held.simulation.run()


def test_a_capability_that_is_garbage_is_dropped() -> None:
    with Held() as held:
        cycle: list[Any] = [held.kept.pop()]
        cycle.append(cycle)
        del cycle
        gc.collect()
        held.settle()
        assert held.probe.frontier() == 100
        held.source.close()
        held.simulation.run()
        assert_at_rest(held.simulation)


def test_a_worker_that_could_drop_a_capability_does_not_sleep() -> None:
    with Held() as held:
        worker = held.simulation.workers[0]
        assert not worker.ready_now()
        held.kept.clear()
        assert worker.ready_now()
        assert not worker.done()


def test_a_downgraded_capability_lets_time_go_on_as_far() -> None:
    with Held() as held:
        held.kept[0].downgrade(40)
        held.kept[0].downgrade(40)
        held.settle()
        assert held.probe.frontier() == 40
        further = held.kept[0].delayed(60)
        held.kept.clear()
        held.settle()
        assert held.probe.frontier() == 60
        further.drop()
        held.source.close()
        held.simulation.run()
        assert_at_rest(held.simulation)


def test_a_capability_never_goes_back() -> None:
    with Held() as held:
        capability = held.kept[0]
        with pytest.raises(TimeError, match="operator 'keep' holds a capability for time 5, which allows none for 4"):
            capability.downgrade(4)
        with pytest.raises(TimeError, match=r"outside 0 to 2\*\*64 - 2"):
            capability.delayed(NEVER)
        capability.drop()
        with pytest.raises(TimeError, match="uses a capability for time 5 that it has dropped"):
            capability.delayed(7)


def test_a_capability_may_be_dropped_after_the_run_and_not_used() -> None:
    with Held() as held:
        capability = held.kept[0]
    with pytest.raises(MegaphoneError, match="after the run"):
        capability.delayed(9)
    capability.drop()
    assert repr(capability) == "Capability('keep', time=5, dropped)"


# -- two inputs --------------------------------------------------------------------------------------------------


def binary(held: list[tuple[int, int]] | None = None) -> Any:
    """Return a build function: two inputs, and an operator that sends the sum of both sides of each complete time."""
    sums: dict[int, int] = {}

    def join(
        left: FrontierInput, right: FrontierInput, output: FrontierOutput, notificator: FrontierNotificator
    ) -> None:
        if held is not None:
            held.append((left.frontier, right.frontier))
        for source in (left, right):
            for batch in source:
                if batch.time not in sums:
                    notificator.notify_at(output.capability())
                sums[batch.time] = sums.get(batch.time, 0) + int(batch[batch.schema.names[0]].sum())
        for time, _ in notificator:
            output.send({"sum": [sums.pop(time)]})

    def build(graph: Graph) -> Any:
        one_input, left = graph.input("left", N)
        other_input, right = graph.input("right", {"m": "u4"})
        return one_input, other_input, left.binary_frontier(right, join, columns={"sum": "u8"}).capture()

    return build


def test_a_time_is_complete_when_both_inputs_have_passed_it() -> None:
    with Simulation(binary(), slots=1) as simulation:
        left, right, capture = simulation.handles[0]
        left.send({"n": [1, 2]})
        right.send({"m": [10]})
        left.advance_to(5)
        simulation._settled()
        assert len(capture.result()) == 0
        right.advance_to(5)
        simulation._settled()
        assert rows(capture.result()) == [(0, 13)]
        right.send({"m": [20]})
        left.close()
        right.close()
        simulation.run()
        assert rows(capture.result()) == [(0, 13), (5, 20)]
        assert_at_rest(simulation)
        assert references(simulation) == 0


def test_more_input_than_fuel_on_one_side_does_not_lose_the_other() -> None:
    with Simulation(binary(), slots=1) as simulation:
        left, right, capture = simulation.handles[0]
        for _ in range(200):
            left.send({"n": [1]})
            right.send({"m": [1]})
        left.close()
        right.close()
        simulation.run()
        assert rows(capture.result()) == [(0, 400)]


def test_an_input_that_is_left_alone_waits_until_there_is_news() -> None:
    calls = 0

    def left_first(left: FrontierInput, right: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
        nonlocal calls
        calls += 1
        for source in [left, right] if left.frontier == NEVER else [left]:
            for batch in source:
                output.forward(batch)

    def build(graph: Graph) -> Any:
        one_input, left = graph.input("left", N)
        other_input, right = graph.input("right", N)
        return one_input, other_input, left.binary_frontier(right, left_first).capture()

    with Simulation(build, slots=1) as simulation:
        left, right, capture = simulation.handles[0]
        right.send({"n": [1]})
        right.close()
        simulation.step()
        assert calls == 1
        assert not simulation.workers[0].ready_now()
        left.close()
        simulation.run()
        assert rows(capture.result()) == [(0, 1)]


# -- feedback ----------------------------------------------------------------------------------------------------


def collatz(step: int) -> Any:
    """Return a dataflow that sends numbers round until they are 1; each round is ``step`` later."""

    def dataflow(stream: Stream) -> Stream:
        handle, back = stream.graph.feedback(stream.schema, step)
        numbers = stream.concat(back).exchange("n")
        frontiers = [0]

        def watch(source: FrontierInput, output: FrontierOutput, _: FrontierNotificator) -> None:
            assert source.frontier >= frontiers[-1], "the frontier fell: a loop's step is taken for longer than it is"
            frontiers.append(source.frontier)
            for batch in source:
                output.forward(batch)

        numbers = numbers.unary_frontier(watch)
        done, going = numbers.partition(2, lambda b: (b["n"] != 1).astype(int))
        handle.connect(going.map(lambda b: {"n": np.where(b["n"] % 2 == 0, b["n"] // 2, 3 * b["n"] + 1)}))
        return done

    return dataflow


def collatz_rounds(n: int) -> int:
    rounds = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        rounds += 1
    return rounds


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("timed", [False, True])
def test_what_goes_round_a_loop_comes_out_later_by_its_rounds(slots: int, timed: bool) -> None:
    numbers = list(range(1, 30))
    with Run(N, collatz(2), slots, seed=5) as run:
        run.inputs[0].advance_to(3)
        run.send({"n": numbers}, times=[3 + n for n in numbers] if timed else None)
        expected = sorted((3 + (n if timed else 0) + 2 * collatz_rounds(n), 1) for n in numbers)
        # map gives up neither records nor their times, also where they differ within a batch
        assert rows(run.finish()) == expected


def test_a_record_that_would_come_out_after_all_times_ends_in_the_loop() -> None:
    def dataflow(stream: Stream) -> Stream:
        handle, back = stream.graph.feedback(N, 10)
        both = stream.concat(back)
        handle.connect(both)
        return both

    with Run(N, dataflow, slots=1) as run:
        run.inputs[0].advance_to(NEVER - 25)
        run.send({"n": [1, 2]}, times=[NEVER - 25, NEVER - 8])
        assert rows(run.finish()) == [(NEVER - 25, 1), (NEVER - 15, 1), (NEVER - 8, 2), (NEVER - 5, 1)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda g, _: g.feedback(N), "nothing is connected to it: call connect"),
        (lambda g, _: g.feedback(N, 0), "step 0: a loop must advance time"),
        (lambda g, s: g.feedback({"n": "u4"})[0].connect(s), "it was made for .*uint32.*connected to .*uint64"),
        (lambda g, s: [h.connect(s) for h in [g.feedback(N)[0]] * 2], "it is connected twice"),
    ],
)
def test_a_loop_that_cannot_work_is_refused_when_it_is_built(make: Any, said: str) -> None:
    def build(graph: Graph) -> None:
        _, stream = graph.input("source", N)
        make(graph, stream)

    with pytest.raises(GraphError, match=rf"operator 'feedback' \(test_frontier_operators.py:\d+: .*{said}"):
        Simulation(build, slots=1)
