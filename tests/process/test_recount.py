"""Workers in processes of their own that recount while the others run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from megaphone.dataflow.execute import execute
from megaphone.dataflow.recounting import VARIABLE
from megaphone.errors import InternalError, MegaphoneError, UsageError
from tests.process.recount_programs import counting, drive

pytestmark = pytest.mark.process


@pytest.mark.parametrize("transfer", ["handover", "copy"])
def test_each_worker_finds_all_equal_after_each_step_while_the_others_run(
    transfer: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, Any], None]
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    result = execute(partial(counting, transfer=transfer), workers=3, drive=drive, memory="64M")
    assert len(result.returned) == 3
    assert min(result.returned) > 30
    record_property("runs", sum(result.returned))


def test_a_worker_recounts_now_and_then_and_not_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1000000")
    result = execute(partial(counting, transfer="handover"), workers=2, drive=drive, memory="64M")
    assert result.returned == [0, 0]


def test_a_worker_does_not_recount_unless_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    result = execute(partial(counting, transfer="handover"), workers=2, drive=drive, memory="64M")
    assert result.returned == [-1, -1]


def test_a_difference_ends_the_run_with_an_internal_error_that_names_slot_slab_and_both_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    spoiling = partial(drive, spoil_at=7)
    with pytest.raises(InternalError, match="recount of worker 1: slab 5 is named 0 times, and its count is 1") as told:
        execute(partial(counting, transfer="handover"), workers=2, drive=spoiling, memory="64M")
    assert told.value.exit_code == 70


@pytest.mark.parametrize("wanted", ["often", "-1", "nan"])
def test_a_variable_that_is_no_number_of_seconds_is_refused(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(UsageError, match="give the seconds between two recounts") as told:
        execute(partial(counting, transfer="handover"), workers=2, drive=drive, memory="64M")
    assert isinstance(told.value, MegaphoneError)
