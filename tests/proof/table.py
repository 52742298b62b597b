"""What ``make proof`` prints: for each invariant the checks that guard it, what they looked at, and what they caught.

The invariants, where each is kept and which checks guard it stand in ``invariants.toml``.  The checks are run here, so
no figure of the table is older than the run; a check tells how much it looked at by ``record_property``: ``states`` of
a model that were explored, ``runs`` that were made (rounds, stops, examples of hypothesis).  The mutants are those of
``tests/mutants/run.py --json``.

    python tests/proof/table.py --mutants build/mutants.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = Path(__file__).with_name("invariants.toml")
PASSING: Final = re.compile(r"(\d+) passing\b")
WIDTH: Final = 92


@dataclass(frozen=True)
class Invariant:
    """One rule of the design.

    Attributes:
        number: in the design.
        rule: in a few words.
        kept: where in the code, as ``file:function``.
        checks: pytest node ids or files of tests.
    """

    number: int
    rule: str
    kept: tuple[str, ...]
    checks: tuple[str, ...]


@dataclass
class Seen:
    """What the tests of one check did.

    Attributes:
        states: of models, explored.
        runs: rounds, stops, examples; a test that counts nothing is one run.
        seconds: of the tests themselves.
        failed: node ids.
    """

    states: int = 0
    runs: int = 0
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        self.states += other.states
        self.runs += other.runs
        self.seconds += other.seconds
        self.failed += other.failed


def read_invariants(text: str) -> list[Invariant]:
    """Return the invariants of a TOML file's text, in its order."""
    return [
        Invariant(entry["number"], entry["rule"], tuple(entry["kept"]), tuple(entry["checks"]))
        for entry in tomllib.loads(text)["invariant"]
    ]


class Tally:
    """A plugin of pytest that notes what each test did."""

    def __init__(self) -> None:
        self.by_node: dict[str, Seen] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        seen = self.by_node.setdefault(report.nodeid, Seen())
        seen.seconds += report.duration
        if report.failed or report.skipped:
            seen.failed.append(f"{report.nodeid} {report.outcome}")
        if report.when == "call":
            counted = dict(report.user_properties)
            examples = sum(int(n) for n in PASSING.findall(getattr(item, "hypothesis_statistics", "")))
            seen.states += int(str(counted.get("states", 0)))
            seen.runs += int(str(counted.get("runs", 0))) or examples or int("states" not in counted)
        return report

    def of(self, check: str) -> Seen:
        """Return the sum over the tests of a check: a node id, with or without parameters, or a file."""
        total = Seen()
        found = [s for node, s in self.by_node.items() if node == check or node.startswith((f"{check}::", f"{check}["))]
        for seen in found:
            total.add(seen)
        if not found:
            total.failed.append(f"{check} has no test")
        return total


def number(n: int) -> str:
    """Return a count with spaces between thousands; nothing for 0, which is what a check of another kind has."""
    return f"{n:,}".replace(",", " ") if n else ""


def write_table(out: TextIO, invariants: Iterable[Invariant], tally: Tally, mutants: list[dict[str, Any]]) -> None:
    """Write a line per invariant, and below it one per check."""
    title = "invariant, and the checks that guard it"
    head = f"{'':4}{title:{WIDTH}}{'states':>13}{'runs':>10}{'s':>8}{'mutants':>9}"
    out.write(f"{head}\n{'-' * len(head)}\n")
    for invariant in invariants:
        of_checks = {check: tally.of(check) for check in invariant.checks}
        total = Seen()
        for seen in of_checks.values():
            total.add(seen)
        caught = [m for m in mutants if invariant.number in m["invariants"] and m["caught"]]
        out.write(
            f"{invariant.number:>2}  {invariant.rule:{WIDTH}}{number(total.states):>13}"
            f"{number(total.runs):>10}{total.seconds:>8.1f}{len(caught) if mutants else '-':>9}\n"
        )
        for check, seen in of_checks.items():
            here = sum(same_test(check, m["caught_by"].split(" ")[0]) for m in caught)
            out.write(
                f"{'':6}{shown(check):{WIDTH - 2}}{number(seen.states):>13}{number(seen.runs):>10}"
                f"{seen.seconds:>8.1f}{here if here else '':>9}{'  FAILED' if seen.failed else ''}\n"
            )


def shown(check: str) -> str:
    """Return a check's name, cut where the table has no more room."""
    name = check.removeprefix("tests/").replace("::test_", "::")
    return name if len(name) <= WIDTH - 4 else f"{name[: WIDTH - 5]}…"


def same_test(check: str, by: str) -> bool:
    """Whether a mutant's test belongs to a check."""
    return by == check or by.startswith((f"{check}::", f"{check}[")) or check.startswith(f"{by}::")


def run_checks(checks: Iterable[str]) -> tuple[int, Tally]:
    """Run the tests of these checks in this process; pytest's exit code, and what was seen."""
    tally = Tally()
    # Those of models and stress that the usual run leaves out belong here; the marker expression lets all through.
    arguments = ["-q", "--no-header", "-p", "no:cacheprovider", "-m", "not bench", *dict.fromkeys(checks)]
    return int(pytest.main(arguments, plugins=[tally])), tally


def main() -> int:
    """Run the checks and print the table; 0: all is well, 1: something failed or survived, 2: no such file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=Path, help="what tests/mutants/run.py --json wrote")
    arguments = parser.parse_args()
    invariants = read_invariants(FILE.read_text())
    try:
        mutants: list[dict[str, Any]] = json.loads(arguments.mutants.read_text()) if arguments.mutants else []
    except (OSError, ValueError) as error:
        sys.stderr.write(f"proof: {arguments.mutants}: {error}: make it with python -m tests.mutants.run --json FILE\n")
        return 2
    code, tally = run_checks(check for invariant in invariants for check in invariant.checks)
    write_table(sys.stdout, invariants, tally, mutants)
    failed = sorted({line for invariant in invariants for check in invariant.checks for line in tally.of(check).failed})
    survived = [m["name"] for m in mutants if not m["caught"]]
    total = Seen()
    for seen in tally.by_node.values():
        total.add(seen)
    sys.stdout.write(
        f"\n{len(tally.by_node)} tests, {number(total.states) or 0} states, {number(total.runs) or 0} runs, "
        f"{total.seconds:.0f} s; {sum(bool(m['caught']) for m in mutants)} of {len(mutants)} mutants caught\n"
    )
    for line in [*failed, *(f"mutant {name} survived" for name in survived)]:
        sys.stdout.write(f"{line}\n")
    return 1 if code or failed or survived else 0


if __name__ == "__main__":
    sys.exit(main())
