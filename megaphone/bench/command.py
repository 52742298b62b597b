"""What ``megaphone bench list``, ``run`` and ``compare`` do."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from megaphone.bench import documents, results, table, targets
from megaphone.bench.catalog import EXPERIMENTS, chosen
from megaphone.bench.gates import gates, is_missing
from megaphone.bench.runner import run_all, todo
from megaphone.errors import MegaphoneError, UsageError
from megaphone.observe.files import check_writable
from megaphone.workloads.progress_line import ProgressLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from megaphone.bench.experiment import Size

_BAR_COLUMNS: Final = 20
# Each round adds one, and a seed is a word of 64 bits.
_SEED_MAX: Final = 2**63


class BelowLeastError(MegaphoneError):
    """A rate is a smaller part of the machine than it may be, or is missing."""


def listed() -> list[str]:
    """Return a line for each experiment: its name, how long it takes, what it shows, and what it follows."""
    rows = []
    for one in EXPERIMENTS.values():
        seconds = sum(one.rounds(point, "full") * point.seconds for point in one.points("full"))
        rows.append([one.name, f"{_length(seconds)}", f"{one.shows} ({one.after})"])
    return table.aligned(["name", "full", "what it shows"], rows, left=3)


def run(
    names: Sequence[str], size: Size, repeat: int | None, seed: int, folder: Path,
    *, talk: Callable[[str], None], say: Callable[[Sequence[str]], None],
) -> None:  # fmt: skip
    """Run experiments, with a line of progress, and print the table of each.

    Args:
        names: of experiments.
        size: of all of them.
        repeat: rounds; None: as each experiment says.
        seed: of the first round.
        folder: of the results; made if need be.
        talk: prints a line for people.
        say: prints lines of the output.

    Raises:
        UsageError: a name is none, or the folder holds a result of something else.
        MegaphoneError: runs failed; all others are in the results.
    """
    if repeat is not None and repeat < 1:
        message = f"--repeat: {repeat} rounds measure nothing: give 1 or more"
        raise UsageError(message)
    if not 0 <= seed <= _SEED_MAX:
        message = f"--seed: {seed} is no seed: give a whole number from 0 to {_SEED_MAX}"
        raise UsageError(message)
    experiments = chosen(names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"--output {folder}: cannot be made ({error.strerror}): give a folder that can"
        raise UsageError(message) from None
    todos = [todo(one, size, repeat, folder, seed) for one in experiments]
    for one in todos:
        check_writable(one.path)
        for point in one.left_out:
            talk(f"megaphone: {one.experiment.name} {point.name}: left out, it needs {point.memory_bytes / 1e9:.1f} GB")
    total = sum(one.seconds for one in todos)
    with ProgressLine(None, "s") as line:

        def tell(done: float, what: str) -> None:
            full = round(_BAR_COLUMNS * done / total) if total else _BAR_COLUMNS
            bar = "#" * full + "." * (_BAR_COLUMNS - full)
            line.update(int(done), f"[{bar}] about {_length(total - done)} left  {what}")

        failed = run_all(todos, seed, tell)
    for one in todos:
        if one.result.rows or one.left_out:
            heading = f"{one.experiment.name}: {one.experiment.shows} ({one.path})"
            say([heading, *table.lines_of(one.experiment, one.result), ""])
    if failed:
        for told in failed:
            talk(f"megaphone: {told}")
        message = f"{len(failed)} runs failed; the same command tries them again"
        raise MegaphoneError(message)


def compare(a: Path, b: Path, least: float | None) -> Iterator[str]:
    """Yield the lines that compare two folders of results.

    Args:
        a: folder that is compared with.
        b: folder that is compared.
        least: part of A that a gate of B may be, and B must have all of A; None: whatever it is and has.

    Raises:
        UsageError: a folder has no result, or both have no experiment in common, or one in different sizes.
        BelowLeastError: a gate is less than it may be, or B lacks something that A has.
    """
    before, after = results.read_folder(a), results.read_folder(b)
    common = [name for name in EXPERIMENTS if name in before and name in after]
    if not common:
        message = f"{a} and {b} have no experiment in common: {', '.join(before)} and {', '.join(after)}"
        raise UsageError(message)
    for name in common:
        sizes = (before[name].head["size"], after[name].head["size"])
        if sizes[0] != sizes[1]:
            message = (
                f"{name} is of size {sizes[0]} in {a} and of size {sizes[1]} in {b}, which are different runs: "
                f"give two folders of one --size"
            )
            raise UsageError(message)
    found = {name: list(table.compared(EXPERIMENTS[name], before[name], after[name])) for name in common}
    judged = iter(table.adjusted([one for name in common for one in found[name]]))
    for name in common:
        heads = (before[name].head, after[name].head)
        yield f"{name}: A is {heads[0]['commit']} ({heads[0]['size']}), B is {heads[1]['commit']} ({heads[1]['size']})"
        yield from table.lines_compared(list(islice(judged, len(found[name]))))
        yield ""
    yield from _of_the_whole([one for name in common for one in found[name]])
    if least is not None:
        yield ""
        yield from _check(before, after, least)


def _check(before: dict[str, results.Result], after: dict[str, results.Result], least: float) -> Iterator[str]:
    """Yield a line for each experiment of A: what was gated of it, or that it only had to end.

    Raises:
        BelowLeastError: a gate is below, or B lacks something that A has.
    """
    failures = []
    for name in (name for name in EXPERIMENTS if name in before):
        if name not in after:
            failures.append(f"{name} is not there")
            continue
        gated = gates(EXPERIMENTS[name], before[name], after[name])
        failures += [f"{name} {failure}" for one in gated if (failure := one.failure(least)) is not None]
        figures = sorted({one.figure for one in gated if one.figure})
        what = f"{len(gated)} gates ({', '.join(figures)})" if figures else "no gated rate: it only had to end"
        if missing := sum(is_missing(rows) for _, rows in table.grouped(after[name])):
            what += f"; {missing} points are of what is not installed"
        yield f"{name}: {what}"
    if failures:
        message = f"below {least:g} of A, or missing: {'; '.join(failures)}"
        raise BelowLeastError(message)


def _of_the_whole(differences: Sequence[table.Difference]) -> list[str]:
    tests = sum(one.found.provable for one in differences)
    return [
        f"p: adjusted for {tests} tests (Benjamini and Hochberg); {len(differences) - tests} more have too few runs",
        "A and B were not run in turns: what is no share of a yardstick, such as a latency, also differs by the hour",
    ]


def targets_of(folder: Path, markdown: str | None, into: Path | None) -> list[str]:
    """Return the table of targets, or of what else a document shows; or write them into a document.

    Args:
        folder: of results.
        markdown: name of the table that is returned as one for a document; None: that of targets, for people.
        into: a document, which gets the tables for which it has places; returned is what was written.

    Raises:
        UsageError: the folder holds no result, or the document has no place for a table.
    """
    found = results.read_folder(folder)
    if into is not None:
        return [f"{into}: {name}" for name in documents.fill(into, found)]
    return targets.lines_of(found) if markdown is None else documents.TABLES[markdown](found)


def _length(seconds: float) -> str:
    """Return a length of time for people.

    >>> _length(200)
    '3 min'
    """
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 0):.0f} s"
