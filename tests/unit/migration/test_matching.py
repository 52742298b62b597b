"""Matchings: the fewest steps, nobody twice in a step, every move once."""

from __future__ import annotations

import numpy as np
import pytest

from megaphone.errors import UsageError
from megaphone.migration.matching import Matching, colour_edges, decompose, step_count


def test_no_moves_need_no_steps() -> None:
    assert decompose(np.zeros((3, 3), dtype=np.int64)) == ()
    assert decompose(np.zeros((0, 0), dtype=np.int64)) == ()
    assert colour_edges([], []).size == 0


def test_a_pair_is_peeled_off_as_often_as_it_occurs_at_once() -> None:
    assert decompose([[0, 1 << 40], [0, 0]]) == (Matching(((0, 1),), 1 << 40),)


def test_exchanges_that_do_not_interfere_share_their_steps() -> None:
    counts = np.zeros((16, 16), dtype=np.int64)
    for source in range(1, 16, 2):
        counts[source, (source + 7) % 16] = 128
    (matching,) = decompose(counts)
    assert matching.rounds == 128
    assert len(matching.pairs) == 8


def test_the_busiest_worker_is_never_left_out() -> None:
    # The maximum matching {0 to 3, 1 to 4} would leave worker 2 with both of its moves: three steps in place of two.
    counts = np.zeros((5, 5), dtype=np.int64)
    counts[[0, 1, 0, 1], [2, 2, 3, 4]] = 1
    matchings = decompose(counts)
    assert sum(matching.rounds for matching in matchings) == step_count(counts) == 2


def test_the_number_of_matchings_is_bounded_by_the_pairs_and_not_by_the_moves() -> None:
    counts = np.random.default_rng(7).integers(0, 1 << 30, (24, 24))
    assert len(decompose(counts)) <= 24 * 24 + 2 * 24


def test_the_steps_of_a_pair_rise_in_the_order_of_its_moves() -> None:
    sources, targets = [3, 9, 3, 3, 9], [9, 3, 9, 9, 4]
    steps = colour_edges(sources, targets)
    assert steps[[0, 2, 3]].tolist() == [0, 1, 2]
    assert steps.max() + 1 == 3
    assert steps[1] != steps[4]


@pytest.mark.parametrize("counts", [[[0, -1], [0, 0]], [[0, 1]], [0, 1], [[0.5]]])
def test_what_is_no_matrix_of_moves_is_refused(counts: list[object]) -> None:
    with pytest.raises(UsageError, match="not a matrix of moves"):
        decompose(np.array(counts))
