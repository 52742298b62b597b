"""Two inputs, their state moving all the while, in worker processes that recount after each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from megaphone.dataflow.execute import execute
from megaphone.dataflow.recounting import VARIABLE
from tests.process.binary_programs import LATER, ROUNDS, drive, joining, keys_of

pytestmark = pytest.mark.process


def expected(workers: int) -> Counter[tuple[int, int, int, int]]:
    """Return (time, key, running count, kind): what came back, the left input, the right one."""
    count: Counter[int] = Counter()
    shown: Counter[tuple[int, int, int, int]] = Counter()
    for time in range(ROUNDS + LATER):
        for kind, number, side in ((0, time - LATER, 0), (1, time, 0), (2, time, 1)):
            if not 0 <= number < ROUNDS:
                continue
            for key in keys_of(number, side).tolist() * workers:
                count[key] += 1
                shown[time, key, count[key], kind] += 1
    return shown


@pytest.mark.parametrize("variant", ["handover", "copy", "plain"])
def test_processes_show_what_a_loop_over_the_records_shows(
    variant: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, Any], None]
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    build = partial(joining, plain=True) if variant == "plain" else partial(joining, transfer=variant)
    result = execute(build, workers=2, drive=drive, memory="64M")
    captured = result.captures["counts"]
    columns = [captured[name].tolist() for name in ("k", "n", "kind")]
    assert Counter(zip(captured.times.tolist(), *columns, strict=True)) == expected(2)
    assert min(result.returned) > ROUNDS
    record_property("runs", sum(result.returned))
