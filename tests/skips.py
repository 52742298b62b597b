"""A test is skipped only for a reason that stands in ``skips.txt``; another one fails the run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

FILE: Final = Path(__file__).with_name("skips.txt")


def allowed_reasons(text: str) -> frozenset[str]:
    """Return the lines that are reasons: neither empty nor a comment."""
    return frozenset(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


class SkipWatch:
    """A plugin that notes every skip, and turns a run with one that is not allowed into a failed one."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self.allowed = allowed
        self.wrong: list[str] = []

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped:
            return
        # An expected failure is reported as a skip without a place, and is none that the file knows.
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(getattr(report, "wasxfail", ""))
        reason = reason.removeprefix("Skipped: ")
        if reason not in self.allowed:
            self.wrong.append(f"{report.nodeid}: {reason!r}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.wrong and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.wrong:
            terminalreporter.section("skipped for a reason that tests/skips.txt does not allow", red=True)
            for line in self.wrong:
                terminalreporter.line(line)
