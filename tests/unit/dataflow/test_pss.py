"""What a process occupies, as the supervisor reads it from the kernel."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

from megaphone.dataflow.supervisor import _pss_bytes

MIB = 1 << 20


def test_pss_grows_with_the_pages_that_are_touched() -> None:
    before = _pss_bytes(os.getpid())
    with mmap.mmap(-1, 16 * MIB) as pages:
        pages.write(b"\x01" * (16 * MIB))
        after = _pss_bytes(os.getpid())
    assert before > MIB
    assert after - before > 12 * MIB


def test_a_process_that_is_gone_counts_as_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert _pss_bytes(child.pid) == 0


def test_a_process_that_ended_but_was_not_waited_for_counts_as_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert _pss_bytes(child.pid) == 0
    child.wait()
