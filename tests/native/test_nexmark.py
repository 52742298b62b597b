"""NEXMark's generator and writer of text under sanitizers: nothing is written beyond the rows that were counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.building import NATIVE, ROOT, compile_objects, link, need_sanitizer, run_checked

SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
SOURCES = ("generator.c", "csv.c")

pytestmark = pytest.mark.process


def test_events_stay_within_the_rows_that_were_counted(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    need_sanitizer(tmp_path / "probe", "address,undefined")
    shipped = [ROOT / "megaphone" / "workloads" / "nexmark" / name for name in SOURCES]
    objects = compile_objects(tmp_path / "objects", [*shipped, NATIVE / "nexmark.c"], SANITIZED)
    told = run_checked(link(tmp_path / "nexmark", objects, SANITIZED), "3000")
    found = re.search(r"^events (\d+)$", told, re.MULTILINE)
    assert found is not None
    record_property("runs", int(found[1]))
