"""C that only tests need, compiled from the sources that ship when a test asks for it."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI

from megaphone._core import ffi as core_ffi

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-g", "-fPIC", f"-I{ROOT / 'megaphone'}")
COMPILER = os.environ.get("CC", "cc")


def _compile(folder: Path, source: str, *flags: str) -> str:
    out = folder / f"{Path(source).stem}.o"
    subprocess.run([COMPILER, *FLAGS, *flags, "-c", str(ROOT / source), "-o", str(out)], check=True)
    return str(out)


def _link(folder: Path, name: str, objects: list[str], *flags: str) -> str:
    out = folder / f"{name}.so"
    subprocess.run([COMPILER, "-shared", *flags, *objects, "-o", str(out)], check=True)
    return str(out)


@functools.cache
def has_store_hooks() -> bool:
    """Return whether the compiler can call a function before each store."""
    command = [COMPILER, "-fsanitize=thread", "-x", "c", "-c", "-", "-o", os.devnull]
    return subprocess.run(command, input=b"int x;", capture_output=True, check=False).returncode == 0


CRASH_CDEF = """
typedef struct mp_difference { uint32_t kind, slot; uint64_t name, time, counted, found; } mp_difference;
int crash_open(uint32_t count, uint64_t memory_bytes, uint64_t chunk_bytes, uint64_t slab_bytes);
void crash_close(void);
int crash_run(uint32_t what, uint32_t slot, uint64_t value, uint64_t stop, int64_t *result, uint64_t *stores);
uint64_t crash_mark(void);
void crash_undo(uint64_t mark);
uint64_t crash_sum(void);
int64_t crash_blocks(uint32_t slot, uint64_t *offset, uint64_t *state, uint64_t max);
uint64_t crash_times(uint32_t slot);
uint64_t crash_pending(uint32_t slot);
uint64_t crash_bytes(uint64_t offset);
void crash_write(uint64_t offset, uint64_t value);
uint64_t crash_read(uint64_t offset);
uint32_t crash_leased(uint32_t slot, uint32_t kind);
void crash_reference(uint32_t slot, uint64_t offset, int by);
int crash_recount(uint32_t slot, int with_slabs, mp_difference *d);
int64_t crash_list(uint32_t slot, uint64_t *out, uint64_t max);
"""


@functools.cache
def crash_library(optimisation: str) -> tuple[FFI, Any]:
    """Return the allocator that can be stopped at each store, see crash_points.c; skips where that cannot be built."""
    if not has_store_hooks():
        pytest.skip("the C compiler has no -fsanitize=thread")
    ffi = FFI()
    ffi.cdef(CRASH_CDEF)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hooked = [f"shm/{part}" for part in ("block", "block_check", "chunk", "vec", "slab", "rebuild")]
        hooked += ["progress/tracker", "state/pending"]
        # A call that the compiler expands in place would write without a hook.
        hooks = (optimisation, "-fsanitize=thread", "-fno-builtin")
        objects = [_compile(folder, f"megaphone/{part}.c", *hooks) for part in hooked]
        plain = ("control", "huge", "park", "relief", "ring", "timing")
        objects += [_compile(folder, f"megaphone/shm/{part}.c", optimisation) for part in plain]
        objects.append(_compile(folder, "tests/native/crash_points.c", optimisation))
        wrapped = ("-Wl,--wrap=memset,--wrap=memcpy,--wrap=memmove", "-Wl,-z,defs")
        return ffi, ffi.dlopen(_link(folder, "crash_points", objects, *wrapped))


SCRIBBLE_CDEF = """
typedef struct mp_vec { uint64_t block; uint32_t capacity, head, tail, staged; } mp_vec;
typedef struct mp_due { uint64_t time; uint32_t bin, reserved; } mp_due;
typedef struct mp_times { uint64_t block; uint32_t capacity, first, count, zeros; uint64_t least; } mp_times;
uint64_t *scribble_free_list(void *s, uint32_t which);
uint64_t *scribble_span_list(void *s);
uint64_t *scribble_span_live(void *s);
uint64_t *scribble_span_last(void *s);
uint64_t *scribble_span_bytes(void *s);
uint64_t *scribble_span_touched(void *s);
uint32_t *scribble_first_map(void *s);
uint8_t *scribble_second_maps(void *s);
uint64_t *scribble_live_bytes(void *s);
uint64_t *scribble_chunk_live(void *s);
uint64_t *scribble_before(void *s);
uint64_t *scribble_free_next(void *s);
uint32_t *scribble_header_magic(void *s, uint64_t block);
uint32_t *scribble_lease(void *s, uint32_t chunk);
uint32_t *scribble_run(void *s, uint32_t chunk);
uint64_t *scribble_slab_open(void *s);
uint64_t *scribble_batch_carved(void *s);
uint64_t *scribble_batch_chunk(void *s);
mp_vec *scribble_slab_list(void *s);
uint32_t *scribble_slab_entry(void *s);
uint32_t *scribble_reference(void *s, uint32_t slab);
mp_vec *scribble_due(void *s);
mp_due *scribble_due_entry(void *s, uint32_t i);
uint64_t *scribble_pending_time(void *s, uint32_t bin_id);
uint64_t *scribble_first_row(void *s, uint32_t bin_id);
uint32_t *scribble_pending_count(void *s, uint32_t bin_id);
uint64_t *scribble_applied_time(void *s);
uint64_t *scribble_waiting_time(void *s);
uint64_t *scribble_waiting_time_right(void *s);
uint8_t *scribble_owner_right(void *s, uint32_t bin_id);
mp_times *scribble_held(void *s, uint32_t location);
int64_t *scribble_count(void *s, uint32_t location);
uint64_t *scribble_credit(void *s, uint32_t to);
"""


class Scribble:
    """Pointers to what a slot keeps, by name: ``scribble.first_map(slot)[0] = 0``."""

    def __init__(self) -> None:
        self.ffi = FFI()
        self.ffi.cdef(SCRIBBLE_CDEF)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            objects = [_compile(folder, "tests/native/scribble.c", "-O1", "-Wall", "-Werror")]
            self._lib = self.ffi.dlopen(_link(folder, "scribble", objects))

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._lib, f"scribble_{name}")

        def pointer(slot: Any, *args: int) -> Any:
            return function(self.ffi.cast("void *", int(core_ffi.cast("uintptr_t", slot))), *args)

        return pointer


@functools.cache
def scribble() -> Scribble:
    """Return the one Scribble of this process."""
    return Scribble()
