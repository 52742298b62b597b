"""Comparing two trees: what is laid out, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from megaphone.bench import against
from megaphone.errors import MegaphoneError, UsageError


def test_a_commit_that_is_not_there_is_named_in_one_line() -> None:
    with pytest.raises(UsageError, match="no-such-commit.*name a commit that this clone has"):
        against._git("archive", "no-such-commit")
    command = [sys.executable, "-m", "megaphone.bench.against", "no-such-commit", "--repeat", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)


def test_jobs_are_commands_of_the_command_line() -> None:
    for flags in against.JOBS.values():
        command = [sys.executable, "-m", "megaphone", *flags, "--help"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_tree_that_does_not_compile_is_told_with_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "setup.py").write_text("raise SystemExit('no compiler here')\n")
    monkeypatch.setattr(against, "ROOT", tmp_path / "source")
    monkeypatch.setattr(against, "_git", lambda *_: b"setup.py\0")
    with pytest.raises(MegaphoneError, match="(?s)does not compile.*no compiler here"):
        against.lay_out(None, tmp_path / "laid")


@pytest.mark.parametrize(("flag", "value"), [("--repeat", "0"), ("--seconds", "0"), ("--seconds", "nan")])
def test_what_would_measure_nothing_is_refused_before_anything_is_built(
    flag: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(against, "measure", lambda *_: pytest.fail("it measures"))
    monkeypatch.setattr("sys.argv", ["against", "HEAD", flag, value])
    with pytest.raises(SystemExit) as ended:
        against.main()
    assert ended.value.code == 2
    assert flag in capsys.readouterr().err
