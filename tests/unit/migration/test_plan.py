"""Plans: the published maps and plans, strategies, what a plan says about itself, and plan files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megaphone.errors import PlanError
from megaphone.migration.control import Instruction, Map, Move, Noop, apply_instructions
from megaphone.migration.matching import step_count
from megaphone.migration.plan import (
    Plan,
    Step,
    batched,
    fluid,
    format_plan,
    load_plan,
    none,
    one_way,
    parse_map,
    round_trip,
    sudden,
)

SECOND_NS = 10**9


# --- maps -------------------------------------------------------------------------------------------------------------


def test_the_maps_of_the_published_example() -> None:
    assert parse_map("uniform", 32, 4).tolist() == [0, 1, 2, 3] * 8
    assert parse_map("half", 32, 4).tolist() == [0, 2, 2, 0] * 8
    assert parse_map("uniform_skew", 32, 4).tolist() == [0, 2, 2, 0] * 4 + [0, 1, 2, 3] * 4
    assert parse_map("half", 8, 8).tolist() == [0, 4, 2, 6, 4, 0, 6, 2]
    assert parse_map("half", 8, 2).tolist() == [0] * 8
    assert parse_map("one", 4, 3).tolist() == [0] * 4


@pytest.mark.parametrize("workers", [*range(2, 34), 63, 64])
@pytest.mark.parametrize("bin_count", [4, 16, 4096])
def test_uniform_skew_moves_a_quarter_of_the_bins_for_every_count_of_workers(workers: int, bin_count: int) -> None:
    uniform, skew = parse_map("uniform", bin_count, workers), parse_map("uniform_skew", bin_count, workers)
    moved = np.flatnonzero(uniform != skew)
    assert moved.size * 4 == bin_count
    assert moved.max() < bin_count // 2
    assert (moved % 2 == 1).all()


@pytest.mark.parametrize("workers", [2, 3])
def test_uniform_skew_of_few_workers_goes_to_the_next_worker(workers: int) -> None:
    uniform, skew = parse_map("uniform", 16, workers), parse_map("uniform_skew", 16, workers)
    moved = np.flatnonzero(uniform != skew)
    assert skew[moved].tolist() == ((uniform[moved] + 1) % workers).tolist()


@pytest.mark.parametrize("name", ["uniform", "half", "uniform_skew", "one"])
@pytest.mark.parametrize("bin_count", [1, 2, 8])
def test_every_map_of_one_worker_is_that_worker(name: str, bin_count: int) -> None:
    assert parse_map(name, bin_count, 1).tolist() == [0] * bin_count


def test_a_list_leaves_the_other_bins_uniform() -> None:
    assert parse_map("5:0, 0:3", 8, 4).tolist() == [3, 1, 2, 3, 0, 0, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unifrom", r"^unknown map, 'unifrom'; use uniform, half, uniform_skew, one or a list"),
        ("", r"^unknown map, ''; use"),
        ("a\nb", r"^unknown map, 'a\\nb'; use"),
        ("x" * 1000, r"^unknown map, 'x{40}'...; use"),
        ("0:1,", r"^not bin:worker, ''; write pairs"),
        ("0:1:2", r"^not bin:worker, '0:1:2'; write pairs"),
        ("0:-1", r"^not bin:worker, '0:-1'; write pairs"),
        ("0:1_0", r"^not bin:worker, '0:1_0'; write pairs"),
        ("0:\N{ARABIC-INDIC DIGIT ONE}", r"^not bin:worker, '0:\\u0661'; write pairs"),
        ("0:" + "9" * 5000, r"^not bin:worker, '0:9+'...; write pairs"),
        ("8:0", r"^unknown bin, 8; there are 8 bins, use 0 to 7$"),
        ("7:4", r"^unknown worker for bin 7, 4; there are 4 workers, use 0 to 3$"),
        ("1:0,1:2", r"^bin listed twice, 1; name one worker for it$"),
    ],
)
def test_a_wrong_map_is_refused_in_one_line_with_value_and_cure(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        parse_map(text, 8, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bin_count", "workers"), [(0, 1), (1, 0)])
def test_a_map_needs_bins_and_workers(bin_count: int, workers: int) -> None:
    with pytest.raises(PlanError, match="at least one of each"):
        parse_map("uniform", bin_count, workers)


# --- strategies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bin_count", "moved", "batched_steps", "bins_per_step"),
    [(16, 4, 1, 4), (32, 8, 1, 8), (64, 16, 2, 8), (256, 64, 8, 8), (4096, 1024, 128, 8)],
)
def test_the_published_table_for_sixteen_workers(
    bin_count: int, moved: int, batched_steps: int, bins_per_step: int
) -> None:
    uniform, skew = parse_map("uniform", bin_count, 16), parse_map("uniform_skew", bin_count, 16)
    one_bin_each = fluid(uniform, skew, 0)
    together = batched(uniform, skew, 0)
    assert len(one_bin_each.steps) == moved
    assert one_bin_each.moved().tolist() == [1] * moved
    assert len(together.steps) == batched_steps
    assert together.moved().tolist() == [bins_per_step] * batched_steps
    assert sudden(uniform, skew, 0).moved().tolist() == [moved]


def test_the_first_step_of_the_published_batched_plan() -> None:
    plan = batched(parse_map("uniform", 4096, 16), parse_map("uniform_skew", 4096, 16), 0)
    expected = {2033: 8, 2035: 10, 2037: 12, 2039: 14, 2041: 0, 2043: 2, 2045: 4, 2047: 6}
    assert list(plan.steps[0].instructions) == [Move(bin_id, worker) for bin_id, worker in expected.items()]


def test_the_published_plan_file_for_four_workers() -> None:
    uniform, skew = parse_map("uniform", 16, 4), parse_map("uniform_skew", 16, 4)
    assert format_plan(round_trip("batched", uniform, skew, 30 * SECOND_NS)).splitlines() == [
        "M 0 0 1 2 3 0 1 2 3 0 1 2 3 0 1 2 3",
        "D 10000000000 5 2 7 0",
        "D 10000000000 1 2 3 0",
        "D 20000000000 5 1 7 3",
        "D 20000000000 1 1 3 3",
    ]


def test_batched_moves_the_bin_that_the_original_leaves_behind() -> None:
    current, target = [0, 1, 1, 2, 2, 3], [1, 1, 2, 1, 2, 3]
    plan = batched(current, target, 0)
    moves = {(move.bin_id, move.worker) for step in plan.steps for move in step.instructions if isinstance(move, Move)}
    assert moves == {(0, 1), (2, 2), (3, 1)}
    assert plan.moves == 0  # They are all at time 0, before the start.
    assert plan.moved().sum() == 3
    counts = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert len(plan.steps) == step_count(counts) == 2


def test_batched_with_more_bins_per_pair_needs_as_many_turns_as_that_takes() -> None:
    current, target = [0] * 7 + [1], [1] * 7 + [0]
    assert batched(current, target, 0, bins_per_pair=3).moved().tolist() in ([4, 3, 1], [3, 4, 1], [3, 3, 2])
    assert batched(current, target, 0, bins_per_pair=100).moved().tolist() == [8]
    with pytest.raises(PlanError, match="bad bins per pair and step, 0; use 1 or more"):
        batched(current, target, 0, bins_per_pair=0)


def test_a_fluid_plan_moves_changed_bins_alone_in_ascending_order() -> None:
    plan = fluid([0, 1, 0, 1], [1, 1, 2, 0], 5)
    assert plan.steps == [Step(5, [Move(0, 1)]), Step(5, [Move(2, 2)]), Step(5, [Move(3, 0)])]


def test_a_round_trip_goes_at_one_third_and_comes_back_at_two_thirds() -> None:
    plan = round_trip("sudden", [0, 1], [1, 1], 10)
    assert plan.steps == [Step(0, [Map([0, 1])]), Step(3, [Map([1, 1])]), Step(6, [Map([0, 1])])]
    assert [step.strategy for step in plan.steps] == ["none", "sudden", "sudden"]
    assert plan.strategy == "sudden"
    assert plan.initial_step_count == 1
    assert plan.moves == 2


@pytest.mark.parametrize("strategy", ["none", "sudden", "fluid", "batched"])
def test_a_plan_that_moves_nothing_says_so(strategy: str) -> None:
    plan = round_trip(strategy, [0, 1], [0, 1], SECOND_NS)
    assert plan.moves == 0
    assert plan.describe().startswith(f"{strategy}: moves nothing")


def test_a_plan_describes_what_it_moves() -> None:
    uniform, skew = parse_map("uniform", 16, 4), parse_map("uniform_skew", 16, 4)
    assert round_trip("batched", uniform, skew, SECOND_NS).describe() == (
        "batched: 8 moves of 16 bins in 4 steps, 2 migrations"
    )


def test_plans_with_different_strategies_join_to_one() -> None:
    there, back = sudden([0, 1], [1, 0], 5), fluid([1, 0], [0, 1], 9)
    plan = there.then(back)
    assert plan.strategy == "sudden+fluid"
    assert [step.strategy for step in plan.steps] == ["sudden", "fluid", "fluid"]
    assert plan.moved().tolist() == [2, 1, 1]
    with pytest.raises(PlanError, match="falling times, 5 after 9; put the earlier plan first"):
        back.then(there)


def test_moved_counts_changes_of_owner_and_not_instructions() -> None:
    steps = [
        Step(0, [Map([1, 1, 0, 0])]),
        Step(1, [Move(0, 1), Move(2, 0)]),  # Both stay where they are.
        Step(1, [Move(0, 0), Move(0, 1)]),  # Away and back within one update.
        Step(2, [Move(0, 2), Move(3, 2)]),
        Step(3, [Move(0, 2), Move(3, 1)]),
        Step(4, [Noop(), Map([2, 2, 2, 2]), Move(3, 1)]),
        Step(5, [Move(3, 0), Move(3, 2)]),
    ]
    plan = Plan.of(steps, "by hand", [0, 1, 0, 1])
    assert plan.moved().tolist() == [2, 0, 0, 2, 1, 2, 1]
    assert plan.moved([1, 1, 0, 0]).tolist() == [0, 0, 0, 2, 1, 2, 1]
    assert plan.moves == 6


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step(5, [Move(0, 0)]), Step(4, [Move(0, 0)])], r"bad time of step 1, 4; use 5"),
        ([Step(-1, [Move(0, 0)])], r"bad time of step 0, -1; use 0"),
        ([Step(2**64 - 1, [Move(0, 0)])], r"bad time of step 0, 18446744073709551615; use"),
        ([Step(0, [Noop()])], r"step 0 has neither a map nor a move"),
        ([Step(0, [Move(2, 0)])], r"unknown bin, 2; there are 2 bins"),
        ([Step(0, [Map([0])])], r"short map, 1 workers for 2 bins"),
    ],
)
def test_a_plan_made_of_wrong_steps_is_refused(steps: list[Step], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.of(steps, "by hand", [0, 1])


def test_a_plan_is_checked_against_the_workers_of_a_run() -> None:
    for plan in (fluid([0, 0], [0, 2], 1), sudden([0, 0], [0, 2], 1), none([0, 2])):
        plan.check(2, 3)
        with pytest.raises(PlanError, match="unknown worker for bin 1, 2; there are 2 workers"):
            plan.check(2, 2)
        with pytest.raises(PlanError, match="short map, 2 workers for 4 bins"):
            plan.check(4, 3)


def test_an_unknown_strategy_or_a_run_too_short_is_refused() -> None:
    with pytest.raises(PlanError, match="unknown strategy, 'fliud'; use none, sudden, fluid, batched"):
        one_way("fliud", [0], [0], 1)
    with pytest.raises(PlanError, match="run too short for two migrations, 2 ns; use a longer duration"):
        round_trip("fluid", [0, 1], [1, 1], 2)
    with pytest.raises(PlanError, match="long map, 2 workers for 1 bins"):
        fluid([0], [0, 1], 1)


def test_a_step_encodes_its_moves_without_making_them() -> None:
    plan = fluid(np.zeros(1 << 20, dtype=np.uint32), np.ones(1 << 20, dtype=np.uint32), 1)
    assert len(plan.steps) == 1 << 20
    assert plan.steps[-1].words.size == 3
    assert plan.steps[-1] == Step(1, [Move((1 << 20) - 1, 1)])
    assert plan.steps[2:4] == (Step(1, [Move(2, 1)]), Step(1, [Move(3, 1)]))
    with pytest.raises(IndexError):
        plan.steps[1 << 20]


# --- plan files -------------------------------------------------------------------------------------------------------


def test_a_plan_file_may_have_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "plan.txt"
    path.write_bytes(b"\xef\xbb\xbf# h\xc3\xa9llo\r\n\r\nM 0 1 1 0 0\r\n\n  D\t7 0 2 3 2 # out\n\nD 7 0 0")
    plan = load_plan(path, 4, 3)
    assert plan.steps == [Step(0, [Map([1, 1, 0, 0])]), Step(7, [Move(0, 2), Move(3, 2)]), Step(7, [Move(0, 0)])]
    assert plan.strategy == "file"
    assert plan.initial.tolist() == [0, 1, 2, 0]
    assert plan.moved().tolist() == [2, 2, 1]


def test_a_plan_file_that_moves_nothing_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.txt"
    path.write_text("D 5 0 0\n")
    assert load_plan(path, 4, 2).describe().startswith("file: moves nothing")


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "nothing in the file, 0 updates; add"),
        (b"# only\n\n# comments\n", 3, "nothing in the file, 0 updates; add"),
        (b"X 0 1\n", 1, "unknown letter, 'X'; start the line with M"),
        (b"m 0 0 1 0 1\n", 1, "unknown letter, 'm'; start the line with M"),
        (b"0 0 1\n", 1, "unknown letter, '0'; start the line with M"),
        (b"\n\nM 0 0 1 0\n", 3, "short map, 3 workers for 4 bins; name exactly one"),
        (b"M 0 0 1 0 1 0\n", 1, "long map, 5 workers for 4 bins; name exactly one"),
        (b"M 0\n", 1, "short map, 0 workers for 4 bins; name exactly one"),
        (b"M 0 0 1 2 1\n", 1, "unknown worker for bin 2, 2; there are 2 workers, use 0 to 1"),
        (b"D 0 0 1\nD 1 1 0 4 1\n", 2, "unknown bin, 4; there are 4 bins, use 0 to 3"),
        (b"D 0 1 99999999999999999999\n", 1, "unknown worker for bin 1, 99999999999999999999; there are 2"),
        (b"D 0 1 0 3 2\n", 1, "unknown worker for bin 3, 2; there are 2 workers, use 0 to 1"),
        (b"D 0 1 0 3\n", 1, "odd list, 3 numbers; give pairs of bin and worker"),
        (b"D 0\n", 1, "no moves, 0 numbers; give pairs of bin and worker"),
        (b"D 5 1 0\nD 4 1 0\n", 2, "falling time, 4 after 5; sort the lines by time"),
        (b"D -5 1 0\n", 1, "bad time, '-5'; give whole nanoseconds from 0 to 18446744073709551614"),
        (b"D 1.5 1 0\n", 1, "bad time, '1.5'; give whole nanoseconds"),
        (b"D 1e9 1 0\n", 1, "bad time, '1e9'; give whole nanoseconds"),
        (b"D 18446744073709551615 1 0\n", 1, "bad time, '18446744073709551615'; give whole nanoseconds"),
        (b"D " + b"9" * 5000 + b" 1 0\n", 1, "bad time, '9999999999999999999999999999999999999999'...; give"),
        (b"D\n", 1, "bad time, nothing; give whole nanoseconds"),
        (b"D 1 one 0\n", 1, "not a number, 'one'; give whole numbers"),
        (b"D 1 0 -1\n", 1, "not a number, '-1'; give whole numbers"),
        (b"D 1 0 1_0\n", 1, "not a number, '1_0'; give whole numbers"),
        (b"D 0 1 0\n\x7fELF\x02\x01\n", 2, "not text, byte 0x7f; give a plan file"),
        (b"\x1f\x8b\x08\x00garbage", 1, "not text, byte 0x1f; give a plan file"),
        (b"D 0 1 \xd9\xa1\n", 1, "not text, byte 0xd9; give a plan file"),
        (b"#\x00\x01\x02", 1, "not text, byte 0x00; give a plan file"),
    ],
)
def test_a_wrong_plan_file_is_refused_in_one_line_with_file_line_value_and_cure(
    tmp_path: Path, content: bytes, line: int, message: str
) -> None:
    path = tmp_path / "plan.txt"
    path.write_bytes(content)
    with pytest.raises(PlanError) as caught:
        load_plan(path, 4, 2)
    assert str(caught.value).startswith(f"{path}:{line}: {message}")
    assert "\n" not in str(caught.value)


def test_a_plan_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none.txt", "No such file"),
        (tmp_path, "Is a directory"),
        ("nul\0name", "embedded null byte"),
        (tmp_path / "two\nlines", "No such file"),
    ):
        with pytest.raises(PlanError, match=f":0: cannot be read, {reason}.*; give a readable plan file") as caught:
            load_plan(path, 4, 2)
        assert "\n" not in str(caught.value)


def test_a_step_with_a_map_and_moves_is_written_as_the_map_that_they_make(tmp_path: Path) -> None:
    instructions: list[Instruction] = [Move(0, 0), Map([1, 1]), Move(1, 0)]
    plan = Plan.of([Step(3, instructions)], "by hand", [0, 1])
    assert format_plan(plan) == "M 3 1 0\n"
    assert plan.steps[0].instructions == [Map(apply_instructions([0, 1], instructions))]
    path = tmp_path / "plan.txt"
    path.write_text(format_plan(plan))
    assert load_plan(path, 2, 2).steps == plan.steps
