"""A plugin for pytest that tells the runner of mutants how a test ended, and keeps hypothesis from taking its time.

A mutant is caught by the first example that fails; to make that example small would take minutes, and to remember it
would help the next mutant, which is another one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

OUTCOME_VARIABLE = "MEGAPHONE_MUTANT_OUTCOME"

_failed: list[dict[str, str]] = []
_counts = {"passed": 0, "skipped": 0}


def pytest_configure() -> None:
    """Replace the profile that conftest has loaded by one that finds and does not polish."""
    if OUTCOME_VARIABLE not in os.environ:
        return
    settings.register_profile(
        "mutants",
        settings(),
        phases=(Phase.explicit, Phase.generate),
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
    )
    settings.load_profile("mutants")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what was raised, in the test or around it, once the plugin for unittest has said what that was."""
    report = yield
    if call.excinfo is None:
        _counts["passed"] += call.when == "call"
    elif call.excinfo.errisinstance(pytest.skip.Exception):
        _counts["skipped"] += 1
    else:
        message = str(call.excinfo.value).strip().splitlines()
        _failed.append(
            {"test": item.nodeid, "kind": call.excinfo.type.__name__, "message": message[0] if message else ""}
        )
    return report


def pytest_sessionfinish() -> None:
    """Write what was noted where the runner asked for it."""
    if path := os.environ.get(OUTCOME_VARIABLE):
        Path(path).write_text(json.dumps({"failed": _failed, **_counts}))
