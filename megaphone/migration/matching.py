"""Split the moves of a migration into the fewest steps in which no worker takes part twice on the same side.

The moves form a bipartite multigraph: sources left, targets right, one edge per move.  A step is a matching: each
source gives to at most one target and each target takes from at most one source, so that the moves of a step run in
parallel and a step lasts as long as one bin.  By König's edge colouring theorem as many steps as the largest degree
suffice, and fewer cannot: the busiest worker needs one for each of its moves.

Repeating *maximum* matchings can need more steps than that, because such a matching may leave out the busiest worker.
So the count matrix is first filled up with imaginary moves until every row and column has the largest degree D.  In
such a matrix a perfect matching exists (Hall), and without it the matrix is regular again, with degree D - 1.  A
matching stays good until its rarest pair is used up and is therefore peeled off that many times at once: the cost
depends on the number of pairs of workers, not on the number of bins.  In every step the busiest worker has a real move,
since nothing imaginary was added to it, so no step is empty.

Source: D. König, Math. Ann. 77 (1916); G. Birkhoff (1946) for the decomposition of regular matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megaphone.errors import InternalError, UsageError

I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matching:
    """Pairs of workers that can exchange in one step, and in how many steps in a row.

    Attributes:
        pairs: (source, target) in ascending order; no source and no target occurs twice.
        rounds: how many consecutive steps use these pairs, at least 1.
    """

    pairs: tuple[tuple[int, int], ...]
    rounds: int


def step_count(counts: npt.ArrayLike) -> int:
    """Return the fewest steps for a matrix of moves: its largest row or column sum, 0 for an empty one.

    Args:
        counts: integers [workers, workers], the moves from each source (row) to each target (column).
    """
    matrix = _checked_counts(counts)
    return int(max(matrix.sum(axis=0).max(initial=0), matrix.sum(axis=1).max(initial=0)))


def decompose(counts: npt.ArrayLike) -> tuple[Matching, ...]:
    """Split a matrix of moves into matchings whose rounds add up to ``step_count(counts)``.

    Args:
        counts: integers [workers, workers], the moves from each source (row) to each target (column).

    Returns:
        Matchings that use each pair exactly as often as ``counts`` says; none is empty.

    Raises:
        UsageError: the matrix is not square, not of whole numbers, or has a negative count.

    Cost: at most (pairs with moves + 2 * workers) matchings, each repaired by paths of O(workers) word operations;
    a full matrix of 64 workers takes well under a second, whatever the counts.
    """
    matrix = _checked_counts(counts)
    degree = step_count(matrix)
    size = matrix.shape[0]
    real: list[list[int]] = matrix.tolist()
    slack = _filler(matrix, degree)
    support = [
        sum(1 << column for column in range(size) if real[row][column] or slack[row][column]) for row in range(size)
    ]
    column_of = [-1] * size
    row_of = [-1] * size
    matchings: list[Matching] = []
    remaining = degree
    while remaining:
        for row in range(size):
            if column_of[row] < 0:
                _augment(row, support, column_of, row_of)
        matched = list(enumerate(column_of))
        rounds = min(real[row][column] or slack[row][column] for row, column in matched)
        matchings.append(Matching(tuple((row, column) for row, column in matched if real[row][column]), rounds))
        for row, column in matched:
            layer = real if real[row][column] else slack
            layer[row][column] -= rounds
            if not (real[row][column] or slack[row][column]):
                support[row] &= ~(1 << column)
                column_of[row] = row_of[column] = -1
        remaining -= rounds
    return tuple(matchings)


def colour_edges(sources: npt.ArrayLike, targets: npt.ArrayLike) -> I64Array:
    """Return the step of each move, such that all moves fit into the fewest steps.

    Args:
        sources: integers [n], the worker that gives in each move.
        targets: integers [n], the worker that takes in each move.

    Returns:
        int64[n], from 0 to the largest degree - 1; moves of one pair get rising steps in the order given.

    Cost: O(n log n) in numpy, and that of ``decompose`` for the workers that occur.
    """
    source_names, source_index = np.unique(np.asarray(sources), return_inverse=True)
    target_names, target_index = np.unique(np.asarray(targets), return_inverse=True)
    size = max(source_names.size, target_names.size)
    pair = source_index.astype(np.int64) * size + target_index
    counts = np.bincount(pair, minlength=size * size).reshape(size, size)
    pairs_used: list[I64Array] = [np.empty(0, dtype=np.int64)]
    steps_used: list[I64Array] = [np.empty(0, dtype=np.int64)]
    first = 0
    for matching in decompose(counts):
        ids = np.array([row * size + column for row, column in matching.pairs], dtype=np.int64)
        pairs_used.append(np.repeat(ids, matching.rounds))
        steps_used.append(np.tile(np.arange(first, first + matching.rounds, dtype=np.int64), ids.size))
        first += matching.rounds
    # A pair occurs as often among the matchings as among the moves, so both sorted by pair stand side by side.
    used_order = np.argsort(np.concatenate(pairs_used), kind="stable")
    result = np.empty(pair.size, dtype=np.int64)
    result[np.argsort(pair, kind="stable")] = np.concatenate(steps_used)[used_order]
    return result


def _checked_counts(counts: npt.ArrayLike) -> I64Array:
    matrix = np.asarray(counts)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "iu" or (matrix < 0).any():
        message = f"not a matrix of moves, {matrix.dtype} of shape {matrix.shape}; give counts [workers, workers] >= 0"
        raise UsageError(message)
    return matrix.astype(np.int64)


def _filler(matrix: I64Array, degree: int) -> list[list[int]]:
    """Return imaginary moves that bring every row and column sum to ``degree``, at most 2 * workers pairs."""
    size = matrix.shape[0]
    slack = [[0] * size for _ in range(size)]
    row_need: list[int] = (degree - matrix.sum(axis=1)).tolist()
    column_need: list[int] = (degree - matrix.sum(axis=0)).tolist()
    row = column = 0
    while row < size and column < size:
        take = min(row_need[row], column_need[column])
        slack[row][column] += take
        row_need[row] -= take
        column_need[column] -= take
        if row_need[row] == 0:
            row += 1
        else:
            column += 1
    return slack


def _augment(root: int, support: Sequence[int], column_of: list[int], row_of: list[int]) -> None:
    """Match row ``root`` by a shortest alternating path; ``support[row]`` has a bit per column with moves left."""
    seen = 0
    parent: dict[int, int] = {}
    queue = [root]
    for row in queue:  # The list grows while it is walked: a breadth-first search.
        fresh = support[row] & ~seen
        seen |= fresh
        while fresh:
            column = (fresh & -fresh).bit_length() - 1
            fresh &= fresh - 1
            parent[column] = row
            if row_of[column] < 0:
                _flip(column, parent, column_of, row_of)
                return
            queue.append(row_of[column])
    message = f"a regular matrix of moves has no perfect matching: row {root}, support {list(support)}"
    raise InternalError(message)


def _flip(column: int, parent: dict[int, int], column_of: list[int], row_of: list[int]) -> None:
    """Take the edges of an alternating path that ends in a free ``column``, from its end to its unmatched root."""
    while column >= 0:
        row = parent[column]
        previous = column_of[row]
        column_of[row], row_of[column] = column, row
        column = previous
