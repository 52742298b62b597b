"""Laws of plans: every strategy ends at its target, in the fewest steps, and files keep what they are given."""

from __future__ import annotations

import tempfile
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megaphone.errors import PlanError
from megaphone.migration.control import (
    Instruction,
    Instructions,
    Map,
    Move,
    Noop,
    apply_instructions,
    encode,
)
from megaphone.migration.matching import colour_edges, decompose, step_count
from megaphone.migration.pacing import Pacer
from megaphone.migration.plan import Plan, Step, batched, format_plan, load_plan, one_way, round_trip

BINS = 8
WORKERS = 4

owners = st.lists(st.integers(0, WORKERS - 1), min_size=BINS, max_size=BINS)
moves = st.builds(Move, st.integers(0, BINS - 1), st.integers(0, WORKERS - 1))
changes = st.one_of(moves, moves, owners.map(Map))
instruction_lists = st.lists(st.one_of(changes, st.just(Noop())), max_size=8)
strategy_names = st.sampled_from(["sudden", "fluid", "batched"])


@st.composite
def map_pairs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two maps of the same bins, for up to ten workers."""
    workers = st.integers(0, draw(st.integers(0, 9)))
    size = draw(st.integers(1, 60))
    return tuple(draw(st.lists(workers, min_size=size, max_size=size)) for _ in range(2))  # type: ignore[return-value]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of any steps, with times that do not fall."""
    times = sorted(draw(st.lists(st.integers(0, 2**64 - 2) | st.integers(0, 3), min_size=1, max_size=8)))
    steps = [Step(time_ns, draw(st.lists(changes, min_size=1, max_size=6))) for time_ns in times]
    return Plan.of(steps, "by hand", draw(owners))


def _one_by_one(owner: list[int], instructions: list[Instruction]) -> list[int]:
    """Apply instructions as their definition says."""
    result = list(owner)
    for instruction in instructions:
        if isinstance(instruction, Map):
            result = instruction.owner.tolist()
        elif isinstance(instruction, Move):
            result[instruction.bin_id] = instruction.worker
    return result


def _loaded_or_error(path: str) -> Plan | str:
    try:
        return load_plan(path, 2, 2)
    except PlanError as error:
        return str(error)


@given(owners, instruction_lists)
def test_encoded_instructions_do_what_each_does_in_turn(owner: list[int], instructions: list[Instruction]) -> None:
    assert apply_instructions(owner, instructions, workers=WORKERS).tolist() == _one_by_one(owner, instructions)


@given(instruction_lists)
def test_decoding_returns_what_was_encoded(instructions: list[Instruction]) -> None:
    assert list(Instructions(encode(instructions))) == instructions


@given(
    st.integers(0, 9).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 6), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_matchings_use_every_move_once_in_the_fewest_steps(rows: list[list[int]]) -> None:
    counts = np.array(rows, dtype=np.int64).reshape(len(rows), len(rows))
    used = np.zeros_like(counts)
    matchings = decompose(counts)
    for matching in matchings:
        sources, targets = zip(*matching.pairs, strict=True)
        assert matching.rounds >= 1
        assert len(set(sources)) == len(sources)
        assert len(set(targets)) == len(targets)
        used[sources, targets] += matching.rounds
    assert np.array_equal(used, counts)
    assert sum(matching.rounds for matching in matchings) == step_count(counts)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(100, 105)), max_size=80))
def test_coloured_moves_share_no_worker_in_a_step(edges: list[tuple[int, int]]) -> None:
    sources, targets = [source for source, _ in edges], [target for _, target in edges]
    steps = colour_edges(sources, targets).tolist()
    degree = max([0, *Counter(sources).values(), *Counter(targets).values()])
    assert set(steps) == set(range(degree))
    assert len(set(zip(steps, sources, strict=True))) == len(edges)
    assert len(set(zip(steps, targets, strict=True))) == len(edges)


@given(strategy_names, map_pairs(), st.integers(1, 4))
def test_every_strategy_ends_at_its_target(
    strategy: str, maps: tuple[list[int], list[int]], bins_per_pair: int
) -> None:
    current, target = maps
    plan = one_way(strategy, current, target, 5, bins_per_pair=bins_per_pair)
    owner = np.array(current)
    for step, moved in zip(plan.steps, plan.moved().tolist(), strict=True):
        after = apply_instructions(owner, step.instructions)
        assert np.count_nonzero(after != owner) == moved
        owner = after
    assert owner.tolist() == target
    assert plan.moves == sum(old != new for old, new in zip(current, target, strict=True))


@given(map_pairs(), st.integers(1, 4))
def test_batched_steps_are_matchings_as_few_as_can_be_and_move_each_bin_once(
    maps: tuple[list[int], list[int]], bins_per_pair: int
) -> None:
    current, target = maps
    seen: list[int] = []
    plan = batched(current, target, 0, bins_per_pair=bins_per_pair)
    for step in plan.steps:
        bins = [move.bin_id for move in step.instructions if isinstance(move, Move)]
        assert len(bins) == len(step.instructions) > 0
        assert bins == sorted(bins)
        pairs = Counter((current[bin_id], target[bin_id]) for bin_id in bins)
        assert max(pairs.values()) <= bins_per_pair
        assert len({source for source, _ in pairs}) == len(pairs)
        assert len({worker for _, worker in pairs}) == len(pairs)
        seen += bins
    assert sorted(seen) == [bin_id for bin_id, (old, new) in enumerate(zip(current, target, strict=True)) if old != new]
    turns: Counter[tuple[str, int]] = Counter()
    for (old, new), count in Counter(zip(current, target, strict=True)).items():
        if old != new:
            turns["from", old] += -(-count // bins_per_pair)
            turns["to", new] += -(-count // bins_per_pair)
    assert len(plan.steps) == max(turns.values(), default=0)


@given(strategy_names, map_pairs())
def test_a_round_trip_comes_back(strategy: str, maps: tuple[list[int], list[int]]) -> None:
    initial, target = maps
    plan = round_trip(strategy, initial, target, 3000)
    owner = np.zeros(len(initial), dtype=np.uint32)
    for step in plan.steps:
        owner = apply_instructions(owner, step.instructions)
    assert owner.tolist() == initial
    assert plan.moves == 2 * sum(old != new for old, new in zip(initial, target, strict=True))


@given(plans())
def test_moved_counts_the_bins_with_another_owner_after_each_step(plan: Plan) -> None:
    owner = plan.initial
    for step, moved in zip(plan.steps, plan.moved().tolist(), strict=True):
        after = apply_instructions(owner, step.instructions)
        assert np.count_nonzero(after != owner) == moved
        owner = after


@given(plans())
def test_a_plan_file_keeps_the_plan(plan: Plan) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".plan") as file:
        file.write(format_plan(plan))
        file.flush()
        loaded = load_plan(file.name, BINS, WORKERS)
    assert loaded.steps == plan.steps
    assert format_plan(loaded) == format_plan(plan)


@given(st.one_of(st.binary(max_size=80), st.text("MD#0123456789 -\n", max_size=80).map(str.encode)))
def test_any_bytes_are_a_plan_or_one_line_of_error(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".plan") as file:
        file.write(content)
        file.flush()
        loaded = _loaded_or_error(file.name)
    if isinstance(loaded, Plan):
        loaded.check(2, 2)
        assert len(loaded.steps) > 0
    else:
        assert loaded.startswith(f"{file.name}:")
        assert loaded.isprintable()
        assert ";" in loaded


@given(plans(), st.integers(0, 30), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), max_size=60))
def test_paced_steps_keep_their_order_their_times_and_the_gap(
    plan: Plan, gap_ns: int, rounds: list[tuple[int, int]]
) -> None:
    pacer = Pacer(plan, gap_ns)
    sent = list(pacer.initial_steps())
    assert all(step.time_ns == 0 for step in sent)
    now_ns = frontier = 0
    for ahead_ns, lag_ns in rounds:
        now_ns += ahead_ns
        frontier = max(frontier, now_ns - lag_ns)
        due_ns = pacer.next_due_ns
        step = pacer.due(now_ns, frontier)
        if step is not None:
            sent.append(step)
            assert due_ns is None or due_ns <= now_ns
    assert sent == list(plan.steps[: len(sent)])
    for before, after in zip(pacer.records[:-1], pacer.records[1:], strict=True):
        assert before.completed_ns is not None
        assert after.sent_ns >= before.completed_ns + gap_ns
        assert after.effective_ns > before.effective_ns
    assert all(record.effective_ns >= record.time_ns for record in pacer.records)
    assert sum(record.steps for record in pacer.migrations) == len(pacer.records)
