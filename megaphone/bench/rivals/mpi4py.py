"""The rival from high-performance computing: mpi4py, two ranks on one machine, over MPI's own shared memory.

Messages go from and into numpy buffers without pickling: as many receives as a ring has slots are posted ahead, and
as many sends may be on their way.  MPI copies once in and once out, or once altogether if the message is large.

The program starts itself under mpiexec.  MPI keeps a segment in /dev/shm; each rank removes its name as soon as both
have it, so that nothing stays behind even when they are killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from megaphone._core import lib
from megaphone.bench.rivals.common import WORKERS, Rival, Share, Task, main
from megaphone.bench.rivals.leftovers import folder_of_run
from megaphone.bench.rivals.pair import (
    END_SECONDS_MAX,
    JOBS,
    SLOTS,
    Message,
    become_worker,
    column_count,
    columns_of,
    told,
)
from megaphone.errors import MegaphoneError

MAPS: Final = Path("/proc/self/maps")
RANK: Final = "from megaphone.bench.rivals.mpi4py import rank_main; rank_main()"
# Nothing of a message goes through a network device, and what MPI opens for later it opens on the loopback.
ENVIRONMENT: Final = {
    "UCX_TLS": "posix,cma,self",
    "FI_PROVIDER": "tcp",
    "FI_TCP_IFACE": "lo",
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,sm",
    "OMPI_MCA_oob_tcp_if_include": "lo",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
FLAGS: Final = {
    "MPICH": ("-launcher", "fork", "-localhost", "127.0.0.1", "-iface", "lo"),
    "Open MPI": ("--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"),
}


class MpiLink:
    """One rank's sends and receives."""

    def __init__(self, mpi: Any, task: Task) -> None:
        self._mpi, self._world, self._columns = mpi, mpi.COMM_WORLD, column_count(task)
        self._peer = 1 - self._world.rank
        words_max = max(task.batch_bytes // 8, 1)
        self._out, self._in = (np.zeros((SLOTS, words_max), np.uint64) for _ in range(2))
        self._sends: list[Any] = [mpi.REQUEST_NULL] * SLOTS
        self._receives = [self._posted(slot) for slot in range(SLOTS)]
        self._sent = self._received = 0
        self._holds = False

    def _posted(self, slot: int) -> Any:
        return self._world.Irecv([self._in[slot], self._mpi.UINT64_T], source=self._peer)

    def send(self, message: Message) -> bool:
        """Copy the message into a buffer and send it from there, or return False: all buffers are being sent."""
        slot = self._sent % SLOTS
        if not self._sends[slot].Test():
            return False
        at = 0
        for column in message:
            self._out[slot, at : at + len(column)] = column
            at += len(column)
        self._sends[slot] = self._world.Isend([self._out[slot, :at], self._mpi.UINT64_T], dest=self._peer)
        self._sent += 1
        return True

    def receive(self, wait: bool = False) -> Message | None:
        """Return the oldest receive's buffer, which the next call posts again, or None: it is not complete."""
        if self._holds:
            slot = self._received % SLOTS
            self._receives[slot] = self._posted(slot)
            self._received += 1
            self._holds = False
        slot = self._received % SLOTS
        status = self._mpi.Status()
        if not self._receives[slot].Test(status):
            if wait:
                os.sched_yield()
            return None
        self._holds = True
        return columns_of(self._in[slot, : status.Get_count(self._mpi.UINT64_T)], self._columns)

    def close(self) -> None:
        """Complete the sends, and take back the receives for which nothing will come."""
        self._mpi.Request.Waitall(self._sends)
        first = self._received + int(self._holds)
        for at in range(first, self._received + SLOTS):
            request = self._receives[at % SLOTS]
            request.Cancel()
            request.Wait()


def rank_main() -> None:
    """Be one rank; the arguments are the task as JSON and the folder for the answer."""
    become_worker(os.getppid())
    task, folder = Task(**json.loads(sys.argv[1])), Path(sys.argv[2])
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    try:
        world.Barrier()
        _remove_names_of_what_is_mapped()
        share = JOBS[task.job](MpiLink(MPI, task), task, world.rank, world.Barrier)
        (folder / f"{world.rank}.json").write_text(json.dumps(share))
    except Exception as error:  # noqa: BLE001 - told in one line, and the other rank must not wait for this one
        (folder / f"{world.rank}.error").write_text(told(error))
        world.Abort(1)


def _remove_names_of_what_is_mapped() -> None:
    for line in MAPS.read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if path.startswith("/dev/shm/") and not path.endswith(" (deleted)"):
            with contextlib.suppress(OSError):  # the other rank was first
                Path(path).unlink()


def run(task: Task) -> Sequence[Share]:
    """Do the task with two ranks under mpiexec."""
    mpi = _library()
    with folder_of_run() as folder:
        command = [_mpiexec(), *FLAGS[mpi.get_vendor()[0]], "-n", str(WORKERS), sys.executable, "-c", RANK]
        command += [json.dumps(dataclasses.asdict(task)), str(folder)]
        parent = os.getpid()
        launcher = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT, "TMPDIR": str(folder)},  # where Open MPI keeps its session
            text=True,
            start_new_session=True,  # Ctrl-C is this program's to decide upon
            preexec_fn=lambda: lib.mp_process_die_with(parent),  # noqa: PLW1509 - no thread of ours runs here
        )
        try:
            said, _ = launcher.communicate(timeout=task.limit_seconds)
        except subprocess.TimeoutExpired:
            message = f"no end after {task.limit_seconds:.0f} s: given up"
            raise MegaphoneError(message) from None
        finally:
            _end(launcher)
        return _shares(folder, launcher.returncode, said)


def _end(launcher: subprocess.Popen[str]) -> None:
    """End mpiexec, which ends its ranks if it is asked to, and which they do not outlive if it is not."""
    if launcher.poll() is None:
        launcher.terminate()
        try:
            launcher.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
    if launcher.stdout is not None:
        launcher.stdout.close()


def _shares(folder: Path, code: int, said: str) -> list[Share]:
    for path in sorted(folder.glob("*.error")):
        message = f"worker {path.stem}: {path.read_text()}"
        raise MegaphoneError(message)
    answers = [folder / f"{rank}.json" for rank in range(WORKERS)]
    if code != 0 or not all(path.exists() for path in answers):
        # The launcher draws a frame of several lines; the one that names a signal or a code says it all.
        lines = [line.strip("=| \t") for line in said.splitlines()]
        telling = [line for line in lines if "SIGNAL" in line or "EXIT CODE" in line or "signal" in line]
        message = f"mpiexec ended with exit code {code}: {'; '.join(telling[:2] or lines[-1:] or ['it said nothing'])}"
        raise MegaphoneError(message)
    return [Share(*json.loads(path.read_text())) for path in answers]


def _library() -> Any:
    """Import mpi4py without beginning an MPI session: this process is none of the ranks."""
    import mpi4py

    mpi4py.rc(initialize=False, finalize=False)
    try:
        from mpi4py import MPI
    except RuntimeError as error:  # mpi4py is there and no MPI is
        raise ImportError(str(error).partition("\n")[0]) from error
    return MPI


def _mpiexec() -> str:
    """Return the launcher of the environment that Python runs in, or else of the machine."""
    beside = Path(sys.executable).parent
    found = shutil.which("mpiexec", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found is None:
        message = "mpi4py is there and mpiexec is not: install mpich or openmpi"
        raise ImportError(message)
    return found


def version() -> str:
    """Import mpi4py and return its version and the MPI's."""
    mpi = _library()
    _mpiexec()
    vendor, numbers = mpi.get_vendor()
    if vendor not in FLAGS:
        message = f"mpi4py runs on {vendor}: install mpich or openmpi"
        raise ImportError(message)
    return f"{importlib.metadata.version('mpi4py')} on {vendor} {'.'.join(map(str, numbers))}"


RIVAL: Final = Rival(
    name="mpi4py",
    how={
        "count": "two ranks, 8 sends and 8 receives of buffers outstanding per direction, polled",
        "transport": "two ranks, 8 sends and 8 receives of buffers outstanding, polled; latency by ping-pong, halved",
    },
    version=version,
    run=run,
)

if __name__ == "__main__":
    sys.exit(main(RIVAL))
