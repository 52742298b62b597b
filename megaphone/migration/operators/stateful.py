"""Stateful operators: keyed state in bins that change owner while the stream runs.

Each is a pair, F that routes records by the configuration of their time (routing.py) and S that applies them
(applying.py); `keyed.h` has the exact conditions.  A fold is called once per activation with all complete times, in a
fixed order, and works on whole columns: it looks rows up, gathers, computes with numpy, and puts back, or calls a
kernel that does all of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from megaphone.dataflow.graph import Graph, KeyFunction, OutputPort, user_line
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import GraphError
from megaphone.migration.operators.applying import Applier, PendingKey, State, StatefulOptions, same_keys
from megaphone.migration.operators.control import Control, ControlOperator
from megaphone.migration.operators.entry import Entry, FixedEntry, RoutedEntry
from megaphone.migration.operators.fold_context import FoldContext
from megaphone.migration.operators.routing import FUEL_RECORDS, Keying, Router
from megaphone.state.access import StoreAccess

if TYPE_CHECKING:
    from megaphone.migration.operators.binary import BinaryContext

Fold = Callable[[FoldContext], Any]
BinaryFold = Callable[["BinaryContext"], Any]

BIN_SHIFT_DEFAULT: Final = 8


class Stateful(TypedDict, total=False):
    """What every stateful operator can be told.

    Attributes:
        control: where migrations come from; None: bins stay.
        hash: fnv, mix or dense, over a key column; mix by default.
        bin_shift: log2 of the number of bins, 1 to 20; 8 by default.
        transfer: handover (a bin changes owner and stays where it lies; the default) or copy (as between hosts).
        eager: apply a time while more of it may still come; for folds in which order does not matter.
        per_time: call the fold once per time.
        initial: worker of each bin at the start; bin i belongs to worker i % workers by default.
        name: for errors, reports and plans.
        plain: True runs the same definition without bins that could move: records go to fixed owners by an exchange,
            and no control is read. The rival that migration is compared with.
    """

    control: Control | None
    hash: str
    bin_shift: int
    transfer: str
    eager: bool
    per_time: bool
    initial: Any
    name: str
    plain: bool


class StatefulStream(Stream):
    """The output of a stateful operator, with a handle to its state.

    Attributes:
        operator: S, for inspection.
    """

    def __init__(self, graph: Graph, port: OutputPort, operator: Applier) -> None:
        super().__init__(graph, port)
        self.operator = operator

    @property
    def state(self) -> StoreAccess:
        """The rows of the bins that this worker owns at the moment; for use in drive, when the worker runs."""
        return self.operator.state


def make_stateful(
    applier: Callable[..., Applier],
    inputs: tuple[tuple[Stream, str | KeyFunction], ...],
    *,
    state: State,
    fold: Callable[..., Any],
    columns: Any,  # noqa: ANN401 - as Schema
    name: str,
    pending: Any = None,  # noqa: ANN401 - as Schema
    pending_key: PendingKey | None = None,
    control: Control | None = None,
    hash: str = "mix",  # noqa: A002 - the field's word
    bin_shift: int = BIN_SHIFT_DEFAULT,
    transfer: str = "handover",
    eager: bool = False,
    per_time: bool = False,
    initial: Any = None,  # noqa: ANN401 - array-like
    plain: bool = False,
) -> StatefulStream:
    """Build F and S: the common part of all stateful operators, of one input or of left and right, (stream, key) each.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.
    """
    graph = inputs[0][0].graph
    for stream, key in inputs:
        if wrong := _wrong_option(stream, key, state, fold, transfer):
            raise graph_error(name, wrong)
    entry = make_entry(inputs, name, control=control, hash=hash, bin_shift=bin_shift, plain=plain)
    options = StatefulOptions(transfer, eager, per_time, initial, pending, pending_key)
    operator = applier(entry, name, state, fold, columns, options)
    return StatefulStream(graph, operator.out, operator)


def make_entry(
    inputs: tuple[tuple[Stream, str | KeyFunction], ...],
    name: str,
    *,
    control: Control | None,
    hash: str,  # noqa: A002 - the field's word
    bin_shift: int,
    plain: bool,
) -> Entry:
    """Build what brings records to S: an F for each input, or nothing but edges.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.
    """
    graph = inputs[0][0].graph
    if wrong := _wrong_bins(bin_shift):
        raise graph_error(name, wrong)
    keyings = tuple(Keying(key, hash, bin_shift) for _, key in inputs)
    if plain:
        if control is not None:
            raise graph_error(name, "control, and plain=True, whose owners stay: leave one of them out")
        return FixedEntry(tuple(stream for stream, _ in inputs), keyings)
    if control is None:
        # No control at all: an input that nobody holds, so its frontier is empty from the start.
        control = ControlOperator(graph, f"{name}.no-control", 1, frozenset()).handle
    if wrong := _wrong_control(control):
        raise graph_error(name, wrong)
    routers = []
    for side, ((stream, key), keying) in enumerate(zip(inputs, keyings, strict=True)):
        router = Router(stream, control.stream, name, keying, gives=side == 0)
        if isinstance(key, str):
            router.check_key(key, hash)
        routers.append(router)
    source = control.stream.port.operator
    assert isinstance(source, ControlOperator)
    source.bin_shifts.append(bin_shift)
    return RoutedEntry(tuple(routers))


def graph_error(name: str, wrong: str) -> GraphError:
    """Return the error of an operator that does not exist yet, as it would be that of one that does."""
    return GraphError(f"operator {name!r} ({user_line()}): {wrong}")


def _wrong_control(control: Any) -> str:  # noqa: ANN401 - whatever a user may give
    return "" if isinstance(control, Control) else f"control={control!r} is none: make one with graph.control(...)"


def _wrong_bins(bin_shift: Any) -> str:  # noqa: ANN401 - as above
    is_one = isinstance(bin_shift, int) and 1 <= bin_shift <= 20
    return "" if is_one else f"bin_shift {bin_shift!r}: use 1 to 20, for 2 to 2**20 bins"


def _wrong_option(
    stream: Stream,
    key: Any,  # noqa: ANN401 - whatever a user may give, here and below
    state: Any,  # noqa: ANN401
    fold: Any,  # noqa: ANN401
    transfer: Any,  # noqa: ANN401
) -> str:
    """Return what does not fit, empty if all does."""
    if transfer not in ("handover", "copy"):
        return f"transfer {transfer!r}: use handover or copy"
    if not isinstance(state, State):
        return (
            f"state is not declared, {state!r}: give state=DenseArray(...), HashTable(...), Rows(...) or Pickled(...)"
        )
    if not callable(fold):
        return f"fold is no function, {fold!r}: give one that takes what this operator shows"
    if not isinstance(key, str):
        return "" if callable(key) else f"key {key!r}: give a column, or a function from a batch to hashes"
    dtype = stream.schema.dtype(key) if key in stream.schema else state.key  # one that is unknown is refused later
    if not same_keys(dtype, state.key):
        kinds = f"{dtype or 'bytes'}, the keys of {state.noun} are {state.key or 'bytes'}"
        return f"column {key!r} is {kinds}: declare the state for the column"
    return ""


@stream_method
def stateful_unary(
    stream: Stream,
    *,
    key: str | KeyFunction,
    state: State,
    fold: Fold,
    columns: Any,  # noqa: ANN401 - as Schema
    pending: Any = None,  # noqa: ANN401 - as Schema
    pending_key: PendingKey | None = None,
    **options: Unpack[Stateful],
) -> StatefulStream:
    """Fold records into keyed state that can move between workers while the stream runs.

    Args:
        stream: its input.
        key: the column that chooses the bin, or a function from a batch to uint64[n] hashes.
        state: what a bin holds: DenseArray, HashTable, Rows or Pickled.
        fold: called as ``fold(context)`` with complete records; see FoldContext.
        columns: of the output.
        pending: columns of post-dated records; they are shown to the fold like input. Their key column has the
            name of ``key`` unless ``pending_key`` says otherwise.
        pending_key: the column of their key, or a function from the columns of post-dated records to uint64[n] hashes.
        **options: control, hash, bin_shift, transfer, eager, per_time (by default when ``pending`` is given),
            initial, name, plain; see ``Stateful``.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.
    """
    options.setdefault("name", "stateful_unary")
    options.setdefault("per_time", pending is not None)
    return make_stateful(
        Applier, ((stream, key),), state=state, fold=fold, columns=columns, pending=pending, pending_key=pending_key,
        **options,
    )  # fmt: skip


__all__ = [
    "BIN_SHIFT_DEFAULT", "FUEL_RECORDS", "BinaryFold", "Fold", "FoldContext", "Stateful", "StatefulStream",
    "graph_error", "make_entry", "make_stateful", "stateful_unary",
]  # fmt: skip
