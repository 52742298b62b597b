"""Concat: several streams become one; batches are handed on as they are."""

from __future__ import annotations

from megaphone.dataflow.operators.exchange import Forward
from megaphone.dataflow.stream import Stream, stream_method


class Concat(Forward):
    """Hands on what arrives at any of its inputs."""

    def __init__(self, streams: tuple[Stream, ...], name: str) -> None:
        super().__init__(streams[0], name)
        for number, stream in enumerate(streams[1:], start=2):
            if stream.schema != self.out.schema:
                message = (
                    f"stream {number} has {stream.schema.describe()}, the first {self.out.schema.describe()}: "
                    "map them to the same columns in the same order"
                )
                raise self.error(message)
            self.add_input(stream)


@stream_method
def concat(stream: Stream, *others: Stream, name: str = "concat") -> Stream:
    """Put several streams of equal columns into one; costs a reference for each batch and no copy.

    Args:
        stream: the first.
        others: further ones; a stream may be given twice, and its records then come twice.
        name: for errors and reports.

    Raises:
        GraphError: the columns differ.
    """
    return Stream(stream.graph, Concat((stream, *others), name).out)
