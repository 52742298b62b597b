"""What workers print, shown by their parent: whole lines on standard error, each with the worker it came from."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

READ_BYTES: Final = 64 << 10
LINE_BYTES_MAX: Final = 64 << 10
"""A longer line is shown in pieces, so that what never ends a line does not fill the memory."""


class LineForwarder:
    """One pipe from a worker.

    Args:
        fd: reading end; whoever made it closes it.
        prefix: of each line.

    Attributes:
        last_line: the last line that was not empty.
    """

    def __init__(self, fd: int, prefix: str) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.last_line = ""
        self._prefix = prefix
        self._partial = b""

    def read(self) -> bool:
        """Forward what is there; returns whether more may come now."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return False
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LINE_BYTES_MAX or (not data and self._partial):
            lines.append(self._partial)
            self._partial = b""
        self._show(lines)
        return bool(data)

    def drain(self) -> None:
        """Forward all that is left after the worker has ended; its own children may still hold the other end."""
        while self.read():
            pass
        if self._partial:
            self._show([self._partial])
            self._partial = b""

    def _show(self, lines: list[bytes]) -> None:
        texts = [line.decode(errors="replace").rstrip("\r") for line in lines]
        self.last_line = next((text for text in reversed(texts) if text.strip()), self.last_line)
        # Nobody listening, or no standard error at all, is no reason to fail.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.writelines(f"{self._prefix}{text}\n" for text in texts)
            if texts:
                sys.stderr.flush()
