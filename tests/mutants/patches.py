"""The mutants: patches beside this file, each one mistake that an engineer could make in the shipped code.

A patch is a unified diff behind lines of the form ``Name: value``::

    What: the head moves before the references are taken
    Invariant: 8
    Caught by: tests/unit/dataflow/test_batches.py::test_views_outlive_the_run

``Invariant`` has the numbers of the invariants that the mistake breaks, with commas between them. ``Caught by`` is
what pytest is told to run: the cheapest tests that fail reliably. A line that begins with a blank continues the one
before it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
NAME = re.compile(r"\d\d-[a-z0-9-]+\.patch")
INVARIANTS = range(1, 14)
FIELDS = ("What", "Invariant", "Caught by")
_FIELD = re.compile(r"(?P<name>[A-Z][A-Za-z ]+):\s*(?P<value>\S.*)")
_CHANGED_FILE = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)


class PatchError(Exception):
    """A patch's header lines are not what they should be; the message names the patch and the line that is missing."""


@dataclass(frozen=True)
class Mutant:
    """One patch and what its header says."""

    path: Path
    what: str
    invariants: tuple[int, ...]
    tests: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def test_files(self) -> tuple[str, ...]:
        return tuple(test.partition("::")[0] for test in self.tests if test.partition("::")[0].endswith(".py"))


def read_mutant(path: Path) -> Mutant:
    """Return the mutant that a patch describes.

    Args:
        path: the patch.

    Raises:
        PatchError: a header line is missing, unknown, twice there or empty, or the patch changes nothing.
    """
    text = path.read_text()
    head, mark, _ = text.partition("\n--- a/")
    files = tuple(_CHANGED_FILE.findall(text))
    if not mark or not files:
        message = f"{path.name}: no unified diff with --- a/... and +++ b/... in it"
        raise PatchError(message)
    fields: dict[str, str] = {}
    for line in head.replace("\n ", " ").splitlines():
        match = _FIELD.fullmatch(line.strip())
        if match is None or match["name"] not in FIELDS or match["name"] in fields:
            message = f"{path.name}: {line!r} is not one of {', '.join(FIELDS)}, each once"
            raise PatchError(message)
        fields[match["name"]] = " ".join(match["value"].split())
    if missing := [name for name in FIELDS if name not in fields]:
        message = f"{path.name}: no line {missing[0]}:"
        raise PatchError(message)
    try:
        invariants = tuple(int(number) for number in fields["Invariant"].split(","))
    except ValueError as error:
        message = f"{path.name}: Invariant: {fields['Invariant']} is not a list of numbers"
        raise PatchError(message) from error
    return Mutant(path, fields["What"], invariants, tuple(shlex.split(fields["Caught by"])), files)


def read_mutants(folder: Path = FOLDER) -> list[Mutant]:
    """Return all mutants of a folder in the order of their names."""
    return [read_mutant(path) for path in sorted(folder.glob("*.patch"))]
