"""The ledger from outside: stores and calls to the allocator, seen by tools that know nothing of the engine's counters.

The driver (ledger.c) sends batches of 4,096 records between two slots with the core that ships.  Every store of the
program into the data region counts: batches, and also queues of messages, counts of times, headers of blocks and the
touching of fresh slabs; nothing is taken off.  Bytes sent are records times the bytes of a record.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.building import NATIVE, ROOT, compile_objects, compiler, core_sources, link, run_checked

BATCH_RECORDS = 4096
RECORDS = 6 * BATCH_RECORDS
MEMORY_CALLS = ("mmap", "munmap", "mremap", "brk", "madvise", "fallocate", "memfd_create", "ftruncate", "mprotect")

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]  # valgrind is slow, and slower on a busy machine

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The core as it ships, compiled as it is built."""
    return compile_objects(tmp_path_factory.mktemp("core"), core_sources(), [])


@pytest.fixture(scope="module")
def valgrind() -> str:
    found = shutil.which("valgrind")
    if not found:
        pytest.skip("valgrind is not installed: a trace of all stores needs it")
    return found


def driver(folder: Path, objects: list[Path], *flags: str, wrap: str = "") -> Path:
    made = compile_objects(folder / "driver", [NATIVE / "ledger.c"], flags)
    wrapped = ["-Wl,--wrap=fallocate", *([f"-Wl,--wrap={wrap}"] if wrap else [])]
    return link(folder / "ledger", [*objects, *made], wrapped)


def figures(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}


def traced(folder: Path, valgrind: str, program: Path, edge: str) -> tuple[dict[str, int], dict[str, int]]:
    """Run the driver under a memory trace; return what it says, and bytes stored in store and in batch chunks."""
    counter = folder / "trace_stores"
    run_checked(compiler(), "-O2", "-Wall", "-Wextra", "-Werror", NATIVE / "trace_stores.c", "-o", counter)
    plain = run_checked(program, edge, "0", str(BATCH_RECORDS))
    where = [str(figures(plain)[name]) for name in ("address", "region_bytes", "chunk_bytes")]
    reading, writing = os.pipe()
    with subprocess.Popen([str(counter), *where], stdin=reading, stdout=subprocess.PIPE, text=True) as watching:
        os.close(reading)
        command = [valgrind, "--tool=lackey", "--basic-counts=no", "--trace-mem=yes", f"--log-fd={writing}"]
        try:
            ran = subprocess.run(
                [*command, str(program), edge, str(RECORDS), str(BATCH_RECORDS)],
                stdout=subprocess.PIPE,
                text=True,
                check=False,
                pass_fds=[writing],
                timeout=600,
            )
        finally:
            os.close(writing)
        told = watching.communicate(timeout=600)[0]
    assert ran.returncode == 0
    assert watching.returncode == 0
    kinds = dict(re.findall(r"^chunk (\d+) (store|batch)$", ran.stdout, re.MULTILINE))
    stored = {"store": 0, "batch": 0}
    for chunk, count in re.findall(r"^chunk (\d+) (\d+)$", told, re.MULTILINE):
        stored[kinds[chunk]] += int(count)
    assert figures(told)["lines"] > RECORDS, told
    return figures(ran.stdout), stored


@pytest.mark.parametrize(
    ("edge", "flags", "wrap", "expected"),
    [
        pytest.param("exchange", (), "", 2.0, id="exchange: made once and scattered once"),
        pytest.param("mixed", (), "", 2.0, id="exchange of any columns: the same"),
        pytest.param("pipeline", (), "", 1.0, id="pipeline: made once"),
        pytest.param("broadcast", (), "", 1.0, id="broadcast: made once whatever the readers"),
        pytest.param("exchange", ("-DOWN_BEFORE_SEND",), "", 3.0, id="a program that copies before it sends shows"),
        pytest.param("exchange", ("-DCOPY_AT_EMIT",), "mp_emit", 3.0, id="a core that copies what it sends shows"),
        pytest.param("mixed", ("-DCOPY_AT_EMIT",), "mp_emit", 3.0, id="the same with any columns"),
    ],
)
def test_stores_into_the_data_region_are_the_copies_that_the_ledger_tells(
    tmp_path: Path,
    objects: list[Path],
    valgrind: str,
    edge: str,
    flags: tuple[str, ...],
    wrap: str,
    expected: float,
    record_property: Record,
) -> None:
    told, stored = traced(tmp_path, valgrind, driver(tmp_path, objects, *flags, wrap=wrap), edge)
    ratio = (stored["store"] + stored["batch"]) / told["bytes"]
    for name, value in (("stores_per_byte", ratio), ("batch_slabs_per_byte", stored["batch"] / told["bytes"])):
        record_property(name, round(value, 4))
    record_property("runs", told["records"])
    print(
        f"{edge} {' '.join(flags)}: {ratio:.4f} bytes stored per byte sent, {stored['batch'] / told['bytes']:.4f} of "
        f"them in slabs; {told['bytes']} bytes, {told['records']} records"
    )
    assert told["records"] == RECORDS >= 10_000
    assert ratio == pytest.approx(expected, abs=0.02)
    if not flags:
        # The engine's own figure, and the one made outside: every byte was made once, the rest are its copies.
        assert 1 + told["copied_scatter"] / told["bytes"] == pytest.approx(ratio, abs=0.02)


def calls_of(folder: Path, library: Path, command: list[str | Path]) -> list[Counter[str]]:
    """Run a program with its calls counted; return the counts of each of its processes, in order of their end."""
    told = folder / "calls.txt"
    told.unlink(missing_ok=True)
    run_checked(*command, MEGAPHONE_CALLS=str(told), LD_PRELOAD=str(library), PYTHONPATH=str(ROOT))
    return [
        Counter({name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)})
        for line in told.read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("calls") / "calls.so"
    flags = ["-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    run_checked(compiler(), *flags, NATIVE / "calls.c", "-o", library, "-ldl")
    return library


@pytest.mark.parametrize("edge", ["exchange", "mixed", "pipeline", "broadcast"])
def test_ten_times_the_records_ask_the_allocator_nothing_more(
    tmp_path: Path, objects: list[Path], counting: Path, edge: str, record_property: Record
) -> None:
    program = driver(tmp_path, objects)
    few, many = (
        calls_of(tmp_path, counting, [program, edge, str(records), str(BATCH_RECORDS)])[0]
        for records in (RECORDS, 10 * RECORDS)
    )
    record_property("runs", 2)
    print(f"{edge}: {dict(few)} at {RECORDS} records")
    assert few["malloc"] > 0, "nothing was counted"
    assert few == many


def test_a_driver_that_allocates_per_batch_shows(tmp_path: Path, objects: list[Path], counting: Path) -> None:
    program = driver(tmp_path, objects, "-DMALLOC_PER_BATCH")
    few, many = (
        calls_of(tmp_path, counting, [program, "exchange", str(records), str(BATCH_RECORDS)])[0]
        for records in (RECORDS, 10 * RECORDS)
    )
    assert many["malloc"] - few["malloc"] == 9 * RECORDS // BATCH_RECORDS


def test_ten_times_the_records_ask_the_kernel_for_memory_no_more_often(
    tmp_path: Path, objects: list[Path], valgrind: str, record_property: Record
) -> None:
    # Beneath the C library: here its own mmap and brk for the heap are seen as well.
    program = driver(tmp_path, objects)
    counts = []
    for records in (RECORDS, 10 * RECORDS):
        ran = subprocess.run(
            [valgrind, "--tool=none", "--trace-syscalls=yes", program, "exchange", str(records), str(BATCH_RECORDS)],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        counts.append(Counter(re.findall(r"sys_(\w+)", ran.stderr)))
    record_property("runs", 2)
    few, many = ({name: count[name] for name in MEMORY_CALLS} for count in counts)
    print(f"exchange: {few} at {RECORDS} records")
    assert few["mmap"] > 0
    assert few == many


def test_workers_of_a_run_map_no_memory_per_batch(tmp_path: Path, counting: Path, record_property: Record) -> None:
    # Python allocates as it likes; what a batch must never cost is a call to the kernel's memory.
    told = []
    for batches in (60, 600):
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "megaphone",
            "exchange",
            "-w",
            "2",
            "--records",
            str(batches * BATCH_RECORDS),
            "--batch",
            str(BATCH_RECORDS),
        ]
        processes = calls_of(tmp_path, counting, command)
        assert len(processes) >= 3, "two workers and their parent"
        told.append(sum(processes, Counter()))
    few, many = told
    per_batch = {name: (many[name] - few[name]) / 540 for name in ("malloc", "mmap", "munmap", "madvise", "fallocate")}
    for name, value in per_batch.items():
        record_property(f"{name}_per_batch", round(value, 4))
    record_property("runs", 2)
    print(f"exchange of two processes: {per_batch} calls per batch, {dict(few)} at 60 batches")
    assert per_batch["mmap"] < 0.05
    assert per_batch["munmap"] < 0.05
    assert per_batch["fallocate"] < 0.05
