"""The operators of a worker in the order in which a step runs them, laid out for the core (schedule.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megaphone._core import ffi, lib

if TYPE_CHECKING:
    from megaphone.dataflow.graph import Graph, Operator


class Schedule:
    """What ``mp_step`` is given.

    Args:
        graph: finished, its operators set up.
        peers: how many workers there are.

    Attributes:
        c: the ``mp_schedule``.
        operators: of its tasks, by number; downstream first, so that what leaves the dataflow frees memory before more
            comes in.
    """

    def __init__(self, graph: Graph, peers: int) -> None:
        self.operators: list[Operator] = [operator for operator in reversed(graph.operators) if operator.inputs]
        count, words = len(self.operators), graph.location_count // 64 + 1
        self._tasks = ffi.new("mp_task[]", max(1, count))
        self._mask = ffi.new("uint64_t[]", words)
        self._keep: list[Any] = []
        quiet = ffi.addressof(lib, "mp_quiet_run")
        for task, operator in zip(self._tasks, self.operators, strict=False):
            locations = ffi.new("uint32_t[]", [port.location for port in operator.inputs])
            task.ports, task.port_count = locations, len(locations)
            task.away = operator.sends_away and peers > 1
            given = operator.task()
            if given is None and operator.messages_alone:
                given = quiet, ffi.new("mp_ports *", [locations, len(locations)])
            if given is not None:
                task.run, task.op = given
            self._keep += [locations, given]
        self.c = ffi.new("mp_schedule *", {"task": self._tasks, "words": words, "mask": self._mask})
        self.c.count = self.c.at = count
