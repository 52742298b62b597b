"""Flat map: each batch becomes any number of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from megaphone.dataflow.batch import Batch, Loan
from megaphone.dataflow.operators.unary import Output, Transform
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError

Made = Mapping[str, Any] | Loan
FlatMapFunction = Callable[..., Iterable[Made | tuple[Mapping[str, Any], Any]]]


class FlatMap(Transform):
    """Sends each of what a function yields for a batch."""

    def __init__(self, stream: Stream, name: str, function: FlatMapFunction, columns: Any, *, loan: bool) -> None:  # noqa: ANN401
        super().__init__(stream, name, columns)
        self.function = function
        self.loan = loan

    def transform(self, batch: Batch, output: Output) -> None:
        """Send what the function makes of the batch, at the batch's time."""
        timed = batch.times is not None
        for made in self.function(batch, output.loan) if self.loan else self.function(batch):
            values, times = made if isinstance(made, tuple) else (made, None)
            if timed and times is None and not (isinstance(values, Loan) and values.times is not None):
                message = (
                    f"operator {self.name!r}: records of the batch have times of their own: "
                    "yield (columns, times), or a loan made with timed=True"
                )
                raise UsageError(message)
            output.send(values, times=times)


@stream_method
def flat_map(
    stream: Stream,
    function: FlatMapFunction,
    *,
    columns: Any = None,
    loan: bool = False,
    name: str = "flat_map",  # noqa: ANN401
) -> Stream:
    """Make any number of batches, of any number of records, of each batch.

    Args:
        stream: its input.
        function: from a batch to an iterable of mappings of arrays, or of pairs (mapping, times uint64[n]) where
            records are to have times of their own; a generator is usual.
        columns: of the output; those of the input by default.
        loan: call ``function(batch, loan)`` instead, where ``loan(n, timed=, bytes_room=)`` gives room in shared
            memory to be filled and yielded.
        name: for errors and reports.

    Cost: arrays are copied once (``ingest``), filled loans are not.
    """
    return Stream(stream.graph, FlatMap(stream, name, function, columns, loan=loan).out)
