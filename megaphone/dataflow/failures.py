"""How what goes wrong in a worker becomes an exception in the caller.

::

    worker: exception --report--> plain data and, if it can travel, the exception itself
    caller:                       WorkerError: "worker 1, operator 'count' at time 5: ValueError: ..."
                                    caused by the exception of the user's code
                                      caused by RemoteTraceback: the worker's own traceback, as text

What the engine refuses keeps its class, so that a user's mistake has the same exit code wherever it is noticed.
"""

from __future__ import annotations

import signal
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from megaphone import errors
from megaphone._core import ffi, lib
from megaphone.errors import MegaphoneError, WorkerError, WorkerLostError

if TYPE_CHECKING:
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.worker import Worker

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_LIBRARY: Final = Path(traceback.__file__).resolve().parent
_NEVER: Final = 2**64 - 1
_CURES: Final = {
    signal.SIGKILL: "if nobody killed it, the machine was out of memory (see dmesg): use fewer workers or less state",
    signal.SIGBUS: "shared memory could not be had: lower memory, or make /dev/shm larger",
}


class RemoteTraceback(Exception):  # noqa: N818 - it is no error of its own, but where one came from
    """The traceback of an exception in a worker, as text; the cause of the exception that the caller sees."""

    def __str__(self) -> str:
        """Return the text on lines of its own, as Python prints it below the class's name."""
        return f"\n{self.args[0]}"


class Look:
    """What the page of a slot says about its worker, read by the parent or by the worker itself.

    Attributes:
        work_epoch: rises with each activation that is published.
        inputs_open: inputs that may still be sent to.
    """

    def __init__(self, control: Any, slot: int) -> None:  # noqa: ANN401 - a cffi pointer
        out = ffi.new("uint64_t[7]")
        lib.mp_slot_look(control, slot, out)
        self.work_epoch, self.inputs_open = int(out[3]), int(out[4])
        self._location, self._time = int(out[5]), int(out[6])

    def where(self, graph: Graph) -> str | None:
        """Return the operator that was activated last and its frontier then, as text; None before the first one."""
        operator = graph.operator_at(self._location)
        # Inputs are not activated: location 0 is that of an input, and what the page says before anything has run.
        if operator is None or not operator.inputs:
            return None
        return f"operator {operator.name!r}" + ("" if self._time == _NEVER else f" at time {self._time}")


def report(error: BaseException, phase: str, worker: Worker | None) -> dict[str, Any]:
    """Describe an exception in a worker, as plain data for ``error_of``.

    Args:
        error: what was raised.
        phase: what the worker was doing, such as build, setup or drive.
        worker: None if there is none yet.
    """
    kind = type(error)
    where = f"in {phase}"
    if worker is not None and worker.current_operator() is not None:
        name = worker.current_operator()
        where = f"operator {name!r}"
        if phase != "setup":
            page = Look(worker.memory.control, worker.index).where(worker.graph)
            where = page if page is not None and page.startswith(where) else where
    return {
        "module": kind.__module__,
        "kind": kind.__qualname__,
        "message": str(error),
        "where": where,
        "line": user_line(error.__traceback__),
        "traceback": "".join(traceback.format_exception(error)),
    }


def error_of(index: int, told: dict[str, Any], original: BaseException | None) -> MegaphoneError:
    """Return the exception for the caller, chained to the worker's traceback.

    Args:
        index: of the worker.
        told: by ``report``.
        original: the exception itself, None if it could not travel.
    """
    remote = RemoteTraceback(told["traceback"])
    line = f" ({told['line']})" if told["line"] else ""
    kind = getattr(errors, told["kind"], None) if told["module"] == errors.__name__ else None
    error: MegaphoneError
    if isinstance(kind, type) and issubclass(kind, MegaphoneError) and kind is not WorkerError:
        error = kind(f"worker {index}, {told['where']}: {told['message']}{line}")
        error.__cause__ = remote
        return error
    if original is not None:
        original.__cause__ = remote
        if isinstance(original, MegaphoneError):
            return original
    text = f"{told['kind']}: {told['message']}" if told["message"] else told["kind"]
    error = WorkerError(f"worker {index}, {told['where']}: {text}{line}")
    error.__cause__ = remote if original is None else original
    return error


def lost(index: int, pid: int, returncode: int, where: str | None, last_line: str) -> WorkerLostError:
    """Return the error for a worker that ended without saying why.

    Args:
        index: of the worker.
        pid: of its process.
        returncode: as ``subprocess`` has it: negative for a signal.
        where: its last activation, as text.
        last_line: what it wrote last to standard error; may be empty.
    """
    if returncode < 0:
        number = -returncode
        known = number in {known.value for known in signal.Signals}
        how = f"was killed by {signal.Signals(number).name if known else f'signal {number}'}"
        cure = next((cure for fatal, cure in _CURES.items() if fatal == number), "see what it wrote above")
    else:
        how = f"exited with code {returncode} before the run was over"
        cure = "raise an exception instead of ending the process"
    last = f"; its last activation was of {where}" if where else "; no operator had been active"
    said = f"; the last line it wrote: {last_line!r}" if last_line else ""
    return WorkerLostError(f"worker {index} (pid {pid}) {how}{last}{said}: {cure}")


def user_line(trace: TracebackType | None) -> str:
    """Return ``file:line: source`` of the innermost frame of the user's; empty if there is none.

    That is the last one outside this package and, if there is such a one, outside the libraries.
    """
    frames = [f for f in traceback.extract_tb(trace) if not Path(f.filename).is_relative_to(_PACKAGE)]
    frames = [f for f in frames if Path(f.filename).is_file()] or frames
    own = [f for f in frames if not _is_library(Path(f.filename))]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{where}: {frame.line}" if frame.line else where


def _is_library(path: Path) -> bool:
    return path.is_relative_to(_LIBRARY) or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
