"""A copy of the tree that may be spoilt, and a build of its extension that compiles only what has changed.

``setup.py`` compiles every C file again whenever one has changed, which is right once and too slow for dozens of
mutants. Here objects are kept under a hash of all that goes into them: the source, every header that it includes, the
compiler and its flags. The flags are those of the copy's own ``_build.py`` and of the interpreter, as setuptools has
them; and because the hash of the sources is one of them, the check at import holds for the copies too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "megaphone"
LEFT_OUT = {".git", ".venv", "build", "dist", "__pycache__", ".hypothesis"}


class BuildError(Exception):
    """The compiler or the linker refused; the message is what it said."""


def tree_files(root: Path) -> list[str]:
    """Return the files of a working tree, as git sees them where there is git, else all that no tool has written."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return sorted(name for name in set(listed.stdout.split("\0")) if name and (root / name).is_file())
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.endswith(("_cache", ".egg-info"))]
        found += [str((Path(folder) / name).relative_to(root)) for name in names if not name.endswith((".so", ".pyc"))]
    return sorted(found)


def copy_tree(root: Path, to: Path) -> None:
    """Copy the files of a working tree, with their modes."""
    for name in tree_files(root):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, to / name)


@dataclass(frozen=True)
class Recipe:
    """How one tree's extension is built: what ``_build.py`` says, and the wrapper that cffi has written."""

    wrapper: Path
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    macros: tuple[tuple[str, str], ...]
    link_flags: tuple[str, ...]


class Builder:
    """Builds extensions; one for all jobs, so that what one has compiled serves the others.

    Args:
        kept: folder for objects, which may stay for the next run.
        jobs: compilers that run at once.
    """

    def __init__(self, kept: Path, jobs: int) -> None:
        self.kept = kept
        self.kept.mkdir(parents=True, exist_ok=True)
        self.jobs = jobs
        self._lock = threading.Lock()
        self._recipes: dict[str, Recipe] = {}

    def build(self, tree: Path) -> None:
        """Build the extension of a copy of the tree in place.

        Raises:
            BuildError: a source does not compile.
        """
        package = tree / PACKAGE
        abi = runpy.run_path(str(package / "_abi.py"))
        recipe = self._recipe(tree, abi)
        macros = dict(recipe.macros) | {"MP_SOURCE_HASH": f"0x{abi['source_hash'](package):08x}u"}
        with ThreadPoolExecutor(self.jobs) as pool:
            objects = list(
                pool.map(
                    lambda source: self._object(tree, source, recipe.flags, macros),
                    [*(tree / source for source in recipe.sources), recipe.wrapper],
                )
            )
        made = package / f"{abi['CORE_FILE']}.new"
        _run([*linker(), *map(str, objects), *recipe.link_flags, "-o", str(made)], tree)
        made.replace(package / abi["CORE_FILE"])

    def _recipe(self, tree: Path, abi: dict[str, Any]) -> Recipe:
        """Return the recipe for these headers and this builder; cffi needs a second to read the declarations."""
        package = tree / PACKAGE
        files: list[Path] = [path for path in abi["source_files"](package) if path.suffix == ".h"]
        key = _digest(*(text for path in [*files, package / "_build.py"] for text in (path.name, path.read_bytes())))
        with self._lock:
            if key not in self._recipes:
                ffi = runpy.run_path(str(package / "_build.py"))["make_ffi"](package)
                _, _, _, options = ffi._assigned_source
                wrapper = self.kept / f"core-{key}.c"
                # cffi says what it generates on standard output, where the table belongs.
                with contextlib.redirect_stdout(sys.stderr):
                    ffi.emit_c_code(str(wrapper))
                self._recipes[key] = Recipe(
                    wrapper,
                    tuple(str(Path(source).relative_to(tree)) for source in options["sources"]),
                    tuple(options["extra_compile_args"]),
                    tuple(options["define_macros"]),
                    tuple(options["extra_link_args"]),
                )
            return self._recipes[key]

    def _object(self, tree: Path, source: Path, flags: tuple[str, ...], macros: dict[str, str]) -> Path:
        """Return the object of one source, compiled now or earlier."""
        read: dict[Path, bytes] = {}
        _read_with_headers(tree / PACKAGE, source, read)
        everything = b"".join(read.values())
        # A macro that no line mentions changes nothing: only one source cares for the hash of all of them.
        used = [f"-D{name}={value}" for name, value in macros.items() if name.encode() in everything]
        command = [*compiler(), *flags, *used]
        parts = [part for path in read for part in (path.name, read[path])]
        key = _digest(compiler_version(), " ".join(command), *parts)
        made = self.kept / f"{source.stem}-{key}.o"
        if not made.exists():
            new = made.with_suffix(f".{os.getpid()}-{threading.get_ident()}.o")
            shown = source.relative_to(tree) if source.is_relative_to(tree) else source
            _run([*command, f"-I{PACKAGE}", "-c", str(shown), "-o", str(new)], tree)
            new.replace(made)
        return made


def _read_with_headers(package: Path, path: Path, read: dict[Path, bytes]) -> None:
    """Read a source and, transitively, the package's headers that it includes."""
    read[path] = path.read_bytes()
    for line in read[path].splitlines():
        if not line.lstrip().startswith(b'#include "') and not line.lstrip().startswith(b'# include "'):
            continue
        name = line.split(b'"')[1].decode()
        for found in (path.parent / name, package / name):
            if found.is_file():
                if found not in read:
                    _read_with_headers(package, found, read)
                break


def compiler() -> list[str]:
    """Return the command that compiles for this interpreter, as setuptools puts it together."""
    said = [os.environ.get("CC") or sysconfig.get_config_var("CC"), sysconfig.get_config_var("CFLAGS")]
    words = shlex.split(" ".join([*said, os.environ.get("CFLAGS", ""), sysconfig.get_config_var("CCSHARED") or ""]))
    return [*words, f"-I{sysconfig.get_path('include')}"]


@cache
def compiler_version() -> str:
    """Return what the compiler says of itself: objects of another one are not taken."""
    return subprocess.run([*compiler()[:1], "--version"], capture_output=True, text=True, check=True).stdout


def linker() -> list[str]:
    """Return the command that links a shared library for this interpreter."""
    command, usual = str(sysconfig.get_config_var("LDSHARED")), str(sysconfig.get_config_var("CC"))
    if os.environ.get("CC") and command.startswith(usual):
        command = os.environ["CC"] + command[len(usual) :]
    return shlex.split(command)


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d " % len(data) + data)
    return digest.hexdigest()[:24]


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(done.stderr.strip() or " ".join(command))
