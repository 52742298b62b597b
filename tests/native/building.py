"""Compiles the native drivers of this folder together with the C files that ship."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
NATIVE = Path(__file__).resolve().parent
CFLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")
SEED_VARIABLE = "MEGAPHONE_TEST_SEED"
"""Repeats the seeded drivers with a seed that was printed."""


def core_sources() -> list[Path]:
    """Return the core's C files, all that ship except the build's own marks."""
    return sorted(path for path in (ROOT / "megaphone").rglob("*.c") if path.name != "abi.c")


def compiler() -> str:
    return os.environ.get("CC", "cc")


def run_checked(*command: str | Path, seconds: float = 300, **more: str) -> str:
    """Run a program; return what it prints; fail with what it said when its exit code is not 0."""
    text = [str(part) for part in command]
    ran = subprocess.run(
        text, capture_output=True, text=True, check=False, timeout=seconds, env={**os.environ, **more}, errors="replace"
    )
    assert ran.returncode == 0, f"{' '.join(text)} exited with {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def compile_objects(folder: Path, sources: Sequence[Path], flags: Sequence[str]) -> list[Path]:
    """Compile each file by itself into a folder, on all cores."""
    folder.mkdir(parents=True, exist_ok=True)
    base = [compiler(), *CFLAGS, *flags, f"-I{ROOT / 'megaphone'}", f"-I{NATIVE}", "-c"]
    # Files of different layers may have the same name.
    objects = [folder / f"{source.parent.name}_{source.stem}.o" for source in sources]
    waiting = list(zip(sources, objects, strict=True))
    running: list[subprocess.Popen[bytes]] = []
    failed = 0
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            source, made = waiting.pop()
            running.append(subprocess.Popen([*base, str(source), "-o", str(made)]))
        failed |= running.pop(0).wait()
    assert not failed, "the core does not compile with " + " ".join(flags)
    return objects


def link(program: Path, objects: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    run_checked(compiler(), *objects, *flags, "-pthread", "-o", program, "-lm")
    return program


def need_sanitizer(folder: Path, name: str) -> None:
    """Skip the test where the compiler cannot link a program with a sanitizer, or such a program cannot run."""
    folder.mkdir(parents=True, exist_ok=True)
    source, program = folder / "probe.c", folder / "probe"
    source.write_text("int main(void) { return 0; }\n")
    made = subprocess.run(
        [compiler(), f"-fsanitize={name}", str(source), "-o", str(program)], capture_output=True, check=False
    )
    if made.returncode or subprocess.run([str(program)], capture_output=True, check=False).returncode:
        pytest.skip(f"the compiler has no runtime for -fsanitize={name}")
