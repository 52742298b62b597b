"""Every exception of the engine, one small tree; each message says what to do next.

The class decides the exit code of the command line: 1 user code raised, 2 usage or plan
invalid, 3 worker lost, 4 no shared memory left, 5 stuck, 130 Ctrl-C, 143 TERM.  Expected conditions on the hot path
(full, empty, not yet) are values and never exceptions.
"""

from __future__ import annotations


class MegaphoneError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1


class UsageError(MegaphoneError, ValueError):
    """The caller asked for something impossible; the message names the thing, the value and the cure."""

    exit_code = 2


class GraphError(UsageError):
    """A dataflow was built wrongly; the message names the operator and the line that made it."""


class PlanError(UsageError):
    """A migration plan or a map is invalid; the message names file, line, value and cure."""


class ControlOrderError(UsageError):
    """A control instruction was sent for a time that is already past."""


class TimeError(UsageError):
    """A time went backwards, or was used without the capability for it."""


class StaleRowError(UsageError):
    """A row address was used after the table it points into has moved on; look the rows up again."""


class WorkerError(MegaphoneError):
    """User code raised in a worker; chained to the remote traceback."""

    exit_code = 1


class WorkerLostError(MegaphoneError):
    """A worker process ended without saying why."""

    exit_code = 3


class SharedMemoryError(MegaphoneError):
    """No shared memory is left; the message has the size needed, the size there and the cure."""

    exit_code = 4


class StuckError(MegaphoneError):
    """All workers are parked, nothing is in flight, inputs are closed, and a frontier is not empty."""

    exit_code = 5


class InternalError(MegaphoneError):
    """A rule of the engine itself was broken: a bug here, never the user's."""

    exit_code = 70
