"""Messages from a worker to its parent: what it is, how it ended, and what the user's functions returned.

::

    u64 part count | u64 length of each part | part 0: pickle of plain data | part 1: pickle of the user's objects
                                                                            | parts 2...: its out-of-band buffers

The two pickles are apart because the second may fail to load, and then the first still says whose it was.  A few
messages per run go this way; records and progress never do.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Mapping
from typing import Any, Final

from megaphone.dataflow.functions import Unpickler

READ_BYTES_MAX: Final = 8 << 20
"""What one look at a worker's socket takes, so that its siblings and signals are served beside a large result."""
_U64: Final = 8


def send(fd: int, kind: str, details: Mapping[str, Any], parts: list[Any] | None = None) -> None:
    """Write one message; blocks until the parent has taken it.

    Args:
        fd: the worker's end of the socket.
        kind: what it says.
        details: plain data.
        parts: of ``pack``; none by default.

    Raises:
        OSError: the parent has gone.
    """
    all_parts = [pickle.dumps((kind, dict(details)), pickle.HIGHEST_PROTOCOL), *(parts or ())]
    views = [memoryview(part).cast("B") for part in all_parts]
    header = struct.pack(f"<{1 + len(views)}Q", len(views), *(view.nbytes for view in views))
    _write_all(fd, memoryview(header + bytes(views[0])))
    for view in views[1:]:
        _write_all(fd, view)


def pack(value: Any) -> list[Any]:  # noqa: ANN401 - whatever the user's function returned
    """Pickle an object of the user's; arrays are not copied.

    Returns:
        The pickle and its buffers, which view the object's memory.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    return [head, *(buffer.raw() for buffer in buffers)]


def unpack(parts: list[bytearray], renamed: Mapping[str, str]) -> Any:  # noqa: ANN401 - what was packed
    """Return what ``pack`` was given; arrays lie in the parts and are not copied again."""
    return Unpickler(io.BytesIO(parts[0]), renamed, parts[1:]).load()


def _write_all(fd: int, view: memoryview) -> None:
    while view.nbytes:
        view = view[os.write(fd, view) :]


class FrameReader:
    """The parent's end: collects messages from a descriptor that does not block.

    Args:
        fd: the parent's end of the socket; whoever made it closes it.

    Attributes:
        closed: the worker's end is closed and everything has been read.
        waiting: nothing more was there at the last look.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False
        self.waiting = False
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytearray] = [bytearray(_U64)]
        self._part, self._filled, self._stage = 0, 0, "count"

    def read(self) -> list[tuple[str, dict[str, Any], list[bytearray]]]:
        """Return the messages that are complete: (kind, details, parts for ``unpack``); maybe none."""
        messages: list[tuple[str, dict[str, Any], list[bytearray]]] = []
        budget = READ_BYTES_MAX
        self.waiting = False
        while budget > 0 and not self.closed:
            target = self._parts[self._part]
            try:
                taken = os.readv(self.fd, [memoryview(target)[self._filled :]])
            except BlockingIOError:
                self.waiting = True
                break
            except ConnectionResetError:  # the worker ended with something of ours unread
                taken = 0
            if taken == 0:
                self.closed = True
                break
            budget -= taken
            self._filled += taken
            if self._filled == len(target) and self._next():
                kind, details = pickle.loads(self._parts[0])
                messages.append((kind, details, self._parts[1:]))
                self._begin()
        return messages

    def _next(self) -> bool:
        """Go on to what is to be read next; True at the end of a message."""
        if self._stage == "count":
            (count,) = struct.unpack("<Q", self._parts[0])
            self._parts, self._stage = [bytearray(_U64 * count)], "lengths"
            self._part = self._filled = 0
            return False
        if self._stage == "lengths":
            lengths = struct.unpack(f"<{len(self._parts[0]) // _U64}Q", self._parts[0])
            self._parts, self._stage, self._part = [bytearray(length) for length in lengths], "parts", -1
        self._filled = 0
        self._part += 1
        while self._part < len(self._parts) and not self._parts[self._part]:
            self._part += 1
        return self._part == len(self._parts)
