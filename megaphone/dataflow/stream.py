"""Streams: what operators are chained on.

Operators of higher layers register themselves here when their layer is imported; this file knows only the registry.
The names that end up on Stream are listed for editors and type checkers in ``stream.pyi``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megaphone.dataflow.graph import Graph, OutputPort
from megaphone.dataflow.schema import Schema


class Stream:
    """The records that one output port sends.

    Attributes:
        graph: the dataflow it belongs to.
        port: the output port.
        schema: its columns.
    """

    def __init__(self, graph: Graph, port: OutputPort) -> None:
        self.graph = graph
        self.port = port

    @property
    def schema(self) -> Schema:
        """Names and dtypes of the columns."""
        return self.port.schema

    def __repr__(self) -> str:
        return f"Stream({self.port.operator.name!r}, {self.schema.describe()})"


def stream_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of (stream, ...) a method of Stream under its own name."""
    setattr(Stream, function.__name__, function)
    return function


def graph_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of (graph, ...) a method of Graph under its own name."""
    setattr(Graph, function.__name__, function)
    return function
