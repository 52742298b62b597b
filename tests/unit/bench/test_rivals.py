"""Rivals count what they say they count, say so when they do not, and leave nothing behind."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

from megaphone.bench.rivals import common, leftovers, numpy_ring, pair
from megaphone.errors import MegaphoneError

ALWAYS = ("plain", "numpy_ring", "queue")
EXTRA = ("iceoryx2", "mpi4py", "bytewax")
MISSING = "a rival's package is not installed: the extra rivals brings it"
MASK = 2**64 - 1


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"megaphone.bench.rivals.{name}")


def command_of(name: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", f"megaphone.bench.rivals.{name}", *flags]


def report_of(name: str, *flags: str) -> dict[str, Any]:
    """Return the report of a rival's program; the test is skipped if the rival is not there."""
    ended = subprocess.run(command_of(name, *flags), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    assert result["rival"] == name
    if not result["installed"]:
        assert name in EXTRA
        assert result["why"]
        pytest.skip(MISSING)
    return result


def numpys_checksum(domain: int, records: int, seed: int) -> str:
    """Count all records at once, and mix and add up in Python's own numbers."""
    task = common.Task("count", domain, 1.0, records, 1024, seed)
    keys = np.resize(common.pool(task), records).view(np.int64)
    total = 0
    for key, count in enumerate(np.bincount(keys).tolist()):
        mixed = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        total += (mixed ^ (mixed >> 31)) * count
    return f"{total & MASK:016x}"


@pytest.mark.process
@pytest.mark.parametrize(
    ("domain", "records", "batch_bytes"),
    [
        pytest.param(5000, 300_007, 4096, id="a last batch that is short"),
        pytest.param(5000, common.POOL_RECORDS + 300_007, 100_000, id="a batch that wraps around the pool"),
        pytest.param(1, 1000, 64, id="one key, one worker has none"),
        pytest.param(3, 1, 64, id="one record"),
    ],
)
@pytest.mark.parametrize("name", ["engine", *ALWAYS, *EXTRA])
def test_every_rival_counts_what_numpy_counts(
    name: str, domain: int, records: int, batch_bytes: int, record_property: Any
) -> None:
    flags = ("--domain", domain, "--records", records, "--batch-bytes", batch_bytes, "--seed", 7)
    result = report_of(name, "--job", "count", *map(str, flags))
    record_property("runs", 1)
    assert result["records"] == records
    assert result["checksum"] == numpys_checksum(domain, records, 7)
    assert (result["domain"], result["batch_bytes"], result["job"]) == (domain, batch_bytes, "count")


@pytest.mark.process
@pytest.mark.parametrize("name", [*ALWAYS, *EXTRA])
def test_every_rival_makes_records_for_as_long_as_asked(name: str) -> None:
    result = report_of(name, "--domain", "1000", "--seconds", "0.2", "--batch-bytes", "16384")
    assert result["seconds"] >= 0.15
    assert result["records_per_s"] == pytest.approx(result["records"] / result["seconds"])
    assert result["records"] > 0
    assert result["version"]
    assert result["how"]


@pytest.mark.process
@pytest.mark.parametrize("batch_bytes", [64, 65536])
@pytest.mark.parametrize("name", ["engine", *ALWAYS, *EXTRA])
def test_every_rival_brings_every_byte(name: str, batch_bytes: int) -> None:
    result = report_of(name, "--job", "transport", "--seconds", "0.2", "--batch-bytes", str(batch_bytes))
    assert result["bytes"] > 0
    assert result["bytes"] % batch_bytes == 0
    assert result["gb_per_s"] == pytest.approx(result["bytes"] / result["seconds"] / 1e9)
    if name == "plain":
        assert result["one_way_us_p50"] is None
    else:
        assert 0 < result["one_way_us_p50"] <= result["one_way_us_p99"]


@pytest.mark.parametrize("name", EXTRA)
def test_a_rival_that_is_not_installed_says_why(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    report = tmp_path / "report.json"
    assert common.main(module_of(name).RIVAL, ["--report", str(report)]) == 0
    result = json.loads(report.read_text())
    assert (result["rival"], result["installed"]) == (name, False)
    assert name in result["why"]


def broken_ring(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the ring change the first message of each worker that has columns before it sends it."""
    send = numpy_ring.RingLink.send
    changed: set[int] = set()

    def send_changed(self: numpy_ring.RingLink, message: pair.Message) -> bool:
        if message and id(self) not in changed:
            changed.add(id(self))
            message = tuple(change(column.copy()) for column in message)
        return send(self, message)

    monkeypatch.setattr(numpy_ring.RingLink, "send", send_changed)


@pytest.mark.process
def test_a_rival_that_loses_a_record_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_ring(monkeypatch, lambda column: column[1:])
    assert common.main(numpy_ring.RIVAL, ["--domain", "1000", "--records", "100000", "--batch-bytes", "4096"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "numpy_ring: 100000 records were made and 99998 arrived\n"


@pytest.mark.process
def test_a_rival_that_counts_one_key_twice_and_another_not_has_another_checksum(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_like_second(column: common.U64Array) -> common.U64Array:
        column[0] = column[1]
        return column

    broken_ring(monkeypatch, first_like_second)
    assert common.main(numpy_ring.RIVAL, ["--domain", "1000", "--records", "100000", "--batch-bytes", "4096"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["records"] == 100_000
    assert result["checksum"] != numpys_checksum(1000, 100_000, 1)


@pytest.mark.process
def test_a_rival_that_brings_keys_to_the_wrong_worker_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_ring(monkeypatch, lambda column: column ^ np.uint64(1))
    assert common.main(numpy_ring.RIVAL, ["--domain", "1000", "--records", "100000", "--batch-bytes", "4096"]) == 1
    assert "was brought the other worker's keys" in capsys.readouterr().err


@pytest.mark.process
def test_a_rival_that_changes_a_byte_on_the_way_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_ring(monkeypatch, lambda column: column ^ np.uint64(1 << 63))
    flags = ["--job", "transport", "--seconds", "0.1", "--batch-bytes", "4080"]
    assert common.main(numpy_ring.RIVAL, flags) == 0, "510 words with their highest bit changed have the same sum"
    broken_ring(monkeypatch, lambda column: column + np.uint64(1))
    capsys.readouterr()
    assert common.main(numpy_ring.RIVAL, flags) == 1
    assert "are not the bytes that were sent" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.parametrize("name", ["numpy_ring", "queue", "iceoryx2", "bytewax"])
def test_what_a_worker_raises_is_told_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_args: object) -> None:
        message = "no more\nroom"
        raise ValueError(message)

    monkeypatch.setattr(common.Tally, "add", refuse)
    code = common.main(module_of(name).RIVAL, ["--domain", "1000", "--records", "1000", "--batch-bytes", "4096"])
    out, err = capfd.readouterr()
    if '"installed": false' in out:
        pytest.skip(MISSING)
    told = [line for line in err.splitlines() if line.startswith(f"{name}: ")]
    assert (code, out, len(told)) == (1, "", 1)
    assert "ValueError: no more room" in told[0]


@pytest.mark.process
@pytest.mark.parametrize("job", ["count", "transport"])
def test_a_worker_that_hears_nothing_gives_up(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pair, "SILENT_SECONDS_MAX", 0.2)
    monkeypatch.setattr(numpy_ring.RingLink, "receive", lambda *_args, **_flags: None)
    assert common.main(numpy_ring.RIVAL, ["--job", job, "--domain", "1000", "--seconds", "0.1"]) == 1
    err = capsys.readouterr().err
    assert "the other worker has been silent" in err
    assert err.count("\n") == 1


@pytest.mark.process
def test_a_run_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common.Task, "limit_seconds", 0.3)
    assert common.main(numpy_ring.RIVAL, ["--domain", "1000", "--seconds", "50"]) == 1
    assert "given up" in capsys.readouterr().err


def workers_of(program: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """Return a rival's workers once they are at work; those of MPI are the launcher's grandchildren."""
    deadline = time.monotonic() + 30
    at_work = 0.5 if name == "mpi4py" else 0.1  # seconds of a core: forked ones have imported everything before
    while time.monotonic() < deadline and program.poll() is None:
        below = psutil.Process(program.pid).children(recursive=True)
        workers = [process for process in below if name != "mpi4py" or not process.children()]
        if name == "mpi4py":
            workers = [process for process in workers if "python" in process.name()]
        if len(workers) == common.WORKERS and all(worker.cpu_times().user > at_work for worker in workers):
            return workers
        time.sleep(0.05)
    program.kill()
    out, err = program.communicate()
    if '"installed": false' in out:
        pytest.skip(MISSING)
    pytest.fail(f"no workers: {out}{err}")


def started(name: str) -> subprocess.Popen[str]:
    flags = ("--domain", "1000", "--seconds", "50", "--batch-bytes", "16384")
    return subprocess.Popen(command_of(name, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left_behind() -> set[str]:
    marks = (leftovers.NAME, "mpich_shm", "ucx_shm", "sm_segment", "pym-")
    folders = (leftovers.SHM_FOLDER, Path(tempfile.gettempdir()))
    return {path.name for folder in folders for path in folder.iterdir() if path.name.startswith(marks)}


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("name", [*ALWAYS, *EXTRA])
def test_a_rival_that_is_stopped_leaves_nothing(name: str, number: int, code: int) -> None:
    before = left_behind()
    with started(name) as program:
        workers = workers_of(program, name)
        program.send_signal(number)
        out, _err = program.communicate(timeout=20)
    assert (program.returncode, out) == (code, "")
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() for worker in workers)
    assert left_behind() <= before


@pytest.mark.process
@pytest.mark.parametrize("name", ["numpy_ring", "queue", *EXTRA])
def test_a_worker_that_is_killed_ends_the_run_with_one_line(name: str) -> None:
    before = left_behind()
    with started(name) as program:
        workers = workers_of(program, name)
        workers[1].kill()
        out, err = program.communicate(timeout=20)
    assert (program.returncode, out) == (1, "")
    told = [line for line in err.splitlines() if line.startswith(f"{name}: ")]
    assert len(told) == 1
    assert "SIGKILL" in told[0] or "9" in told[0]
    if name in ALWAYS:
        assert err.count("\n") == 1
    assert left_behind() <= before


@pytest.mark.process
@pytest.mark.parametrize("name", ["numpy_ring", *EXTRA])
def test_workers_die_with_the_program_that_started_them(name: str) -> None:
    with started(name) as program:
        workers = workers_of(program, name)
        program.kill()
        program.communicate(timeout=20)
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    leftovers.remove_what_dead_runs_left()


def test_what_a_killed_run_left_is_removed_and_a_running_ones_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    dead, running = (Path("/dev/shm") / f"{leftovers.NAME}{pid}_test" for pid in (ended.pid, 1))
    try:
        for path in (dead, running):
            path.touch()
        leftovers.remove_what_dead_runs_left()
        assert (dead.exists(), running.exists()) == (False, True)
    finally:
        for path in (dead, running):
            path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--domain", "0"], "--domain"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--records", "0"], "--records"),
        (["--job", "transport", "--records", "5"], "--records"),
        (["--batch-bytes", "100"], "--batch-bytes"),
        (["--batch-bytes", "16"], "--batch-bytes"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_what_no_run_could_have_is_refused_in_one_line(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert common.main(numpy_ring.RIVAL, flags) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.count("\n") == 1


def test_parts_of_a_checksum_add_up_in_any_order() -> None:
    counts = np.random.default_rng(5).integers(0, 1000, 10_001)
    whole = common.checksum(counts)
    odd = common.checksum(counts[1::2], first_key=1, key_step=2)
    even = common.checksum(counts[0::2], first_key=0, key_step=2)
    assert whole == (odd + even) % 2**64
    counts[5], counts[7] = counts[5] - 1, counts[7] + 1
    assert common.checksum(counts) != whole


def test_a_tally_whose_counts_are_not_its_records_is_an_error() -> None:
    tally = common.Tally(common.Task("count", 10, 1.0, 1, 64, 1), 0)
    tally.add(np.array([2, 4], np.uint64))
    tally.records += 1
    with pytest.raises(MegaphoneError, match="added 3 records and has counted 2"):
        tally.checksum()
