"""Map: each batch becomes one batch of as many records, with other columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from megaphone.dataflow.batch import Batch, Loan
from megaphone.dataflow.operators.unary import Output, Transform
from megaphone.dataflow.sending import checked_columns
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError

MapFunction = Callable[..., Mapping[str, Any] | Loan]


class Map(Transform):
    """Sends what a function makes of each batch; records keep their times."""

    def __init__(self, stream: Stream, name: str, function: MapFunction, columns: Any, *, loan: bool) -> None:  # noqa: ANN401
        super().__init__(stream, name, columns)
        self.function = function
        self.loan = loan
        names = zip(self.out.schema.dtypes, stream.schema.dtypes, strict=False)
        # Names do not matter to how a batch lies: columns that are only renamed are handed on as well.
        self.same_layout = len(self.out.schema) == len(stream.schema) and all(a == b for a, b in names)

    def transform(self, batch: Batch, output: Output) -> None:
        """Send what the function makes of the batch."""
        times = batch.times

        def loan(n: int = batch.n, *, bytes_room: Mapping[str, int] | None = None) -> Loan:
            return output.loan(n, timed=times is not None, bytes_room=bytes_room)

        result = self.function(batch, loan) if self.loan else self.function(batch)
        if isinstance(result, Loan):
            self._check_count(batch, result.n)
            if times is not None:
                if result.times is None:
                    message = f"operator {self.name!r}: records have times of their own: fill the loan that is offered"
                    raise UsageError(message)
                result.times[: result.n] = times
            output.send(result)
            return
        if self._is_whole(batch, result):
            output._forward(batch)  # noqa: SLF001 - forward would compare names
            return
        _, records, _ = checked_columns(self.out.schema, result, f"operator {self.name!r}")
        self._check_count(batch, records)
        output.send(result, times=times)

    def _is_whole(self, batch: Batch, result: Any) -> bool:  # noqa: ANN401 - what a user's function returned
        return (
            self.same_layout
            and isinstance(result, Mapping)
            and result.keys() == self.out.schema.index.keys()
            and all(batch.is_column(number, result[name]) for number, name in enumerate(self.out.schema))
        )

    def _check_count(self, batch: Batch, records: int) -> None:
        if records != batch.n:
            message = f"operator {self.name!r} made {records} records of {batch.n}: use flat_map to change the number"
            raise UsageError(message)


@stream_method
def map(  # noqa: A001 - the field's word
    stream: Stream,
    function: MapFunction,
    *,
    columns: Any = None,
    loan: bool = False,
    name: str = "map",  # noqa: ANN401
) -> Stream:
    """Make other columns of each batch.

    Args:
        stream: its input.
        function: from a batch to a mapping of arrays, as many values as the batch has records.
        columns: of the output; those of the input by default.
        loan: call ``function(batch, loan)`` instead, where ``loan()`` gives room in shared memory to be filled and
            returned; bytes columns need ``loan(bytes_room={name: bytes})``.
        name: for errors and reports.

    Cost: arrays are copied once (``ingest``), a filled loan is not; columns that are views of the batch, all of them
    and in order, are handed on by reference.
    """
    return Stream(stream.graph, Map(stream, name, function, columns, loan=loan).out)
