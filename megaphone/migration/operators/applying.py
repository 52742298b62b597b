"""S: the half of a stateful operator that holds records until their time is complete and shows them to a fold.

What is the same for all stateful operators: ports, the state of the bins, post-dated records, and the activation.  An
operator of its own kind overrides ``apply``, which is called with each complete part of its input; entry.py is how
records come here, binary.py what is different with two inputs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.graph import Operator
from megaphone.dataflow.schema import Schema, as_schema
from megaphone.dataflow.sending import checked_columns, checked_time, checked_times
from megaphone.errors import GraphError, InternalError, TimeError, UsageError
from megaphone.migration.operators.adding import AddEmit
from megaphone.migration.operators.fold_context import FoldContext
from megaphone.state.access import StoreAccess, outcome_error
from megaphone.state.stores import DenseArray, HashTable, Pickled, Rows, about_store

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.operators.entry import Entry
    from megaphone.migration.operators.routing import Keying

State = DenseArray | HashTable | Rows | Pickled
PendingKey = str | Callable[[Mapping[str, Any]], npt.NDArray[np.uint64]]
"""The column of post-dated records that has their key, or a function from their columns to uint64[n] hashes."""

CALLS_MAX: Final = 64
"""Calls of a fold per activation, where a call does not cover all that is complete."""


@dataclass(frozen=True)
class StatefulOptions:
    """What all stateful operators can be told; see ``Stateful`` in stateful.py."""

    transfer: str = "handover"
    eager: bool = False
    per_time: bool = False
    initial: Any = None
    pending: Any = None
    pending_key: PendingKey | None = None


def same_keys(column: np.dtype[Any] | None, declared: np.dtype[Any] | None) -> bool:
    """Return whether a column's values are keys of a store: of its dtype, or integers both; None is bytes."""
    if column == declared:
        return True
    return column is not None and declared is not None and column.kind in "iu" and declared.kind in "iu"


class Applier(Operator):
    """S: one per stateful operator and worker."""

    volatile = False
    consumes = False
    """Whether input is shown in calls of its own, before post-dated records."""
    context_class = FoldContext

    def __init__(
        self,
        entry: Entry,
        name: str,
        declared: State,
        fold: Callable[..., Any],
        columns: Any,  # noqa: ANN401 - as Schema
        options: StatefulOptions,
    ) -> None:
        super().__init__(entry.graph, name)
        self.entry, self.fold, self.declared, self.options = entry, fold, declared, options
        self.keying: Keying = entry.keyings[0]
        self.segment_schema: Schema = entry.schemas[0]
        entry.connect(self)
        self.out = self.add_output(columns)
        self.pending_schema = self._checked_pending()
        entry.watch(self.out)
        self.keyed = entry.keyed
        try:
            declared.struct(self.keyed, self.keying.bin_shift, self.keying.hash)
            self._initial = entry.owners(options.initial)
        except UsageError as error:
            raise self.error(str(error)) from None
        self._adding: set[tuple[str, str | None, int]] = set()
        self._in_core: Any = None  # what runs whole activations there

    def _checked_pending(self) -> Schema:
        options, key = self.options, self.keying.key
        if options.pending is None:
            return self.segment_schema
        wrong, schema = "", self.segment_schema
        try:
            schema = as_schema(options.pending)
            column = key if options.pending_key is None else options.pending_key
            if isinstance(column, str) and isinstance(key, str):
                dtype, needed = schema.dtype(column), self.segment_schema.dtype(key)
                if dtype != needed:
                    wrong = f"{column!r} is {dtype or 'bytes'}, the input's {needed or 'bytes'}: make them equal"
            elif not callable(options.pending_key):
                wrong = "beside a function for a key: give pending_key too, a function of these columns"
        except GraphError as error:
            wrong = str(error)
        if wrong:
            message = f"pending: {wrong}"
            raise self.error(message)
        return schema

    @property
    def where(self) -> str:
        """Operator and the user's line, for messages of errors while it runs."""
        return f"operator {self.name!r} ({self.line})"

    def describe(self) -> str:
        """Return what must be equal on all workers."""
        o = self.options
        text = f"{self.declared!r} {o.transfer} {o.eager} {o.per_time} {self.pending_schema.describe()}"
        return f"{super().describe()} {text} {self._initial.tobytes().hex()}"

    def port_names(self) -> list[str]:
        """Return data and state, then the output."""
        return [*self.entry.port_names(), "out"]

    def about(self) -> dict[str, Any]:
        """Return the ports of both halves and what a bin holds."""
        options, keyings = self.options, self.entry.keyings
        keys = [keying.key if isinstance(keying.key, str) else "a function" for keying in keyings]
        return {
            "state": {
                "keyed": self.keyed,
                "bin_shift": self.keying.bin_shift,
                "key": " and ".join(keys),
                "hash": self.keying.hash,
                "transfer": options.transfer if self.entry.moved else "none",
                "ports": self.entry.ports(self.out),
                "store": about_store(self.declared),
                "pending": None if options.pending is None else self.pending_schema.describe(),
            }
        }

    def setup(self, worker: Worker) -> None:
        """Lay out the C half that both F and S use, and take the first bins."""
        self._worker = worker
        options, keying = self.options, self.keying
        op = self.op = self.entry.start(worker, self.out, self._initial)
        op.copy = options.transfer == "copy"
        op.eager = options.eager
        op.has_pending = options.pending is not None
        op.consumes = self.consumes
        op.per_time = options.per_time
        self.pending_schema.fill(op.pending)
        if not self.out.sent_edges:
            self.out.schema.fill(self.out.c_edges[0].schema)  # kernels lay out what nobody takes as well
        self.state = StoreAccess(
            worker.slot, self.declared, self.keyed, keying.bin_shift, keying.hash, make_room=self._make_room,
            where=self.where,
        )  # fmt: skip
        self._context = self.context_class(self, worker)
        self._calls_max = CALLS_MAX if options.per_time else 2 if self.consumes else 1

    def _make_room(self, _: int) -> bool:
        """Return True if memory of batches that are gone went back to the pool; else raise SharedMemoryError."""
        if lib.mp_slab_give_back(self._worker.slot):
            return True
        raise self._worker.memory_error()

    def task(self) -> tuple[Any, Any] | None:
        """Let the core take bins in, hold records back, and find what is complete; Python runs where something is.

        With a fold that the core knows, and records of one kind, it never does.
        """
        fold, schema, out = self.fold, self.segment_schema, self.out
        is_known = type(self) is Applier and not out.by_function and self.pending_schema == schema
        if not is_known or not isinstance(fold, AddEmit):
            return ffi.addressof(lib, "mp_applier_run"), self.op
        self.adding_schema(fold.key, fold.value, schema)
        value = -1 if fold.value is None else schema.column(fold.value)
        columns = schema.c, schema.column(fold.key), value
        self._in_core = ffi.new(
            "mp_adding *", [self.op, self.state.c, *columns, out.c_edges, out.edge_count, self._calls_max]
        )
        return ffi.addressof(lib, "mp_adding_run"), self._in_core

    def fail(self, worker: Worker, rc: int) -> None:
        """Raise what the core answered, which may be about a key."""
        if self._in_core is None:
            super().fail(worker, rc)
        else:
            self.raise_outcome(self._in_core.why, rc)

    def go_on(self, value: int) -> None:
        """Show what is complete, so many segments of it at first, and end the activation."""
        worker, op, context, count = self._worker, self.op, self._context, value
        slot = worker.slot
        for left in range(self._calls_max - 1, -1, -1):
            if count <= 0:
                break
            context._open(count)  # noqa: SLF001 - the context is this operator's own
            self.apply(context)
            context._close()  # noqa: SLF001 - as above
            count = lib.mp_applier_collect(slot, op) if left else 0
        if count < 0:
            worker.check(count)
        rc = lib.mp_applier_end(slot, op)
        if rc:
            worker.check(rc)

    def apply(self, context: FoldContext) -> None:
        """Show complete records to the user's function."""
        self.fold(context)

    # -- for the context -----------------------------------------------------------------------------------------------

    def adding_schema(self, key: str, value: str | None, schema: Schema) -> Schema:
        """Return the schema of records that ``add_emit`` is about to apply, having checked that all fits.

        Raises:
            UsageError: it does not; the message says what.
        """
        mark = (key, value, id(schema))
        if mark in self._adding:
            return schema
        state_name, state_dtype = next(iter(self.declared.columns.items()))
        out, wrong = self.out.schema, ""
        try:
            key_dtype = schema.dtype(key)
            value_dtype = None if value is None else schema.dtype(value)
        except GraphError as error:
            message = f"{self.where}: add_emit: {error}"
            raise UsageError(message) from None
        if self.declared.kind == lib.MP_STORE_ROWS:
            wrong = f"it adds to a row per key, and the state is {self.declared.noun}: declare a HashTable"
        elif self.options.pending is not None and not self.consumes and self.pending_schema != self.segment_schema:
            wrong = "input and pending have different columns: fold them by yourself, segment by segment"
        elif isinstance(self.keying.key, str) and key != self.keying.key and self.options.pending_key is None:
            wrong = f"records are routed by column {self.keying.key!r}, not by {key!r}: use that"
        elif not same_keys(key_dtype, self.declared.key):
            wrong = f"column {key!r} is {key_dtype or 'bytes'}, the state's keys are {self.declared.key or 'bytes'}"
        elif state_dtype.itemsize != 8 or state_dtype.kind not in "iuf":
            wrong = f"the state's first column {state_name!r} is {state_dtype}: make it 8 bytes wide"
        elif value is not None and value_dtype != state_dtype:
            wrong = f"column {value!r} is {value_dtype or 'bytes'}, the state's {state_name!r} is {state_dtype}"
        elif len(out) != 2 or out.dtypes[0] != key_dtype or out.dtypes[1] != state_dtype:
            kinds = f"{key_dtype or 'bytes'} and {state_dtype}"
            wrong = f"it sends {kinds}, the output has {out.describe()}: declare two columns of these"
        if wrong:
            message = f"{self.where}: add_emit: {wrong}"
            raise UsageError(message)
        self._adding.add(mark)
        return schema

    def raise_outcome(self, why: Any, rc: int) -> None:  # noqa: ANN401 - a cffi struct
        """Raise what a kernel's outcome means."""
        if why.error in (-errno.EFBIG, -errno.EOVERFLOW):
            message = f"{self.where}: {outcome_error(why, self.declared, self.keying.hash)}"
            raise UsageError(message)
        if rc == -errno.EPERM:
            hint = "; does the key function give the hashes of these keys?" if callable(self.keying.key) else ""
            message = f"{self.where}: bin {why.bin_id} is not worker {self._worker.index}'s, and it has a record{hint}"
            raise InternalError(message)
        self._worker.check(rc)

    def post_date(self, values: Mapping[str, Any], times: Any) -> None:  # noqa: ANN401 - array-like
        """See FoldContext.post_date."""
        if self.options.pending is None:
            message = f"{self.where} post-dates records and was declared without pending: give pending=columns"
            raise UsageError(message)
        columns, records, _ = checked_columns(self.pending_schema, values, f"{self.where}, post_date")
        if not records:
            return
        stamps = self._stamps(times, records)
        named = dict(zip(self.pending_schema.names, columns, strict=True))
        hashes = self._pending_hashes(named, records)
        pointers, var, ordinal = ffi.new("void *[]", len(columns)), ffi.new("void *[3]"), 0
        keep: list[npt.NDArray[Any]] = []
        for index, column in enumerate(columns):
            if isinstance(column, BytesColumn):
                keep += [np.ascontiguousarray(column.offsets), np.ascontiguousarray(column.data)]
                pointers[index] = ffi.cast("void *", keep[-2].ctypes.data)
                var[ordinal] = ffi.cast("void *", keep[-1].ctypes.data)
                ordinal += 1
            else:
                pointers[index] = ffi.cast("void *", column.ctypes.data)
        done = lib.mp_post_date(
            self._worker.slot, self.op, pointers, var, ffi.cast("uint64_t *", stamps.ctypes.data),
            ffi.cast("uint64_t *", hashes.ctypes.data), records,
        )  # fmt: skip
        if done == -errno.EINVAL:
            until = int(self.op.applied_until)
            cure = "use that time or later" if self.options.per_time else "use later times, or declare per_time=True"
            least = int(stamps.min())
            message = f"{self.where} post-dates to {least} in a call that covers times up to {until}: {cure}"
            raise TimeError(message)
        if done == -errno.EPERM:
            message = f"{self.where} post-dates a record for a bin that is not here: only for keys of the same call"
            raise UsageError(message)
        if done < 0:
            self._worker.check(done)

    def _stamps(self, times: Any, records: int) -> npt.NDArray[np.uint64]:  # noqa: ANN401 - array-like
        where = f"{self.where}, post_date"
        if np.ndim(times) == 0:
            return np.full(records, checked_time(times, where), np.uint64)
        stamps = checked_times(times, records, 0, where)
        assert stamps is not None
        return stamps

    def _pending_hashes(self, columns: Mapping[str, Any], records: int) -> npt.NDArray[np.uint64]:
        pending_key = self.options.pending_key
        if not callable(pending_key):
            return self.keying.hashes(columns, pending_key)
        hashes = np.asarray(pending_key(columns))
        if hashes.shape != (records,) or hashes.dtype != np.uint64:
            message = f"{self.where}: pending_key gave {hashes.dtype}{list(hashes.shape)}, it must be uint64[{records}]"
            raise UsageError(message)
        return np.ascontiguousarray(hashes)
