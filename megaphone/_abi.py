"""Does the extension that is loaded belong to the C sources that lie beside it?

An editable install does not rebuild C, and an old core under new Python fails in ways that look like bugs of the
engine.  So the builder compiles a hash of the sources into the extension, and an import from a source tree compares.
Contents are compared, not dates: a branch that is switched there and back needs no rebuild, and a file that was
deleted, or edited while the compiler ran, is noticed.  A wheel carries no C and skips all of this.

This file imports nothing of the package, because the builder runs it by path, and so does ``make build``::

    python -P megaphone/_abi.py     # exit code 0: the extension is current
"""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
CORE_NAME = "megaphone._core"
CORE_FILE = "_core.abi3.so"
BUILDER_FILE = "_build.py"
CFLAGS_VARIABLE = "MEGAPHONE_CFLAGS"


def source_files(package: Path = PACKAGE) -> list[Path]:
    """Return every C source and header of the package, sorted by path; empty in an installed wheel.

    Args:
        package: the folder of the package.

    Cost: one walk of the package's folders.
    """
    found: list[str] = []
    for folder, subfolders, names in os.walk(package):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        found += [f"{folder}/{name}" for name in names if name.endswith((".c", ".h"))]
    return [Path(name) for name in sorted(found)]


def source_hash(package: Path = PACKAGE) -> int:
    """Return a number of 32 bits that changes with any C source, header or the builder itself.

    Args:
        package: the folder of the package.

    Cost: reads all C files once, about 1 ms per MB.
    """
    digest = hashlib.sha256(usedforsecurity=False)
    for path in [*source_files(package), package / BUILDER_FILE]:
        content = path.read_bytes()
        # The length keeps a line that moves from the end of one file to the start of the next from going unnoticed.
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return int(digest.hexdigest()[:8], 16)


def check() -> None:
    """Refuse an extension that was built from other C sources than those beside it.

    Raises:
        ImportError: the extension is missing or stale; run ``make build``.

    Cost: below 5 ms in a source tree, one look at the folders in an installed wheel.
    """
    if not source_files():
        return
    try:
        from megaphone._core import lib
    except ModuleNotFoundError as missing:
        if missing.name != CORE_NAME:
            raise
        message = f"the extension {CORE_FILE} is not there: run make build"
        raise ImportError(message, name=CORE_NAME) from missing
    if _built_hash(lib) != source_hash():
        message = "the extension was built from other C sources: run make build"
        raise ImportError(message, name=CORE_NAME)


def is_current(package: Path = PACKAGE, extra_cflags: str = "") -> bool:
    """Tell whether the extension file belongs to these sources and these extra compiler flags.

    Args:
        package: the folder of the package.
        extra_cflags: what ``MEGAPHONE_CFLAGS`` says now.

    Cost: loads the extension, without the package around it.
    """
    path = package / CORE_FILE
    spec = spec_from_file_location(CORE_NAME, path, loader=ExtensionFileLoader(CORE_NAME, str(path)))
    if not path.exists() or spec is None or spec.loader is None:
        return False
    try:
        core: Any = module_from_spec(spec)
        spec.loader.exec_module(core)
        built_cflags = core.ffi.string(core.lib.mp_abi_extra_cflags()).decode()
    except (ImportError, AttributeError):
        # Built by another interpreter, with a sanitizer that is not loaded here, or before there was an ABI number.
        return False
    return _built_hash(core.lib) == source_hash(package) and built_cflags == extra_cflags


def _built_hash(lib: Any) -> int | None:
    """Return the hash compiled into the core, None for a core so old that it has none."""
    try:
        return int(lib.mp_abi_source_hash())
    except AttributeError:
        return None


if __name__ == "__main__":
    sys.exit(0 if is_current(extra_cflags=os.environ.get(CFLAGS_VARIABLE, "")) else 1)
