"""A state machine per key, run for all keys of a call at once.

::

    records in order of time                      one group per key, in order of first appearance
    key  a b a c b                       ──>      keys     a   | b   | c
    v    1 2 3 4 5                                offsets  0     2     4   5
                                                  v        1 3 | 2 5 | 4
                                                  state    one value per key and column: what the fold returns anew

The published operator calls its function with one record and one state; here a fold gets every key's records as a
slice of columns, so that numpy does the work.  There all outputs of an activation carry its earliest time; here each
output carries the time of its record, or the one that the fold gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from megaphone._core import lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.sending import checked_columns, checked_times, send_columns
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError
from megaphone.migration.operators.applying import Applier, State
from megaphone.migration.operators.fold_context import FoldContext, taken
from megaphone.migration.operators.stateful import Stateful, StatefulStream, make_stateful
from megaphone.shm.counters import COUNTER_INDEX

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker

_COPIED_GATHER = COUNTER_INDEX["copied_gather"]


@dataclass(frozen=True)
class KeyGroups:
    """The records of one call, grouped by key: ``groups["v"][offsets[i]:offsets[i + 1]]`` are those of ``keys[i]``.

    Attributes:
        keys: [m], each key once, in order of first appearance; an array or a BytesColumn.
        offsets: int64[m + 1], where each key's records begin.
        state: each value column of the store, [m], what the keys hold before these records; copies, writable.
        times: uint64[n], the time of each record; within a key they do not fall.

    Indexing with a column's name gives its values in the order of the groups; a copy, counted as gather.
    """

    keys: Any
    offsets: npt.NDArray[np.int64]
    state: dict[str, npt.NDArray[Any]]
    times: npt.NDArray[np.uint64]
    _order: npt.NDArray[np.intp] = field(repr=False)
    _context: FoldContext = field(repr=False)
    _worker: Worker = field(repr=False)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - an array or a BytesColumn
        column = self._context.column(name)
        with self._worker.times.of("gather"):
            column = taken(column, self._order)
        lib.mp_counter_add(self._worker.slot, _COPIED_GATHER, column.nbytes)
        return column

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64[m], how many records each key has."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Transition:
    """What a state machine's fold returns.

    Attributes:
        state: new values, [m] each, for columns that change; a column that is left out stays as it is.
        remove: bool[m], the keys whose rows are deleted; in a DenseArray they become zeros.
        outputs: columns of the output, [k] each; None sends nothing.
        times: uint64[k], the time of each output, none before the earliest record's; may be left out when there is
            one output per record, in the order of the groups: then it has its record's time.
    """

    state: Mapping[str, Any] = field(default_factory=dict)
    remove: Any = None
    outputs: Mapping[str, Any] | None = None
    times: Any = None


Machine = Callable[[KeyGroups], Transition]


class StateMachine(Applier):
    """S whose fold sees groups."""

    def check(self) -> None:
        """Refuse a function for a key, of which there are no groups."""
        if not isinstance(self.keying.key, str):
            wrong = "key is a function: a state machine needs the column of its keys"
            raise self.error(wrong)
        if self.declared.kind == lib.MP_STORE_ROWS:
            wrong = f"state is {self.declared.noun}: a state machine has a row per key, a HashTable or a DenseArray"
            raise self.error(wrong)

    def apply(self, context: FoldContext) -> None:
        """Group, gather, call the fold, and carry out what it returns."""
        keys = context.column(str(self.keying.key))
        rows = self.state.rows(keys)
        order, offsets, first = grouped(rows)
        unique = rows[first]
        state = {name: self.state.gather(unique, name) for name in self.declared.columns}
        groups = KeyGroups(taken(keys, first), offsets, state, context.times[order], order, context, self._worker)
        transition = self.fold(groups)
        if not isinstance(transition, Transition):
            message = f"{self.where}: the fold returned {type(transition).__name__}: return a Transition"
            raise UsageError(message)
        self._put(unique, transition)
        if transition.outputs is not None:
            self._send(context, groups, transition.outputs, transition.times)

    def _put(self, rows: npt.NDArray[np.uint64], transition: Transition) -> None:
        try:
            for name, values in transition.state.items():
                self.state.put(rows, name, values)
        except UsageError as error:
            message = f"{self.where}: {error}"
            raise type(error)(message) from None
        if transition.remove is None:
            return
        remove = np.asarray(transition.remove)
        if remove.shape != rows.shape or remove.dtype != np.bool_:
            message = f"{self.where}: remove is {remove.dtype}{list(remove.shape)}, it must be bool[{len(rows)}]"
            raise UsageError(message)
        if self.declared.kind == lib.MP_STORE_TABLE:
            self.state.remove(rows[remove])
        else:
            for name, dtype in self.declared.columns.items():
                self.state.put(rows[remove], name, np.zeros(int(remove.sum()), dtype))

    def _send(self, context: FoldContext, groups: KeyGroups, outputs: Mapping[str, Any], times: Any) -> None:  # noqa: ANN401
        """Send outputs, a batch for each time."""
        columns, records, _ = checked_columns(self.out.schema, outputs, self.where)
        if times is None and records != len(groups.times):
            message = f"{self.where}: {records} outputs of {len(groups.times)} records without times: give one for each"
            raise UsageError(message)
        stamps = checked_times(groups.times if times is None else times, records, context.time, self.where)
        if not records or stamps is None:
            return
        if (stamps[1:] < stamps[:-1]).any():
            order = np.argsort(stamps, kind="stable")
            stamps, columns = stamps[order], [taken(column, order) for column in columns]
        bounds = [0, *(np.flatnonzero(stamps[1:] != stamps[:-1]) + 1).tolist(), records]
        for start, end in zip(bounds, bounds[1:], strict=False):
            part = [_cut(column, start, end) for column in columns]
            send_columns(self._worker, self.out, part, end - start, int(stamps[start]), None)


def grouped(rows: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Group equal values, keeping their order; groups in order of first appearance.

    Args:
        rows: uint64[n].

    Returns:
        intp[n], positions group by group; int64[m + 1], where each group begins; intp[m], the first of each group.

    Cost: O(n log n).

    >>> [part.tolist() for part in grouped(np.array([7, 3, 7, 5], np.uint64))]
    [[0, 2, 1, 3], [0, 2, 3, 4], [0, 1, 3]]
    """
    by_value = np.argsort(rows, kind="stable")
    ordered = rows[by_value]
    is_first = np.ones(len(rows), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    begins = np.flatnonzero(is_first)
    lengths = np.diff(np.append(begins, len(rows)))
    first = by_value[begins]
    appearance = np.argsort(first, kind="stable")
    offsets = np.zeros(len(begins) + 1, np.int64)
    np.cumsum(lengths[appearance], out=offsets[1:])
    shift = np.repeat(begins[appearance] - offsets[:-1], lengths[appearance])
    return by_value[np.arange(len(rows)) + shift], offsets, first[appearance]


def _cut(column: Any, start: int, end: int) -> Any:  # noqa: ANN401 - an array or a BytesColumn
    if isinstance(column, BytesColumn):
        return BytesColumn(column.offsets[start : end + 1], column.data)
    return column[start:end]


@stream_method
def stateful_state_machine(
    stream: Stream,
    *,
    key: str,
    state: State,
    fold: Machine,
    columns: Any,  # noqa: ANN401 - as Schema
    **options: Unpack[Stateful],
) -> StatefulStream:
    """Run a state machine per key: the fold gets groups of records and returns new states and outputs.

    Args:
        stream: its input.
        key: the column that names the machine.
        state: what each key holds: a HashTable, or a DenseArray. A key that was never seen, or was removed, holds the
            default.
        fold: ``fold(groups) -> Transition``, called with all complete records; see KeyGroups. Records after the one
            that removes a key, in the same call, are the fold's to begin anew with.
        columns: of the output.
        **options: control, hash, bin_shift, transfer, eager, per_time, initial, name, plain; see ``Stateful``.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.

    Cost: O(n log n) for grouping; each column that is asked for is copied once, or twice where the call has several
    batches.
    """
    options.setdefault("name", "stateful_state_machine")
    return make_stateful(StateMachine, ((stream, key),), state=state, fold=fold, columns=columns, **options)
