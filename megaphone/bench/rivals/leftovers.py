"""Files of rivals that keep some: named after the program that started the workers, and removed by it or the next.

A library whose names cannot be removed early leaves its files when all its processes are killed at once.  So they
carry the number of the program, and each run first removes those of programs that do not run any more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

NAME: Final = "megaphone_rival_"
SHM_FOLDER: Final = Path("/dev/shm")


def name_of_run() -> str:
    """Return what the names of this run's files begin with."""
    return f"{NAME}{os.getpid()}_"


@contextlib.contextmanager
def folder_of_run() -> Iterator[Path]:
    """Give a folder of this run's own; afterwards remove it and what has this run's name in shared memory."""
    remove_what_dead_runs_left()
    try:
        yield Path(tempfile.mkdtemp(prefix=name_of_run()))
    finally:
        _remove(os.getpid())


def remove_what_dead_runs_left() -> None:
    """Remove the files of programs that do not run any more."""
    numbers = {path.name.removeprefix(NAME).partition("_")[0] for path in _files("*")}
    for number in numbers:
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            _remove(int(number))


def _files(rest: str) -> list[Path]:
    return [path for folder in (SHM_FOLDER, Path(tempfile.gettempdir())) for path in folder.glob(f"{NAME}{rest}")]


def _remove(pid: int) -> None:
    for path in _files(f"{pid}_*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # another user's
                path.unlink()
