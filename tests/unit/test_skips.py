"""Skips that the list does not know fail a run; run in a pytest of its own, as the whole suite is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
import pytest
from tests import skips

def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(skips.SkipWatch(frozenset({"no such device"})))
"""


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text("import pytest\n\ndef test_a(): pass\n\n" + body)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_skip_for_an_allowed_reason_passes(tmp_path: Path) -> None:
    ended = run(tmp_path, "@pytest.mark.skip(reason='no such device')\ndef test_b(): pass\n")
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("@pytest.mark.skip(reason='flaky')\ndef test_b(): pass\n", "test_it.py::test_b: 'flaky'"),
        ("def test_b(): pytest.skip('later')\n", "test_it.py::test_b: 'later'"),
        ("@pytest.mark.xfail(reason='known')\ndef test_b(): assert False\n", "test_it.py::test_b: 'known'"),
        ("pytest.skip('all of it', allow_module_level=True)\n", "test_it.py: 'all of it'"),
    ],
)
def test_a_skip_for_another_reason_fails_the_run_and_is_named(tmp_path: Path, body: str, named: str) -> None:
    ended = run(tmp_path, body)
    assert ended.returncode == 1, ended.stdout
    assert named in ended.stdout


def test_comments_and_empty_lines_are_no_reasons() -> None:
    assert skips.allowed_reasons("# why\n\nno disk\n  no net  \n") == {"no disk", "no net"}
    assert all(len(reason) > 10 for reason in skips.allowed_reasons(skips.FILE.read_text()))
