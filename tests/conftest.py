"""What every test session has: hypothesis profiles, a watch over skips, the promise that nothing is left behind.

Processes that a test starts inherit an environment variable of this session, so that one whose parent was killed on
purpose, and which is therefore nobody's child any more, is found as well.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests import skips

SHM_FOLDER = Path("/dev/shm")
SHM_NAME_PART = "megaphone"
SESSION_VARIABLE = "MEGAPHONE_TEST_SESSION"
PROFILE_VARIABLE = "MEGAPHONE_HYPOTHESIS_PROFILE"
# The engine promises a second; a machine that is busy with something else is not a leak.
SETTLE_SECONDS_MAX = 10.0

T = TypeVar("T")

# A shell that starts this in the background has Ctrl-C ignored, and so would each process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Deadlines and the too-slow check measure the machine. The blob lets a failure in CI be repeated at a desk.
for name, examples in (("fast", 15), ("ci", 60), ("thorough", 1000)):
    settings.register_profile(
        name,
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get(PROFILE_VARIABLE, "ci"))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(skips.SkipWatch(skips.allowed_reasons(skips.FILE.read_text())))


def shared_memory_names() -> list[str]:
    """Return the segments in /dev/shm that carry the engine's name; none where there is no such folder."""
    if not SHM_FOLDER.is_dir():
        return []
    return sorted(path.name for path in SHM_FOLDER.iterdir() if SHM_NAME_PART in path.name)


def processes_of_session() -> list[psutil.Process]:
    """Return the processes that this session has started and that still exist, zombies included."""
    me = psutil.Process()
    found = {process.pid: process for process in me.children(recursive=True)}
    mark = os.environ[SESSION_VARIABLE]
    for process in psutil.process_iter(["environ"]):
        environ = process.info["environ"] or {}  # None for other users' processes
        if environ.get(SESSION_VARIABLE) == mark and process.pid != me.pid:
            found[process.pid] = process
    return list(found.values())


def described(process: psutil.Process) -> str:
    """Return one line about a process for a failure's message, also when it ends meanwhile."""
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline()) or process.name()}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (ended while this was written)"


def settled(look: Callable[[], list[T]], seconds_max: float = SETTLE_SECONDS_MAX) -> list[T]:
    """Return what a look still finds when it finds nothing, or when the time is over."""
    deadline = time.monotonic() + seconds_max
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def assert_nothing_left(shm_names_before: list[str]) -> None:
    """Fail if processes of this session or new shared memory exist; end the processes, so that one leak is told once.

    Args:
        shm_names_before: what was in /dev/shm before, somebody else's.

    Raises:
        AssertionError: with every process and name.
    """
    processes = settled(processes_of_session)
    told = [f"process {described(process)}" for process in processes]
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=SETTLE_SECONDS_MAX)
    names = settled(lambda: [name for name in shared_memory_names() if name not in shm_names_before])
    told += [f"shared memory {SHM_FOLDER / name}" for name in names]
    assert not told, "left behind:\n  " + "\n  ".join(told)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind_by_the_session() -> Iterator[list[str]]:
    """After the last test: no process of ours, nothing of ours in /dev/shm. Yields what was there before."""
    os.environ[SESSION_VARIABLE] = f"{os.getpid()}-{uuid.uuid4().hex}"
    before = shared_memory_names()
    yield before
    assert_nothing_left(before)


@pytest.fixture(autouse=True)
def nothing_left_behind_by_a_test_with_processes(
    request: pytest.FixtureRequest, nothing_left_behind_by_the_session: list[str]
) -> Iterator[None]:
    """The same after each test that is marked process or stress, so that the test that leaks is the one that fails."""
    yield
    if any(request.node.get_closest_marker(marker) for marker in ("process", "stress")):
        assert_nothing_left(nothing_left_behind_by_the_session)
