"""Builds ``megaphone._core``, the one extension, out of the C files that stand beside the Python they serve.

setuptools executes this file by path, from the project's root, before the package can be imported
(``cffi_modules`` in setup.py); so it imports nothing of it.  What Python may call stands in the headers, between
the lines ``/* cdef begin */`` and ``/* cdef end */``: the compiler and cffi read the same declarations, and a new
``.c`` or ``.h`` anywhere in the package is found without being listed.

The variable ``MEGAPHONE_CFLAGS`` is appended to the compiler's flags (sanitizers, ``-Werror``, ``-DMP_MODEL``).
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
from pathlib import Path

from cffi import FFI

LAYERS = ("shm", "progress", "dataflow", "state", "migration", "observe", "workloads")
CDEF_BEGIN = "/* cdef begin */"
CDEF_END = "/* cdef end */"
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
CFLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    # Otherwise a misspelt call is only found when the extension is loaded.
    "-Werror=implicit-function-declaration",
    # A call between two files of the core is direct, not through the table that lets a library be interposed.
    "-fno-semantic-interposition",
)
# Python calls C functions with arguments that the generated wrappers do not all use.
QUIET_WRAPPERS = '#pragma GCC diagnostic ignored "-Wunused-parameter"\n'


class CdefError(Exception):
    """The marks of a header's cdef parts do not pair up; the message names the file and the line."""


def header_key(header: str) -> tuple[int, bool, str]:
    """Return the key that sorts headers: layer from the bottom, then ``base.h``, then the name.

    Args:
        header: path relative to the package's folder. What stands in the folder itself comes first, and what belongs
            to no layer last.
    """
    layer, _, rest = header.partition("/")
    depth = LAYERS.index(layer) + 1 if layer in LAYERS else len(LAYERS) + 1 if rest else 0
    return depth, not header.endswith("/base.h"), header


def header_order(texts: dict[str, str]) -> list[str]:
    """Return the headers in an order in which each type is declared before it is used.

    That is the order in which the compiler would read them: each after those that it includes, and otherwise by
    ``header_key``.

    Args:
        texts: the headers by their path relative to the package's folder, which is also how they include each other.
    """
    ordered: list[str] = []
    entered: set[str] = set()

    def visit(header: str) -> None:
        if header in texts and header not in entered:
            entered.add(header)
            for included in INCLUDE.findall(texts[header]):
                # "ring.h" beside the file, or "shm/ring.h" from the package's folder.
                beside = (Path(header).parent / included).as_posix()
                visit(beside if beside in texts else included)
            ordered.append(header)

    for header in sorted(texts, key=header_key):
        visit(header)
    return ordered


def cdef_of(text: str, name: str) -> str:
    """Return the cdef parts of one header, each led by a line directive so that cffi's errors name the header.

    Args:
        text: the header.
        name: what errors call it.

    Returns:
        The declarations; empty if the header has none.

    Raises:
        CdefError: a part begins twice, ends before it begins, or does not end.
    """
    out: list[str] = []
    begun_at = 0
    for number, line in enumerate(text.splitlines(), start=1):
        mark = line.strip()
        if mark == CDEF_BEGIN:
            if begun_at:
                message = f"{name}:{number}: a cdef part begins inside the one of line {begun_at}: end that first"
                raise CdefError(message)
            begun_at = number
            out.append(f'#line {number + 1} "{name}"')
        elif mark == CDEF_END:
            if not begun_at:
                message = f"{name}:{number}: a cdef part ends that never began: add {CDEF_BEGIN}"
                raise CdefError(message)
            begun_at = 0
        elif begun_at:
            out.append(line)
    if begun_at:
        message = f"{name}:{begun_at}: a cdef part that does not end: add {CDEF_END}"
        raise CdefError(message)
    return "\n".join(out)


def make_ffi(package: Path) -> FFI:
    """Return the builder of the extension for the sources under one folder.

    Args:
        package: the package's folder, relative to the project's root (setuptools refuses absolute sources).

    Raises:
        CdefError: a header's marks do not pair up.
    """
    abi = runpy.run_path(str(package / "_abi.py"))
    sources: list[Path] = [path.relative_to(package) for path in abi["source_files"](package)]
    texts = {path.as_posix(): (package / path).read_text() for path in sources if path.suffix == ".h"}
    cdefs = {header: cdef_of(texts[header], header) for header in header_order(texts)}
    public = [header for header, cdef in cdefs.items() if cdef]
    extra_cflags = os.environ.get(abi["CFLAGS_VARIABLE"], "")

    ffi = FFI()
    ffi.cdef("\n".join(cdefs[header] for header in public))
    ffi.set_source(
        abi["CORE_NAME"],
        QUIET_WRAPPERS + "".join(f'#include "{header}"\n' for header in public),
        sources=[str(package / path) for path in sources if path.suffix == ".c"],
        depends=[str(package / header) for header in texts],
        include_dirs=[str(package)],
        define_macros=[
            ("MP_SOURCE_HASH", f"0x{abi['source_hash'](package):08x}u"),
            ("MP_EXTRA_CFLAGS", '"' + extra_cflags.replace("\\", "\\\\").replace('"', '\\"') + '"'),
        ],
        # powf and roundf, of which not every interpreter brings its own.
        libraries=["m"],
        extra_compile_args=[*CFLAGS, *shlex.split(extra_cflags)],
        # Sanitizers want their flags when linking, too; the others do no harm there. NEXMark's prices need powf.
        extra_link_args=["-lm", *shlex.split(extra_cflags)],
    )
    return ffi


def ffibuilder() -> FFI:
    """Return the builder that setup.py names; called with the project's root as working directory."""
    return make_ffi(Path("megaphone"))
