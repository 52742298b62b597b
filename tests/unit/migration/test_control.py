"""Instructions: what they do to an owner map, how they travel, and which configurations they may follow."""

from __future__ import annotations

import numpy as np
import pytest

from megaphone.errors import ControlOrderError, InternalError, PlanError
from megaphone.migration.control import (
    TIME_MAX,
    Configuration,
    Instruction,
    Instructions,
    Map,
    Move,
    Noop,
    apply_instructions,
    decode_into,
    encode,
)

OWNER = [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ([], [0, 1, 0, 1]),
        ([Noop(), Noop()], [0, 1, 0, 1]),
        ([Move(1, 2)], [0, 2, 0, 1]),
        ([Move(1, 2), Move(1, 0)], [0, 0, 0, 1]),
        ([Move(1, 2), Map([1, 1, 1, 1])], [1, 1, 1, 1]),
        ([Map([1, 1, 1, 1]), Move(3, 2)], [1, 1, 1, 2]),
        ([Map([1, 1, 1, 1]), Noop(), Move(3, 2), Map([2, 2, 2, 2]), Move(0, 0)], [0, 2, 2, 2]),
    ],
)
def test_the_last_write_to_a_bin_wins_and_a_map_replaces_all(
    instructions: list[Instruction], expected: list[int]
) -> None:
    assert apply_instructions(OWNER, instructions, workers=3).tolist() == expected


def test_the_last_write_wins_in_one_long_run_of_moves() -> None:
    moves = [Move(index % 4, (index * 7) % 5) for index in range(1000)]
    expected = [0, 0, 0, 0]
    for move in moves:
        expected[move.bin_id] = move.worker
    assert apply_instructions([9, 9, 9, 9], moves).tolist() == expected


def test_applying_leaves_the_given_map_alone_and_returns_a_read_only_one() -> None:
    owner = np.array(OWNER, dtype=np.uint32)
    result = apply_instructions(owner, [Move(0, 3)])
    assert owner.tolist() == OWNER
    with pytest.raises(ValueError, match="read-only"):
        result[0] = 1


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (Move(4, 0), r"^unknown bin, 4; there are 4 bins, use 0 to 3$"),
        (Move(3, 2), r"^unknown worker for bin 3, 2; there are 2 workers, use 0 to 1$"),
        (Map([0, 1, 2, 0]), r"^unknown worker for bin 2, 2; there are 2 workers, use 0 to 1$"),
        (Map([0, 1, 0]), r"^short map, 3 workers for 4 bins; name exactly one worker for each bin$"),
        (Map([0, 1, 0, 1, 0]), r"^long map, 5 workers for 4 bins; name exactly one worker for each bin$"),
    ],
)
def test_an_instruction_that_does_not_fit_the_run_is_refused_and_changes_nothing(
    instruction: Instruction, message: str
) -> None:
    owner = np.array(OWNER, dtype=np.uint32)
    with pytest.raises(PlanError, match=message):
        decode_into(encode([Move(0, 1), instruction]), owner, workers=2)
    assert owner.tolist() == OWNER


@pytest.mark.parametrize("values", [[], [[0, 1]], [0.5], ["0"], [-1], [2**32]])
def test_a_map_of_anything_but_worker_numbers_is_refused(values: list[object]) -> None:
    with pytest.raises(PlanError, match=";"):
        Map(np.array(values))


@pytest.mark.parametrize("value", [-1, 2**32, 1.0, "1", None])
def test_a_move_of_anything_but_indices_is_refused(value: int) -> None:
    with pytest.raises(PlanError, match="the bin of a move is no whole number"):
        Move(value, 0)
    with pytest.raises(PlanError, match="the worker of a move is no whole number"):
        Move(0, value)


def test_a_map_keeps_a_copy_that_nobody_can_write() -> None:
    source = np.array([0, 1], dtype=np.uint32)
    instruction = Map(source)
    source[0] = 1
    assert instruction == Map([0, 1])
    assert hash(instruction) == hash(Map([0, 1]))
    assert instruction != Map([1, 1])
    assert not instruction.owner.flags.writeable


def test_encoded_instructions_decode_to_the_same_list() -> None:
    listed: list[Instruction] = [Noop(), Map([3, 1]), Map([0, 1]), Move(0, 3), Move(0, 2), Noop(), Noop(), Move(1, 1)]
    travelled = Instructions(encode(listed))
    assert list(travelled) == listed
    assert len(travelled) == len(listed)
    assert travelled == listed
    assert travelled[3] == Move(0, 3)
    assert travelled[-2:] == (Noop(), Move(1, 1))
    assert hash(travelled) == hash(Instructions(encode(listed)))


def test_a_fluid_step_is_three_words_and_a_run_of_moves_two_words_each() -> None:
    assert encode([Move(7, 1)]).size == 3
    assert encode([Move(index, 1) for index in range(100)]).size == 201
    assert encode([Map(range(64))]).size == 65
    assert encode([]).size == 0


def test_instructions_made_of_arrays_equal_those_made_of_objects() -> None:
    bins, workers = np.array([4, 2], dtype=np.uint32), np.array([1, 0], dtype=np.uint32)
    assert np.array_equal(Instructions.of_moves(bins, workers).words, encode([Move(4, 1), Move(2, 0)]))
    assert np.array_equal(Instructions.of_map([1, 2]).words, encode([Map([1, 2])]))
    assert len(Instructions.of_moves(bins[:0], workers[:0])) == 0


def test_encoding_refuses_what_is_no_instruction() -> None:
    with pytest.raises(PlanError, match="not an instruction, 3; use Map, Move or Noop"):
        encode([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "words",
    [
        [0],
        [0, 0, 0],
        [1 << 30],
        [1 << 30 | 3, 0, 1],
        [2 << 30 | 1, 0],
        [2 << 30 | 0],
        [3 << 30 | 0],
        [2 << 30 | (1 << 30) - 1, 5, 5],
        [*encode([Move(0, 1)]).tolist(), 7],
    ],
)
def test_words_that_nobody_encoded_are_an_internal_error_and_change_nothing(words: list[int]) -> None:
    owner = np.array(OWNER, dtype=np.uint32)
    with pytest.raises(InternalError, match="do not decode"):
        decode_into(np.array(words, dtype=np.uint32), owner)
    assert owner.tolist() == OWNER


def test_arrays_of_another_type_are_an_internal_error() -> None:
    with pytest.raises(InternalError, match="int64"):
        decode_into(encode([Move(0, 1)]).astype(np.int64), np.zeros(4, dtype=np.uint32))
    with pytest.raises(InternalError, match="float64"):
        decode_into(encode([Move(0, 1)]), np.zeros(4))  # type: ignore[arg-type]


def test_a_configuration_follows_at_a_later_time_with_the_next_number() -> None:
    first = Configuration(0, 0, np.array(OWNER, dtype=np.uint32))
    second = first.successor(5, [Move(1, 0), Move(0, 0)], workers=2)
    assert second == Configuration(1, 5, np.array([0, 0, 0, 1], dtype=np.uint32))
    assert second.moved_bins(first).tolist() == [1]
    assert first.owner.tolist() == OWNER
    assert second.successor(6, [], sequence=9).sequence == 9


def test_an_update_without_instructions_is_still_a_configuration() -> None:
    first = Configuration(0, 0, np.array(OWNER, dtype=np.uint32))
    second = first.successor(1, [Noop()])
    assert second != first
    assert second.moved_bins(first).size == 0


@pytest.mark.parametrize(("time", "sequence"), [(3, 11), (2, 11), (4, 10), (4, 9)])
def test_times_and_numbers_of_updates_must_both_rise(time: int, sequence: int) -> None:
    active = Configuration(10, 3, np.array(OWNER, dtype=np.uint32))
    with pytest.raises(ControlOrderError, match="does not follow update 10 at time 3"):
        active.successor(time, [Noop()], sequence=sequence)


def test_the_empty_frontier_is_no_time_for_a_configuration() -> None:
    owner = np.array(OWNER, dtype=np.uint32)
    assert Configuration(0, TIME_MAX, owner).time == 2**64 - 2
    for time in (-1, TIME_MAX + 1):
        with pytest.raises(ControlOrderError, match="no time for a configuration"):
            Configuration(0, time, owner)
