"""The operators of the dataflow layer; importing this puts them on Graph and Stream."""

from megaphone.dataflow.operators import (
    binary_frontier,
    broadcast,
    capture,
    concat,
    exchange,
    feedback,
    filter,  # noqa: A004 - the field's words
    flat_map,
    input,  # noqa: A004
    inspect,
    map,  # noqa: A004
    notificator,
    partition,
    probe,
    unary,
    unary_frontier,
)

__all__ = [
    "binary_frontier",
    "broadcast",
    "capture",
    "concat",
    "exchange",
    "feedback",
    "filter",
    "flat_map",
    "input",
    "inspect",
    "map",
    "notificator",
    "partition",
    "probe",
    "unary",
    "unary_frontier",
]
