"""The result of an experiment: one JSON file, written whole after each run, so that an interrupted one goes on.

    DIR/bins.json   {"format": 1, "experiment": "bins", "size": ..., "machine": {...}, ..., "rows": [row, ...]}

Rows are only comparable when they come from the same code on the same machine: a file of another one is refused, never
mixed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from megaphone import _core
from megaphone.errors import UsageError
from megaphone.observe.files import write_whole
from megaphone.observe.machine import describe_machine
from megaphone.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from megaphone.bench.experiment import Size

FORMAT: Final = 1
ROOT: Final = Path(__file__).resolve().parents[1]
_MPI_SECONDS: Final = 20.0
_CODE: Final = (".py", ".c", ".h")
_PACKAGES: Final = ("numpy", "cffi", "posix_ipc", "psutil")
# Rivals, and the MPI that a package may bring; the release of one that is part of the system is its library's own.
_PACKAGES_IF_THERE: Final = ("iceoryx2", "mpi4py", "bytewax", "openmpi", "mpich", "impi-rt")
_COMPILED_BY: Final = re.compile(rb"GCC: [ -~]+|[ -~]*clang version [ -~]+")
# What must agree before rows go into one file; the others are only told.
_SAME: Final = ("format", "experiment", "size", "seed", "tree", "machine")


@dataclass
class Result:
    """One experiment's result, as its file has it.

    Attributes:
        head: everything but the rows.
        rows: ``{"point": parameters, "repeat": n, "paced": whether, "command": text, "started": time, "seconds": s,
            "figures": {...}, "series": {...}, "yardstick": {...}}`` in the order in which they ran.
    """

    head: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def has(self, parameters: Mapping[str, Any], repeat: int) -> bool:
        """Return whether a point's run of that round is there."""
        return any(row["repeat"] == repeat and row["point"] == parameters for row in self.rows)

    def write(self, path: Path) -> None:
        """Replace the file, whole or not at all."""
        # A row on each line: a result is committed, and read in a diff.
        head = json.dumps(self.head, indent=1)[:-2]
        rows = ",\n".join(f"  {json.dumps(row, separators=(',', ':'))}" for row in self.rows)
        write_whole(path, f'{head},\n "rows": [\n{rows}\n ]\n}}\n')


def head_of(experiment: str, size: Size, seed: int, command: str) -> dict[str, Any]:
    """Return what a result says of itself: what was run, by which code, on which machine."""
    return {
        "format": FORMAT,
        "experiment": experiment,
        "size": size,
        "seed": seed,
        "command": command,
        "version": __version__,
        "commit": commit(),
        "tree": tree_hash(),
        "machine": describe_machine(),
        "packages": packages(),
        "compiler": compiler(),
    }


def packages() -> dict[str, str]:
    """Return the releases of what a figure depends on: what is always there, and rivals where they are installed."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    for name in _PACKAGES_IF_THERE:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if "mpi4py" in found and (told := _mpi()):
        found["MPI"] = told
    return found


def _mpi() -> str | None:
    """Return the first line of what the MPI library says of itself, which it does without being started."""
    asked = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", asked], capture_output=True, text=True, check=False, timeout=_MPI_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = ended.stdout.strip("\0\n ").splitlines()
    return lines[0].strip() if lines and not ended.returncode else None


def compiler(extension: Path | None = None) -> str:
    """Return the C compiler that made the extension, as it says there itself; ``unknown`` where that was stripped.

    Args:
        extension: the file; None: the one that is loaded.
    """
    try:
        told = _COMPILED_BY.search((extension or Path(_core.__file__)).read_bytes())
    except OSError:
        return "unknown"
    return told[0].decode().strip() if told else "unknown"


def commit() -> str:
    """Return the commit of this tree, with ``-dirty`` if files differ from it; ``unknown`` where there is no git."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty", "--match="]
    try:
        ended = subprocess.run(git, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return ended.stdout.strip() or "unknown"


def tree_hash() -> str:
    """Return a hash of all code of this package, installed or not: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in _CODE:
            digest.update(f"{path.relative_to(ROOT)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def resume(path: Path, head: dict[str, Any]) -> Result:
    """Return what a file holds already, or a new result; a file that does not belong to this run is refused.

    Raises:
        UsageError: the file is of other code, another machine, size or seed, or no result at all.
    """
    if not path.exists():
        return Result(head)
    found = read(path)
    for name in _SAME:
        if found.head[name] != head[name]:
            message = (
                f"{path}: has rows of another {name} ({_short(found.head[name])}, now {_short(head[name])}): "
                "give another --output, or remove the file"
            )
            raise UsageError(message)
    return found


def read(path: Path) -> Result:
    """Return the result in a file.

    Raises:
        UsageError: it cannot be read, or is no result of this format.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read as a result ({error}): give a folder that megaphone bench run wrote"
        raise UsageError(message) from None
    rows = content.pop("rows", None) if isinstance(content, dict) else None
    if not isinstance(rows, list) or content.get("format") != FORMAT or not {*_SAME} <= {*content}:
        message = f"{path}: is no result of format {FORMAT}: give a folder that megaphone bench run wrote"
        raise UsageError(message)
    return Result(content, rows)


def read_folder(folder: Path) -> dict[str, Result]:
    """Return all results of a folder by experiment.

    Raises:
        UsageError: there is no such folder, or no result in it.
    """
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not paths:
        message = f"{folder}: holds no result: give a folder that megaphone bench run wrote"
        raise UsageError(message)
    return {result.head["experiment"]: result for result in map(read, paths)}


def _short(value: object) -> str:
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
