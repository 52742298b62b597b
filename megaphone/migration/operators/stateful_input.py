"""A stateful operator whose input is looked at before it is folded.

::

    input of t ──complete──> consume(context) ──post_date──> heaps of the bins ──t' complete──> fold(context)
                                    └─────────────output ──────────────────────────────┘

``consume`` sees each complete batch once. It may transform records, choose another time for them, or send them on; the
fold sees only what was post-dated.  Input of a time is consumed before the fold of that time, whatever was post-dated
to it before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from megaphone._core import lib
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.migration.operators.applying import Applier, PendingKey, State
from megaphone.migration.operators.stateful import Fold, Stateful, StatefulStream, graph_error, make_stateful

if TYPE_CHECKING:
    from megaphone.dataflow.graph import KeyFunction
    from megaphone.migration.operators.fold_context import FoldContext


class Consuming(Applier):
    """S with a function of its own for input."""

    consumes = True
    consume: Callable[..., Any]

    def apply(self, context: FoldContext) -> None:
        """Show input to one function, post-dated records to the other."""
        (self.consume if self.op.shown == lib.MP_SHOWN_INPUT else self.fold)(context)


class InputApplier(Consuming):
    """S with one input and a function of its own for it."""


@stream_method
def stateful_unary_input(
    stream: Stream,
    *,
    key: str | KeyFunction,
    state: State,
    consume: Fold,
    fold: Fold,
    columns: Any,  # noqa: ANN401 - as Schema
    pending: Any,  # noqa: ANN401 - as Schema
    pending_key: PendingKey | None = None,
    **options: Unpack[Stateful],
) -> StatefulStream:
    """Look at records when their time is complete, and fold what is post-dated of them.

    Args:
        stream: its input.
        key: the column that chooses the bin, or a function from a batch to uint64[n] hashes.
        state: what a bin holds: DenseArray, HashTable, Rows or Pickled.
        consume: called as ``consume(context)`` with complete input; see FoldContext. What it post-dates has a key in
            the same bin and a time not before ``context.time``. It may read the state: of all times before.
        fold: called as ``fold(context)`` with post-dated records whose time is complete, in the order in which they
            were post-dated to that time.
        columns: of the output, to which both functions send.
        pending: columns of post-dated records. Their key column has the name of ``key`` unless ``pending_key`` says
            otherwise.
        pending_key: the column of their key, or a function from the columns of post-dated records to uint64[n] hashes.
        **options: control, hash, bin_shift, transfer, eager, per_time (by default), initial, name, plain; see
            ``Stateful``.
            With ``per_time=False`` either function is called with many times at once, which is quicker; ``consume``
            then must not look at the state, which may be that of any time before or between.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.
    """
    options.setdefault("name", "stateful_unary_input")
    options.setdefault("per_time", True)
    if wrong := wrong_consume(consume, pending):
        raise graph_error(str(options["name"]), wrong)
    result = make_stateful(
        InputApplier, ((stream, key),), state=state, fold=fold, columns=columns, pending=pending,
        pending_key=pending_key, **options,
    )  # fmt: skip
    operator = result.operator
    assert isinstance(operator, InputApplier)
    operator.consume = consume
    return result


def wrong_consume(consume: Any, pending: Any) -> str:  # noqa: ANN401 - whatever a user may give
    """Return what does not fit, empty if all does."""
    if pending is None:
        return "pending is None: declare the columns of what consume post-dates"
    return "" if callable(consume) else f"consume is no function, {consume!r}: give one that takes a FoldContext"
