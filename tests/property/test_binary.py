"""Two inputs against an oracle: whatever moves when, each key is shown the same records of both, by its bin's owner."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megaphone.dataflow.graph import Graph
from megaphone.migration.control import Map, Move
from megaphone.migration.operators.binary import BinaryContext
from megaphone.state.stores import HashTable
from megaphone.testing import Simulation
from tests.property.binary_runs import BinaryScript, Round, Sending, check_outcome, run_script
from tests.property.migrating import BACKENDS, MEMORY, Update, assert_at_rest, bins_of_keys
from tests.property.test_migration import AHEAD, BURSTS, DELAYS, KEYS, instructions

CLOSES = st.sampled_from([None, None, None, 0, 1, 4])


@st.composite
def scripts(draw: st.DrawFn) -> BinaryScript:
    """Runs of any kind, small ones often."""
    slots = draw(st.sampled_from([1, 2, 2, 3, 3, 4]))
    bin_shift = draw(st.sampled_from([1, 2, 3, 3, 4, 8]))
    consumes = draw(st.sampled_from([False, False, True]))
    batched = draw(st.sampled_from([False, False, True])) and not consumes
    updates = st.builds(
        Update, st.lists(instructions(1 << bin_shift, slots), min_size=1, max_size=4).map(tuple), ahead=AHEAD
    )
    sendings = st.builds(
        Sending,
        st.integers(0, 1),
        st.integers(0, slots - 1),
        st.one_of(KEYS, KEYS, KEYS, BURSTS),
        delay=st.just(0) if batched else DELAYS,
        spread=st.sampled_from([0, 0, 1, 3]),
    )
    rounds = st.builds(
        Round,
        st.lists(sendings, min_size=1, max_size=4).map(tuple),
        st.lists(updates, max_size=3).map(tuple),
        steps=st.sampled_from([0, 1, 3, 10, 30]),
    )
    options: dict[str, Any] = {
        "backend": draw(st.sampled_from(BACKENDS)),
        "transfer": draw(st.sampled_from(["handover", "copy"])),
        "rounds": tuple(draw(st.lists(rounds, min_size=1, max_size=12))),
        "seed": draw(st.integers(0, 2**16)),
        "manual": draw(st.booleans()),
        "eager": not consumes and draw(st.sampled_from([False, False, False, True])),
        "per_time": not batched,
        "closes": (draw(CLOSES), draw(CLOSES)),
        "consumes": consumes,
        "plain": draw(st.sampled_from([False, False, False, False, True])),
    }
    return BinaryScript(slots, bin_shift, **options)


# What goes wrong needs a coincidence of a move, a record and a delay: more examples than elsewhere.
@settings(max_examples=2 * settings().max_examples)
@given(scripts())
def test_each_key_is_shown_the_records_of_both_sides_as_the_reference_by_the_owner_that_the_configuration_names(
    script: BinaryScript,
) -> None:
    check_outcome(script, run_script(script))


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("closes", [(None, None), (0, None), (None, 0), (2, 9)])
@pytest.mark.parametrize("consumes", [False, True])
def test_every_bin_moves_again_and_again_while_both_sides_and_what_is_post_dated_meet_in_it(
    transfer: str, closes: tuple[int | None, int | None], consumes: bool
) -> None:
    slots, bins = 3, 8
    rounds = tuple(
        Round(
            tuple(
                Sending(side, slot, tuple(range(slot, 40 + slot)), delay=(time + side) % 4)
                for side in (0, 1)
                for slot in range(slots)
            ),
            (Update((Map([(bin_id + time) % slots for bin_id in range(bins)]),)),),
            steps=4,
        )
        for time in range(14)
    )
    script = BinaryScript(
        slots, 3, BACKENDS[2], transfer, rounds, seed=7, manual=True, closes=closes, consumes=consumes
    )  # fmt: skip
    outcome = run_script(script)
    check_outcome(script, outcome)
    assert outcome.moved >= 10 * bins
    if closes[0] == 0 or closes[1] == 0:
        assert any(slot.one_sided for slot in outcome.slots)


def test_fixed_owners_show_what_owners_that_move_show() -> None:
    rounds = tuple(
        Round(
            tuple(Sending(side, slot, tuple(range(30)), delay=side, spread=slot) for side in (0, 1) for slot in (0, 1)),
            (Update((Move(time % 8, (time + 1) % 2),)),),
        )
        for time in range(10)
    )
    outputs = []
    for plain in (False, True):
        script = BinaryScript(2, 3, BACKENDS[1], "handover", rounds, plain=plain)
        outcome = run_script(script)
        check_outcome(script, outcome)
        assert (outcome.moved == 0) == plain
        outputs.append(Counter(shown for slot in outcome.slots for shown in slot.outputs))
    assert outputs[0] == outputs[1]


# -- loops -----------------------------------------------------------------------------------------------------------


def check_loop(records: list[tuple[int, int, int, int]], slots: int, step: int, back_to: int, seed: int) -> None:
    columns = {"k": "u8", "left": "u8"}

    def build(graph: Graph) -> Any:
        inputs = [graph.input(name, columns) for name in ("one", "two")]
        control = graph.control(inputs[0][0])
        loop, back = graph.feedback(columns, step)
        log: list[tuple[int, int, int]] = []

        def fold(context: BinaryContext) -> None:
            for time, segments in context.by_time():
                for segment in segments:
                    again = segment["left"] > 0
                    pairs = zip(segment["k"].tolist(), segment["left"].tolist(), strict=True)
                    log.extend((time, *shown) for shown in pairs)
                    context.output.send(
                        {"k": segment["k"][again], "left": segment["left"][again] - np.uint64(1)}, time=time
                    )

        streams = [stream for _, stream in inputs]
        streams[back_to] = streams[back_to].concat(back)
        out = streams[0].stateful_binary(
            streams[1], left_key="k", right_key="k", state=HashTable("u8", {"n": "u8"}), fold=fold, columns=columns,
            control=control, bin_shift=2,
        )  # fmt: skip
        loop.connect(out)
        return [handle for handle, _ in inputs], control, out, out.probe(), log

    expected: Counter[tuple[int, int, int]] = Counter()
    with Simulation(build, slots=slots, seed=seed, memory=MEMORY) as simulation:
        for time, (side, slot, key, left) in enumerate(records):
            simulation.handles[slot % slots][0][side].send({"k": [key], "left": [left]}, times=[time])
            expected.update((time + step * turn, key, left - turn) for turn in range(left + 1))
        simulation.handles[0][1].send_instructions([Map(np.arange(4) % slots)], at=3)
        for handle in simulation.handles:
            for side_input in handle[0]:
                side_input.close()
        simulation.run()
        logs = [handle[4] for handle in simulation.handles]
        assert_at_rest(simulation, [handle[2] for handle in simulation.handles])
    for log in logs:
        assert [shown[0] for shown in log] == sorted(shown[0] for shown in log)
    assert Counter(shown for log in logs for shown in log) == expected


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)), max_size=20),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 1),
    st.integers(0, 2**16),
)
def test_a_time_is_not_applied_before_what_comes_back_to_either_side_through_a_loop(
    records: list[tuple[int, int, int, int]], slots: int, step: int, back_to: int, seed: int
) -> None:
    check_loop(records, slots, step, back_to, seed)


@pytest.mark.parametrize("back_to", [0, 1])
def test_an_activation_that_has_all_times_stops_where_its_output_may_come_back(back_to: int) -> None:
    # All is there before the first step: only the loop is a reason not to apply all of it at once.
    check_loop([(0, 0, 1, 3)] * 6, 1, 1, back_to, 0)


# -- distribute ------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 3), KEYS, st.sampled_from([0, 0, 2])), max_size=3),
            st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 3)), max_size=2),
            st.integers(0, 12),
        ),
        max_size=10,
    ),
    st.integers(1, 4),
    st.sampled_from(BACKENDS),
    st.integers(0, 2**16),
)
def test_distributed_records_are_the_input_and_each_is_where_the_configuration_of_its_time_says(
    rounds: list[Any], slots: int, backend: Any, seed: int
) -> None:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"id": "u8", "k": backend.key})
        control = graph.control(words)
        out = stream.distribute("k", hash=backend.hash, bin_shift=3, control=control)
        log: list[tuple[int, int]] = []

        def see(batch: Any, _: Any) -> None:
            log.extend((batch.time, ident) for ident in batch["id"].tolist())

        return words, control, out, log, out.unary(see).probe()

    script = BinaryScript(slots, 3, backend, "handover", ())
    sent: dict[int, tuple[int, int]] = {}
    history = [(0, script.first_owner)]
    with Simulation(build, slots=slots, seed=seed, memory=MEMORY) as simulation:
        handles = simulation.handles
        for time, (sendings, moves, steps) in enumerate(rounds):
            for slot, keys, spread in sendings:
                idents = list(range(len(sent), len(sent) + len(keys)))
                times = [time + spread * (index % 3) for index in range(len(keys))]
                sent |= dict(zip(idents, zip(times, keys, strict=True), strict=True))
                columns = {"id": np.array(idents, np.uint64), "k": backend.column(list(keys))}
                handles[slot % slots][0].send(columns, times=np.array(times, np.uint64) if spread else None)
            control = handles[0][1]
            for bin_id, worker, ahead in moves:
                at = max(control.time + ahead, control.sent_time)
                control.send_instructions([Move(bin_id, worker % slots)], at=at)
                owner = history[-1][1].copy()
                owner[bin_id] = worker % slots
                history.append((at, owner))
            for handle in handles:
                handle[0].advance_to(time + 1)
            for _ in range(steps):
                simulation.step()
        for handle in handles:
            handle[0].close()
        simulation.run()
        assert_at_rest_without_state(simulation, [handle[2] for handle in handles])
        logs = [handle[3] for handle in handles]
    assert sorted(shown for log in logs for shown in log) == sorted((at, ident) for ident, (at, _) in sent.items())
    bin_of = bins_of_keys(script, sorted({key for _, key in sent.values()}))  # type: ignore[arg-type]  # it has the hash
    for index, log in enumerate(logs):
        for at, ident in log:
            owner = [map_ for from_, map_ in history if from_ <= at][-1]
            assert owner[bin_of[sent[ident][1]]] == index


def assert_at_rest_without_state(simulation: Simulation, streams: list[Any]) -> None:
    """As at rest; nothing of a bin is anywhere."""
    assert_at_rest(simulation, streams)
    assert simulation.counter("bins_in") == simulation.counter("bins_out")
    assert simulation.counter("bytes_moved") == 0
