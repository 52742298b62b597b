"""q3, q4, q6 and q8, plain and flex, against SQL."""

from __future__ import annotations

import pytest

from tests.nexmark.runner import SCENARIOS, Scenario, check

QUERIES = ("q3", "q4", "q6", "q8")


@pytest.mark.parametrize(
    "run", [run for run in SCENARIOS if run.query in QUERIES and not run.stress], ids=lambda run: run.name
)
def test_rows_are_those_of_sql(run: Scenario) -> None:
    check(run)
