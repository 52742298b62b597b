"""What a run may be asked for: every refusal is one line with the flag, the value and the cure."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megaphone.errors import PlanError, UsageError
from megaphone.shm.limits import MEMORY_BYTES_MIN, SLOTS_MAX
from megaphone.workloads.settings import (
    WORKERS_MAX,
    ExchangeSettings,
    MigratingSettings,
    PlanSettings,
    RunSettings,
    TextSettings,
    WordCountSettings,
)

SETTINGS_WITH_DEFAULTS = [
    RunSettings(),
    WordCountSettings(),
    TextSettings(paths=("-",)),
    ExchangeSettings(),
    PlanSettings(),
]


@pytest.mark.parametrize("settings", SETTINGS_WITH_DEFAULTS, ids=lambda settings: type(settings).__name__)
def test_defaults_can_be_run(settings: RunSettings | PlanSettings) -> None:
    settings.check()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("workers", 0, "--workers 0: must be a whole number from 1 to 64"),
        ("workers", 65, "--workers 65"),
        ("workers", -1, "--workers -1"),
        ("workers", 2.5, "--workers 2.5"),
        ("workers", True, "--workers True"),
        ("seed", -1, "--seed -1"),
        ("seed", 1 << 64, "--seed"),
        ("format", "xml", "--format 'xml': unknown: give one of human, tsv, json"),
        ("memory_bytes", 1 << 20, "--memory 1048576: 2 workers need at least 8M"),
        ("memory_bytes", 1 << 60, "can map at most 128T"),
        ("rate_per_worker", 0.0, "--rate 0: records per second must be between 0.001 and 1e+09"),
        ("rate_per_worker", -5.0, "--rate -5"),
        ("rate_per_worker", math.nan, "--rate nan"),
        ("rate_per_worker", math.inf, "--rate inf"),
        ("rate_per_worker", 2e9, "or --rate max"),
        ("backend", "btree", "--backend 'btree': unknown: give one of hashmap"),
        ("hash", "md5", "--hash 'md5'"),
        ("transfer", "move", "--transfer 'move'"),
        ("bin_shift", 0, "--bin-shift 0: must be a whole number from 1 to 20"),
        ("bin_shift", 21, "--bin-shift 21"),
        ("gap_ns", -1, "--gap -1"),
        ("batch_bins", 0, "--batch-bins 0"),
        ("initial", "skew", "--initial: unknown map, 'skew'; use uniform"),
        ("target", "0:2", "--target: "),
        ("target", "256:1", "--target: "),
        ("migration", "fuild", "fuild:0: cannot be read, No such file or directory; give a readable plan file"),
        ("duration_s", 0.0, "--duration 0: seconds must be more than 0"),
        ("duration_s", -1.0, "--duration -1"),
        ("duration_s", math.nan, "--duration nan"),
        ("duration_s", math.inf, "--duration inf"),
        ("domain", 0, "--domain 0: must be a whole number from 1 to"),
    ],
)
def test_word_count_refuses(field: str, value: object, said: str) -> None:
    asked: dict[str, Any] = {field: value}
    with pytest.raises(UsageError) as caught:
        WordCountSettings(**asked).check()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"paths": ()}, "--text: no file is named"),
        ({"backend": "vec"}, "--backend 'vec': unknown for words: give one of hashmap, hashmapnative"),
        ({"top": 0}, "--top 0"),
        ({"demo": True, "migration": "fluid"}, "--migration fluid: --demo has migrations of its own"),
    ],
)
def test_text_refuses(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        TextSettings(**{"paths": ("-",)} | asked).check()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"records": 0}, "--records 0"),
        ({"batch_records": 0}, "--batch 0"),
        ({"columns": ""}, "'' is not name:type"),
        ({"columns": "key"}, "'key' is not name:type"),
        ({"columns": "key:u64,value:u128"}, "'value:u128' is not name:type with a type of u8"),
        ({"columns": "key:u64,key:u8"}, "the name 'key' comes twice"),
        ({"columns": "key:f64"}, "make key a u64"),
    ],
)
def test_exchange_refuses(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ExchangeSettings(**asked).check()
    assert said in str(caught.value)


def test_columns_keep_their_order_and_may_have_spaces() -> None:
    settings = ExchangeSettings(columns="key:u64, name:bytes ,x:f32")
    assert list(settings.column_types().items()) == [("key", "u64"), ("name", "bytes"), ("x", "f32")]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"strategy": "none"}, "strategy 'none'"),
        ({"workers": 0}, "--workers 0"),
        ({"bin_shift": 21}, "--bin-shift 21"),
        ({"batch_bins": 0}, "--batch-bins 0"),
        ({"at_s": -1.0}, "--at -1: seconds must be 0 or more"),
        ({"at_s": math.nan}, "--at nan"),
        ({"target": "0:0,0:1"}, "--target: bin listed twice"),
    ],
)
def test_plan_refuses(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        PlanSettings(**asked).check()
    assert said in str(caught.value)


@pytest.mark.parametrize("backend", ["hashmapnative", "vecnative"])
def test_a_native_backend_has_nothing_to_move(backend: str) -> None:
    WordCountSettings(backend=backend).check()
    with pytest.raises(
        UsageError, match=f"--migration fluid: the backend {backend} has no bins to move: use --backend"
    ):
        WordCountSettings(backend=backend, migration="fluid").check()


def test_the_least_memory_grows_with_the_workers() -> None:
    RunSettings(workers=2, memory_bytes=8 << 20).check()
    with pytest.raises(UsageError, match="3 workers need at least 12M"):
        RunSettings(workers=3, memory_bytes=8 << 20).check()


def test_settings_and_engine_agree_on_the_most_workers_and_the_least_memory() -> None:
    assert WORKERS_MAX == SLOTS_MAX
    RunSettings(workers=1, memory_bytes=MEMORY_BYTES_MIN).check()
    with pytest.raises(UsageError, match="1 workers need at least 8M"):
        RunSettings(workers=1, memory_bytes=MEMORY_BYTES_MIN - 1).check()


def test_the_total_rate_is_that_of_all_workers() -> None:
    assert MigratingSettings(workers=4, rate_per_worker=250.0).rate_total == 1000.0
    assert MigratingSettings(workers=4, rate_per_worker=None).rate_total is None


def test_the_plan_of_a_strategy_goes_there_at_one_third_and_back_at_two_thirds() -> None:
    settings = WordCountSettings(migration="sudden", bin_shift=2, target="half")
    settings.check()
    plan = settings.plan(30)
    assert [step.time_ns for step in plan.steps] == [0, 10, 20]
    assert plan.moves == 4


def test_the_steps_of_a_plan_file_follow_on_the_initial_map(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_text("D 5 0 1\n")
    settings = WordCountSettings(migration=str(path), bin_shift=1, initial="one")
    settings.check()
    plan = settings.plan(30)
    assert np.array_equal(plan.initial, [0, 0])
    assert [step.time_ns for step in plan.steps] == [0, 5]
    assert plan.strategy == "file"


def test_a_plan_file_is_checked_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_text("D 5 0 1\nD 6 7\n")
    with pytest.raises(PlanError, match="plan:2: odd list, 1 numbers"):
        WordCountSettings(migration=str(path), bin_shift=1).check()


def test_a_plan_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("D 5 0 1\n",))
    writer.start()
    settings = WordCountSettings(migration=str(path), bin_shift=1)
    settings.check()
    writer.join()
    # A second look at the pipe would wait for a writer for ever.
    assert settings.plan(30).moves == 1


def test_a_written_plan_begins_with_its_map_and_moves_at_its_time() -> None:
    plan = PlanSettings(strategy="fluid", bin_shift=1, initial="one", target="uniform", at_s=0.5).plan()
    assert [step.time_ns for step in plan.steps] == [0, 500_000_000]
    assert plan.moves == 1
