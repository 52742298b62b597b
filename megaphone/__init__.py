"""Megaphone on shared memory: a streaming dataflow engine for one host, whose keyed state moves while the stream runs.

A program builds a dataflow once per worker, and a main function steers each worker::

    def build(graph):
        numbers, stream = graph.input("numbers", {"n": "u8"})
        return numbers, stream.exchange("n").probe()

    def drive(worker, handles):
        numbers, probe = handles
        numbers.send({"n": [1, 2, 3]})

    if __name__ == "__main__":
        megaphone.execute(build, workers=2, drive=drive)

Workers are processes; records, progress and state lie in POSIX shared memory that all of them map.  The names below
are the public ones; they are loaded when they are first used, so that ``import megaphone`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from megaphone import _abi, errors
from megaphone.version import __version__

if TYPE_CHECKING:
    from megaphone.dataflow.batch import Batch, BytesColumn, Loan
    from megaphone.dataflow.execute import Result, execute
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.stream import Stream
    from megaphone.dataflow.worker import Worker
    from megaphone.errors import MegaphoneError
    from megaphone.migration.control import Map, Move, Noop
    from megaphone.state.stores import DenseArray, HashTable, Pickled, Rows

_abi.check()

_HOMES = {
    "Batch": "megaphone.dataflow.batch",
    "BytesColumn": "megaphone.dataflow.batch",
    "DenseArray": "megaphone.state.stores",
    "Graph": "megaphone.dataflow.graph",
    "HashTable": "megaphone.state.stores",
    "Loan": "megaphone.dataflow.batch",
    "Map": "megaphone.migration.control",
    "MegaphoneError": "megaphone.errors",
    "Move": "megaphone.migration.control",
    "Noop": "megaphone.migration.control",
    "Pickled": "megaphone.state.stores",
    "Result": "megaphone.dataflow.execute",
    "Rows": "megaphone.state.stores",
    "Schema": "megaphone.dataflow.schema",
    "Stream": "megaphone.dataflow.stream",
    "Worker": "megaphone.dataflow.worker",
    "execute": "megaphone.dataflow.execute",
}
_REGISTERS = ("megaphone.dataflow.operators", "megaphone.migration.operators")

__all__ = [
    "Batch",
    "BytesColumn",
    "DenseArray",
    "Graph",
    "HashTable",
    "Loan",
    "Map",
    "MegaphoneError",
    "Move",
    "Noop",
    "Pickled",
    "Result",
    "Rows",
    "Schema",
    "Stream",
    "Worker",
    "__version__",
    "errors",
    "execute",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        message = f"module 'megaphone' has no attribute {name!r}"
        raise AttributeError(message)
    # Operators put themselves on Graph and Stream when their layer is imported.
    for module in _REGISTERS:
        import_module(module)
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
