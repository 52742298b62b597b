"""The list of invariants names code and checks that are there, and the table says what ran and what failed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from tests.proof import table

ROOT = Path(__file__).resolve().parents[2]
INVARIANTS = table.read_invariants(table.FILE.read_text())


def test_the_invariants_are_those_of_the_design() -> None:
    assert [invariant.number for invariant in INVARIANTS] == list(range(1, 14))


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: str(invariant.number))
def test_what_an_invariant_names_is_there(invariant: table.Invariant) -> None:
    assert len(invariant.rule) <= table.WIDTH
    assert invariant.kept
    for place in invariant.kept:
        path, name = place.split(":")
        assert re.search(rf"^.*\b{name}\b", (ROOT / path).read_text(), re.MULTILINE), place
    assert invariant.checks
    for check in invariant.checks:
        path, _, test = check.partition("::")
        text = (ROOT / path).read_text()
        name = test.split("::")[-1].split("[")[0]
        assert not name or re.search(rf"\b{name}\b", text), check


def rendered(mutants: list[dict[str, object]]) -> list[str]:
    tally = table.Tally()
    tally.by_node = {
        "tests/a.py::test_x[1]": table.Seen(states=1500, seconds=1.0),
        "tests/a.py::test_x[2]": table.Seen(states=500, seconds=0.5),
        "tests/b.py::test_y": table.Seen(runs=7, seconds=2.0, failed=["tests/b.py::test_y failed"]),
    }
    rules = [table.Invariant(8, "a rule", ("x",), ("tests/a.py::test_x", "tests/b.py", "tests/gone.py"))]
    out = io.StringIO()
    table.write_table(out, rules, tally, mutants)
    return out.getvalue().splitlines()


def test_a_line_sums_up_its_checks_and_the_mutants_they_caught() -> None:
    caught = {"name": "m", "invariants": [8], "caught": True, "caught_by": "tests/a.py::test_x[2] failed"}
    survived = {"name": "n", "invariants": [8], "caught": False, "caught_by": "tests/a.py::test_x[2] failed"}
    lines = rendered([caught, survived])
    assert lines[2].split() == ["8", "a", "rule", "2", "000", "7", "3.5", "1"]
    assert lines[3].split() == ["a.py::x", "2", "000", "1.5", "1"]
    assert lines[4].split() == ["b.py", "7", "2.0", "FAILED"]
    assert lines[5].split() == ["gone.py", "0.0", "FAILED"]


def test_without_mutants_none_is_said_to_have_survived() -> None:
    assert rendered([])[2].endswith(" -")


def test_examples_of_hypothesis_count_as_runs() -> None:
    assert table.PASSING.findall("    - 60 passing, 0 failing, and 17 invalid test cases\n") == ["60"]
    assert table.PASSING.findall("    - 60 passing examples, 0 failing examples\n") == ["60"]


@pytest.mark.parametrize("text", [None, "{"])
def test_a_file_of_mutants_that_cannot_be_read_costs_one_line(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mutants.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr("sys.argv", ["table.py", "--mutants", str(path)])
    assert table.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert str(path) in said.err
