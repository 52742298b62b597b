"""A region: one segment of POSIX shared memory that has no name any more.

    create ── unlink ── ftruncate ─┬─ control: fallocate whole ── map read-write
                                   └─ data: sparse ── map read-write (C) ── map read-only (numpy)
                 descriptor ── pass_fds ──> attach in a worker: the same mappings

The name exists for two system calls.  After that the kernel frees the segment when the last process that has it
ends, however it ends, so nothing can be left in /dev/shm.  The descriptor stays open for children and tools.

A mapping is an object that every view of it keeps alive; closing a region drops the region's own references and
never unmaps under a view.
"""

from __future__ import annotations

import os
import secrets
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import posix_ipc

from megaphone._core import ffi, lib
from megaphone.errors import InternalError, SharedMemoryError
from megaphone.shm.limits import MEMORY_BYTES_MIN, MIB, format_size, free_bytes_of, memory_available_bytes

if TYPE_CHECKING:
    from types import TracebackType

HUGE_PAGE_BYTES = 2 * MIB

What: TypeAlias = Literal["control", "data"]
"""The control region is committed whole and written through C alone; the data region is sparse and has a
read-only mapping as well."""


class Region:
    """One mapped segment; make it with :meth:`create` in the parent, with :meth:`attach` in a worker.

    Attributes:
        fd: the descriptor, to be passed on with ``subprocess``'s ``pass_fds``; -1 once closed.
        size_bytes: length of the segment and of each mapping.
        what: ``"control"`` or ``"data"``.
    """

    def __init__(self, fd: int, size_bytes: int, what: What) -> None:
        """Map a descriptor that this object then owns; for :meth:`create` and :meth:`attach`."""
        self.fd = fd
        self.size_bytes = size_bytes
        self.what = what
        # Pointers that own their mapping: it ends with the last object that has come from them.
        self._pointer: Any = _map(fd, size_bytes, writable=True)
        self._view_pointer: Any = _map_read_only(fd, size_bytes) if what == "data" else ffi.NULL

    @classmethod
    def create(cls, size_bytes: int, what: What) -> Region:
        """Make a new segment, zeroed.

        Args:
            size_bytes: its length; the data region takes memory only as it is committed, up to this.
            what: which of the two regions it is.

        Raises:
            SharedMemoryError: /dev/shm or the machine has less, or there is no /dev/shm; the message has the size
                needed, the size there and the cure.

        Cost: about 0.1 ms, and for the control region 0.3 ms per MiB.
        """
        fd = _open_nameless()
        try:
            _refuse_what_is_not_there(fd, size_bytes, what)
            os.ftruncate(fd, size_bytes)
            if what == "control":
                # Without this the first touch of a page that cannot be had would end the process with SIGBUS.
                os.posix_fallocate(fd, 0, size_bytes)
            return cls(fd, size_bytes, what)
        except BaseException as error:
            free_bytes = free_bytes_of(fd)
            os.close(fd)
            if isinstance(error, OSError):
                raise SharedMemoryError(_shortage(size_bytes, what, free_bytes, error.strerror)) from error
            raise

    @classmethod
    def attach(cls, fd: int, size_bytes: int, what: What) -> Region:
        """Map a segment that another process has made; the descriptor belongs to the region from then on.

        Args:
            fd: inherited descriptor.
            size_bytes: length that the maker told.
            what: which of the two regions it is.

        Raises:
            InternalError: the descriptor is not a segment of this length.
        """
        try:
            there_bytes = os.fstat(fd).st_size
        except OSError as error:
            message = f"the {what} region's descriptor {fd} is not open in this process"
            raise InternalError(message) from error
        if there_bytes != size_bytes:
            # Mapping more than there is would end the process at the first touch beyond.
            message = f"the {what} region of descriptor {fd} has {there_bytes} bytes where {size_bytes} were told"
            raise InternalError(message)
        os.set_inheritable(fd, False)
        return cls(fd, size_bytes, what)

    @property
    def pointer(self) -> Any:
        """Cdata ``char *`` of the read-write mapping, for C; keep the region, or :meth:`hold`, while C uses it."""
        self._refuse_if_closed()
        return self._pointer

    @property
    def view_pointer(self) -> Any:
        """Cdata ``char *`` of the read-only mapping; NULL for the control region."""
        self._refuse_if_closed()
        return self._view_pointer

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """Return bytes of the data region, read-only for good; the view keeps its mapping alive.

        Args:
            offset: of the first byte.
            size_bytes: length.

        Raises:
            InternalError: the region is closed, is the control region, or has no such bytes.

        Cost: below 1 us; nothing is copied.
        """
        self._refuse_if_closed()
        if not self._view_pointer or offset < 0 or size_bytes < 0 or offset + size_bytes > self.size_bytes:
            message = f"no view of {size_bytes} bytes at {offset} in the {self.what} region of {self.size_bytes}"
            raise InternalError(message)
        return memoryview(ffi.buffer(self._view_pointer, self.size_bytes)).toreadonly()[offset : offset + size_bytes]

    def hold(self) -> object:
        """Return an object that keeps the mappings while it lives, for views that C pointers were made into."""
        return self._pointer, self._view_pointer

    def close(self) -> None:
        """Close the descriptor and let go of the mappings; what still views them keeps them. May be repeated.

        Slots that were attached through :attr:`pointer` must be detached before.
        """
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self._pointer = self._view_pointer = None

    def _refuse_if_closed(self) -> None:
        if self.fd < 0:
            message = f"the {self.what} region is closed"
            raise InternalError(message)

    def __enter__(self) -> Region:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Region({self.what}, {format_size(self.size_bytes)}, fd={self.fd})"


def huge_pages_are_granted() -> bool:
    """Return whether the kernel puts a huge page behind shared memory when it is asked for one; tries it.

    Cost: below 1 ms; the page is gone afterwards.
    """
    try:
        with Region.create(HUGE_PAGE_BYTES, "data") as region:
            # One small page is what a run allocates before it asks.
            os.posix_fallocate(region.fd, 0, os.sysconf("SC_PAGE_SIZE"))
            return bool(lib.mp_huge_request(region.pointer))
    except (SharedMemoryError, OSError):
        return False


def _open_nameless() -> int:
    """Return the descriptor of a new segment whose name is gone already.

    Raises:
        SharedMemoryError: there is no POSIX shared memory to be had.
    """
    name = f"/megaphone-{os.getpid()}-{secrets.token_hex(8)}"
    # A signal handler that raises between the two calls would leave the name behind.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        segment = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
        segment.unlink()
    except (posix_ipc.Error, OSError) as error:
        message = f"no shared memory can be made ({error}): is /dev/shm mounted and writable for this user?"
        raise SharedMemoryError(message) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    fd = int(segment.fd)
    os.set_inheritable(fd, False)
    return fd


def _map(fd: int, size_bytes: int, *, writable: bool) -> Any:  # noqa: ANN401 - cffi has no types
    """Map a segment where huge pages fit; return an owning ``char *``.

    Raises:
        OSError: the kernel refuses.
    """
    pointer = lib.mp_map(fd, size_bytes, writable)
    if pointer == ffi.NULL:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return ffi.gc(ffi.cast("char *", pointer), partial(_unmap, size_bytes))


def _unmap(size_bytes: int, pointer: Any) -> None:  # noqa: ANN401 - cffi has no types
    lib.mp_unmap(pointer, size_bytes)


def _map_read_only(fd: int, size_bytes: int) -> Any:  # noqa: ANN401 - cffi has no types
    """Map a segment through a descriptor that cannot write, so that nobody can make the mapping writable later."""
    read_only_fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _map(read_only_fd, size_bytes, writable=False)
    finally:
        os.close(read_only_fd)


def _refuse_what_is_not_there(fd: int, size_bytes: int, what: What) -> None:
    """Compare with the file system and the machine before a byte is taken.

    Raises:
        SharedMemoryError: either has less.
    """
    shm_free_bytes = free_bytes_of(fd)
    if shm_free_bytes is not None and shm_free_bytes < size_bytes:
        raise SharedMemoryError(_shortage(size_bytes, what, shm_free_bytes, None))
    # A /dev/shm may be as large as all memory, and then what it has free says nothing.
    available_bytes = memory_available_bytes()
    if available_bytes < size_bytes:
        message = (
            f"the {what} region needs {format_size(size_bytes)}, this machine has {format_size(available_bytes)} of "
            f"memory available: {_lower_memory(available_bytes) or 'free some, or use a larger machine'}"
        )
        raise SharedMemoryError(message)


def _shortage(size_bytes: int, what: What, free_bytes: int | None, reason: str | None) -> str:
    """Return the one line for a /dev/shm that is too small or refuses."""
    there = "has no room" if free_bytes is None else f"has {format_size(free_bytes)} free"
    because = f" ({reason})" if reason else ""
    lower = "" if free_bytes is None else _lower_memory(free_bytes)
    larger = f"make /dev/shm larger (docker run --shm-size={_gib_above(size_bytes)}g)"
    cure = f"{lower}, or {larger}" if lower else larger
    return f"the {what} region needs {format_size(size_bytes)}, /dev/shm {there}{because}: {cure}"


def _lower_memory(there_bytes: int) -> str:
    """Return the advice to take half of what is there; empty when that is less than any run needs."""
    half_bytes = there_bytes // 2
    return f"lower --memory to {half_bytes // MIB}M or less" if half_bytes >= MEMORY_BYTES_MIN else ""


def _gib_above(size_bytes: int) -> int:
    """Return whole GiB with room for twice a size, as a default run takes half of what is free."""
    return max(1, -(-2 * size_bytes // (1024 * MIB)))
