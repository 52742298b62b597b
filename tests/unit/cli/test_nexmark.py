"""``megaphone nexmark``: what is refused, in one line and before any process starts; and what is handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megaphone import cli
from megaphone.workloads.nexmark import generate, run
from megaphone.workloads.nexmark.settings import QUERIES, QUERY_NAMES, GenerateSettings, NexmarkSettings


class _StartedError(Exception):
    """A run has begun."""


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[NexmarkSettings]:
    """Take the place of whatever starts processes or writes files."""
    seen: list[NexmarkSettings] = []

    def note(settings: NexmarkSettings) -> None:
        seen.append(settings)
        raise _StartedError

    def note_generate(**_: Any) -> None:
        raise _StartedError

    monkeypatch.setattr(run, "run_nexmark", note)
    monkeypatch.setattr(generate, "generate", note_generate)
    return seen


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a command is refused with."""
    code = cli.main(["nexmark", *arguments])
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--queries", "q5-flx"], "there is no query 'q5-flx': the nearest are q5-flex"),
        (["--queries", "q9"], "there is no query 'q9': the nearest are q"),
        (["--queries", "word-count"], "there is no query 'word-count'"),
        (["--queries", "Q1"], "there is no query 'Q1': the nearest are q1"),
        (["--queries", ""], "--queries is empty"),
        (["--queries", " , "], "--queries is empty"),
        ([], "--queries is empty"),
        (["--queries", "q1 q7 q1"], "q1 is named twice"),
        (["--queries", "q1", "--queries", "q2"], "--queries is given twice"),
        (["--time-dilation", "0"], "--time-dilation 0: must be a whole number from 1"),
        (["--time-dilation", "1.5"], "'1.5' is not a whole number"),
        (["-w", "0"], "--workers 0: must be a whole number from 1 to 64"),
        (["-w", "65"], "--workers 65: must be a whole number from 1 to 64"),
        (["-w", "300"], "--workers 300: must be a whole number from 1 to 64"),
        (["--events", "10", "--duration", "3"], "--events 10 and --duration 3: each ends the run"),
        (["--events", "0"], "--events 0: must be a whole number from 1"),
        (["--events", "1e16"], "--events 10000000000000000: must be a whole number"),
        (["--events", "1e15", "--rate", "0.001", "-w", "1", "--in-flight", "1"], "ends after"),
        (["--duration", "25", "--rate", "1e6", "--time-dilation", "1e9"], "--duration 25: at 0.002 events/s of event"),
        (["--duration", "0"], "--duration 0: seconds must be more than 0"),
        (["--duration", "nan"], "--duration nan"),
        (["--rate", "0"], "--rate 0: records per second must be between"),
        (["--rate", "fast"], "'fast' is not a rate"),
        (["--rate", "5", "--total-rate", "9"], "not allowed with argument"),
        (["--total-rate", "-1"], "--total-rate -1"),
        (["--rate", "0.001", "--time-dilation", "1e6"], "events per second of event time"),
        (["--tick", "0"], "--tick 0: must be a whole number from 1"),
        (["--q5-slide", "0"], "--q5-slide 0: seconds must be more than 0"),
        (["--q7-window", "-3"], "--q7-window -3"),
        (["--q5-window", "1e-10"], "--q5-window 1e-10: seconds must be"),
        (["--q8-window", "1e300"], "--q8-window 1e+300"),
        (["--in-flight", "0"], "--in-flight 0: must be a whole number from 1"),
        (["--generator", "slow"], "invalid choice: 'slow'"),
        (["--output-format", "parquet"], "invalid choice: 'parquet'"),
        (["--migration", "sudden"], "no query has state that could move: use --queries q1-flex"),
        (["--migration", "/no/plan"], "/no/plan"),
        (["--bin-shift", "21"], "--bin-shift 21"),
        (["--backend", "vec"], "unrecognized arguments: --backend vec"),
        (["generate"], "unrecognized arguments: generate"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], started: list[Any], arguments: list[str], told: str
) -> None:
    given = arguments if "--queries" in arguments or not arguments else ["--queries", "q1", *arguments]
    assert told in refusal(capsys, *given)
    assert not started


def test_an_output_folder_that_cannot_be_one_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for command in (["--queries", "q1"], ["generate", "--events", "5"]):
        assert "it is a file: give a folder" in refusal(capsys, *command, "--output", str(file))
        below = str(file / "in" / "it")
        assert "is a file: give a folder below a folder" in refusal(capsys, *command, "--output", below)
        assert "--output is empty" in refusal(capsys, *command, "--output", "")
        told = refusal(capsys, *command, "--output", "/proc/none")
        assert "--output '/proc/none': cannot write in '/proc'" in told
        assert "file" not in told.replace("No such file", "")
    assert list(tmp_path.iterdir()) == [file]


def test_the_help_says_what_each_query_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nexmark", "--help"]) == 0
    text = capsys.readouterr().out
    for query in QUERIES:
        assert f"  {query}  " in text, query
    assert all(len(line) <= 120 for line in text.splitlines())


def test_nothing_is_left_behind_by_the_check_of_a_folder(tmp_path: Path) -> None:
    NexmarkSettings(queries="q1", output_path=str(tmp_path / "a" / "b")).check()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--events is missing"),
        (["--events", "5"], "--output is missing"),
        (["--events", "-1", "--output", "x"], "--events -1: must be a whole number from 0"),
        (["--events", "5", "--output", "x", "-w", "256"], "--workers 256: must be a whole number from 1 to 255"),
        (["--events", "5", "--output", "x", "--rate", "0"], "0 events per second"),
        (["--events", "5", "--output", "x", "--format", "tsv"], "invalid choice: 'tsv'"),
        (["--events", "5", "--output", "x", "--queries", "q1"], "unrecognized arguments: --queries q1"),
    ],
)
def test_bad_input_to_generate_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert told in refusal(capsys, "generate", *arguments)


def test_queries_may_have_spaces_or_commas_between_them() -> None:
    for text in ("q1 q7-flex,q5", "q1,q7-flex,q5", " q1,  q7-flex\tq5,"):
        assert NexmarkSettings(queries=text).query_names == ("q1", "q7-flex", "q5")


def test_flags_reach_the_settings(started: list[NexmarkSettings], tmp_path: Path) -> None:
    flags = {
        "--queries": "q5-flex", "--total-rate": "3e5", "--duration": "4", "-w": "3", "--migration": "fluid",
        "--bin-shift": "5", "--transfer": "copy", "--time-dilation": "7", "--in-flight": "99", "--generator": "exact",
        "--seed": "11", "--output": str(tmp_path), "--output-format": "npz", "--format": "json", "--tick": "5000",
        "--q5-window": "6", "--q5-slide": "0.5", "--q7-window": "4", "--q8-window": "3", "--gap": "8",
    }  # fmt: skip
    cli.main(["nexmark", *(text for pair in flags.items() for text in pair)])
    assert started == [
        NexmarkSettings(
            queries="q5-flex",
            rate_per_worker=1e5,
            duration_s=4,
            workers=3,
            migration="fluid",
            bin_shift=5,
            transfer="copy",
            time_dilation=7,
            in_flight=99,
            generator="exact",
            seed=11,
            output_path=str(tmp_path),
            output_format="npz",
            format="json",
            tick_ns=5000,
            q5_size_s=6,
            q5_slide_s=0.5,
            q7_window_s=4,
            q8_window_s=3,
            gap_ns=8,
        )  # fmt: skip
    ]


# --- what settings mean -----------------------------------------------------------------------------------------------


def test_event_time_passes_with_the_clock_times_the_dilation() -> None:
    settings = NexmarkSettings(queries="q1", rate_per_worker=1000.0, workers=4, time_dilation=8)
    assert settings.event_rate == 1000 * 4 / 8
    assert settings.tick == 8_000_000  # a millisecond of the clock


def test_a_schedule_of_whole_nanoseconds_is_that_of_event_time_too() -> None:
    settings = NexmarkSettings(queries="q1", rate_per_worker=3e8, workers=2)
    assert settings.event_rate == 2e9 / 3


@pytest.mark.parametrize("given", [{"rate_per_worker": None}, {"events": 10_000}])
def test_a_closed_loop_has_ticks_of_many_events(given: dict[str, Any]) -> None:
    settings = NexmarkSettings(queries="q7", workers=2, **given)
    assert settings.offered_per_worker is None
    assert settings.tick == 8192 * 2 * 1_000_000_000 // 200_000
    # Each end of a slide is looked at by itself.
    assert NexmarkSettings(queries="q7 q5-flex", q5_slide_s=0.01, **given).tick == 10_000_000


def test_a_bounded_run_has_its_plan_on_the_events_of_worker_0() -> None:
    assert NexmarkSettings(queries="q1", events=1001, workers=2).plan_length == 501
    assert NexmarkSettings(queries="q1", duration_s=2).plan_length == 2_000_000_000
    assert NexmarkSettings(queries="q1").plan_length == 10_000_000_000


def test_every_query_is_there_plain_and_flex() -> None:
    for name in QUERY_NAMES:
        NexmarkSettings(queries=name).check()


def test_generate_may_have_more_workers_than_a_run(tmp_path: Path) -> None:
    GenerateSettings(events=5, output_path=str(tmp_path), workers=255).check()
