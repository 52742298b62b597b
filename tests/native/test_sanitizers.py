"""The C core under sanitizers: by native drivers that know what must come out, and under Python as it is used."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.building import (
    NATIVE,
    ROOT,
    SEED_VARIABLE,
    compile_objects,
    compiler,
    core_sources,
    link,
    need_sanitizer,
    run_checked,
)

# A machine that is busy with something else compiles slowly.
pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

Record = Callable[[str, object], None]

UNDEFINED = ("-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all")
ADDRESS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
THREAD = ("-O1", "-fsanitize=thread")
WALK_HEADERS = {"block", "block_check", "warm"}
"""Files that read headers of blocks, which redzones.h poisons for all others."""
WRAPPED = ("fallocate", "mp_block_alloc", "mp_block_free", "mp_slab_reserve", "mp_slab_trim", "mp_chunk_release")


def seed() -> str:
    chosen = os.environ.get(SEED_VARIABLE) or str(random.SystemRandom().randrange(1 << 48))
    print(f"{SEED_VARIABLE}={chosen}")
    return chosen


def counted(told: str, record_property: Record) -> dict[str, int]:
    print(told)
    counts = {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", told, re.MULTILINE)}
    for name, count in counts.items():
        record_property(name, count)
    return counts


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver in which slots take turns, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    folder = tmp_path_factory.mktemp("mixture")
    need_sanitizer(folder / "probe", "address,undefined")
    sources = [*core_sources(), NATIVE / "mixture.c"]
    plain = [source for source in sources if source.stem in WALK_HEADERS]
    objects = compile_objects(folder / "plain", plain, UNDEFINED)
    objects += compile_objects(folder / "core", [source for source in sources if source not in plain], ADDRESS)
    return link(folder / "mixture", objects, [*ADDRESS, *(f"-Wl,--wrap={name}" for name in WRAPPED)])


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver with a thread for each slot, under ThreadSanitizer."""
    folder = tmp_path_factory.mktemp("races")
    need_sanitizer(folder / "probe", "thread")
    objects = compile_objects(folder / "core", [*core_sources(), NATIVE / "races.c"], THREAD)
    return link(folder / "races", objects, [*THREAD, "-Wl,--wrap=fallocate"])


def check_mixture(mixture: Path, runs: int, seconds: float, record_property: Record) -> None:
    counts = counted(run_checked(mixture, seed(), str(runs), seconds=seconds), record_property)
    assert counts["runs"] == runs
    assert min(counts["records"], counts["moves"], counts["hops"], counts["refused"]) > 0, "something was not exercised"


def check_races(races: Path, runs: int, seconds: float, record_property: Record) -> None:
    options = "halt_on_error=1:history_size=4:exitcode=66"
    told = run_checked(races, seed(), str(runs), seconds=seconds, TSAN_OPTIONS=options)
    counts = counted(told, record_property)
    assert counts["runs"] == runs
    assert min(counts["records"], counts["moves"], counts["hops"], counts["parks"], counts["wakes"]) > 0


def test_the_core_touches_nothing_but_live_blocks_and_batches_and_loses_no_record(
    mixture: Path, record_property: Record
) -> None:
    check_mixture(mixture, 50, 600, record_property)


def test_slots_as_threads_race_nowhere_and_lose_no_record(races: Path, record_property: Record) -> None:
    check_races(races, 6, 600, record_property)


@pytest.mark.stress
@pytest.mark.timeout(2400)
def test_the_core_touches_nothing_but_live_blocks_and_batches_for_minutes(
    mixture: Path, record_property: Record
) -> None:
    check_mixture(mixture, 2000, 1700, record_property)


@pytest.mark.stress
@pytest.mark.timeout(2400)
def test_slots_as_threads_race_nowhere_for_minutes(races: Path, record_property: Record) -> None:
    check_races(races, 150, 1700, record_property)


# --- under Python -----------------------------------------------------------------------------------------------------

SHORT = (
    "tests/unit/shm/test_blocks.py", "tests/unit/state/test_stores.py", "tests/unit/dataflow/test_batches.py",
    "tests/unit/dataflow/test_sending.py", "tests/unit/dataflow/test_hashing.py",
    "tests/unit/migration/test_stateful.py", "tests/property/test_pending.py",
)  # fmt: skip
LONG = ("tests/unit/shm", "tests/unit/state", "tests/unit/dataflow", "tests/unit/migration", "tests/unit/observe",
        "tests/unit/workloads", "tests/property")  # fmt: skip
# Programs that end on purpose write what they expect on standard error; megaphone must come from the instrumented tree.
WHERE = "import megaphone._core as core; print(core.__file__, core.ffi.string(core.lib.mp_abi_extra_cflags()).decode())"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree whose extension is built with AddressSanitizer."""
    folder = tmp_path_factory.mktemp("tree")
    need_sanitizer(folder / "probe", "address")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "build")
    for name in ("megaphone", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    flags = "-fsanitize=address -fno-omit-frame-pointer -g -O1"
    ran = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "MEGAPHONE_CFLAGS": flags},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def run_in(tree: Path, *arguments: str, seconds: float) -> str:
    """Run Python in the instrumented tree with the sanitizer loaded before it; return what it prints."""
    library = run_checked(compiler(), "-print-file-name=libasan.so").strip()
    environment = {
        **os.environ, "LD_PRELOAD": library, "PYTHONPATH": str(tree), "MEGAPHONE_HYPOTHESIS_PROFILE": "fast",
        # Python keeps what it has interned to the end.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=tree, capture_output=True, text=True, check=False, timeout=seconds,
        env=environment, errors="replace",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-10000:]
    return ran.stdout


def check_python(tree: Path, tests: tuple[str, ...], seconds: float, record_property: Record) -> None:
    where = run_in(tree, "-c", WHERE, seconds=300)
    assert where.startswith(str(tree)), where
    assert "-fsanitize=address" in where
    told = run_in(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, seconds=seconds)
    passed = re.search(r"(\d+) passed", told)
    assert passed, told
    print(told.splitlines()[-1])
    record_property("runs", int(passed[1]))


def test_the_extension_under_python_touches_nothing_that_is_not_its_own(tree: Path, record_property: Record) -> None:
    check_python(tree, SHORT, 600, record_property)


@pytest.mark.stress
@pytest.mark.timeout(2400)
def test_the_extension_under_all_tests_touches_nothing_that_is_not_its_own(tree: Path, record_property: Record) -> None:
    check_python(tree, LONG, 1700, record_property)


def test_a_kernel_that_writes_behind_a_users_array_is_seen(tree: Path) -> None:
    program = (
        "import numpy\nfrom megaphone._core import ffi, lib\n"
        "keys, out = numpy.zeros(100, 'u8'), numpy.zeros(99, 'u8')\n"
        "lib.mp_hash_keys(ffi.from_buffer(keys), 8, 100, 1, 8, ffi.cast('uint64_t *', out.ctypes.data))\n"
    )
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        run_in(tree, "-c", program, seconds=300)
