"""The heap of post-dated records: what its C may not do."""

from __future__ import annotations

import shutil

import pytest

from tests.native.building import CFLAGS, ROOT, compiler, run_checked


def test_a_row_of_the_heap_is_never_moved_as_another_type_than_its_fields() -> None:
    """Rows hold refs of uint32_t beside their words: what is punned, a compiler may move past what reads a ref."""
    if shutil.which(compiler()) is None:
        pytest.skip("no C compiler: the models are compiled from the sources")
    source = ROOT / "megaphone" / "state" / "pending.c"
    run_checked(compiler(), *CFLAGS, "-Wstrict-aliasing=1", "-fsyntax-only", f"-I{ROOT / 'megaphone'}", source)
