"""Word count as processes: the same counts whatever moves, honest latency, and a command that fails well."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from megaphone.dataflow.execute import Running, execute
from megaphone.observe.timeline import Timeline
from megaphone.workloads import word_count
from megaphone.workloads.settings import ExchangeSettings, WordCountSettings
from megaphone.workloads.word_count import run_synthetic
from tests.process import slow_program

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"rate_per_worker": 20_000.0, "duration_s": 1.0, "domain": 5_000, "memory_bytes": 128 << 20}


def megaphone(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "megaphone", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=90, check=False, **options)


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "vec", "migration": "none"},
        {"backend": "vec", "migration": "sudden"},
        {"backend": "vec", "migration": "fluid", "transfer": "copy", "bin_shift": 5},
        {"backend": "vec", "migration": "batched", "bin_shift": 12, "batch_bins": 64},
        {"backend": "hashmap", "migration": "sudden", "transfer": "copy"},
        {"backend": "hashmap", "migration": "fluid", "hash": "mix", "bin_shift": 6},
        {"backend": "hashmap", "migration": "batched", "hash": "mix", "transfer": "copy", "bin_shift": 6},
        {"backend": "hashmap", "migration": "sudden", "initial": "one", "target": "uniform", "preload": False},
        {"backend": "vec", "migration": "sudden", "preload": False, "bin_shift": 2},
        {"backend": "hashmapnative", "migration": "none"},
        {"backend": "vecnative", "migration": "none"},
        {"backend": "hashmap", "migration": "fluid", "gap_ns": 1_000_000, "bin_shift": 4},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_every_output_is_that_of_an_independent_count_2w(settings: dict[str, Any]) -> None:
    report = run_synthetic(WordCountSettings(workers=2, validate=True, **SMALL, **settings))
    # The keys depend on seed, workers and schedule alone, and so does the state in the end.
    assert report.records == 2 * 20_000
    assert report.checksum_state == plain_checksum()
    moved = sum(migration.bins for migration in report.migrations)
    assert (moved > 0) == (settings["migration"] != "none")
    copied = sum(migration.bytes_copied for migration in report.migrations)
    assert (copied > 0) == (settings.get("transfer") == "copy")


_PLAIN: list[int] = []


def plain_checksum() -> int:
    """Return the checksum of a run without bins, once."""
    if not _PLAIN:
        settings = WordCountSettings(workers=2, backend="vecnative", **SMALL)
        checksum = run_synthetic(settings).checksum_state
        assert checksum
        _PLAIN.append(checksum)
    return _PLAIN[0]


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_other_numbers_of_workers_count_right(workers: int) -> None:
    settings = WordCountSettings(workers=workers, validate=True, migration="batched", bin_shift=6, **SMALL)
    assert run_synthetic(settings).records == workers * 20_000


def test_closed_loop_counts_right_and_has_no_latency() -> None:
    settings = WordCountSettings(workers=2, validate=True, migration="sudden", **{**SMALL, "rate_per_worker": None})
    report = run_synthetic(settings)
    assert report.records > 0
    assert report.to_dict()["latency_ns"] is None
    assert report.to_dict()["timeline"] == []


def test_an_exchange_costs_one_copy_and_nothing_fresh_after_its_warm_up() -> None:
    from megaphone.workloads.exchange import run

    report = run(ExchangeSettings(workers=2, records=2_000_000, memory_bytes=512 << 20))
    assert report.ledger.copies_per_record == 1.0
    assert report.ledger.fresh_after_warmup == 0
    assert report.ledger.bytes_copied["scatter"] == 2_000_000 * 16
    assert report.ledger.nanoseconds is None


def test_an_exchange_that_measures_times_has_them_in_its_report() -> None:
    from megaphone.observe.human import render
    from megaphone.workloads.exchange import run

    report = run(ExchangeSettings(workers=2, records=2_000_000, memory_bytes=512 << 20, times=True))
    nanoseconds = report.ledger.nanoseconds
    assert nanoseconds is not None
    assert {name for name, ns in nanoseconds.items() if ns} - {"slab_scan", "slab_fresh", "blocks"} == {"scatter"}
    assert sum(nanoseconds.values()) <= report.workers * report.seconds * 1e9
    assert report.ledger.to_dict()["nanoseconds"] == nanoseconds
    assert "Time in copies and allocations" in render(report)


# -- text --------------------------------------------------------------------------------------------------------------


def test_the_demo_moves_there_and_back_and_agrees_with_counter(tmp_path: Path) -> None:
    text = Path(sysconfig.get_path("stdlib")) / "json"
    report = tmp_path / "report.json"
    done = megaphone("word-count", "--text", str(text), "--demo", "--top", "3", "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert "collections.Counter gives the same counts" in done.stderr
    assert len(done.stdout.splitlines()) == 3
    migrations = json.loads(report.read_text())["migrations"]
    assert [(m["strategy"], m["steps"], m["bins"]) for m in migrations] == [("sudden", 1, 128), ("fluid", 128, 128)]
    assert all(m["bytes_copied"] == 0 for m in migrations)


def test_standard_input_is_counted() -> None:
    done = megaphone("word-count", "--text", "-", input="Ab ab cd\nab ΑΣ ας\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ab\t3", "ας\t2", "cd\t1"]


def test_a_word_longer_than_a_slab_is_one_word(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * 3_000_000 + " y y\n")
    done = megaphone("word-count", "--text", str(path), "--memory", "512M")
    assert done.returncode == 0, done.stderr[-500:]
    assert Counter(line.split("\t")[1] for line in done.stdout.splitlines()) == {"2": 1, "1": 1}


# -- latency -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_shows_in_the_latency_of_what_was_due_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stalls_ns: list[int] = []

    def stop_once(_: Any, running: Running) -> None:
        if stalls_ns or running.seconds < 2.5:  # beyond the warm-up of 2 s, which the summary leaves out
            return
        os.kill(running.pids[1], signal.SIGSTOP)
        stopped = time.monotonic_ns()
        time.sleep(0.3)
        stalls_ns.append(time.monotonic_ns() - stopped)
        os.kill(running.pids[1], signal.SIGCONT)

    monkeypatch.setattr(word_count, "show_records", stop_once)
    settings = WordCountSettings(rate_per_worker=5000, duration_s=5.0, domain=999, memory_bytes=64 << 20)
    latency = run_synthetic(settings).latency
    assert latency is not None
    assert latency.max >= stalls_ns[0] * 0.8
    # All that was due in those 0.3 s waited, not only the record that was being handled: 10 % of the 3 s.
    assert latency.quantile(0.99) >= stalls_ns[0] * 0.4


def test_a_record_that_a_hidden_operator_delays_shows_its_delay() -> None:
    result = execute(slow_program.build, workers=2, drive=partial(slow_program.drive, 1.5), memory="64M")
    timeline = Timeline()
    for words, window_ns in result.returned:
        timeline.merge(Timeline.from_array(words, window_ns))
    everything = timeline.between(0, 10**12)
    assert everything.count == 2 * 1500
    assert everything.max >= slow_program.DELAY_NS


@pytest.mark.parametrize("migration", ["none", "sudden"])
def test_the_second_after_a_switch_has_all_that_was_due_in_it_whether_anything_moves_or_not(migration: str) -> None:
    settings = WordCountSettings(
        rate_per_worker=20_000, duration_s=3.0, domain=999, memory_bytes=64 << 20, migration=migration, slices=True
    )
    for switch, time_ns in zip(run_synthetic(settings).switches, (1_000_000_000, 2_000_000_000), strict=True):
        assert (switch.time_ns, switch.covered_ns) == (time_ns, 1_000_000_000)
        assert switch.latency is not None
        assert switch.latency.samples == 2 * 20_000


def test_a_run_that_ends_within_the_second_after_a_switch_has_no_figures_of_that_second() -> None:
    settings = WordCountSettings(
        rate_per_worker=20_000, duration_s=1.0, domain=999, memory_bytes=64 << 20, migration="sudden", slices=True
    )
    for switch in run_synthetic(settings).switches:
        assert abs(switch.covered_ns - 10**9 // 3) <= 1
        assert switch.latency is None
        assert len(switch.slices) > 33


# -- failing well ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_migrations_ends_the_command_with_its_code(number: int, code: int) -> None:
    run = start_migrating()
    time.sleep(1.5)
    run.send_signal(number)
    out, err = run.communicate(timeout=10)
    assert run.returncode == code
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_worker_ends_the_command_with_one_line_and_code_3(seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    run = start_migrating()
    try:
        deadline = time.monotonic() + 20
        while len(workers := psutil.Process(run.pid).children()) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.random() * 2.5)
        chance.choice(workers).kill()
        _, err = run.communicate(timeout=10)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 3, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("megaphone: error:")]
    assert len(lines) == 1
    assert "SIGKILL" in lines[0]


def start_migrating() -> subprocess.Popen[str]:
    """Start a run in which bins move nearly all the time."""
    flags = "--rate 20000 --duration 9 --domain 50000 --migration fluid --bin-shift 10 --memory 128M"
    command = [sys.executable, "-m", "megaphone", "word-count", *flags.split()]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_domain_that_does_not_fit_ends_with_code_4_and_the_cure() -> None:
    done = megaphone("word-count", "--rate", "1000", "--duration", "1", "--domain", "100000000", "--memory", "32M")
    assert done.returncode == 4
    assert "--memory" in done.stderr
    assert "Traceback" not in done.stderr


CAN_MOUNT = os.geteuid() == 0 and shutil.which("unshare") is not None


@pytest.mark.skipif(not CAN_MOUNT, reason="a private mount needs root and unshare")
def test_64_mb_of_shared_memory_serve_the_defaults_and_name_what_does_not_fit() -> None:
    text = Path(sysconfig.get_path("stdlib")) / "json"
    python = sys.executable
    script = f"""
        mount -t tmpfs -o size=64m tmpfs /dev/shm || exit 99
        {python} -m megaphone word-count --text {text} --demo --top 1 >/dev/null 2>&1 || exit 1
        {python} -m megaphone exchange --records 1000000 >/dev/null || exit 2
        {python} -m megaphone word-count --rate 1000 --duration 1 --domain 100000000 2>&1 >/dev/null
        test $? -eq 4 || exit 3
        test -z "$(ls -A /dev/shm)" || exit 4
    """
    command = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode == 99:
        pytest.skip("a private mount needs root and unshare")
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-500:])
    assert "--memory" in done.stdout


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{name})
            os.write(1, b"import goes on")

sys.meta_path.insert(0, Interrupts())
from megaphone.cli import main
sys.exit(main(["word-count", "--domain", "10", "--rate", "10", "--duration", "1"]))
"""


@pytest.mark.parametrize(("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_signal_waits_until_what_is_in_c_is_imported(name: str, code: int, word: str) -> None:
    """In the middle of it, it would become an ImportError of numpy's, and be told as a bug."""
    command = [sys.executable, "-c", INTERRUPTED_IMPORT.format(name=name)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (code, "import goes on", f"megaphone: {word}\n")
