"""What records pass on their way to the counting: one function for each step of a script's front.

::

    map filter  rows pass, copied, handed on, or some of them
    hold        batches are kept until their time is complete, then forwarded
    exchange    by the hash of the id
    split       two ways and together again
    loop        some go round, one time later each time, and leave at a time that their ids decide
    broadcast   to everybody, so that each record counts once per worker
    tee         the stream goes on, and to a branch of its own beside it
"""

from __future__ import annotations

from typing import Any

import numpy as np

from megaphone.dataflow.batch import Batch
from megaphone.dataflow.operators.unary_frontier import FrontierInput, FrontierOutput
from megaphone.dataflow.stream import Stream
from tests.stress.keeping import Keeper
from tests.stress.records import goes_round, passes


def front(stream: Stream, name: str, place: int, keeper: Keeper, beside: list[Stream]) -> Stream:
    """Return a stream behind one step of a script's front; what goes beside it is added to a list."""
    label = f"{name}{place}"
    if name == "map":
        return stream.inspect(keeper.offer).map(_same if place % 2 else _handed_on, name=label)
    if name == "filter":
        return stream.filter(_passes, name=label)
    if name == "exchange":
        return stream.exchange("id", name=label).inspect(keeper.offer, name=f"look{place}")
    if name == "broadcast":
        return stream.broadcast(name=label).inspect(keeper.offer, name=f"look{place}")
    if name == "split":
        odd, even = stream.partition(2, _parity, name=label)
        return odd.concat(even)
    if name == "loop":
        return _loop(stream, label, keeper)
    if name == "hold":
        return stream.unary_frontier(_hold, name=label)
    beside.append(stream)
    return stream


def _same(batch: Batch) -> dict[str, Any]:
    return batch.own()


def _handed_on(batch: Batch) -> dict[str, Any]:
    return batch.columns()


def _passes(batch: Batch) -> Any:
    return passes(batch["id"])


def _parity(batch: Batch) -> Any:
    return (batch["stamp"] & np.uint64(1)).astype(np.uint8)


def _hold(source: FrontierInput, output: FrontierOutput, notificator: Any) -> None:
    for batch in source:
        notificator.notify_at(output.capability(), batch)
    for _, batches in notificator:
        for batch in batches:
            output.forward(batch)


def _loop(stream: Stream, label: str, keeper: Keeper) -> Stream:
    """Send some records round, one time later each time, until they leave; which and when their ids decide."""
    loop, back = stream.graph.feedback(stream.schema, 1, name=label)
    leaving, again = stream.concat(back.inspect(keeper.offer)).partition(2, _again, name=f"{label}.leave")
    loop.connect(again)
    return leaving


def _again(batch: Batch) -> Any:
    times = np.full(batch.n, batch.time, np.uint64) if batch.times is None else batch.times
    return goes_round(batch["id"], times).astype(np.uint8)
