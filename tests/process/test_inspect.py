"""``megaphone inspect`` on real processes, stopped at any moment: what memory holds adds up to what was sent."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from megaphone.observe.inspect_attach import Attachment, Moment, process_state, regions_of
from megaphone.observe.inspect_look import InspectError, Look
from megaphone.observe.inspect_model import model_of
from tests.unit.observe import law

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "process" / "counting_program.py"
SECONDS_MAX = 60.0


@dataclass
class Run:
    """A counting program and an attachment to it."""

    process: subprocess.Popen[str]
    end: Path
    attachment: Attachment
    pids: list[int] = field(default_factory=list)

    @contextmanager
    def stopped(self) -> Iterator[tuple[Look, Moment]]:
        """Stop all workers, wait until they stand, and let them go on afterwards."""
        try:
            for pid in self.pids:
                os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: all(process_state(pid) == "stopped" for pid in self.pids))
            yield self.attachment.look()
        finally:
            for pid in self.pids:
                os.kill(pid, signal.SIGCONT)

    def finish(self) -> tuple[int, int]:
        """Let the program end by itself; return what it has sent and counted."""
        self.end.touch()
        out, said = self.process.communicate(timeout=SECONDS_MAX)
        assert self.process.returncode == 0, said
        sent, counted = map(int, out.split())
        return sent, counted


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; a watchdog ends it."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def attach(process: subprocess.Popen[str]) -> Attachment | None:
    """Return an attachment once all workers run."""
    assert process.poll() is None
    try:
        attachment = Attachment(process.pid)
    except InspectError:
        return None
    look, _ = attachment.look()
    if all(int(look.slot(slot).state) == 1 for slot in range(look.slots)):
        return attachment
    attachment.close()
    return None


@contextmanager
def running(tmp_path: Path, workers: int, transfer: str = "handover") -> Iterator[Run]:
    """Start the program and attach to it; it is gone afterwards."""
    end = tmp_path / "end"
    command = [sys.executable, str(PROGRAM), str(end), str(workers), transfer]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    attachment: Attachment | None = None
    try:
        deadline = time.monotonic() + SECONDS_MAX
        while (attachment := attach(process)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        look, _ = attachment.look()
        yield Run(process, end, attachment, [int(look.slot(slot).pid) for slot in range(workers)])
    finally:
        if attachment is not None:
            attachment.close()
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("workers", "transfer", "stops"), [(3, "handover", 400), (2, "handover", 200), (3, "copy", 100)]
)
def test_a_run_that_is_stopped_anywhere_adds_up_exactly(
    tmp_path: Path, workers: int, transfer: str, stops: int, record_property: Callable[[str, object], None]
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    with running(tmp_path, workers, transfer) as run:
        for _ in range(stops):
            time.sleep(chance.uniform(0.0005, 0.02))
            with run.stopped() as (look, moment):
                assert moment.still
                # Rows that are copied are in messages on their way; the bins' own counts of records are not.
                audit = law.check(look, rows=transfer == "handover")
                seen["even" if not audit["odd"] else "odd"] += 1
                seen["migrating"] += audit["migrating"]
                seen["bin on its way"] += audit["bins_moving"] > 0
                seen["between"] += audit["bins_between"] > 0
                seen["twice"] += audit["twice"] > 0
                if audit["odd"] & (audit["in_f"] | audit["in_s"]):
                    seen["in F or S"] += 1
        sent, counted = run.finish()
    assert sent == counted
    print(dict(seen))  # noqa: T201 - as above
    assert seen["migrating"] >= stops // 4
    assert seen["even"] >= stops // 20
    assert seen["odd"] >= stops // 20
    record_property("runs", stops)
    for name, count in seen.items():
        record_property(name, count)


def test_looking_changes_nothing_of_the_run(tmp_path: Path) -> None:
    with running(tmp_path, 2) as run:
        with run.stopped() as (look, _):
            regions = [(region.path, region.inode) for region in regions_of(run.process.pid)]
            before = [(path.stat().st_blocks, path.read_bytes()) for path, _ in regions]
            model_of(look, None)
            after = [(path.stat().st_blocks, path.read_bytes()) for path, _ in regions]
            assert before == after
            # What this process maps of the run it cannot write.
            mapped = [
                line.split()[1]
                for line in Path("/proc/self/maps").read_text().splitlines()
                if any(f" {inode} " in line for _, inode in regions)
            ]
            assert mapped
            assert all(rights.startswith("r--") for rights in mapped)
        # A run that goes on may be looked at as well; then figures are of different moments.
        for _ in range(200):
            look, moment = run.attachment.look()
            model = model_of(look, moment)
            assert model["violations"] == []
        sent, counted = run.finish()
    assert sent == counted


def megaphone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "megaphone", *arguments]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=90, check=False, env=environment)


def sent_records(run: Run) -> int:
    """Return what the inputs of a run have sent so far."""
    look, moment = run.attachment.look()
    return sum(slot["counters"]["input_records"] for slot in model_of(look, moment, content=False)["slots"])


def test_the_command_shows_a_stopped_run_by_the_number_of_any_of_its_processes(tmp_path: Path) -> None:
    with running(tmp_path, 2) as run:
        # A worker that runs need not have sent anything yet.
        wait_until(lambda: sent_records(run) > 0)
        with run.stopped():
            texts = [megaphone("inspect", str(pid)).stdout for pid in (run.process.pid, *run.pids)]
            told = json.loads(megaphone("inspect", str(run.pids[1]), "--json").stdout)
            listed = json.loads(megaphone("inspect", "--json").stdout)
        run.finish()
    for text in texts:
        assert text.startswith(f"megaphone run of process {run.process.pid}: 2 workers")
        assert "stopped" in text
        assert "count.route.data" in text
        assert max(map(len, text.splitlines())) <= 80
        # Apart from the clock they say the same.
        assert text.splitlines()[1:] == texts[0].splitlines()[1:]
    assert told["violations"] == []
    assert told["balance"]["sent"] > 0
    assert [slot["process"] for slot in told["slots"]] == ["stopped", "stopped"]
    assert run.pids in [entry["worker_pids"] for entry in listed]


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    with running(tmp_path, 2) as run:
        done = megaphone("inspect", str(run.process.pid), "--slot", "1")
        refused = megaphone("inspect", str(run.process.pid), "--slot", "2")
        run.finish()
    assert "running: figures of different moments" in done.stdout
    assert "VIOLATIONS" not in done.stdout
    assert refused.returncode == 2
    assert "has workers 0 to 1" in refused.stderr


def test_a_worker_that_was_killed_is_gone_and_its_words_are_still_there(tmp_path: Path) -> None:
    with running(tmp_path, 2) as run:
        with run.stopped():
            # The parent notices and ends the run; stopped, it leaves time for a look.
            os.kill(run.process.pid, signal.SIGSTOP)
            os.kill(run.pids[0], signal.SIGKILL)
            wait_until(lambda: process_state(run.pids[0]) in (None, "ended"))
            look, moment = run.attachment.look()
            law.check(look)
            assert moment.still
            assert moment.states == (None, "stopped")
            assert model_of(look, moment)["slots"][0]["process"] == "gone"
        os.kill(run.process.pid, signal.SIGCONT)
        run.process.wait(SECONDS_MAX)


def test_what_cannot_be_inspected_costs_one_line_and_exit_code_2() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        for pid, said in ((4194304, "there is no process 4194304"), (other.pid, "is no run of megaphone")):
            done = megaphone("inspect", str(pid))
            assert done.returncode == 2
            assert done.stdout == ""
            assert said in done.stderr
            assert len(done.stderr.splitlines()) == 1
        other.kill()
        # Its parent has not taken note of its end yet.
        wait_until(lambda: process_state(other.pid) == "ended")
        ended = megaphone("inspect", str(other.pid))
        assert ended.returncode == 2
        assert f"process {other.pid} has ended" in ended.stderr
