"""Find a run's memory by the number of one of its processes, and attach to it so that nothing can be written.

::

    /proc/PID/fd/N -> /dev/shm/megaphone-...-... (deleted)     both regions, whichever process of the run it is
       control: opened read-only, copied for each look
       data:    opened read-only, mapped PROT_READ

The regions have no name any more, but every process of a run keeps their descriptors open.  A page that the run has not
committed is never touched: looking at it would take memory.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from megaphone._core import ffi, lib
from megaphone.observe.inspect_look import InspectError, Look, OtherVersionError, read_about

PROC: Final = Path("/proc")
_REGION: Final = re.compile(r"/megaphone-(?P<maker>\d+)-[0-9a-f]{16} \(deleted\)$")
_HEADER: Final = struct.Struct("=QII")
_STOPPED: Final = frozenset("Tt")
_NAMES: Final = {
    "R": "running", "S": "sleeping", "D": "waiting", "T": "stopped", "t": "traced", "Z": "ended", "X": "ended",
    "I": "idle",
}  # fmt: skip


@dataclass(frozen=True)
class Region:
    """One segment as a process has it open."""

    path: Path
    inode: int
    device: int
    size_bytes: int
    maker: int


@dataclass(frozen=True)
class Moment:
    """What the run's processes were doing while its memory was copied.

    Attributes:
        states: of each worker, in words; None: the process is gone, or another has its number.
        still: whether no worker could change anything.
        at: seconds since the epoch.
    """

    states: tuple[str | None, ...]
    still: bool
    at: float


class Attachment:
    """A run that is looked at through one of its processes; close it, or use it as a context manager.

    Args:
        pid: of the parent or of any worker.
        fd: descriptor of the control region in that process, where it has more than one run.

    Attributes:
        pid: as given.
        about: what the run tells about itself.

    Raises:
        InspectError: there is no such process, it may not be looked at, it is no run, or of another version.
    """

    def __init__(self, pid: int, fd: int | None = None) -> None:
        self.pid = pid
        self._data: mmap.mmap | None = None
        regions = regions_of(pid)
        control = _choose(pid, _controls(regions), fd)
        self._control = control
        self._fd = _open(control, pid)
        try:
            self._copy = mmap.mmap(-1, control.size_bytes)
            self._read()
            self.about = read_about(self._copy_pointer)
            data_bytes = int(lib.mp_data_bytes(self._copy_pointer))
            self._data = _map_data(pid, regions, self.about["data"], data_bytes)
        except BaseException:
            self.close()
            raise

    def look(self) -> tuple[Look, Moment]:
        """Copy the control region and return a look at it; it holds until the next call."""
        assert self._data is not None
        before = self._states()
        at = time.time()
        self._read()
        states = self._states()
        still = _are_still(before) and _are_still(states)
        return Look(self._copy_pointer, ffi.from_buffer(self._data), self.about, self), Moment(states, still, at)

    def _read(self) -> None:
        read = os.preadv(self._fd, [self._copy], 0)
        # One call gives at most 2 GiB, and a region has far less.
        if read != self._control.size_bytes:
            message = f"{read} of {self._control.size_bytes} bytes of process {self.pid}'s control region can be read"
            raise InspectError(message)
        self._copy_pointer = ffi.from_buffer(self._copy)
        if lib.mp_control_verify(self._copy_pointer, read):
            raise OtherVersionError(_other_version(self.pid, self._copy))

    def _states(self) -> tuple[str | None, ...]:
        slots = int(lib.mp_slots(self._copy_pointer))
        return tuple(
            process_state(int(lib.mp_pid_get(self._copy_pointer, slot)), self._control.inode) for slot in range(slots)
        )

    def close(self) -> None:
        """Let go of the run; looks are of no use any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._copy_pointer = None
        self._data = None

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def regions_of(pid: int) -> list[Region]:
    """Return the engine's segments that a process has open, each once.

    Raises:
        InspectError: there is no such process, or it may not be looked at.
    """
    folder = PROC / str(pid) / "fd"
    found: dict[int, Region] = {}
    try:
        for path in sorted(folder.iterdir(), key=lambda path: int(path.name)):
            try:
                match = _REGION.search(str(path.readlink()))
                status = path.stat() if match else None
            except FileNotFoundError:
                continue  # closed meanwhile
            if match and status is not None and status.st_ino not in found:
                found[status.st_ino] = Region(path, status.st_ino, status.st_dev, status.st_size, int(match["maker"]))
    except (FileNotFoundError, ProcessLookupError):
        message = f"there is no process {pid}: `megaphone inspect` without a number lists the runs"
        raise InspectError(message) from None
    except PermissionError:
        # Root is refused where a container has taken its rights away.
        cure = "inspect it as that user, or as root" if os.geteuid() else "inspect it from outside this container"
        message = f"process {pid} is another user's, or protected: {cure}"
        raise InspectError(message) from None
    return list(found.values())


def runs() -> Iterator[tuple[int, Region]]:
    """Yield (process, control region) of every run that this user may look at, each once, if possible by its maker."""
    seen: dict[int, tuple[int, Region]] = {}
    for folder in sorted(PROC.iterdir(), key=lambda path: path.name):
        if not folder.name.isdigit():
            continue
        pid = int(folder.name)
        try:
            controls = _controls(regions_of(pid))
        except InspectError:
            continue
        for control in controls:
            if control.inode not in seen or control.maker == pid:
                seen[control.inode] = pid, control
    yield from sorted(seen.values(), key=lambda found: found[0])


def process_state(pid: int, inode: int | None = None) -> str | None:
    """Return what a process is doing, in a word: stopped only if all of its threads are. None: it is gone.

    Args:
        pid: of the process.
        inode: of a region that it must have open to be the one that is meant.
    """
    letters = set()
    try:
        if inode is not None and all(region.inode != inode for region in regions_of(pid)):
            return None
        for thread in (PROC / str(pid) / "task").iterdir():
            text = (thread / "stat").read_text()
            letters.add(text.rpartition(")")[2].split()[0])
    except (OSError, InspectError):
        return None
    going = letters - _STOPPED
    letter = min(going or letters, default="X")
    return _NAMES.get(letter, letter)


def _are_still(states: tuple[str | None, ...]) -> bool:
    return all(state in (None, "stopped", "traced", "ended") for state in states)


def _controls(regions: list[Region]) -> list[Region]:
    """Return those that begin like a control region."""
    found = []
    for region in regions:
        try:
            fd = os.open(region.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            start = os.pread(fd, 4096, 0)
        finally:
            os.close(fd)
        if len(start) == 4096 and lib.mp_control_is_one(ffi.from_buffer(start)):
            found.append(region)
    return found


def _choose(pid: int, controls: list[Region], fd: int | None) -> Region:
    if not controls:
        is_what = "has ended" if process_state(pid) == "ended" else "is no run of megaphone"
        message = f"process {pid} {is_what}: `megaphone inspect` without a number lists the runs"
        raise InspectError(message)
    if fd is not None:
        # The same segment may be open more than once.
        controls = [region for region in controls if region.inode == _inode_of(PROC / str(pid) / "fd" / str(fd))]
    if len(controls) != 1:
        have = "no run at that descriptor" if not controls else f"{len(controls)} runs"
        fds = ", ".join(region.path.name for region in controls)
        message = f"process {pid} has {have}: choose one with --fd" + (f" {fds}" if fds else "")
        raise InspectError(message)
    return controls[0]


def _inode_of(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _open(region: Region, pid: int) -> int:
    try:
        return os.open(region.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        message = f"the memory of process {pid} cannot be opened ({error.strerror}): has it ended?"
        raise InspectError(message) from None


def _map_data(pid: int, regions: list[Region], told: dict[str, Any], size_bytes: int) -> mmap.mmap:
    for region in regions:
        # Reading beyond the end of a shorter one would end this process.
        if region.inode == told["inode"] and region.device == told["device"] and region.size_bytes >= size_bytes:
            fd = _open(region, pid)
            try:
                return mmap.mmap(fd, region.size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
            finally:
                os.close(fd)
    message = f"process {pid} has let go of its data: the run is over"
    raise InspectError(message)


def _other_version(pid: int, header: mmap.mmap) -> str:
    _, abi, sources = _HEADER.unpack_from(header)
    ours = f"ABI {lib.mp_abi_number()}, sources {lib.mp_abi_source_hash():08x}"
    return (
        f"the run of process {pid} was made by another megaphone (ABI {abi}, sources {sources:08x}; this is {ours}): "
        "inspect it with the one that started it"
    )
