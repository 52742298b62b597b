"""The mutants themselves: each says what it is, applies to the tree as it is, and names tests that exist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import run
from tests.mutants.patches import FOLDER, INVARIANTS, NAME, ROOT, Mutant, PatchError, read_mutant, read_mutants
from tests.mutants.run import Verdict, changed_files, concerned, judge, report, sample, table

MUTANTS = read_mutants()
LEAST_MUTANTS = 30
HEADER = "What: a\nInvariant: 3, 5\nCaught by: tests/a.py::test_a\n tests/b.py\n"
DIFF = "--- a/megaphone/x.c\n+++ b/megaphone/x.c\n@@ -1 +1 @@\n-a\n+b\n"


def test_there_are_enough_mutants_and_each_has_a_name_and_a_number_of_its_own() -> None:
    assert len(MUTANTS) >= LEAST_MUTANTS
    assert [path.name for path in FOLDER.glob("*.patch") if not NAME.fullmatch(path.name)] == []
    for what, count in Counter(mutant.name[:2] for mutant in MUTANTS).items():
        assert count == 1, f"{count} mutants have the number {what}"
    for what, count in Counter(mutant.what for mutant in MUTANTS).items():
        assert count == 1, f"{count} mutants are said to be: {what}"


def test_every_invariant_is_broken_by_some_mutant() -> None:
    assert {number for mutant in MUTANTS for number in mutant.invariants} == set(INVARIANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_to_the_tree_and_changes_shipped_code_only(mutant: Mutant, tmp_path: Path) -> None:
    assert set(mutant.invariants) <= set(INVARIANTS)
    assert all(name.startswith("megaphone/") for name in mutant.files)
    for name in mutant.files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    done = subprocess.run(
        ["git", "apply", str(mutant.path)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / name).read_bytes() != (ROOT / name).read_bytes() for name in mutant.files)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_a_mutant_names_exist(mutant: Mutant) -> None:
    assert mutant.test_files
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert path.startswith("tests/"), f"{test}: an option or a stray word"
        assert (ROOT / path).exists(), path
        bare = name.partition("[")[0].rpartition("::")[2]
        text = (ROOT / path).read_text()
        assert f"def {bare}(" in text or f"class {bare}" in text or f"\n{bare} = " in text, f"{path} has no {bare}"


# -- the headers -----------------------------------------------------------------------------------------------------


def test_a_header_is_read_with_its_continued_lines(tmp_path: Path) -> None:
    path = tmp_path / "01-a.patch"
    path.write_text(HEADER + DIFF)
    mutant = read_mutant(path)
    assert (mutant.name, mutant.what, mutant.invariants) == ("01-a", "a", (3, 5))
    assert mutant.tests == ("tests/a.py::test_a", "tests/b.py")
    assert mutant.test_files == ("tests/a.py", "tests/b.py")
    assert mutant.files == ("megaphone/x.c",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DIFF, "no unified diff"),
        ("\n" + DIFF, "no line What:"),
        (HEADER, "no unified diff"),
        (HEADER.replace("Invariant: 3, 5\n", "") + DIFF, "no line Invariant:"),
        (HEADER.replace("3, 5", "three") + DIFF, "three is not a list of numbers"),
        (HEADER.replace("What: a", "What: a\nWhat: b") + DIFF, "'What: b' is not one of"),
        (HEADER.replace("What: a", "What:") + DIFF, "'What:' is not one of"),
    ],
)
def test_a_header_that_lacks_something_is_refused_with_the_patchs_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "01-a.patch"
    path.write_text(text)
    with pytest.raises(PatchError, match=said) as raised:
        read_mutant(path)
    assert str(raised.value).startswith("01-a.patch: ")


# -- the runner ------------------------------------------------------------------------------------------------------


def outcome(*failed: tuple[str, str], passed: int = 0, skipped: int = 0) -> dict[str, Any]:
    """Return what the plugin notes."""
    listed = [{"test": "t", "kind": kind, "message": message} for kind, message in failed]
    return {"failed": listed, "passed": passed, "skipped": skipped}


@pytest.mark.parametrize(
    ("returncode", "noted", "how"),
    [
        (1, outcome(("AssertionError", "assert 1 == 2")), "assertion"),
        (1, outcome(("Failed", "DID NOT RAISE"), passed=3), "assertion"),
        (1, outcome(("StuckError", "nothing is in flight")), "StuckError"),
        (1, outcome(("Failed", "Timeout (>60.0s) from pytest-timeout.")), "hang"),
        (-11, None, "crash, SIGSEGV"),
        (-6, None, "crash, SIGABRT"),
    ],
)
def test_a_mutant_is_caught_when_a_test_fails_or_the_process_dies(returncode: int, noted: Any, how: str) -> None:
    said, _, error = judge(returncode, noted, "")
    assert (said, error) == (how, "")


def test_a_mutant_survives_when_all_its_tests_pass() -> None:
    assert judge(0, outcome(passed=1), "1 passed") == ("", "", "")


@pytest.mark.parametrize(
    ("returncode", "noted"),
    [
        (0, outcome(passed=1, skipped=1)),
        (0, outcome(skipped=1)),
        (0, outcome()),
        (0, None),
        (1, outcome()),
        (2, outcome()),
        (4, None),
        (5, outcome()),
    ],
)
def test_a_run_that_says_nothing_about_the_mutant_is_an_error(returncode: int, noted: Any) -> None:
    how, _, error = judge(returncode, noted, "why\n")
    assert how == ""
    assert "why" in error


def test_what_changed_concerns_the_mutants_of_that_patch_that_source_and_that_test() -> None:
    first = MUTANTS[0]
    for name in (f"tests/mutants/{first.path.name}", first.files[0], first.test_files[0]):
        assert first in concerned(MUTANTS, {name, "README.md"})
    assert concerned(MUTANTS, {"README.md"}) == []


def test_a_sample_depends_on_the_commit_alone_and_in_time_each_mutant_has_its_turn() -> None:
    assert sample(MUTANTS, "abc") == sample(list(reversed(MUTANTS)), "abc")
    drawn = [sample(MUTANTS, f"{commit:040x}") for commit in range(200)]
    assert {len(mutants) for mutants in drawn} == {6}
    assert {mutant.name for mutants in drawn for mutant in mutants} == {mutant.name for mutant in MUTANTS}


def test_nothing_is_known_of_what_changed_since_a_commit_that_is_not_there() -> None:
    assert changed_files("no-such-branch") is None
    assert changed_files("HEAD") is None


def test_the_table_tells_survivors_and_errors_from_the_caught() -> None:
    verdicts = {
        MUTANTS[0].name: Verdict("assertion", f"{MUTANTS[0].test_files[0]}::test_a", "", 1.0),
        MUTANTS[1].name: Verdict(seconds=2.0),
        MUTANTS[2].name: Verdict(error="the patch does not apply"),
    }
    _, caught, survived, broken, errors = table(MUTANTS[:3], verdicts).splitlines()
    assert caught.split()[-2:] == ["assertion", "1.0"]
    assert "::test_a" in caught
    assert survived.split()[-2:] == ["SURVIVED", "2.0"]
    assert broken.split()[-2:] == ["ERROR", "0.0"]
    assert errors == f"{MUTANTS[2].name}: the patch does not apply"
    assert [entry["caught"] for entry in report(MUTANTS[:3], verdicts)] == [True, False, False]
    assert [entry["invariants"] for entry in report(MUTANTS[:1], verdicts)] == [list(MUTANTS[0].invariants)]


def test_a_sample_is_never_taken_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(run.select(MUTANTS, [], "no-such-commit")) == run.SAMPLE
    assert "no-such-commit is HEAD, or no commit here: trying" in capsys.readouterr().err


def test_no_copies_at_all_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["--jobs", "0"])
    assert ended.value.code == 2
    assert "--jobs: 0 copies try nothing" in capsys.readouterr().err


@pytest.mark.process
def test_term_leaves_no_copies_behind(tmp_path: Path) -> None:
    program = (
        "import time; from tests.mutants import run\n"
        "def wait(*_): print('waiting', flush=True); time.sleep(60)\n"
        "run.Runner = type('Runner', (), {'__init__': lambda *_: None, 'run': wait}); run.main([])"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        assert len(list(tmp_path.iterdir())) == 1
        child.terminate()
        assert child.wait(60) == 143
    assert not list(tmp_path.iterdir())
