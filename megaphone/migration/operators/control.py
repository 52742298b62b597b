"""The control input: how a running dataflow is told to move bins.

An open control input that is not advanced stalls everything behind it, which is every user's first mistake.  So by
default control follows a data input: it is advanced with it, keeps a lead so that data need not wait for it, and
closes with it.  Instructions are sent by worker 0 and reach every worker's routing once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import lib
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.input import NEVER, Input, InputOperator
from megaphone.dataflow.sending import send_columns
from megaphone.dataflow.stream import Stream, graph_method
from megaphone.errors import ControlOrderError, GraphError, SharedMemoryError
from megaphone.migration.control import Instruction, Instructions, Map, Noop, encode
from megaphone.shm.counters import COUNTER_INDEX

_INPUT_BYTES: Final = COUNTER_INDEX["input_bytes"]
WORDS_PER_MESSAGE: Final = 8192
CONTROLLER: Final = 0
"""The worker that sends control instructions; the others' control inputs are closed from the start."""


class Control(Input):
    """Handle to the control input.

    Attributes:
        stream: what stateful operators take.
        lead: how far control time stays ahead of the input that it follows.
    """

    stream: Stream
    carries_records = False

    def __init__(self, operator: ControlOperator, lead: int) -> None:
        super().__init__(operator)
        self.lead = lead
        self.sent_time = 0
        self.updates = 0

    def follow(self, other: Input) -> None:
        """Advance and close with another input, ``lead`` ahead of it."""
        other.lead_by(self, self.lead)

    def send_instructions(self, instructions: Iterable[Instruction], at: int | None = None) -> int:
        """Send instructions as (part of) the configuration of one time.

        Args:
            instructions: Map, Move and Noop; those of one time are applied in the order in which they are sent.
            at: the time from which they hold, not before the control's current time, which is the default. It may be
                far ahead: the routing holds the configuration until its time comes.

        Returns:
            The time from which they hold.

        Raises:
            ControlOrderError: an instruction for a later time was sent before, or the time has passed.
            PlanError: an unknown bin or worker, or a map of another length.
            SharedMemoryError: no room, and none came free while stepping; nothing has been sent.
        """
        worker = self._sending()
        time = self.time if at is None else at
        if time < self.time or time >= NEVER:
            message = (
                f"control is at time {self.time}, an instruction for {time} comes too late: "
                f"send it for {self.time} or later"
            )
            raise ControlOrderError(message)
        if time < self.sent_time:
            message = (
                f"instruction for time {time} after one for {self.sent_time}: send them in the order of their times"
            )
            raise ControlOrderError(message)
        given = instructions if isinstance(instructions, Instructions) else list(instructions)
        words = encode(given if len(given) else [Noop()])
        operator = self._operator
        assert isinstance(operator, ControlOperator)
        for bin_shift in operator.bin_shifts:
            check_words(words, 1 << bin_shift, worker.peers)
        parts = [np.ascontiguousarray(part) for part in pieces(words)]

        def put() -> None:
            worker.begin_input()
            mark = lib.mp_emit_mark(worker.slot)
            try:
                for part in parts:
                    send_columns(worker, operator.port, [part], len(part), time, None)
            except SharedMemoryError:
                # Half a configuration would be another one, and nothing could take it back once it is published.
                lib.mp_emit_undo(worker.slot, mark)
                raise

        self._with_relief(worker, put)
        lib.mp_counter_add(worker.slot, _INPUT_BYTES, sum(part.nbytes for part in parts))
        self.sent_time = time
        self.updates += 1
        return time


def pieces(words: npt.NDArray[np.uint32]) -> list[npt.NDArray[np.uint32]]:
    """Cut instructions into messages of whole runs that fit the smallest slab; in order they mean the same."""
    if len(words) <= WORDS_PER_MESSAGE:
        return [words]
    owner, bin_ids, workers = Instructions(words).merged()
    parts = [] if owner is None else _moves(np.arange(len(owner), dtype=np.uint32), owner)
    return parts + _moves(bin_ids, workers)


def _moves(bin_ids: npt.NDArray[np.uint32], workers: npt.NDArray[np.uint32]) -> list[npt.NDArray[np.uint32]]:
    step = WORDS_PER_MESSAGE // 4
    return [
        Instructions.of_moves(bin_ids[at : at + step], workers[at : at + step]).words
        for at in range(0, len(bin_ids), step)
    ]


def check_words(words: np.ndarray[Any, np.dtype[np.uint32]], bin_count: int, workers: int) -> None:
    """Refuse instructions that this run cannot follow; raises PlanError."""
    from megaphone.migration.control import decode_into  # noqa: PLC0415 - used on the control path only

    decode_into(words, np.zeros(bin_count, np.uint32), workers=workers)


class ControlOperator(InputOperator):
    """Source side of the control input: only worker 0 may send."""

    def __init__(self, graph: Graph, name: str, lead: int, holders: frozenset[int]) -> None:
        super().__init__(graph, name, {"words": "u4"}, holders)
        self.bin_shifts: list[int] = []
        self.handle: Control = Control(self, lead)
        self.handle.stream = Stream(graph, self.port)


@graph_method
def control(
    graph: Graph, follows: Input | None = None, *, lead: int = 1, manual: bool = False, name: str = "control"
) -> Control:
    """Add a control input for stateful operators.

    Args:
        graph: the dataflow.
        follows: the data input that it is advanced and closed with.
        lead: how far ahead of that input its time stays, at least 1; data of a time waits until control is past it.
        manual: advance and close it by hand instead.
        name: for errors and reports.

    Raises:
        GraphError: neither ``follows`` nor ``manual``, or both, or a lead below 1.
    """
    if (follows is None) != manual:
        what = "nothing" if follows is None else "an input and is manual"
        message = f"control {name!r} follows {what}: give follows=input, or manual=True"
        raise GraphError(message)
    if lead < 1:
        message = f"control {name!r} with lead {lead}: data of the same time would wait for it; use 1 or more"
        raise GraphError(message)
    handle = ControlOperator(graph, name, lead, frozenset({CONTROLLER})).handle
    if follows is not None:
        handle.follow(follows)
    return handle


__all__ = ["CONTROLLER", "Control", "ControlOperator", "Map", "Noop", "control"]
