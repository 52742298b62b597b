"""Output files that are written whole or not at all, and found unwritable before the run and not after it."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path

from megaphone.errors import UsageError

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/(self|thread-self|\d+)/fd/\d+")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that `write_whole` will be able to write ``path``, without leaving anything behind.

    A file without a name is made in the folder, which finds what permission bits do not tell: a read-only file system,
    a quota, a folder that is none.

    Raises:
        UsageError: the path cannot be written; the message names it, the reason and the cure.
    """
    target = _target(path)
    try:
        _probe(target)
    except (OSError, ValueError) as error:
        raise _refusal(path, error) from error


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, so that a reader sees the old file or the whole new one and never a part.

    The text goes to a temporary file in the same folder, which then takes the name; if anything fails it is removed.
    A link is followed.  A device, a pipe or ``/dev/stdout`` is written to directly: replacing it would destroy it.

    Raises:
        UsageError: the path cannot be written; the message names it, the reason and the cure.
    """
    target = _target(path)
    try:
        if not _is_replaceable(target):
            with target.open("ab") as device:
                device.write(text.encode())
            return
        _replace(target, text.encode())
    except (OSError, ValueError) as error:
        raise _refusal(path, error) from error


def _probe(target: Path) -> None:
    """Raise the OSError that writing ``target`` would meet."""
    if _is_replaceable(target):
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    elif not target.exists():
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _replace(target: Path, content: bytes) -> None:
    """Write a temporary file beside ``target`` and rename it; its mode is that of the old file, or by the umask."""
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    # The name does not contain the target's, which may already be as long as a name can be.
    temporary = target.parent / f".megaphone-{secrets.token_hex(8)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file that ``path`` means, links followed."""
    if not os.fspath(path):
        message = "the name of the output file is empty: give a file name"
        raise UsageError(message)
    try:
        target = Path(path)
        if _is_replaceable(target):
            target = target.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise _refusal(path, error) from error
    if target.is_dir():
        message = f"cannot write {os.fspath(path)!r}: it is a folder; give a file name in it"
        raise UsageError(message)
    return target


def _is_replaceable(target: Path) -> bool:
    """Return whether the name may be given to another file: it is free, or a plain file has it."""
    return not _is_descriptor(target) and (not target.exists() or target.is_file())


def _is_descriptor(target: Path) -> bool:
    """Return whether the name stands for a descriptor that is open already, whatever file that is."""
    return _DESCRIPTOR.fullmatch(str(target)) is not None


def _refusal(path: str | os.PathLike[str], error: Exception) -> UsageError:
    """Return the error that tells the user why, in one line."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return UsageError(f"cannot write {os.fspath(path)!r}: {reason}; give a file in a folder that you may write to")
