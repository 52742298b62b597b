"""Rounds in processes: a host for them, trouble for its workers and for itself, and a watchdog over all.

::

    run.py ── script ──> host ── execute ──> 4 workers
       └── trouble: SIGSTOP, SIGCONT, by process descriptors ──> host, workers
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from tests.stress.script import Round, Trouble

HOST: Final = Path(__file__).with_name("host.py")
SILENT_SECONDS: Final = 90.0
"""Without a word of the host, which ticks four times a second while its workers run."""
DUMP_SECONDS: Final = 3.0


class Host:
    """A process that plays rounds one after the other; made again after a round that failed."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def play(self, round_: Round) -> dict[str, Any]:
        """Play a round; returns its figures, or what has failed."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(round_.script.to_json().encode() + b"\n")
        process.stdin.flush()
        stopper = Stopper(process.pid, round_.troubles)
        try:
            outcome = self._answer(process, stopper)
        finally:
            stopper.close()
        if "failed" in outcome:
            self.close()
        return outcome | {"stops": stopper.stops}

    def close(self) -> None:
        """End the process; its workers end with it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._rest = b""
            self._process = subprocess.Popen(
                [sys.executable, str(HOST), str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], stopper: Stopper) -> dict[str, Any]:
        assert process.stdout is not None
        heard = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                wait = stopper.turn()
                if selector.select(wait):
                    data = os.read(process.stdout.fileno(), 1 << 16)
                    if not data:
                        return {"failed": f"the host ended with {process.wait()}", "kind": "HostLost"}
                    heard = time.monotonic()
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    for line in lines:
                        said = json.loads(line)
                        if "told" in said:
                            self._told(said["told"])
                        if "outcome" in said:
                            outcome: dict[str, Any] = said["outcome"]
                            return outcome
                if time.monotonic() - heard > SILENT_SECONDS:
                    self._dump(process)
                    return {"failed": f"not a word for {SILENT_SECONDS:.0f} s", "kind": "HangError"}

    def _dump(self, process: subprocess.Popen[bytes]) -> None:
        """Have the host and its workers print their stacks to standard error."""
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children()]:
            self._told(f"{one.pid} is {one.status()}: its stacks follow")
            one.send_signal(signal.SIGCONT)
            one.send_signal(signal.SIGUSR1)
        time.sleep(DUMP_SECONDS)


class Stopper:
    """Stops and continues the host and its workers as a round says; by descriptor, so that no other process is hit.

    Attributes:
        stops: how often a process was really stopped.
    """

    def __init__(self, host_pid: int, troubles: tuple[Trouble, ...]) -> None:
        self.stops = 0
        self._host = psutil.Process(host_pid)
        self._begin = time.monotonic()
        self._todo = list(troubles)
        self._stopped: list[tuple[float, int]] = []  # (when it goes on, descriptor)
        self._descriptors: dict[str, int] = {"parent": os.pidfd_open(host_pid)}

    def turn(self) -> float:
        """Do what is due; returns how long to wait for the next turn, in seconds."""
        now = time.monotonic()
        for entry in [entry for entry in self._stopped if entry[0] <= now]:
            self._stopped.remove(entry)
            if not any(fd == entry[1] for _, fd in self._stopped):
                self._send(entry[1], signal.SIGCONT)
        while self._todo and self._begin + self._todo[0].at_ms / 1000 <= now:
            trouble = self._todo[0]
            fd = self._descriptor(trouble)
            if fd is None:
                return 0.002  # the worker has not been started yet
            self._todo.pop(0)
            if self._send(fd, signal.SIGSTOP):
                self.stops += 1
                self._stopped.append((now + trouble.for_ms / 1000, fd))
        times = [until for until, _ in self._stopped]
        times += [self._begin + trouble.at_ms / 1000 for trouble in self._todo[:1]]
        return max(0.0, min(times) - now) if times else 1.0

    def close(self) -> None:
        """Let everybody go on."""
        for _, fd in self._stopped:
            self._send(fd, signal.SIGCONT)
        for fd in self._descriptors.values():
            os.close(fd)
        self._descriptors.clear()
        self._stopped.clear()

    @staticmethod
    def _send(fd: int, number: signal.Signals) -> bool:
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        return True

    def _descriptor(self, trouble: Trouble) -> int | None:
        """Return a descriptor of the process that is meant; None before the worker has been started."""
        if trouble.kind == "parent":
            return self._descriptors["parent"]
        name = f"megaphone-worker-{trouble.worker}"
        if name not in self._descriptors:
            for child in self._host.children():
                try:
                    if name not in child.cmdline():
                        continue
                    fd = os.pidfd_open(child.pid)
                except (psutil.Error, ProcessLookupError):
                    continue
                # Between the look and the opening the number may have passed to another process.
                if child.is_running() and child.ppid() == self._host.pid:
                    self._descriptors[name] = fd
                    break
                os.close(fd)
        return self._descriptors.get(name)
