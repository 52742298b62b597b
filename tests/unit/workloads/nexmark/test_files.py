"""Events in files: every format holds the events, in order, and a file is there whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megaphone.errors import InternalError, UsageError
from megaphone.workloads.nexmark import files, names, schemas
from megaphone.workloads.nexmark.events import KINDS, Counts, GeneratorKind
from megaphone.workloads.nexmark.files import CsvTexts, Table, WholeFiles, csv_lines, write_tables
from megaphone.workloads.nexmark.generate import MergedEvents, generate

EVENTS = 1234
RUN: dict[str, Any] = {"workers": 3, "rate": 500.0, "in_flight": 30, "seed": 8}
DTYPES = ("u1", "u2", "u4", "u8")


def expected(kind: GeneratorKind, stream: str, *, with_texts: bool) -> list[tuple[Any, ...]]:
    """Return the rows of a stream, texts in the place of codes if that is what the file has."""
    columns = getattr(MergedEvents(kind, EVENTS, **RUN).all(), stream)
    values = [
        [names.TEXTS[name][code] for code in array] if with_texts and name in names.TEXTS else array.tolist()
        for name, array in columns.items()
    ]
    return list(zip(*values, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_csv_files_hold_the_events_with_texts_and_a_header(tmp_path: Path, kind: GeneratorKind) -> None:
    made = generate(events=EVENTS, output=tmp_path / "new" / "folder", generator=kind, **RUN)
    assert made.rows == Counts(25, 75, 1134)
    assert made.size_bytes == sum(path.stat().st_size for path in made.paths.values())
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "auction.csv", "bid.csv", "person.csv",
    ]  # fmt: skip
    for stream, schema in schemas.STREAMS.items():
        text = made.paths[stream].read_text()
        assert text.endswith("\n")
        header, *rows = csv.reader(io.StringIO(text))
        assert header == list(schema)
        assert rows == [[str(value) for value in row] for row in expected(kind, stream, with_texts=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_sql_reads_the_csv_files_as_they_are(tmp_path: Path, kind: GeneratorKind) -> None:
    made = generate(events=EVENTS, output=tmp_path, generator=kind, **RUN)
    with duckdb.connect() as sql:
        for stream in schemas.STREAMS:
            rows = sql.execute(f"select * from read_csv('{made.paths[stream]}', header=true) order by seq").fetchall()
            # An empty name is no text to SQL.
            wanted = expected(kind, stream, with_texts=True)
            assert rows == [tuple(None if value == "" else value for value in row) for row in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_npz_files_hold_the_columns_as_they_are_and_the_texts(tmp_path: Path, kind: GeneratorKind) -> None:
    made = generate(events=EVENTS, output=tmp_path, generator=kind, format="npz", **RUN)
    whole = MergedEvents(kind, EVENTS, **RUN).all()
    for stream, schema in schemas.STREAMS.items():
        with np.load(made.paths[stream], allow_pickle=False) as arrays:
            coded = [f"{name}_texts" for name in schema if name in names.TEXTS]
            assert list(arrays) == [*schema, *coded]
            for name, dtype in schema.items():
                assert arrays[name].dtype == np.dtype(dtype)
                np.testing.assert_array_equal(arrays[name], getattr(whole, stream)[name])
            for name in coded:
                assert tuple(arrays[name].tolist()) == names.TEXTS[name.removesuffix("_texts")]


@pytest.mark.parametrize("kind", KINDS)
def test_parquet_files_hold_the_events_with_texts(tmp_path: Path, kind: GeneratorKind) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: the extra arrow brings it")
    made = generate(events=EVENTS, output=tmp_path, generator=kind, format="parquet", **RUN)
    for stream, schema in schemas.STREAMS.items():
        columns = parquet.read_table(made.paths[stream]).to_pydict()
        assert list(columns) == list(schema)
        assert list(zip(*columns.values(), strict=True)) == expected(kind, stream, with_texts=True)


@pytest.mark.parametrize("file_format", ["csv", "npz"])
def test_pieces_are_joined_without_a_seam(tmp_path: Path, file_format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate(events=EVENTS, output=tmp_path / "whole", format=file_format, **RUN)
    pieces = MergedEvents.pieces
    monkeypatch.setattr(MergedEvents, "pieces", lambda self, wanted: pieces(self, wanted, 100))
    cut = generate(events=EVENTS, output=tmp_path / "cut", format=file_format, **RUN)
    for stream, path in whole.paths.items():
        assert path.read_bytes() == cut.paths[stream].read_bytes()


@pytest.mark.parametrize("file_format", ["csv", "npz"])
def test_no_events_are_files_without_rows(tmp_path: Path, file_format: Any) -> None:
    made = generate(events=0, output=tmp_path, format=file_format)
    assert made.rows == Counts(0, 0, 0)
    if file_format == "csv":
        assert made.paths["bid"].read_text() == "seq,auction,bidder,price,date_time\n"
    else:
        with np.load(made.paths["bid"]) as arrays:
            assert arrays["price"].shape == (0,)


def test_parquet_without_pyarrow_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install megaphone\[arrow\]") as error:
        generate(events=10, output=tmp_path / "folder", format="parquet")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"format": "xml"}, "format 'xml': unknown: give one of csv, npz, parquet"),
        ({"events": -1}, "events -1: must be a whole number, 0 or more"),
        ({"events": 1.5}, "events 1.5"),
        ({"events": 1 << 60}, "give fewer events, or a higher rate"),
        ({"workers": 256}, "workers 256: must be a whole number from 1 to 255"),
        ({"workers": 0}, "workers 0"),
        ({"workers": 2.0}, "workers 2.0"),
        ({"generator": "slow"}, "generator 'slow'"),
        ({"rate": -1.0}, "rate -1.0"),
        ({"output": ""}, "the name of the output folder is empty"),
    ],
)
def test_a_mistake_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        generate(**{"events": 10, "output": tmp_path / "folder", **arguments})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_or_lies_in_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="it is a file; give a folder"):
        generate(events=10, output=tmp_path / "file")
    with pytest.raises(UsageError, match="Not a directory; give a folder"):
        generate(events=10, output=tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "bid.csv").mkdir()
    with pytest.raises(UsageError, match=r"bid\.csv': it is a folder"):
        generate(events=10, output=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bid.csv", "file"]


class FullDisk(io.BytesIO):
    """A file on a disk that has room for a hundred bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("file_format", ["csv", "npz"])
def test_a_disk_that_is_full_leaves_the_old_files_and_nothing_of_the_new(
    tmp_path: Path, file_format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {path: path.read_bytes() for path in generate(events=10, output=tmp_path, format=file_format).paths.values()}
    opened = WholeFiles.open

    def open_full(self: WholeFiles, name: str) -> IO[bytes]:
        real = opened(self, name)
        return FullDisk() if name.startswith("auction") else real

    monkeypatch.setattr(WholeFiles, "open", open_full)
    with pytest.raises(UsageError, match="No space left on device"):
        generate(events=5000, output=tmp_path, format=file_format)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_a_run_that_is_broken_off_takes_its_folder_away(tmp_path: Path) -> None:
    def pieces(wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        yield {name: np.zeros(3, np.uint64) for name in wanted}
        raise KeyboardInterrupt

    table = Table({"a": "u8"}, 3, pieces)
    with pytest.raises(KeyboardInterrupt), WholeFiles(tmp_path / "one" / "two") as whole:
        write_tables(whole, {"t": table}, "csv")
    assert list(tmp_path.iterdir()) == []


def test_files_appear_only_when_all_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    with WholeFiles(tmp_path) as whole:
        whole.open("a.csv").write(b"new")
        whole.open("b.csv").write(b"other")
        assert (tmp_path / "a.csv").read_text() == "old"
        assert not (tmp_path / "b.csv").exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "new", "b.csv": "other"}


# -- lines of text -----------------------------------------------------------------------------------------------------


@given(
    rows=st.integers(0, 40),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_numbers_are_written_as_python_writes_them(rows: int, dtypes: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = {}
    for place, dtype in enumerate(dtypes):
        most = np.iinfo(dtype).max
        bits = rng.integers(0, 8 * np.dtype(dtype).itemsize + 1, rows, dtype=np.uint64)
        drawn = np.array([int(most) >> int(shift) for shift in bits], dtype=dtype)
        columns[f"c{place}"] = drawn
    wanted = "".join(
        ",".join(map(str, row)) + "\n" for row in zip(*(c.tolist() for c in columns.values()), strict=True)
    )
    assert bytes(csv_lines(columns)).decode() == wanted


def test_the_greatest_number_of_each_width_fits() -> None:
    columns = {dtype: np.full(3, np.iinfo(dtype).max, dtype) for dtype in DTYPES}
    assert bytes(csv_lines(columns)) == b"255,65535,4294967295,18446744073709551615\n" * 3


def test_texts_are_quoted_when_they_would_not_be_read_back(tmp_path: Path) -> None:
    texts = ("plain", "a,b", 'say "no"', "two\nlines", "", "Zürich")
    codes = np.array([5, 4, 3, 2, 1, 0, 1], np.uint8)
    table = Table({"seq": "u8", "city, or so": "u1"}, 7, lambda _: iter([
        {"seq": np.arange(7, dtype=np.uint64), "city, or so": codes},
    ]), {"city, or so": texts})  # fmt: skip
    with WholeFiles(tmp_path) as whole:
        paths = write_tables(whole, {"t": table}, "csv")
    with paths["t"].open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["seq", "city, or so"]
    assert rows == [[str(place), texts[code]] for place, code in enumerate(codes)]


def test_what_is_no_column_of_unsigned_integers_is_refused() -> None:
    good = np.arange(3, dtype=np.uint64)
    with pytest.raises(UsageError, match="column 'b': 3 values of int64: must be 3 unsigned integers"):
        csv_lines({"a": good, "b": good.view(np.int64)})
    with pytest.raises(UsageError, match="column 'b': 2 values of uint64"):
        csv_lines({"a": good, "b": good[:2]})
    with pytest.raises(InternalError, match="has no text"):
        csv_lines({"a": good}, {"a": CsvTexts(["zero", "one"])})
    assert bytes(csv_lines({"a": np.arange(6, dtype=">u8")[::2]})) == b"0\n2\n4\n"
    assert files.FILE_FORMATS == ("csv", "npz", "parquet")
