r"""One line on a terminal that says how far a run is, and that leaves nothing behind.

The line goes to standard error, because standard output is data.  It is rewritten in place with ``\r`` and spaces,
which every terminal understands; where there is no terminal nothing at all is written.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TextIO

REDRAW_NS = 200_000_000
_COLUMNS_DEFAULT = 80


class ProgressLine:
    """A progress line, at most five times a second; a context manager, or to be closed by hand.

    >>> with ProgressLine(1000, "words") as line:
    ...     line.update(500)
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        enabled: bool | None = None,
        *,
        stream: TextIO | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Draw nothing yet; the first `update` does.

        Args:
            total: what `update` will reach, in `unit`; None or 0 if it is not known.
            unit: what is counted, such as ``records``.
            enabled: whether to draw; None is "if the stream is a terminal".
            stream: where to draw; None is standard error as it is now.
            clock_ns: nanoseconds that never go back.
        """
        self._total = total
        self._unit = unit
        # A process without standard error has None here, and nobody to talk to.
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._clock_ns = clock_ns
        self._start_ns = clock_ns()
        self._next_ns = self._start_ns
        self._drawn_columns = 0
        if enabled is None:
            enabled = self._stream is not None and not self._stream.closed and self._stream.isatty()
        self._enabled = enabled and self._stream is not None

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total is done; cheap when it is too early to draw again.

        Args:
            done: so far, in the unit.
            note: what goes on at the moment, such as ``migrating``.
        """
        if not self._enabled:
            return
        now_ns = self._clock_ns()
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + REDRAW_NS
            self._draw(self._text(done, note, now_ns))

    def close(self) -> None:
        """Clear the line; later updates draw nothing.  May be called again."""
        if self._enabled and self._drawn_columns:
            self._draw("")
            self._write("\r")
        self._enabled = False

    def __enter__(self) -> Self:
        """Return the line itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the line, so that an error message starts on a clean one."""
        self.close()

    def _text(self, done: int, note: str, now_ns: int) -> str:
        seconds = (now_ns - self._start_ns) / 1e9
        parts = [f"{done:,} {self._unit}"]
        if self._total:
            parts.insert(0, f"{min(done / self._total, 1):4.0%}")
        parts.append(f"{seconds:.0f} s")
        if note:
            parts.append(note)
        return "  ".join(parts)

    def _draw(self, text: str) -> None:
        # The last column stays free: a character there makes some terminals begin a new line.
        text = text[: self._columns() - 1]
        self._write("\r" + text.ljust(self._drawn_columns))
        self._drawn_columns = len(text)

    def _columns(self) -> int:
        assert self._stream is not None  # enabled only with a stream
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(self._stream.fileno()).columns or _COLUMNS_DEFAULT
        return _COLUMNS_DEFAULT

    def _write(self, text: str) -> None:
        assert self._stream is not None  # enabled only with a stream
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # A terminal that went away is no reason to end the run.
            self._enabled = False
