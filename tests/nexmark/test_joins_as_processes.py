"""q3, q4, q6 and q8 together, as processes, while every bin moves: the files are those of SQL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megaphone.workloads.nexmark.run import run_nexmark
from tests.nexmark import oracle
from tests.nexmark.running import events_of, settings_of, windows_of


@pytest.mark.parametrize("transfer", ["handover", "copy"])
def test_rows_of_processes_are_those_of_sql(tmp_path: Path, transfer: str) -> None:
    bases = ("q3", "q4", "q6", "q8")
    asked = settings_of(
        " ".join(f"{query}-flex {query}" for query in bases), workers=2, events=30_000, in_flight=200,
        migration="sudden", initial="uniform", target="uniform_skew", transfer=transfer, bin_shift=5,
        output_path=str(tmp_path), output_format="npz",
    )  # fmt: skip
    run_nexmark(asked)
    must = oracle.expected(events_of(asked), windows_of(asked), queries=bases)
    for name in asked.query_names:
        with np.load(tmp_path / f"{name}.npz") as columns:  # with the texts of codes beside them
            rows = {column: columns[column] for column in must[name.removesuffix("-flex")]}
        wrong = oracle.difference(must[name.removesuffix("-flex")], rows, name)
        assert wrong is None, wrong
