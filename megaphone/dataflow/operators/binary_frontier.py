"""Binary frontier: one operator on two streams, which sees both frontiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megaphone.dataflow.graph import Pact
from megaphone.dataflow.operators.notificator import FrontierNotificator
from megaphone.dataflow.operators.unary_frontier import FrontierInput, FrontierOperator, FrontierOutput
from megaphone.dataflow.stream import Stream, stream_method

BinaryFunction = Callable[[FrontierInput, FrontierInput, FrontierOutput, FrontierNotificator], Any]


class BinaryFrontier(FrontierOperator):
    """Two inputs."""

    def __init__(
        self,
        streams: tuple[Stream, Stream],
        name: str,
        function: BinaryFunction,
        columns: Any,  # noqa: ANN401 - as Schema
        pacts: tuple[Pact | None, Pact | None],
    ) -> None:
        super().__init__(streams, name, columns, pacts)
        self.function = function

    def call(self, sources: list[FrontierInput], output: FrontierOutput, notificator: FrontierNotificator) -> None:
        """Call the user's function."""
        self.function(sources[0], sources[1], output, notificator)


@stream_method
def binary_frontier(
    stream: Stream,
    other: Stream,
    function: BinaryFunction,
    *,
    columns: Any = None,  # noqa: ANN401 - as Schema
    pact: Pact | None = None,
    other_pact: Pact | None = None,
    name: str = "binary_frontier",
) -> Stream:
    """Add an operator that calls ``function(left, right, output, notificator)`` on input and when a frontier moves.

    Args:
        stream: its left input.
        other: its right input.
        function: takes batches by iterating ``left`` and ``right``; may keep them, and capabilities, for later calls.
            A time is complete for the notificator when both frontiers have passed it.
        columns: of the output; those of the left input by default.
        pact: how records reach the left input; they stay on their worker by default.
        other_pact: the same for the right input.
        name: for errors and reports.
    """
    return Stream(stream.graph, BinaryFrontier((stream, other), name, function, columns, (pact, other_pact)).out)
