"""Builds the model checker: the engine, the core that ships compiled with -DMP_MODEL, and a file of models.

Run by hand it builds all of them into a folder and prints where they are::

    python tests/model/build.py FOLDER [--package PATH/megaphone]
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "megaphone"
ENGINE = ("engine.c", "contexts.c", "states.c", "world.c", "words.c")
LAYERS = ("shm", "progress", "dataflow", "state", "migration")
CFLAGS = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-DMP_MODEL", "-O1", "-g", "-Wall", "-Wextra", "-Werror"),
    # A context's stack is one of ours, and nobody throws through it.
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
)
# Private memory of a process is part of the model's state: see world.c.
POOL = tuple(f"-D{name}=mp_model_{name}" for name in ("calloc", "malloc", "realloc", "free"))


def model_files() -> list[Path]:
    """Return the files of models: all that is not the engine's."""
    return sorted(path for path in HERE.glob("*.c") if path.name not in ENGINE)


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or "cc")


def _compile(package: Path, source: Path, out: Path, flags: tuple[str, ...]) -> Path:
    command = [*compiler(), *CFLAGS, *flags, f"-I{package}", f"-I{HERE}", "-c", str(source), "-o", str(out)]
    subprocess.run(command, check=True)
    return out


def build(folder: Path, package: Path = PACKAGE, models: list[Path] | None = None) -> dict[str, Path]:
    """Build one program per file of models and return them by the names of their models.

    Args:
        folder: where objects and programs go.
        package: the folder of the sources to check; a changed copy, to see that a model finds the change.
        models: the files of models; all of them when None.

    Raises:
        subprocess.CalledProcessError: a source does not compile.
    """
    jobs = [
        (source, folder / f"core_{layer}_{source.stem}.o", POOL)
        for layer in LAYERS
        for source in sorted((package / layer).glob("*.c"))
    ]
    jobs += [(HERE / name, folder / f"engine_{name}.o", ("-O2",)) for name in ENGINE]
    shared = len(jobs)
    files = model_files() if models is None else models
    jobs += [(path, folder / f"model_{path.stem}.o", ()) for path in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: _compile(package, *job), jobs))
    programs: dict[str, Path] = {}
    for path, model in zip(files, objects[shared:], strict=True):
        program = folder / path.stem
        subprocess.run([*compiler(), "-o", str(program), *map(str, [model, *objects[:shared]]), "-lm"], check=True)
        listed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
        programs.update(dict.fromkeys(listed.split(), program))
    return programs


def main() -> None:
    parser = argparse.ArgumentParser(description="build the model checker's programs")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--package", type=Path, default=PACKAGE)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for model, program in build(arguments.folder, arguments.package.resolve()).items():
        print(program, model)


if __name__ == "__main__":
    main()
