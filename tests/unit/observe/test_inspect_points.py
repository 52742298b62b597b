"""The law at every store that others can see: a Simulation whose core looks at itself before each of them.

The shipped C is built with ``-DMP_MODEL``, so that each access through its macros calls ``mp_model_point``; here that
audits the whole run. So it is as if every slot were stopped at every such instruction, in the middle of sending,
receiving, routing, giving a bin away, applying and growing, some hundred thousand times.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

POINTS_H = """\
#ifndef MP_POINTS_H
#define MP_POINTS_H
#include "observe/audit.h"
/* cdef begin */
void mp_points_arm(mp_slot *look, mp_look_op *op, mp_store *store, const char *kind, int rows);
void mp_points_disarm(void);
/* {points, odd, migrating, in between, twice, in F, in S, rows read, torn} and the first thing that is wrong. */
void mp_points_read(uint64_t out[9], mp_audit *audit, mp_finding *finding, int64_t off[2]);
const char *mp_points_first(void);
/* cdef end */
#endif
"""

POINTS_C = """\
#include "observe/points.h"
#include <stdio.h>
#include "shm/control.h"
static mp_slot *look;
static mp_look_op *op;
static mp_store *store;
static const char *kind;
static int with_rows, inside;
static uint64_t seen[9];
static mp_audit bad;
static mp_finding bad_finding;
static int64_t bad_off[2];
static mp_look_bin bins[64];
static mp_look_sum sums[64];

void mp_points_arm(mp_slot *l, mp_look_op *o, mp_store *s, const char *k, int rows) {
    look = l, op = o, store = s, kind = k, with_rows = rows;
}
void mp_points_disarm(void) { look = NULL; }
void mp_points_read(uint64_t out[9], mp_audit *audit, mp_finding *finding, int64_t off[2]) {
    memcpy(out, seen, sizeof seen);
    *audit = bad;
    *finding = bad_finding;
    memcpy(off, bad_off, sizeof bad_off);
}
static char first[96];
long mp_model_futex_wait(_Atomic uint32_t *word, uint32_t value);
long mp_model_futex_wake(_Atomic uint32_t *word);
/* A Simulation never sleeps. */
long mp_model_futex_wait(_Atomic uint32_t *word, uint32_t value) { return (void)word, (void)value, 0; }
long mp_model_futex_wake(_Atomic uint32_t *word) { return (void)word, 0; }
void mp_model_after(const volatile void *word, uint32_t bytes, const char *function, int line) {
    mp_model_point(word, bytes, 1, function, line);
}
const char *mp_points_first(void) { return first; }
void mp_model_point(const volatile void *word, uint32_t bytes, int is_write, const char *function, int line) {
    (void)word, (void)bytes;
    if (!look || inside || !is_write || bad.reserved) return;
    inside = 1;
    mp_audit audit;
    mp_finding finding = {0};
    mp_audit_run(look, op, &audit, &finding, 1);
    int64_t sent = 0, off[2], total = 0;
    for (uint32_t s = 0; s < look->slots; s++) sent += (int64_t)mp_counter_read(look->control, s, MP_INPUT_RECORDS);
    uint64_t way = audit.inbox_f + audit.waiting + audit.ring + audit.outbox + audit.inbox_s;
    way += audit.stash + audit.staged;
    off[0] = off[1] = (int64_t)(audit.shown + way) - sent;
    if (with_rows && (seen[0] % 4 == 0 || audit.in_s)) {
        mp_look_bins(look, op, store, kind, 0, 1u << op->bin_shift, bins, sums);
        for (uint32_t b = 0; b < 1u << op->bin_shift; b++) {
            total += (int64_t)sums[b].low;
            seen[8] += (bins[b].torn & MP_TORN_GROWTH) != 0;
            if (bins[b].torn & MP_TORN_UNREADABLE) total += 1 << 30;
        }
        off[1] = total + (int64_t)way - sent;
        seen[7]++;
    }
    seen[0]++;
    seen[1] += audit.odd != 0;
    seen[2] += audit.migrating;
    seen[3] += audit.bins_between != 0;
    seen[4] += audit.twice != 0;
    seen[5] += audit.in_f != 0;
    seen[6] += audit.in_s != 0;
    int wrong = audit.findings != 0;
    for (int i = 0; i < 2; i++) wrong |= off[i] < 0 || off[i] > (int64_t)audit.fixed || (!audit.odd && off[i] != 0);
    if (wrong) {
        bad = audit;
        snprintf(first, sizeof first, "%s:%d", function, line);
        bad.reserved = 1;
        bad_finding = finding;
        memcpy(bad_off, off, sizeof off);
    }
    inside = 0;
}
"""

SCRIPT = """\
import random, sys
from megaphone._core import ffi, lib
from megaphone.migration.control import Move
from tests.unit.observe.test_inspect_law import caught_up, counting, look_at, play
from functools import partial
backend, transfer, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for seed in range(3):
    chance = random.Random(seed)
    with counting(2 + seed, seed, backend, transfer) as simulation:
        look = look_at(simulation)
        (stateful,) = look.stateful
        kinds = ffi.new("char[]", stateful.kinds)
        rows = transfer == "handover"
        lib.mp_points_arm(look._look, stateful.op, stateful.store, kinds, rows)
        for at in range(1, rounds):
            play(simulation, chance, at)
            for _ in range(chance.randrange(30)):
                simulation.step()
            if at % 10 == 0:
                simulation.run_until(partial(caught_up, simulation, at))
        for handles in simulation.handles:
            handles.words.close()
        simulation.run()
        lib.mp_points_disarm()
out, audit, finding, off = ffi.new("uint64_t[9]"), ffi.new("mp_audit *"), ffi.new("mp_finding *"), ffi.new("int64_t[2]")
lib.mp_points_read(out, audit, finding, off)
print(*out)
if audit.reserved:
    print({name: int(getattr(audit, name)) for name, _ in ffi.typeof("mp_audit").fields if getattr(audit, name)},
          [int(getattr(finding, name)) for name, _ in ffi.typeof("mp_finding").fields], list(off),
          ffi.string(lib.mp_points_first()).decode(), file=sys.stderr)
    sys.exit(1)
"""


DEFINES = ("-DMP_MODEL", "-DMP_MODEL_STOPS")


def with_points(folder: Path) -> Path:
    """Return a copy of the package's sources with those of above."""
    package = folder / "megaphone"
    shutil.copytree(ROOT / "megaphone", package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (package / "observe" / "points.h").write_text(POINTS_H)
    (package / "observe" / "points.c").write_text(POINTS_C)
    return package


def test_the_core_that_looks_at_itself_compiles(tmp_path: Path) -> None:
    """What uses it is run by hand, or for an hour; the sources change every day."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        pytest.skip("no C compiler: the models are compiled from the sources")
    package = with_points(tmp_path)
    sources = [path for path in package.rglob("*.c") if "MP_IN_ORDER" in path.read_text() or path.stem == "points"]
    assert len(sources) > 3
    command = [*compiler, "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", *DEFINES]
    command += [f"-I{package}", "-fsyntax-only"]
    done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose core looks at itself."""
    folder = tmp_path_factory.mktemp("points")
    with_points(folder)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    environment = {**os.environ, "MEGAPHONE_CFLAGS": " ".join(DEFINES)}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"]
    built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (folder / "look.py").write_text(SCRIPT)
    return folder


@pytest.mark.stress
@pytest.mark.parametrize(("backend", "transfer"), [("table", "handover"), ("dense", "handover"), ("table", "copy")])
def test_the_law_holds_at_every_store_that_others_can_see(
    core: Path, backend: str, transfer: str, record_property: Callable[[str, object], None]
) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{core}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-P", str(core / "look.py"), backend, transfer, "150"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    points, odd, migrating, between, twice, in_f, in_s, rows, torn = map(int, done.stdout.split())
    assert min(odd, migrating, between, twice, in_f, in_s) > 100, done.stdout
    record_property("states", points)
    print(f"{points} points: {odd=} {migrating=} {between=} {twice=} {in_f=} {in_s=} {rows=} {torn=}")  # noqa: T201
