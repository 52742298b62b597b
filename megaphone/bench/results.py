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
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from megaphone import _core
from megaphone.bench.experiment import SIZES
from megaphone.errors import UsageError
from megaphone.observe.files import write_whole
from megaphone.observe.machine import describe_machine
from megaphone.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from megaphone.bench.experiment import Size

Kind = Callable[[Any], bool]
"""Whether a value is what it has to be."""

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


class NoResultError(UsageError):
    """A file is not one that ``megaphone bench run`` wrote."""


def read(path: Path) -> Result:
    """Return the result in a file, of which every field is of the kind that it has to be.

    Raises:
        NoResultError: it cannot be read, or is something else.
        UsageError: it is a result of another format, or a damaged one; the message names what is wrong.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path}: cannot be read as a result ({error}): give a folder that megaphone bench run wrote"
        raise NoResultError(message) from None
    if not isinstance(content, dict) or not {"format", "experiment", "rows"} <= {*content}:
        message = f"{path}: is no result of format {FORMAT}: give a folder that megaphone bench run wrote"
        raise NoResultError(message)
    if content["format"] != FORMAT:
        other = _short(content["format"])
        message = f"{path}: is of format {other}, and this version reads {FORMAT}: run the experiment again"
        raise UsageError(message)
    wrong = _wrong(content, _HEAD)
    rows = content.pop("rows")
    for number, row in enumerate(rows if wrong is None else (), 1):
        if (why := _wrong(row, _ROW) if isinstance(row, dict) else "is no object") is not None:
            wrong = f"row {number} {why}"
            break
    if wrong is not None:
        message = f"{path}: {wrong}: restore the file, or remove it and run the experiment again"
        raise UsageError(message)
    return Result(content, rows)


def _wrong(content: Mapping[str, Any], fields: Mapping[str, tuple[Kind, str]]) -> str | None:
    for name, (kind, what) in fields.items():
        if name not in content:
            return f"has no {name!r}"
        if not kind(content[name]):
            return f"has {_short(content[name])!r} as {name!r}, which is no {what}"
    return None


def _is(*kinds: type) -> Kind:
    # A truth value is a whole number to Python, and to nobody else.
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _of(*kinds: type) -> Kind:
    """Return a check for an object all of whose values are of these kinds."""
    inner = _is(*kinds)
    return lambda value: isinstance(value, dict) and all(map(inner, value.values()))


_TEXT: Final = (_is(str), "text")
_OBJECT: Final = (_is(dict), "object")
_HEAD: Final[dict[str, tuple[Kind, str]]] = {
    "experiment": _TEXT,
    "size": (lambda value: value in SIZES, f"size ({' or '.join(SIZES)})"),
    "seed": (_is(int), "whole number"),
    "command": _TEXT,
    "commit": _TEXT,
    "tree": _TEXT,
    "machine": _OBJECT,
    "rows": (_is(list), "list"),
}
_ROW: Final[dict[str, tuple[Kind, str]]] = {
    "point": (_of(str, int, float), "object of texts and numbers"),
    "repeat": (_is(int), "whole number"),
    "paced": (_is(bool), "truth value"),
    "command": _TEXT,
    "figures": (_of(str, int, float, type(None)), "object of numbers, words and nulls"),
    "series": (_of(list), "object of lists"),
    "yardstick": (_of(int, float), "object of numbers"),
}


def read_folder(folder: Path, talk: Callable[[str], None] | None = None) -> dict[str, Result]:
    """Return all results of a folder by experiment.

    Args:
        folder: of which; what else is in it is passed over.
        talk: prints a line for people, for each file that is no result; None: on standard error.

    Raises:
        UsageError: there is no such folder or no result in it, two of one experiment, or a damaged one.
    """
    found: dict[str, Result] = {}
    paths: dict[str, Path] = {}
    foreign: list[str] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            result = read(path)
        except NoResultError as error:
            foreign.append(str(error))
            continue
        name = result.head["experiment"]
        if name in found:
            message = f"{paths[name]} and {path} are both results of {name}: remove one, or move it to another folder"
            raise UsageError(message)
        found[name], paths[name] = result, path
    if not found:
        message = foreign[0] if foreign else f"{folder}: holds no result: give a folder that megaphone bench run wrote"
        raise UsageError(message)
    for told in foreign:
        (talk or _say)(f"megaphone: {told.rpartition(': give ')[0]}: skipped")
    return found


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{line}\n")


def _short(value: object) -> str:
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
