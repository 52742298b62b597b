"""Rules of the extension's builder and of the check that it belongs to the sources beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megaphone import _abi, _build


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the builder, one header and one source."""
    (tmp_path / "shm").mkdir()
    (tmp_path / _abi.BUILDER_FILE).write_text("")
    (tmp_path / "shm" / "ring.c").write_text("int a;\n")
    (tmp_path / "shm" / "ring.h").write_text("int b;\n")
    return tmp_path


def test_the_loaded_extension_belongs_to_the_sources_of_the_tree() -> None:
    _abi.check()
    assert _abi.is_current(extra_cflags=os.environ.get(_abi.CFLAGS_VARIABLE, ""))


def test_an_extension_of_other_sources_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_abi, "source_hash", lambda: 0)
    with pytest.raises(ImportError, match=r"built from other C sources: run make build"):
        _abi.check()


def test_an_installed_package_without_sources_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_abi, "source_files", list)
    monkeypatch.setattr(_abi, "source_hash", lambda: 0)
    _abi.check()


def test_an_extension_with_other_compiler_flags_is_not_current() -> None:
    assert not _abi.is_current(extra_cflags="-fsanitize=undefined")


def test_a_missing_extension_is_not_current(package: Path) -> None:
    assert not _abi.is_current(package)


@pytest.mark.parametrize("change", ["edit a source", "edit the builder", "add", "delete", "rename", "move a line"])
def test_the_hash_changes_with_every_change_of_the_sources(package: Path, change: str) -> None:
    before = _abi.source_hash(package)
    source, header = package / "shm" / "ring.c", package / "shm" / "ring.h"
    match change:
        case "edit a source":
            source.write_text("int c;\n")
        case "edit the builder":
            (package / _abi.BUILDER_FILE).write_text("x = 1\n")
        case "add":
            (package / "new.c").write_text("")
        case "delete":
            header.unlink()
        case "rename":
            source.rename(package / "shm" / "bell.c")
        case "move a line":
            source.write_text("int a;\nint b;\n")
            header.write_text("")
    after = _abi.source_hash(package)
    assert before != after
    assert 0 <= after < 2**32


def test_the_hash_ignores_what_is_not_c(package: Path) -> None:
    before = _abi.source_hash(package)
    (package / "shm" / "ring.py").write_text("")
    (package / "shm" / "__pycache__").mkdir()
    (package / "shm" / "__pycache__" / "left.c").write_text("")
    assert _abi.source_hash(package) == before


def test_headers_are_declared_layer_by_layer_with_base_first() -> None:
    shm = ["shm/base.h", "shm/area.h", "shm/ring.h"]
    ordered = ["abi.h", *shm, "progress/c.h", "state/b.h", "workloads/a.h", "bench/z.h"]
    assert _build.header_order(dict.fromkeys(reversed(ordered), "")) == ordered


def test_a_header_is_declared_after_those_that_it_includes() -> None:
    texts = {
        "state/dense.h": '#include "state/store.h"\n#include "row.h"\n#include <stdint.h>\n',
        "state/row.h": '#include "state/dense.h"\n',
        "state/store.h": '#include "elsewhere.h"\n',
    }
    assert _build.header_order(texts) == ["state/store.h", "state/row.h", "state/dense.h"]


def test_a_header_may_have_several_cdef_parts_and_the_rest_is_left_out() -> None:
    text = "not this\nBEGIN\nint f(void);\nEND\nnor this\n  BEGIN\nint g(void);\nEND\n"
    text = text.replace("BEGIN", _build.CDEF_BEGIN).replace("END", _build.CDEF_END)
    assert _build.cdef_of(text, "x.h") == '#line 3 "x.h"\nint f(void);\n#line 7 "x.h"\nint g(void);'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/* cdef begin */\nint f(void);\n", r"x\.h:1: .* does not end"),
        ("\n/* cdef end */\n", r"x\.h:2: .* never began"),
        ("/* cdef begin */\n/* cdef begin */\n", r"x\.h:2: .* begins inside the one of line 1"),
    ],
)
def test_marks_that_do_not_pair_up_are_refused_with_their_line(text: str, said: str) -> None:
    with pytest.raises(_build.CdefError, match=said):
        _build.cdef_of(text, "x.h")


def test_an_error_in_a_cdef_part_names_its_header_and_line(package: Path) -> None:
    abi_text = (_abi.PACKAGE / "_abi.py").read_text()
    (package / "_abi.py").write_text(abi_text)
    (package / "shm" / "ring.h").write_text("\n/* cdef begin */\nint f(void);\nint (;\n/* cdef end */\n")
    with pytest.raises(Exception, match=r"shm/ring\.h:4"):
        _build.make_ffi(package)
