"""How a run ends when something goes wrong: soon, with an error that says what, and with nothing left behind.

That no process, zombie or shared memory is left is checked after each test by the session's own fixture.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from megaphone.dataflow import grower
from megaphone.dataflow.execute import Result, execute
from megaphone.dataflow.failures import RemoteTraceback
from megaphone.errors import InternalError, SharedMemoryError, StuckError, TimeError, WorkerError, WorkerLostError
from tests.process import programs

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
# The engine promises a second; a machine that is busy with something else is no failure.
SECONDS_MAX = 10.0
FOREVER = """
    import signal, sys
    from functools import partial
    from megaphone.dataflow.execute import execute
    from tests.process.programs import exchange, mark_and_forever

    if __name__ == "__main__":
        # What runs the tests may be in the background, where Ctrl-C is ignored and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            execute(exchange, 2, partial(mark_and_forever, sys.argv[1]), memory="16M")
        except KeyboardInterrupt:
            print("interrupted")
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            sys.exit(130)
        finally:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""


def run_in_time(drive: Callable[..., Any], build: Callable[..., Any] = programs.exchange, **options: Any) -> Result:
    """Run with two workers; the end must come in time."""
    started = time.monotonic()
    try:
        return execute(build, 2, drive, memory="16M", **options)
    finally:
        assert time.monotonic() - started < SECONDS_MAX


def run(drive: Callable[..., Any], build: Callable[..., Any] = programs.exchange, **options: Any) -> Result:
    """The same, and no descriptor may be left, even while the error is being handled."""
    before = psutil.Process().num_fds()
    try:
        return run_in_time(drive, build, **options)
    finally:
        assert psutil.Process().num_fds() == before


@contextmanager
def a_script_that_never_ends(tmp_path: Path, *, started: bool = True) -> Iterator[subprocess.Popen[str]]:
    """Start the script, in a process group of its own; wait until both its workers run."""
    path, mark = tmp_path / "forever.py", tmp_path / "started"
    path.write_text(textwrap.dedent(FOREVER))
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(path), str(mark)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environ, process_group=0,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            marks = [Path(f"{mark}-{index}") for index in (0, 1)]
            while started and not all(path.exists() and path.read_text() for path in marks):  # there, and written
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def assert_ended(processes: list[psutil.Process]) -> None:
    """Fail if a process that is nobody's child any more still runs; when its zombie goes is the machine's affair."""
    deadline = time.monotonic() + SECONDS_MAX
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, f"{process} still runs"
                time.sleep(0.01)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number that is printed when the test fails; the environment may give one to repeat it."""
    value = int(os.environ.get("MEGAPHONE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"{request.node.name}: MEGAPHONE_TEST_SEED={value}")
    return value


# -- user code raises --------------------------------------------------------------------------------------------------


def test_an_exception_in_an_operator_names_worker_operator_time_and_line() -> None:
    with pytest.raises(WorkerError) as caught:
        run(programs.ten_rounds, build=programs.raising_operator)
    assert caught.value.exit_code == 1
    message = str(caught.value)
    assert message.startswith("worker ")
    assert ", operator 'picky' at time 3: ValueError: three is too many (programs.py:" in message
    assert message.endswith(": raise ValueError(message))")
    assert type(caught.value.__cause__) is ValueError
    remote = caught.value.__cause__.__cause__
    assert type(remote) is RemoteTraceback
    assert "in raise_at_three" in str(remote)


def test_an_exception_in_drive_ends_workers_that_see_no_stop_word() -> None:
    with pytest.raises(WorkerError, match="worker 1, in drive: ValueError: drive went wrong") as caught:
        run(partial(programs.raise_on_one, "value"))
    assert type(caught.value.__cause__) is ValueError


def test_an_exception_in_build_on_a_worker_is_told_as_such() -> None:
    with pytest.raises(WorkerError, match=r"worker \d, in build: KeyError: .*the worker's build") as caught:
        run(programs.ten_rounds, build=programs.raising_build, args=(os.getpid(),))
    assert type(caught.value.__cause__) is KeyError


def test_an_exception_in_build_is_raised_in_the_caller_as_it_is() -> None:
    with pytest.raises(KeyError, match="the worker's build"):
        run(programs.ten_rounds, build=programs.raising_build, args=(0,))


def test_an_exception_that_cannot_be_loaded_again_is_told_by_its_traceback() -> None:
    with pytest.raises(WorkerError, match="worker 1, in drive: TooOddError: 3 and 4") as caught:
        run(partial(programs.raise_on_one, "odd"))
    assert type(caught.value.__cause__) is RemoteTraceback
    assert "TooOddError: 3 and 4" in str(caught.value.__cause__)


def test_the_line_that_is_named_is_the_users_and_not_the_librarys() -> None:
    line = r"\(programs.py:\d+: np.zeros\(3\).reshape\(2\)\)"
    with pytest.raises(WorkerError, match=f"ValueError: cannot reshape .*{line}"):
        run(partial(programs.raise_on_one, "library"))


def test_a_keyboard_interrupt_that_a_worker_raises_itself_is_an_exception_like_others() -> None:
    with pytest.raises(WorkerError, match="worker 1, in drive: KeyboardInterrupt"):
        run(partial(programs.raise_on_one, "interrupt"))


def test_what_the_engine_refuses_in_a_worker_keeps_its_class_and_exit_code() -> None:
    with pytest.raises(TimeError, match="worker 1, in drive: input 'numbers' at time 5 cannot go") as caught:
        run(partial(programs.raise_on_one, "time"))
    assert caught.value.exit_code == 2
    assert type(caught.value.__cause__) is RemoteTraceback


def test_an_error_of_the_users_below_the_engines_base_keeps_its_class() -> None:
    with pytest.raises(programs.OwnError, match="my own") as caught:
        run(partial(programs.raise_on_one, "own"))
    assert type(caught.value.__cause__) is RemoteTraceback


def test_exhausted_memory_has_its_own_class_and_exit_code() -> None:
    with pytest.raises(SharedMemoryError, match="raise --memory") as caught:
        run(programs.hoard)
    assert caught.value.exit_code == 4


def test_a_worker_that_swallows_the_end_is_ended_all_the_same() -> None:
    with pytest.raises(WorkerError, match="worker 1 fails"):
        run(programs.swallow_everything)


def test_an_exception_of_the_callers_own_callback_ends_the_run() -> None:
    def on_tick(_: object) -> None:
        message = "enough"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="enough"):
        run(programs.forever, on_tick=on_tick)


# -- a worker ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("sys.exit", "exited with code 7"),
        ("os._exit", "exited with code 7"),
        ("zero", "exited with code 0"),
        ("SIGSEGV", "was killed by SIGSEGV"),
        ("SIGTERM", "was killed by SIGTERM"),
    ],
)
def test_a_worker_that_ends_is_lost_with_what_it_wrote_last(how: str, said: str) -> None:
    with pytest.raises(WorkerLostError, match=rf"worker 1 \(pid \d+\) {said}") as caught:
        run(partial(programs.end_on_one, how))
    assert caught.value.exit_code == 3
    assert "the last line it wrote: 'famous last words'" in str(caught.value)


def test_a_worker_that_is_killed_is_lost_with_operator_and_time() -> None:
    def kill(running: Any) -> None:
        # On a busy machine a tick may come before the worker's first activation, of which there is nothing to tell.
        if running.counters()[1]["batches_in"]:
            os.kill(running.pids[1], signal.SIGKILL)

    with pytest.raises(WorkerLostError, match="was killed by SIGKILL; its last activation was of operator '") as caught:
        run(programs.forever, on_tick=kill)
    assert " at time " in str(caught.value)


def test_a_worker_that_is_killed_at_any_moment_ends_the_run(seed: int) -> None:
    chance = random.Random(seed)
    me = psutil.Process()

    def kill_one(delay_seconds: float) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while not (children := me.children()) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay_seconds)
        chance.choice(children).kill()

    # The first moments are those of a start, in which a worker is not yet bound to its parent.
    for delay_seconds in [0.0, 0.03, *(chance.uniform(0.05, 0.7) for _ in range(6))]:
        descriptors = me.num_fds()
        killer = threading.Thread(target=kill_one, args=(delay_seconds,))
        killer.start()
        try:
            with pytest.raises(WorkerLostError, match="was killed by SIGKILL"):
                run_in_time(programs.forever)
        finally:
            killer.join()
        assert me.num_fds() == descriptors


# -- the parent ends ---------------------------------------------------------------------------------------------------


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with a_script_that_never_ends(tmp_path) as process:
        pids = [int(Path(f"{tmp_path}/started-{index}").read_text()) for index in (0, 1)]
        workers = [psutil.Process(pid) for pid in pids]
        process.kill()
        assert_ended(workers)


def test_workers_end_with_a_parent_that_is_killed_while_they_start(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        with a_script_that_never_ends(tmp_path, started=False) as process:
            parent = psutil.Process(process.pid)
            while not (workers := parent.children()) and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.15))
            process.kill()
            assert_ended(workers)
        for mark in tmp_path.glob("started-*"):
            mark.unlink()


def test_ctrl_c_in_a_terminal_ends_all_and_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    with a_script_that_never_ends(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
        printed, _ = process.communicate(timeout=SECONDS_MAX)
    assert (process.returncode, printed) == (130, "interrupted\n")


def test_ctrl_c_means_nothing_to_a_worker() -> None:
    def interrupt(running: Any) -> None:
        for pid in running.pids:
            os.kill(pid, signal.SIGINT)

    assert run(partial(programs.wait_for_the_clock, 0.6), on_tick=interrupt).returned == ["waited", "waited"]


def test_ctrl_c_while_workers_start_shows_no_traceback_of_theirs(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        with a_script_that_never_ends(tmp_path, started=False) as process:
            parent = psutil.Process(process.pid)
            while not parent.children() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.2))
            os.killpg(process.pid, signal.SIGINT)
            printed, _ = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, printed) == (130, "interrupted\n")
        for mark in tmp_path.glob("started-*"):
            mark.unlink()


def test_term_ends_all_with_its_exit_code(tmp_path: Path) -> None:
    with a_script_that_never_ends(tmp_path) as process:
        process.terminate()
        printed, _ = process.communicate(timeout=SECONDS_MAX)
    assert (process.returncode, printed) == (143, "")


# -- nothing goes on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [programs.leave_open, programs.close_and_step])
def test_a_capability_that_is_never_let_go_of_is_named_when_the_run_is_stuck(drive: Callable[..., Any]) -> None:
    with pytest.raises(StuckError, match="worker 0 holds time 0 in operator 'miser'") as caught:
        run(drive, build=programs.miserly)
    assert caught.value.exit_code == 5


def test_a_worker_that_waits_for_the_clock_with_its_input_open_is_not_stuck() -> None:
    assert run(partial(programs.wait_for_the_clock, 2.0)).returned == ["waited", "waited"]


# -- the thread that grows memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_defect_in_the_thread_that_grows_memory_is_an_error_of_the_run(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that is over before anybody has looked; no worker has noticed anything."""
    failure = ValueError("the core is wrong")

    def fail(*_: Any) -> int:
        raise failure

    monkeypatch.setattr(grower, "lib", SimpleNamespace(mp_chunks_grow_ahead=fail))
    with pytest.raises(InternalError, match="grows memory has ended .*the core is wrong") as caught:
        run_in_time(partial(programs.wait_for_the_clock, seconds))
    assert caught.value.__cause__ is failure


def test_a_run_goes_on_where_the_system_refuses_the_thread_that_grows_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert run_in_time(programs.ten_rounds).returned == [0, 1]
