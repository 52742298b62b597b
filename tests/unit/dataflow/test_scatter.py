"""Scattering: a record's columns stay together, whatever their number and width, and whichever way they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.dataflow.runs import Run, rows

RECORDS = 5000
"""More than one batch per target holds."""
KINDS = {"wide": ["u8"] * 6, "mixed": ["u8", "u4", "f8", "u1", "S5", "u2"]}


def record_columns(kinds: list[str]) -> dict[str, Any]:
    """Return columns in which every value tells which record it belongs to."""
    number = np.arange(RECORDS, dtype=np.uint64)
    return {f"c{at}": (number * np.uint64(at + 1) + np.uint64(at)).astype(kind) for at, kind in enumerate(kinds)}


@pytest.mark.parametrize("hash_name", ["fnv", "mix", "dense", "function"])
@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("timed", [False, True])
def test_the_columns_of_a_record_stay_together(count: int, kinds: str, hash_name: str, timed: bool) -> None:
    columns = record_columns(KINDS[kinds][:count])
    times = np.arange(RECORDS, dtype=np.uint64) % np.uint64(7) if timed else None
    key: Any = (lambda b: b["c0"] << np.uint64(50)) if hash_name == "function" else "c0"
    options = {} if hash_name == "function" else {"hash": hash_name}
    with Run({name: column.dtype for name, column in columns.items()}, lambda s: s.exchange(key, **options), 3) as run:
        run.send(columns, times=times)
        out = rows(run.finish())
    stamps = [0] * RECORDS if times is None else times.tolist()
    expected = sorted(zip(stamps, *[column.tolist() for column in columns.values()], strict=True))
    assert out == expected
