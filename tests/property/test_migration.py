"""Migration against an oracle: whatever moves when, each key is shown the same records, by the owner of its bin."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megaphone._core import lib
from megaphone.dataflow.graph import Graph
from megaphone.migration import plan
from megaphone.migration.control import Instruction, Map, Move, Noop
from megaphone.migration.operators.fold_context import FoldContext
from megaphone.migration.operators.state_machine import KeyGroups, Transition
from megaphone.migration.pacing import Pacer
from megaphone.shm.limits import Limits, parse_size
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation
from tests.property.migrating import (
    BACKENDS,
    LAST_TIME,
    MEMORY,
    Backend,
    Outcome,
    Round,
    Script,
    Sending,
    Sent,
    Update,
    assert_at_rest,
    build_of,
    check_outcome,
    final_counts,
    owner_history,
    run_script,
)

KEYS = st.lists(st.integers(0, 5), max_size=6).map(tuple)
# Enough new keys at once for tables to grow, in the middle of whatever else happens.
BURSTS = st.tuples(st.integers(0, 500), st.integers(50, 300)).map(lambda burst: tuple(range(burst[0], sum(burst))))
DELAYS = st.sampled_from([0, 0, 0, 1, 2, 5, 1000, 2**62])
AHEAD = st.sampled_from([0, 0, 0, 1, 2, 5, 1000, LAST_TIME])
BIN_SHIFTS = st.one_of(*[st.integers(1, 3)] * 3, *[st.integers(1, 6)] * 3, st.sampled_from([8, 11, 16]))


def instructions(bins: int, slots: int) -> st.SearchStrategy[Instruction]:
    """Maps, moves (to where the bin is, too), and nothing."""
    maps = st.tuples(st.integers(0, slots - 1), st.lists(st.integers(0, slots - 1), min_size=1, max_size=8)).map(
        lambda drawn: Map(np.resize(np.array(drawn[1]), bins)) if drawn[0] else Map(np.full(bins, drawn[1][0]))
    )
    moves = st.builds(Move, st.integers(0, bins - 1), st.integers(0, slots - 1))
    return st.one_of(moves, moves, maps, st.just(Noop()))


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Runs of any kind, small ones often."""
    slots = draw(st.sampled_from([1, 2, 2, 3, 3, 4, 5]))
    bin_shift = draw(BIN_SHIFTS)
    batched = draw(st.sampled_from([False, False, True]))
    updates = st.builds(
        Update, st.lists(instructions(1 << bin_shift, slots), min_size=1, max_size=4).map(tuple), ahead=AHEAD
    )
    sendings = st.builds(
        Sending,
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
        "rounds": tuple(draw(st.lists(rounds, min_size=1, max_size=14))),
        "seed": draw(st.integers(0, 2**16)),
        "manual": draw(st.booleans()),
        "eager": draw(st.sampled_from([False, False, False, True])),
        "per_time": not batched,
        "initial": draw(st.none() | st.lists(st.integers(0, slots - 1), min_size=1, max_size=8).map(tuple)),
        "control_closes": draw(st.none() | st.integers(0, 6)),
    }
    return Script(slots, bin_shift, **options)


# What goes wrong needs a coincidence of a move, a record and a delay: more examples than elsewhere.
@settings(max_examples=3 * settings().max_examples)
@given(scripts())
def test_each_key_is_shown_the_records_of_the_reference_by_the_owner_that_the_configuration_names(
    script: Script,
) -> None:
    check_outcome(script, run_script(script))


# -- the operators with a function of their own for input, and for groups --------------------------------------------

REMOVED_BEYOND = 30


@dataclass
class Chain:
    """What build makes of a state machine and a stateful_unary_input behind it."""

    words: Any
    control: Any
    sums: Any
    late: Any
    probe: Any
    outputs: list[tuple[int, int, int, int]]  # (time, key, running sum, how many of that key)


def chain_of(transfers: tuple[str, str], per_time: bool, shifts: tuple[int, int]) -> Callable[[Graph], Chain]:
    """Sums by key; each sum comes out up to two times later, unless it is a multiple of 7."""

    def add(groups: KeyGroups) -> Transition:
        values, counts, begins = groups["v"], groups.counts, groups.offsets[:-1]
        upto = np.cumsum(values, dtype=np.uint64)
        before = np.repeat(upto[begins] - values[begins], counts)
        running = upto - before + np.repeat(groups.state["sum"], counts)
        total = groups.state["sum"] + np.add.reduceat(values, begins)
        # What is removed must not depend on how many times a call has, so only where that is always one.
        remove = total > REMOVED_BEYOND if per_time else None
        return Transition({"sum": total}, remove, {"k": np.repeat(groups.keys, counts), "r": running})

    def delay(context: FoldContext) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                direct = segment["r"] % 7 == 0
                context.output.send(
                    {"k": segment["k"][direct], "r": segment["r"][direct], "n": 0 * segment["r"][direct]}, time=time
                )
                keys, running = segment["k"][~direct], segment["r"][~direct]
                context.post_date({"k": keys, "r": running}, np.uint64(time) + running % 3)

    def number(context: FoldContext) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                n = context.state.add_emit(segment["k"])
                context.output.send({"k": segment["k"], "r": segment["r"], "n": n}, time=time)

    def build(graph: Graph) -> Chain:
        words, stream = graph.input("words", {"k": "u8", "v": "u8"})
        control = graph.control(words)
        sums = stream.stateful_state_machine(
            key="k", state=HashTable("u8", {"sum": "u8"}), fold=add, columns={"k": "u8", "r": "u8"}, control=control,
            bin_shift=shifts[0], transfer=transfers[0], per_time=per_time,
        )  # fmt: skip
        late = sums.stateful_unary_input(
            key="k", state=DenseArray("u8"), hash="dense", consume=delay, fold=number, pending={"r": "u8", "k": "u8"},
            columns={"k": "u8", "r": "u8", "n": "u8"}, control=control, bin_shift=shifts[1], transfer=transfers[1],
            per_time=per_time,
        )  # fmt: skip
        outputs: list[tuple[int, int, int, int]] = []

        def see(batch: Any, _: Any) -> None:
            columns = [batch[name].tolist() for name in ("k", "r", "n")]
            outputs.extend(zip([batch.time] * batch.n, *columns, strict=True))

        return Chain(words, control, sums, late, late.unary(see).probe(), outputs)

    return build


def chain_reference(sent: list[tuple[int, int, int, int]], per_time: bool) -> Counter[tuple[int, int, int, int]]:
    """What the chain must send for records (time, slot, key, value), one by one."""
    sums: dict[int, int] = {}
    shown: list[tuple[int, int, int, int]] = []
    waiting: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for time in sorted({record[0] for record in sent}):
        now = [record for record in sorted(sent, key=lambda record: record[1]) if record[0] == time]
        for _, _, key, value in now:
            sums[key] = sums.get(key, 0) + value
            if sums[key] % 7 == 0:
                shown.append((time, key, sums[key], 0))
            else:
                waiting[time + sums[key] % 3].append((key, sums[key]))
        if per_time:
            sums = {key: total for key, total in sums.items() if total <= REMOVED_BEYOND}
    count: Counter[int] = Counter()
    for time in sorted(waiting):
        for key, running in waiting[time]:
            count[key] += 1
            shown.append((time, key, running, count[key]))
    return Counter(shown)


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.integers(0, 2), st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), max_size=5))
            ),
            st.integers(0, 4),
            st.integers(0, 8),
        ),
        max_size=8,
    ),
    st.integers(1, 3),
    st.booleans(),
    st.tuples(st.sampled_from(["handover", "copy"]), st.sampled_from(["handover", "copy"])),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 2**16),
)
def test_a_state_machine_and_what_consumes_input_equal_their_references_while_both_are_moved(
    rounds: list[tuple[list[tuple[int, list[tuple[int, int]]]], int, int]],
    slots: int,
    per_time: bool,
    transfers: tuple[str, str],
    shifts: tuple[int, int],
    seed: int,
) -> None:
    sent: list[tuple[int, int, int, int]] = []
    with Simulation(chain_of(transfers, per_time, shifts), slots=slots, seed=seed, memory=MEMORY) as simulation:
        handles: list[Chain] = simulation.handles
        for time, (sendings, bin_id, steps) in enumerate(rounds):
            for slot, records in sendings:
                columns = {
                    "k": np.array([k for k, _ in records], np.uint64),
                    "v": np.array([v for _, v in records], np.uint64),
                }
                handles[slot % slots].words.send(columns)
                sent += [(time, slot % slots, key, value) for key, value in records]
            # Both operators share the control: a bin that both have.
            moves = [Move(bin_id % 2, steps % slots), Move((bin_id + 1) % 2, bin_id % slots)]
            handles[0].control.send_instructions(moves)
            for handle in handles:
                handle.words.advance_to(time + 1)
            for _ in range(steps):
                simulation.step()
        for handle in handles:
            handle.words.close()
        simulation.run()
        shown = Counter(output for handle in handles for output in handle.outputs)
        assert shown == chain_reference(sent, per_time)
        assert_at_rest(simulation, [handle.sums for handle in handles])
        assert_at_rest(simulation, [handle.late for handle in handles])


# -- loops -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 5), st.integers(0, 4)), max_size=20),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from(["handover", "copy"]),
    st.integers(0, 2**16),
)
def test_a_time_is_not_applied_before_what_comes_back_to_it_through_a_loop(
    records: list[tuple[int, int, int, int]], slots: int, step: int, transfer: str, seed: int
) -> None:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8", "left": "u8"})
        control = graph.control(words)
        loop, back = graph.feedback({"k": "u8", "left": "u8"}, step)
        log: list[tuple[int, int, int, int]] = []

        def fold(context: FoldContext) -> None:
            for time, segments in context.by_time():
                for segment in segments:
                    n = context.state.add_emit(segment["k"])
                    log.extend(
                        zip(
                            [time] * segment.n, segment["k"].tolist(), segment["left"].tolist(), n.tolist(), strict=True
                        )
                    )
                    again = segment["left"] > 0
                    context.output.send(
                        {"k": segment["k"][again], "left": segment["left"][again] - np.uint64(1)}, time=time
                    )

        out = stream.concat(back).stateful_unary(
            key="k", state=HashTable("u8", {"n": "u8"}), fold=fold, columns={"k": "u8", "left": "u8"}, control=control,
            bin_shift=2, transfer=transfer,
        )  # fmt: skip
        loop.connect(out)
        return words, control, out.probe(), log

    expected: Counter[tuple[int, int, int]] = Counter()
    with Simulation(build, slots=slots, seed=seed, memory=MEMORY) as simulation:
        for slot, key, time, left in records:
            simulation.handles[slot % slots][0].send({"k": [key], "left": [left]}, times=[time])
            expected.update((time + step * turn, key, left - turn) for turn in range(left + 1))
        simulation.handles[0][1].send_instructions([Map(np.arange(4) % slots)], at=3)
        for handle in simulation.handles:
            handle[0].close()
        simulation.run()
        logs = [handle[3] for handle in simulation.handles]
    for log in logs:
        assert [shown[0] for shown in log] == sorted(shown[0] for shown in log)
    assert Counter((time, key, left) for log in logs for time, key, left, _ in log) == expected
    for key in {key for _, key, _ in expected}:
        # The key's running counts rise with time whatever slot has applied them.
        counts = sorted((time, n) for log in logs for time, k, _, n in log if k == key)
        assert [n for _, n in counts] == list(range(1, len(counts) + 1))


# -- plans, growth and memory ----------------------------------------------------------------------------------------


@given(
    st.sampled_from([plan.sudden, plan.fluid, plan.batched]),
    st.integers(1, 4),
    st.integers(1, 6),
    st.data(),
    st.sampled_from(["handover", "copy"]),
    st.integers(0, 2**16),
)
def test_a_paced_plan_between_any_two_maps_completes_and_moves_what_differs(
    strategy: Callable[..., plan.Plan], slots: int, bin_shift: int, data: st.DataObject, transfer: str, seed: int
) -> None:
    bins = 1 << bin_shift
    maps = st.lists(st.integers(0, slots - 1), min_size=bins, max_size=bins)
    current, target = np.array(data.draw(maps)), np.array(data.draw(maps))
    script = Script(slots, bin_shift, BACKENDS[2], transfer, (), initial=tuple(current.tolist()))
    pacer = Pacer(strategy(current, target, 1))
    with Simulation(build_of(script), slots=slots, seed=seed, memory=MEMORY) as simulation:
        handles = simulation.handles
        sent: list[Sent] = []
        updates: list[tuple[int, tuple[Instruction, ...]]] = []
        time = 0
        while not pacer.finished:
            for slot, handle in enumerate(handles):
                keys = [(time + slot) % 5, 2]
                idents = [len(sent), len(sent) + 1]
                handle.words.send({"k": script.backend.column(keys), "id": idents, "delay": [0, 0]})
                sent += [Sent(time, slot, ident, key, 0) for ident, key in zip(idents, keys, strict=True)]
            control = handles[0].control
            step = pacer.due(control.time, handles[0].probe.frontier())
            if step is not None:
                updates.append((control.send_instructions(step.instructions), tuple(step.instructions)))
            time += 1
            for handle in handles:
                handle.words.advance_to(time)
            for _ in range(2 * slots):
                simulation.step()
        for handle in handles:
            handle.words.close()
        simulation.run()
        assert simulation.counter("bins_out") == simulation.counter("bins_in") == int((current != target).sum())
        final = owner_history(script, updates)[-1][1]
        assert final.tolist() == target.tolist()
        outcome = Outcome(sent, updates, handles, 0, dict(final_counts(script, handles, final)))
        check_outcome(script, outcome)


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("backend", BACKENDS[:1] + BACKENDS[2:], ids=lambda backend: backend.name)
def test_a_bin_that_is_moved_while_its_table_grows_goes_on_growing_at_its_new_owner(
    backend: Backend, transfer: str
) -> None:
    inherited = 0
    for keys in (300, 330, 360, 390):  # each store is in the middle of growth at some of these
        moved = (Round((), (Update((Map([1, 1]),)),), 30),)
        filled = Round((Sending(0, tuple(range(keys))),), (), 30)
        touched = Round((Sending(0, tuple(range(0, keys, 2))),), (), 30)
        script = Script(2, 1, backend, transfer, (filled, *moved, touched), initial=(0, 0))
        outcome = run_script(script)
        check_outcome(script, outcome)
        # Worker 1 was given no key that was new, so what its calls moved or made was begun by worker 0.
        inherited += outcome.slots[1].grown
    assert inherited > 0


@pytest.mark.parametrize("transfer", ["handover", "copy"])
def test_a_thousand_migrations_with_growth_in_between_leave_committed_memory_within_its_bound(transfer: str) -> None:
    slots, bins, chunk_bytes = 3, 16, Limits.for_memory(parse_size(MEMORY)).chunk_bytes
    random = np.random.default_rng(5)
    script = Script(slots, 4, BACKENDS[2], transfer, ())
    with Simulation(build_of(script), slots=slots, seed=5, memory=MEMORY, late=False) as simulation:
        handles = simulation.handles
        for time in range(1000):
            keys = np.arange(150, dtype=np.uint64) + np.uint64(150 * time)
            handles[time % slots].words.send({"k": keys, "id": keys, "delay": 0 * keys})
            handles[0].control.send_instructions([Map(random.integers(0, slots, bins))])
            for handle in handles:
                handle.words.advance_to(time + 1)
                handle.log.clear()
                handle.outputs.clear()
            probe = handles[0].probe
            simulation.run_until(partial(probe.done, time))
            for worker in simulation.workers:
                lib.mp_slab_pinned_bytes(worker.slot)  # looks, and keeps the greatest
        for handle in handles:
            handle.words.close()
        simulation.run()
        committed = int(lib.mp_committed_bytes(simulation.memory.control))
        # A slot that copies has its peak when it has most of the bins, and messages that are full of them.
        live_peak = simulation.counter("block_live_bytes_max") + simulation.counter("pinned_bytes_max")
        # Two chunks a slot beside what is live: one that is being filled with blocks, one with batches.
        assert committed <= 1.5 * live_peak + 2 * slots * chunk_bytes, f"{committed} committed, {live_peak} live"
        assert live_peak > 2 * slots * chunk_bytes, "too little state for the bound to say anything"
        assert simulation.counter("bins_out") > 9000
        assert_at_rest(simulation, [handle.counts for handle in handles])
        assert sum(handle.counts.state.live() for handle in handles) == 150_000
        # With the state gone what is left belongs to queues and trackers: nothing that grew with the migrations.
        for worker, handle in zip(simulation.workers, handles, strict=True):
            for bin_id in range(bins):
                lib.mp_store_clear(worker.slot, handle.counts.state.c, bin_id)
        assert_at_rest(simulation, [handle.counts for handle in handles])
        assert simulation.counter("block_live_bytes") < slots * (64 << 10)
