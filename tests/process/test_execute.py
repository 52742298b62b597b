"""A run in worker processes: what reaches the workers, what comes back, and what a hundred runs leave behind."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from megaphone.dataflow.execute import Running, execute
from megaphone.dataflow.supervisor import Supervisor
from megaphone.errors import GraphError, UsageError
from tests.process import programs

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
SCRIPT_HEAD = """
    import sys
    from megaphone.dataflow.execute import execute

    class Answer:
        def __init__(self, value):
            self.value = value

    def build(graph, name="numbers"):
        numbers, stream = graph.input(name, {"n": "u8"})
        return numbers, stream.exchange("n").probe()

    def drive(worker, handles):
        with handles[0] as numbers:
            numbers.send({"n": list(range(100))})
        return Answer(worker.index)
"""
GUARDED = (
    SCRIPT_HEAD
    + """
    if __name__ == "__main__":
        result = execute(build, workers=2, drive=drive, memory="16M", args=("words",))
        print([answer.value for answer in result.returned], [type(answer) is Answer for answer in result.returned])
        print(result.counter("input_records"))
"""
)


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a process is started."""

    def started(*_: Any, **__: Any) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def script(folder: Path, text: str, name: str = "app.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_result_has_what_each_worker_returned_and_counted_in_their_order(workers: int) -> None:
    result = execute(programs.exchange, workers, programs.ten_rounds, memory="16M")
    assert result.returned == list(range(workers))
    assert len(result.counters) == workers
    assert result.counter("input_records") == workers * 1000
    assert result.region_bytes > 16 << 20
    assert 0 < result.committed_bytes <= 16 << 20
    assert result.pss_bytes_max == 0
    with pytest.raises(UsageError, match="no counter 'nonsense'"):
        result.counter("nonsense")


def test_a_dataflow_without_inputs_and_drive_ends_at_once() -> None:
    assert execute(programs.nothing, workers=2, memory="16M").returned == [None, None]


def test_inputs_that_drive_leaves_open_are_closed_when_it_returns() -> None:
    assert execute(programs.exchange, 2, programs.leave_open, memory="16M").counter("input_records") == 300


def test_arguments_reach_build_in_the_caller_and_in_the_workers() -> None:
    result = execute(programs.exchange, 2, programs.ten_rounds, memory="16M", args=(3,), kwargs={"name": "triples"})
    assert result.counter("input_bytes") == 2 * 1000 * 3 * 8
    again = execute(partial(programs.exchange, columns=3), 2, programs.ten_rounds, memory="16M")
    assert again.counter("input_bytes") == result.counter("input_bytes")


def test_captures_are_merged_as_their_class_says_and_are_a_list_by_worker_otherwise() -> None:
    drive = programs.send_three
    listed = execute(programs.collecting, 2, drive, memory="16M", kwargs={"merged": False})
    assert listed.captures == {"sum": [(0, 3), (1, 3)]}
    assert execute(programs.collecting, 2, drive, memory="16M", kwargs={"merged": True}).captures == {"sum": 6}


def test_large_arrays_come_back_whole_and_writable() -> None:
    for index, returned in enumerate(execute(programs.exchange, 2, programs.large_array, memory="16M").returned):
        assert returned["worker"] == index
        assert np.array_equal(returned["numbers"], np.arange(3_000_000, dtype=np.uint64) + index)
        assert returned["numbers"].flags.writeable


def test_a_result_counts_when_the_parent_learns_of_it_and_of_the_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    say_over = Supervisor._stop

    def say_over_and_see_nothing_until_all_have_ended(supervisor: Supervisor, why: int) -> None:
        say_over(supervisor, why)
        for child in supervisor.children:
            os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(Supervisor, "_stop", say_over_and_see_nothing_until_all_have_ended)
    assert execute(programs.exchange, 3, programs.ten_rounds, memory="16M").returned == [0, 1, 2]


def test_what_cannot_be_pickled_is_refused_with_the_name_of_who_returned_it() -> None:
    with pytest.raises(UsageError, match="'unpicklable' returned cannot be sent") as caught:
        execute(programs.exchange, 2, programs.unpicklable, memory="16M")
    assert caught.value.exit_code == 2


def test_what_workers_print_appears_line_by_line_with_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    execute(programs.exchange, 2, programs.printing, memory="16M")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sorted(printed.err.splitlines()) == sorted(
        f"[w{index}] {text}" for index in (0, 1) for text in (f"out {index}", f"err {index}", "\ufffd no newline")
    )


def test_memory_is_sampled_when_asked_for_and_the_caller_is_called_on_the_way() -> None:
    seen: list[tuple[int, int]] = []

    def on_tick(running: Running) -> None:
        assert running.seconds >= 0
        assert running.committed_bytes >= 0
        seen.append((len(running.pids), len(running.counters())))

    drive = partial(programs.wait_for_the_clock, 0.6)
    result = execute(programs.exchange, 2, drive, memory="16M", measure_memory=True, on_tick=on_tick)
    assert set(seen) == {(2, 2)}
    assert result.pss_bytes_max > 1 << 20
    assert result.seconds > 0.5


def test_samples_have_what_a_users_drive_pins_as_long_as_it_does() -> None:
    """The gauge is the slot's own to read, and a user's drive never does."""
    drive = partial(programs.hold_loans_for_a_while, 1.0)
    result = execute(programs.exchange, 2, drive, memory="16M", measure_memory=True)
    pinned = [sample.pinned_bytes for sample in result.memory_samples]
    assert max(pinned) >= sum(result.returned) > pinned[-1]
    assert sum(each >= sum(result.returned) for each in pinned) >= 2


def test_nothing_is_sampled_in_a_run_that_does_not_ask_for_it() -> None:
    result = execute(programs.exchange, 2, partial(programs.hold_loans_for_a_while, 0.1), memory="16M")
    assert (result.memory_samples, result.counter("pinned_bytes_max")) == ((), 0)


def test_pss_is_read_as_often_as_it_is_asked_for_whatever_it_costs() -> None:
    drive = partial(programs.wait_for_the_clock, 0.8)
    result = execute(programs.exchange, 2, drive, memory="16M", measure_memory=True, pss_seconds=1e-9)
    assert len(result.memory_samples) > 1
    assert [sample for sample in result.memory_samples if sample.pss_bytes is None] == []


def test_a_worker_sees_the_callers_arguments_and_no_descriptor_of_its_siblings() -> None:
    returned = execute(programs.exchange, 3, programs.arguments, memory="16M").returned
    assert [told[:3] for told in returned] == [(index, sys.argv, os.getpid()) for index in range(3)]
    # What it prints goes through two pipes, and it has one socket, whatever its siblings have.
    assert [kinds for *_, kinds in returned] == [["pipe", "pipe", "socket"]] * 3


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("refused", [1, 2])
def test_where_the_system_has_no_descriptor_left_none_stays_open(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, eventfd = 0, os.eventfd

    def refuse(*given: int) -> int:
        nonlocal made
        made += 1
        if made == refused:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return eventfd(*given)

    before = len([*Path("/proc/self/fd").iterdir()])
    monkeypatch.setattr(os, "eventfd", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        execute(programs.exchange, 2, programs.ten_rounds, memory="16M")
    assert len([*Path("/proc/self/fd").iterdir()]) == before


@pytest.mark.stress
def test_as_many_workers_as_there_can_be_run_in_the_least_memory() -> None:
    assert execute(programs.exchange, 64, programs.ten_rounds, memory="256M").returned == list(range(64))


# -- what is refused before a process is started -----------------------------------------------------------------------


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("workers", [0, -1, 65, True, 2.0, None])
def test_a_count_of_workers_that_is_none_is_refused(workers: Any) -> None:
    with pytest.raises(UsageError, match="use a whole number from 1 to 64"):
        execute(programs.exchange, workers, programs.ten_rounds)


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": "1M"}, "two workers need"),
        ({"memory": "64M", "workers": 64}, "64 MiB of memory for 64 workers, which need 256 MiB"),
        ({"memory": "much"}, "memory 'much' is not a size"),
        ({"ring_cells": 100}, "ring_cells is 100: use a power of two"),
        ({"drive": None}, "input 'numbers' and there is no drive"),
        ({"drive": lambda worker, handles: None}, "drive is a lambda"),  # noqa: ARG005 - never called
        ({"args": (lambda: 0,)}, r"args\[0\] .* cannot be sent to workers"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        execute(programs.exchange, **({"drive": programs.ten_rounds} | options))


@pytest.mark.usefixtures("no_process")
def test_a_mistake_in_the_graph_is_raised_in_the_caller() -> None:
    with pytest.raises(GraphError, match="17 columns"):
        execute(programs.exchange, 2, programs.ten_rounds, args=(17,))


@pytest.mark.usefixtures("no_process")
def test_another_system_than_linux_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match="workers need Linux, this is darwin"):
        execute(programs.nothing, 1)


# -- how functions are found -------------------------------------------------------------------------------------------


def test_functions_of_a_script_are_found_by_running_it_again_without_its_guarded_part(tmp_path: Path) -> None:
    ran = python(str(script(tmp_path, GUARDED)))
    assert (ran.returncode, ran.stdout) == (0, "[0, 1] [True, True]\n200\n"), ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["app.py"]


def test_functions_of_a_module_that_is_run_are_found(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    script(package, "NAME = 'words'", "names.py")
    script(package, GUARDED.replace('"words"', "NAME").replace("import sys", "from .names import NAME"))
    ran = python("-m", "pack.app", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "[0, 1] [True, True]\n200\n"), ran.stderr


def test_a_script_without_guard_is_told_to_have_one(tmp_path: Path) -> None:
    ran = python(str(script(tmp_path, GUARDED.replace('if __name__ == "__main__":', "if True:"))))
    assert ran.returncode == 1
    last = ran.stderr.rstrip().splitlines()[-1]
    assert last.startswith("megaphone.errors.UsageError: worker ")
    assert "app.py starts a run while a worker imports it" in last
    assert 'put what starts it under `if __name__ == "__main__":`' in last


def test_a_function_inside_the_guarded_part_is_told_to_be_above_it(tmp_path: Path) -> None:
    text = GUARDED.replace("    def drive", "    if __name__ == '__main__':\n     def drive")
    ran = python(str(script(tmp_path, text)))
    assert ran.returncode == 1
    last = ran.stderr.rstrip().splitlines()[-1]
    assert last.startswith("megaphone.errors.UsageError: worker ")
    assert "'drive'" in last
    assert 'define it above `if __name__ == "__main__":`' in last


def test_functions_of_an_interactive_session_are_refused() -> None:
    ran = python("-c", textwrap.dedent(GUARDED))
    assert ran.returncode == 1
    assert "is defined in an interactive session" in ran.stderr.rstrip().splitlines()[-1]


def test_modules_are_found_where_the_caller_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, SCRIPT_HEAD, "only_on_the_callers_path.py")
    monkeypatch.syspath_prepend(tmp_path)
    import only_on_the_callers_path as module  # type: ignore[import-not-found]

    returned = execute(module.build, 2, module.drive, memory="16M").returned
    assert [answer.value for answer in returned] == [0, 1]


def test_a_run_inside_a_run_is_refused() -> None:
    with pytest.raises(UsageError, match="worker . calls execute: start a run in the main program"):
        execute(programs.exchange, 2, programs.execute_again, memory="16M")


def test_a_build_that_differs_between_processes_is_refused() -> None:
    with pytest.raises(GraphError, match="build made another dataflow on worker"):
        execute(programs.depending_on_the_process, 2, programs.ten_rounds, memory="16M")


# -- what is left behind -----------------------------------------------------------------------------------------------


def left_after(runs: int) -> None:
    """Run and compare what this process has with before."""
    me = psutil.Process()
    drive = programs.ten_rounds

    def one_run() -> None:
        execute(programs.exchange, 2, drive, memory="16M")

    one_run()
    gc.collect()
    before = me.num_fds(), me.num_threads(), len(me.memory_maps(grouped=False)), me.memory_info().rss
    for _ in range(runs):
        one_run()
    gc.collect()
    after = me.num_fds(), me.num_threads(), len(me.memory_maps(grouped=False)), me.memory_info().rss
    assert after[:2] == before[:2]
    # The allocator may map an arena now and then; a run that leaked would leave at least one map each.
    assert after[2] - before[2] < runs / 2
    # The control region of one run alone is 100 KiB; what Python keeps for itself is not per run.
    assert after[3] - before[3] < (4 << 20) + runs * (32 << 10)


def test_twenty_runs_leak_no_memory_descriptors_or_threads() -> None:
    left_after(20)


@pytest.mark.stress
def test_a_hundred_runs_leak_no_memory_descriptors_or_threads() -> None:
    left_after(100)


def test_an_interpreter_that_a_thread_keeps_alive_is_ended_once_its_result_is_in() -> None:
    assert execute(programs.exchange, 2, programs.leave_a_thread, memory="16M").returned == [0, 1]
