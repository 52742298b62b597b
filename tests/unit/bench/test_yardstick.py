"""The yardstick: every loop runs, what it leaves is compared, and a process that dies or hangs ends in one line."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from megaphone._core import ffi, lib
from megaphone.bench import yardstick, yardstick_run
from megaphone.errors import InternalError, MegaphoneError, SharedMemoryError, UsageError

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-m", "megaphone.bench.yardstick"]
TWO_PROCESSES = [name for name, loop in yardstick.LOOPS.items() if loop.processes == 2]
SMALL = [name for name, loop in yardstick.LOOPS.items() if loop.part_bytes <= 8 << 20]
# The fields of each process that its check looks at; what is not named here differs from run to run.
CHECKED = {
    "copy_1m_gb_s_2": [("count", 0), ("sum0", 0), ("count", 1), ("sum0", 1)],
    "increments_8mb_m_s_2": [("count", 0), ("sum0", 0), ("sum1", 0), ("count", 1), ("sum0", 1), ("sum1", 1)],
    "ring_m_records_s": [("count", 0), ("sum0", 0), ("sum1", 0), ("count", 1)],
    "hop_ns": [("count", 0), ("sum0", 0), ("count", 1), ("sum0", 1)],
    "futex_wake_us_p50": [("count", 0), ("sum0", 0), ("sum1", 0), ("count", 1), ("sum0", 1), ("sum1", 1)],
    "first_touch_us_per_page_2": [("count", 0), ("sum0", 0), ("count", 1), ("sum0", 1)],
}


def run_of(name: str, seconds: float) -> yardstick_run.Run:
    """One loop in memory of its own."""
    loop = yardstick.LOOPS[name]
    memory = yardstick_run.shared_memory(lib.mp_yard_area_bytes(yardstick_run.task_of(loop, seconds)))
    area = ffi.from_buffer(memory, require_writable=True)
    try:
        return yardstick_run.run_loop(area, loop, seconds, name)
    finally:
        ffi.release(area)
        memory.close()


def changed(run: yardstick_run.Run, process: int, **fields: Any) -> yardstick_run.Run:
    """A run of which one process had another outcome."""
    outcomes = list(run.outcomes)
    outcomes[process] = dataclasses.replace(outcomes[process], **fields)
    return dataclasses.replace(run, outcomes=tuple(outcomes))


def with_child_signalled(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """From now on each second process gets a signal as soon as it is there; returns their ids as they come."""
    start, pids = yardstick_run._start, []

    def start_and_signal(area: Any, task: Any) -> int:
        pids.append(start(area, task))
        os.kill(pids[-1], number)
        return pids[-1]

    monkeypatch.setattr(yardstick_run, "_start", start_and_signal)
    return pids


def test_every_figure_is_positive_and_stands_in_one_json_object(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    ended = subprocess.run(
        [*COMMAND, "--seconds", "0.01", "--report", str(path)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    report = json.loads(path.read_text())
    assert set(report) == {"figures", "checks", "seconds", "machine"}
    assert list(report["figures"]) == list(report["checks"]) == list(yardstick.NAMES)
    assert min(report["figures"].values()) > 0
    assert report["seconds"] == 0.01
    assert report["machine"]["cores_usable"] >= 1


def test_quick_is_a_part_of_all_and_every_name_has_a_loop_a_unit_and_a_meaning() -> None:
    assert set(yardstick.QUICK.items()) <= set(yardstick.NAMES.items())
    assert yardstick.LOOPS.keys() == yardstick.NAMES.keys()
    for name, (unit, meaning) in yardstick.NAMES.items():
        assert meaning
        assert {"GB/s": "_gb_s", "M/s": "_m_", "ns": "_ns", "us": "_us", "ms": "_ms"}[unit] in name


def test_figures_come_in_the_order_of_their_names_and_once_each() -> None:
    asked = ["hop_ns", "copy_1m_gb_s_1", "hop_ns"]
    assert list(yardstick.measure(asked, 0.001)) == ["copy_1m_gb_s_1", "hop_ns"]
    assert yardstick.measure([], 0.001) == {}


def test_both_percentiles_of_a_wake_up_come_from_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = with_child_signalled(monkeypatch, signal.SIGCONT)
    figures = yardstick.measure(["futex_wake_us_p50", "futex_wake_us_p99"], 0.01)
    assert len(pids) == 1
    assert 0 < figures["futex_wake_us_p50"] <= figures["futex_wake_us_p99"]


def test_the_table_has_a_line_per_figure_with_its_unit_in_aligned_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["copy_1m_gb_s_1", "hop_ns", "increments_8mb_m_s_1"]
    monkeypatch.setattr("sys.argv", ["yardstick", "--only", ",".join(names), "--seconds", "0.001"])
    assert yardstick.main() == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [name for name in yardstick.NAMES if name in names]
    for line in lines:
        unit, meaning = yardstick.NAMES[line.split()[0]]
        assert re.search(rf"\d\.\d\d  {unit} +{re.escape(meaning)}$", line)
    assert len({line.index(yardstick.NAMES[line.split()[0]][1]) for line in lines}) == 1


def test_a_dash_writes_the_report_to_standard_output_and_no_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["yardstick", "--only", "hop_ns", "--seconds", "0.001", "--report", "-"])
    assert yardstick.main() == 0
    assert list(json.loads(capsys.readouterr().out)["figures"]) == ["hop_ns"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "hop_ns,hop_us"], "'hop_us'.*first_touch_us_per_page_2"),
        (["--only", ""], "''.*first_touch_us_per_page_2"),
        (["--only", "hop_ns", "--seconds", "0"], "0 s is no length"),
        (["--only", "hop_ns", "--seconds", "nan"], "nan s is no length"),
        (["--only", "hop_ns", "--seconds", "inf"], "inf s is no length"),
        (["--only", "hop_ns", "--report", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(yardstick, "run_loop", lambda *_: pytest.fail("it measures"))
    monkeypatch.setattr("sys.argv", ["yardstick", *flags])
    assert yardstick.main() == UsageError.exit_code
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert re.search(said, printed.err)


@pytest.mark.parametrize("name", TWO_PROCESSES)
def test_a_second_process_that_is_killed_is_one_line_and_exit_code_1(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = with_child_signalled(monkeypatch, signal.SIGKILL)
    refuse, codes = yardstick_run._refuse_failed_child, []

    def record_and_refuse(*arguments: Any) -> None:
        codes.append(arguments[1])
        refuse(*arguments)

    monkeypatch.setattr(yardstick_run, "_refuse_failed_child", record_and_refuse)
    monkeypatch.setattr("sys.argv", ["yardstick", "--only", name, "--seconds", "0.01"])
    assert yardstick.main() == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        f"yardstick: {name}: the second process was ended by SIGKILL: measure again\n",
    )
    # Its death was noticed, or it came too late to matter; it was not waited for until patience ended.
    assert codes[0] in (0, -errno.ECHILD)
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize("name", SMALL)
def test_a_second_process_that_hangs_is_ended_and_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in TWO_PROCESSES:
        assert yardstick.measure([name], 0.001)[name] > 0
        return
    pids = with_child_signalled(monkeypatch, signal.SIGSTOP)
    monkeypatch.setattr(yardstick_run, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(MegaphoneError, match=f"{name}: the second process hung"):
        yardstick.measure([name], 0.001)
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize(
    ("rc", "code", "child_rc", "kind", "said"),
    [
        (0, 0, 0, None, ""),
        (-errno.EBADMSG, None, 0, InternalError, "not what was sent"),
        (0, 1, -errno.EBADMSG, InternalError, "not what was sent"),
        (-errno.ETIMEDOUT, None, 0, MegaphoneError, "hung"),
        (0, None, 0, MegaphoneError, "hung"),
        (-errno.ECHILD, -signal.SIGSEGV, 0, MegaphoneError, "SIGSEGV"),
        (-errno.ECHILD, 1, -errno.ETIMEDOUT, MegaphoneError, "timed out"),
        (-errno.ECHILD, 1, 0, MegaphoneError, "exit code 1"),
        (-errno.ECHILD, 0, 0, InternalError, "too early"),
    ],
)
def test_of_two_failures_the_cause_is_told(
    rc: int, code: int | None, child_rc: int, kind: type[Exception] | None, said: str
) -> None:
    if kind is None:
        yardstick_run._refuse_failed_child("hop_ns", rc, code, child_rc)
        return
    with pytest.raises(kind, match=f"hop_ns: .*{said}") as told:
        yardstick_run._refuse_failed_child("hop_ns", rc, code, child_rc)
    assert type(told.value) is kind


@pytest.mark.parametrize("name", ["hop_ns", "ring_m_records_s", "futex_wake_us_p50", "copy_1m_gb_s_2"])
def test_a_second_process_that_dies_in_the_middle_is_noticed_before_the_time_is_over_or_soon_after(name: str) -> None:
    command = [*COMMAND, "--only", name, "--seconds", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as measuring:
        (child,) = children_of(measuring.pid)
        time.sleep(0.1)
        child.kill()
        out, err = measuring.communicate(timeout=60)
    assert (measuring.returncode, out) == (1, "")
    assert err == f"yardstick: {name}: the second process was ended by SIGKILL: measure again\n"


def children_of(pid: int) -> list[psutil.Process]:
    """The processes that a process has started, waited for until there is one."""
    deadline = time.monotonic() + 30
    while not (found := psutil.Process(pid).children()):
        assert time.monotonic() < deadline, "no second process was started"
        time.sleep(0.01)
    return list(found)


def test_no_second_process_outlives_the_first() -> None:
    # A copy waits for nobody, so nothing but the first one's end can end it early.
    with subprocess.Popen([*COMMAND, "--only", "copy_1m_gb_s_2", "--seconds", "90"]) as measuring:
        (child,) = children_of(measuring.pid)
        measuring.kill()
    child.wait(10)


def test_ctrl_c_ends_both_processes_without_a_word() -> None:
    command = [*COMMAND, "--only", "hop_ns", "--seconds", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as measuring:
        (child,) = children_of(measuring.pid)
        measuring.send_signal(signal.SIGINT)
        out, err = measuring.communicate(timeout=60)
    assert (measuring.returncode, out, err) == (130, "", "")
    assert not child.is_running()


def test_a_wait_for_the_second_process_that_is_interrupted_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = with_child_signalled(monkeypatch, signal.SIGSTOP)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lib_of_run(monkeypatch), "mp_yard_work", lambda *_: 0)
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        yardstick.measure(["hop_ns"], 0.001)
    assert not psutil.pid_exists(pids[0])


def lib_of_run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for the core that can be changed, in the place where loops are run."""
    names = [name for name in dir(lib) if name.startswith(("mp_yard", "MP_YARD"))]
    stand_in = types.SimpleNamespace(**{name: getattr(lib, name) for name in names})
    monkeypatch.setattr(yardstick_run, "lib", stand_in)
    return stand_in


def test_two_processes_end_on_one_core_and_the_callers_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        names = [name for name in TWO_PROCESSES if name in SMALL]
        assert min(yardstick.measure(names, 0.01).values()) > 0
    finally:
        os.sched_setaffinity(0, before)
    yardstick.measure(["hop_ns"], 0.001)
    assert os.sched_getaffinity(0) == before


def test_less_memory_than_the_loops_need_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick_run, "memory_available_bytes", lambda: 64 << 20)
    with pytest.raises(SharedMemoryError, match=r"needs 51[23].*64.*--only"):
        yardstick.measure(["copy_256m_gb_s_2"], 0.001)
    assert yardstick.measure(["hop_ns"], 0.001)["hop_ns"] > 0


@pytest.mark.parametrize("name", CHECKED)
def test_an_outcome_that_is_off_by_one_anywhere_is_no_figure(name: str, record_property: Any) -> None:
    run = run_of(name, 0.001)
    yardstick._check(run, name)
    for field, process in CHECKED[name]:
        outcome = run.outcomes[process]
        values: dict[str, Any] = {
            "count": {"count": outcome.count + 1},
            "sum0": {"sums": (outcome.sums[0] + 1, outcome.sums[1])},
            "sum1": {"sums": (outcome.sums[0], outcome.sums[1] + 1)},
        }
        with pytest.raises(InternalError, match=rf"{name}: a loop of the yardstick is wrong: .*expected"):
            yardstick._check(changed(run, process, **values[field]), name)
    with pytest.raises(InternalError, match=f"{name}: a loop"):
        yardstick._check(changed(run, 0, count=0), name)
    record_property("runs", len(CHECKED[name]) + 1)


def test_increments_that_are_not_random_are_no_figure() -> None:
    run = run_of("increments_8mb_m_s_1", 0.005)
    reached = run.outcomes[0].bytes
    for wrong in (1, reached // 2, 2 * reached):
        with pytest.raises(InternalError, match="cells reached"):
            yardstick._check(changed(run, 0, bytes=wrong), "increments_8mb_m_s_1")


def test_pages_that_were_there_already_are_no_first_touch() -> None:
    run = run_of("first_touch_us_per_page_1", 0.005)
    with pytest.raises(InternalError, match="0 faults"):
        yardstick._check(changed(run, 0, bytes=0), "first_touch_us_per_page_1")


def test_a_rate_of_two_processes_is_their_sum_over_the_time_from_the_first_start_to_the_last_end() -> None:
    run = run_of("increments_8mb_m_s_2", 0.001)
    for process, (start, end) in enumerate([(1_000, 3_001_000), (501_000, 4_001_000)]):
        run = changed(run, process, start_ns=start, end_ns=end, count=10_000)
    assert yardstick._figure(run, "increments_8mb_m_s_2") == pytest.approx(20_000 / 4e-3 / 1e6)


@pytest.mark.parametrize(
    ("listed", "siblings"), [("0", {0}), ("0,4\n", {0, 4}), ("0-1,8-9", {0, 1, 8, 9}), ("", {0}), (None, {0})]
)
def test_siblings_of_a_core_are_read_as_the_kernel_lists_them(
    listed: str | None, siblings: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: Path) -> str:
        if listed is None:
            raise FileNotFoundError
        return listed

    monkeypatch.setattr(Path, "read_text", read)
    assert yardstick_run._siblings(0) == siblings


def test_what_comes_at_any_moment_waits_for_the_end_of_its_interval() -> None:
    even = np.full(1000, 4_000, np.uint32)
    assert yardstick.waited_ns(even, 0.99) == pytest.approx(0.99 * 4_000)
    # One gap of 20 ms in a second: a fiftieth of all moments lie in it, and the later half of them wait 10 ms at most.
    one = np.append(np.full(245_000, 4_000, np.uint32), np.uint32(20_000_000))
    assert yardstick.waited_ns(one, 0.99) == pytest.approx(10_000_000, rel=0.01)
    assert yardstick.waited_ns(one, 0.999) == pytest.approx(19_000_000, rel=0.01)
    # A gap that is shorter than the share that is left out does not show.
    short = np.append(np.full(247_500, 4_000, np.uint32), np.uint32(5_000_000))
    assert yardstick.waited_ns(short, 0.99) < 5_000
    rng = np.random.default_rng(3)
    lengths = rng.exponential(50_000, 300).astype(np.uint32) + np.uint32(1)
    moments = rng.uniform(0, int(lengths.sum()), 400_000)
    waits = np.cumsum(lengths)[np.searchsorted(np.cumsum(lengths), moments, side="right")] - moments
    assert yardstick.waited_ns(lengths, 0.99) == pytest.approx(float(np.percentile(waits, 99)), rel=0.02)
