"""Stateful operators with two inputs, whose state moves as one.

::

    left ----> F left ----data, bins--> S ---> output       a bin is one piece of state that both sides see
    right ---> F right ---data--------> S                   at one time: what was post-dated, then left, then right

A time is complete when neither input can show any more of it, whatever the other one has: an input that is closed
holds nothing up, and one that is never advanced holds up everything.  So a fold sees both sides of a time at once, and
either may be empty.  `keyed.h` says why one bin with one owner serves both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Unpack

import numpy as np
import numpy.typing as npt

from megaphone._core import lib
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError
from megaphone.migration.operators.applying import Applier, PendingKey, State
from megaphone.migration.operators.fold_context import PENDING_SENDER, VIEWS_MAX, FoldContext
from megaphone.migration.operators.stateful import BinaryFold, Stateful, StatefulStream, graph_error, make_stateful
from megaphone.migration.operators.stateful_input import Consuming, wrong_consume

if TYPE_CHECKING:
    from megaphone.dataflow.batch import Batch
    from megaphone.dataflow.graph import KeyFunction
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker

SIDES: Final = ("pending", "left", "right")
"""What a segment may be, in the order in which a fold sees those of one time."""
_PENDING, _LEFT, _RIGHT = range(3)
"""Places in `SIDES`; 1 shifted by one is its bit in `folds.h`."""


class BinaryContext(FoldContext):
    """One call of a fold with two inputs, or of what consumes input before it.

    Everything of FoldContext, over the segments of all sides in order, and each side by itself. A side may be empty.
    """

    def __init__(self, applier: Applier, worker: Worker) -> None:
        super().__init__(applier, worker)
        self._schemas: tuple[Schema, ...] = (applier.pending_schema, *applier.entry.schemas)
        self._right_location = applier.entry.data[1].location
        self._sides: list[int] | None = None

    def _open(self, count: int) -> None:
        super()._open(count)
        self._sides = None

    def _side_of(self, cell: Any) -> int:  # noqa: ANN401 - a cffi struct
        if cell.sender == PENDING_SENDER:
            return _PENDING
        return _RIGHT if cell.location == self._right_location else _LEFT

    def _schema_of(self, cell: Any) -> Schema:  # noqa: ANN401 - a cffi struct
        return self._schemas[self._side_of(cell)]

    @property
    def sides(self) -> tuple[str, ...]:
        """Of each segment "pending", "left" or "right"."""
        return tuple(SIDES[side] for side in self._numbers())

    def _numbers(self) -> list[int]:
        if self._sides is None:
            cells = lib.mp_segments(self._worker.slot)
            self._sides = [self._side_of(cells[index]) for index in range(self._count)]
        return self._sides

    def side(self, name: str) -> tuple[Batch, ...]:
        """Return the segments of one side, in order.

        Args:
            name: left, right or pending.

        Raises:
            UsageError: another name.
        """
        wanted = _number(name)
        return tuple(
            segment for segment, side in zip(self.segments, self._numbers(), strict=True) if side == wanted
        )  # fmt: skip

    @property
    def left(self) -> tuple[Batch, ...]:
        """The batches of the left input, in the order (time, sender, sequence)."""
        return self.side("left")

    @property
    def right(self) -> tuple[Batch, ...]:
        """The batches of the right input, in the order (time, sender, sequence)."""
        return self.side("right")

    def by_side(self) -> Iterator[tuple[int, tuple[Batch, ...], tuple[Batch, ...], tuple[Batch, ...]]]:
        """Yield each time with its batches: (time, post-dated, left, right); any of them may be empty."""
        numbers, start = self._numbers(), 0
        for time, segments in self.by_time():
            parts: tuple[list[Batch], ...] = ([], [], [])
            for segment, number in zip(segments, numbers[start : start + len(segments)], strict=True):
                parts[number].append(segment)
            start += len(segments)
            yield time, tuple(parts[_PENDING]), tuple(parts[_LEFT]), tuple(parts[_RIGHT])

    # -- columns of one side -------------------------------------------------------------------------------------------

    def side_column(self, side: str, name: str) -> Any:  # noqa: ANN401 - an array or a BytesColumn
        """Return one column of all segments of a side: empty, a view of the only one, or a copy, counted as concat.

        Raises:
            GraphError: there is no such column.
        """
        number = _number(side)
        schema = self._schemas[number]
        if self._count > VIEWS_MAX and (joined := self._joined_in_c(1 << number, schema, name)) is not None:
            return joined
        return self._joined(self.side(side), schema, name)

    def left_column(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Return one column of the left input."""
        return self.side_column("left", name)

    def right_column(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Return one column of the right input."""
        return self.side_column("right", name)

    def pending_column(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Return one column of what was post-dated."""
        return self.side_column("pending", name)

    def side_times(self, side: str) -> npt.NDArray[np.uint64]:
        """uint64[n], the time of each record of a side."""
        segments = self.side(side)
        return np.repeat(np.array([s.time for s in segments], np.uint64), [s.n for s in segments])

    @property
    def left_times(self) -> npt.NDArray[np.uint64]:
        """uint64[n], the time of each record of the left input."""
        return self.side_times("left")

    @property
    def right_times(self) -> npt.NDArray[np.uint64]:
        """uint64[n], the time of each record of the right input."""
        return self.side_times("right")


def _number(name: str) -> int:
    if name not in SIDES:
        message = f"no side is called {name!r}: there are left, right and pending"
        raise UsageError(message)
    return SIDES.index(name)


class BinaryApplier(Applier):
    """S with two inputs."""

    context_class = BinaryContext

    def adding_schema(self, key: str, value: str | None, schema: Schema) -> Schema:  # noqa: ARG002 - as the base's
        """Refuse: which side's records are added is the fold's to say."""
        message = f"{self.where}: add_emit is for one input: use context.state.add_emit for a side's keys"
        raise UsageError(message)


class BinaryInputApplier(Consuming, BinaryApplier):
    """S with two inputs and a function of its own for them."""


@stream_method
def stateful_binary(
    stream: Stream,
    right: Stream,
    *,
    left_key: str | KeyFunction,
    right_key: str | KeyFunction,
    state: State,
    fold: BinaryFold,
    columns: Any,  # noqa: ANN401 - as Schema
    pending: Any = None,  # noqa: ANN401 - as Schema
    pending_key: PendingKey | None = None,
    **options: Unpack[Stateful],
) -> StatefulStream:
    """Fold two streams into one keyed state that can move between workers while they run.

    Args:
        stream: its left input.
        right: its right input.
        left_key: the column of the left input that chooses the bin, or a function from a batch to uint64[n] hashes.
        right_key: the same of the right input. Equal keys of both meet in one bin.
        state: what a bin holds, for both sides.
        fold: called as ``fold(context)`` with complete records of both; see BinaryContext. At one time it sees what
            was post-dated, then the left input, then the right one.
        columns: of the output.
        pending: columns of post-dated records; they are shown to the fold as a side of their own. Their key column
            has the name of ``left_key`` unless ``pending_key`` says otherwise.
        pending_key: the column of their key, or a function from the columns of post-dated records to uint64[n] hashes.
        **options: control, hash, bin_shift, transfer, eager, per_time (by default when ``pending`` is given),
            initial, name, plain; see ``Stateful``.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.
    """
    options.setdefault("name", "stateful_binary")
    options.setdefault("per_time", pending is not None)
    return make_stateful(
        BinaryApplier, ((stream, left_key), (right, right_key)), state=state, fold=fold, columns=columns,
        pending=pending, pending_key=pending_key, **options,
    )  # fmt: skip


@stream_method
def stateful_binary_input(
    stream: Stream,
    right: Stream,
    *,
    left_key: str | KeyFunction,
    right_key: str | KeyFunction,
    state: State,
    consume: BinaryFold,
    fold: BinaryFold,
    columns: Any,  # noqa: ANN401 - as Schema
    pending: Any,  # noqa: ANN401 - as Schema
    pending_key: PendingKey | None = None,
    **options: Unpack[Stateful],
) -> StatefulStream:
    """Look at records of two streams when their time is complete, and fold what is post-dated of them.

    Args:
        stream: its left input.
        right: its right input.
        left_key: as for stateful_binary.
        right_key: as for stateful_binary.
        state: what a bin holds, for both sides.
        consume: called as ``consume(context)`` with complete input of both sides, left before right at one time; see
            BinaryContext and stateful_unary_input.
        fold: called as ``fold(context)`` with post-dated records whose time is complete: ``context.side("pending")``.
        columns: of the output, to which both functions send.
        pending: columns of post-dated records; see stateful_binary.
        pending_key: see stateful_binary.
        **options: control, hash, bin_shift, transfer, eager, per_time (by default), initial, name, plain; see
            ``Stateful``, and stateful_unary_input for ``per_time=False``.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.
    """
    options.setdefault("name", "stateful_binary_input")
    options.setdefault("per_time", True)
    if wrong := wrong_consume(consume, pending):
        raise graph_error(str(options["name"]), wrong)
    result = make_stateful(
        BinaryInputApplier, ((stream, left_key), (right, right_key)), state=state, fold=fold, columns=columns,
        pending=pending, pending_key=pending_key, **options,
    )  # fmt: skip
    operator = result.operator
    assert isinstance(operator, BinaryInputApplier)
    operator.consume = consume
    return result
