"""The queries, one module each; what a module has, and how it is found by the name of its query.

``qN(events, how) -> Stream`` builds the query; ``COLUMNS`` are those of its output, of which the first is the event
time at which a row is final; ``READS`` are the columns that it reads, by stream, so that nothing else is made;
``TEXTS`` are the texts of coded columns, where there are any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from megaphone.workloads.nexmark.schemas import STREAMS
from megaphone.workloads.nexmark.settings import FLEX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style


@dataclass(frozen=True)
class Query:
    """One query, plain or flex.

    Attributes:
        name: with its ending.
        flex: whether its state may move.
        build: makes its operators.
        columns: name to dtype of its output.
        reads: columns by stream.
        texts: of coded columns of the output.
    """

    name: str
    flex: bool
    build: Callable[[Streams, Style], Stream]
    columns: Mapping[str, str]
    reads: Mapping[str, Sequence[str]]
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)


def find(name: str) -> Query:
    """Return the query of a name such as ``q5`` or ``q5-flex``, which must be one of ``settings.QUERY_NAMES``."""
    base = name.removesuffix(FLEX)
    module: Any = import_module(f"{__name__}.{base}")
    return Query(
        name, name.endswith(FLEX), getattr(module, base), module.COLUMNS, module.READS, getattr(module, "TEXTS", {})
    )


def inputs_of(queries: Iterable[Query]) -> dict[str, dict[str, str]]:
    """Return the streams that queries read together, each with those of its columns that they read, in order."""
    wanted = [query.reads for query in queries]
    named = {stream: {column for reads in wanted for column in reads.get(stream, ())} for stream in STREAMS}
    return {
        stream: {column: dtype for column, dtype in schema.items() if column in named[stream]}
        for stream, schema in STREAMS.items()
        if named[stream]
    }
