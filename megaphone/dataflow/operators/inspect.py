"""Inspect: look at what passes, and hand it on untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megaphone.dataflow.batch import Batch
from megaphone.dataflow.operators.unary import BatchOperator
from megaphone.dataflow.stream import Stream, stream_method


class Inspect(BatchOperator):
    """Shows each batch to a function, then forwards it."""

    def __init__(self, stream: Stream, name: str, function: Callable[[Batch], Any]) -> None:
        super().__init__(stream, name)
        self.out = self.add_output(stream.schema)
        self.function = function

    def on_batch(self, batch: Batch) -> None:
        """Show, and hand the message on that the batch came in: nothing of it needs to be put together again."""
        self.function(batch)
        self._worker.push(self.out, self._cell, batch)


@stream_method
def inspect(stream: Stream, function: Callable[[Batch], Any], *, name: str = "inspect") -> Stream:
    """Call ``function(batch)`` with each batch and hand the batch on; costs a reference and no copy.

    Args:
        stream: its input.
        function: sees the batch, read-only; what it returns is ignored.
        name: for errors and reports.
    """
    return Stream(stream.graph, Inspect(stream, name, function).out)
