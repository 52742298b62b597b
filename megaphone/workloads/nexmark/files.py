"""Tables in files: columns as csv, npz or parquet, in constant memory, and every file whole or not there at all.

    pieces(wanted) ──> columns of some rows, piece by piece ──> temporary file ──> its name, at the end

A csv and a parquet file are written in one pass over the pieces; an npz file holds one array after the other, so it is
written in one pass per column, with that column alone asked for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from megaphone._core import ffi, lib
from megaphone.errors import InternalError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]

FileFormat: TypeAlias = Literal["csv", "npz", "parquet"]
FILE_FORMATS: Final[tuple[str, ...]] = get_args(FileFormat)

Pieces: TypeAlias = "Callable[[Sequence[str]], Iterator[Mapping[str, Array]]]"
"""Given names of columns, yields the table's rows from the first to the last, those columns of them."""

_DIGITS_MAX: Final = {1: 3, 2: 5, 4: 10, 8: 20}


class WholeFiles:
    """Files of one folder that appear, under their names, when the ``with`` block ends well, and otherwise not at all.

    Args:
        folder: made if it does not exist, and taken away again if the block fails.

    Raises:
        UsageError: the folder cannot be made or written to, or a file cannot be written; one line with the cure.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._given = os.fspath(folder)
        self._made: list[Path] = []
        self._open: dict[str, tuple[Path, IO[bytes]]] = {}

    def __enter__(self) -> WholeFiles:
        """Make the folder and see that a file can be written there."""
        if not self._given:
            message = "the name of the output folder is empty: give a folder"
            raise UsageError(message)
        try:
            missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir()
                self._made.append(path)
            self._check_folder()
            self.open("")
        except BaseException as error:
            self._undo()
            raise self._refusal(error) from error
        self._forget("")
        return self

    def _check_folder(self) -> None:
        if not self.folder.is_dir():
            message = f"cannot write to {self._given!r}: it is a file; give a folder, which is made if need be"
            raise UsageError(message)

    def open(self, name: str) -> IO[bytes]:
        """Return the file that gets this name at the end, open for writing; it replaces one that is there."""
        target = self.folder / name
        if name and target.is_dir():
            message = f"cannot write {str(target)!r}: it is a folder; give another output folder"
            raise UsageError(message)
        temporary = self.folder / f".megaphone-{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        file = os.fdopen(descriptor, "w+b")
        self._open[name] = temporary, file
        return file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the files their names, or take them away."""
        if error is not None:
            self._undo()
            if isinstance(error, OSError):
                raise self._refusal(error) from error
            return
        try:
            # All content is on the disk before the first name appears.
            for _, file in self._open.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            for name, (temporary, _) in self._open.items():
                temporary.replace(self.folder / name)
        except BaseException as failure:
            self._undo()
            raise self._refusal(failure) from failure

    def _forget(self, name: str) -> None:
        temporary, file = self._open.pop(name)
        # Closing writes what is left, for which a full disk has no room; the file goes all the same.
        with contextlib.suppress(OSError):
            file.close()
        temporary.unlink(missing_ok=True)

    def _undo(self) -> None:
        for name in list(self._open):
            self._forget(name)
        for path in reversed(self._made):
            # Somebody else may have put something there meanwhile.
            with contextlib.suppress(OSError):
                path.rmdir()

    def _refusal(self, error: BaseException) -> BaseException:
        if not isinstance(error, OSError | ValueError) or isinstance(error, UsageError):
            return error
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return UsageError(f"cannot write to {self._given!r}: {reason}; give a folder that you may write to, with room")


class Table:
    """What a file is made of.

    Args:
        schema: dtype of each column, in order.
        rows: how many, over all pieces.
        pieces: see `Pieces`.
        texts: of a column of codes, what each code stands for; csv and parquet get the texts, npz the codes and, as
            ``<column>_texts``, the texts.
    """

    def __init__(
        self, schema: Mapping[str, str], rows: int, pieces: Pieces, texts: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.schema, self.rows, self.pieces = dict(schema), rows, pieces
        self.texts = {name: tuple(texts[name]) for name in schema if name in texts} if texts else {}


def check_format(file_format: str) -> None:
    """Refuse a format that is unknown or that this installation cannot write.

    Raises:
        UsageError: one line, with the formats there are or the package that is missing.
    """
    if file_format not in FILE_FORMATS:
        message = f"format {file_format!r}: unknown: give one of {', '.join(FILE_FORMATS)}"
        raise UsageError(message)
    if file_format == "parquet":
        _pyarrow()


def write_tables(files: WholeFiles, tables: Mapping[str, Table], file_format: str) -> dict[str, Path]:
    """Write each table to a file of its own, called by its name and the format.

    Args:
        files: where to.
        tables: what, by name. Tables may come of one source: those of csv and parquet are asked for one after the
            other, too.
        file_format: csv, npz or parquet.

    Returns:
        The path of each table, where it will be when ``files`` ends.
    """
    check_format(file_format)
    paths = {}
    for name, table in tables.items():
        file_name = f"{name}.{file_format}"
        paths[name] = files.folder / file_name
        _WRITERS[file_format](files.open(file_name), table)
    return paths


def write_csv(file: IO[bytes], table: Table) -> None:
    """Write a header and the rows as comma-separated text.

    Cost: about 100 ns per row of five numbers, formatted in C.
    """
    file.write((",".join(_quoted(name) for name in table.schema) + "\n").encode())
    texts = {name: CsvTexts(values) for name, values in table.texts.items()}
    for piece in table.pieces(tuple(table.schema)):
        file.write(csv_lines(piece, texts))


def csv_lines(columns: Mapping[str, Array], texts: Mapping[str, CsvTexts] | None = None) -> memoryview:
    r"""Return columns of unsigned integers as lines of text, without a header.

    Args:
        columns: each uint8, uint16, uint32 or uint64 [n], the same n.
        texts: what the codes of some columns stand for.

    Raises:
        UsageError: a column is not of unsigned integers, or not as long as the others.

    >>> bytes(csv_lines({"a": np.array([1, 20], "u8"), "b": np.array([0, 255], "u1")}))
    b'1,0\n20,255\n'
    """
    texts = texts or {}
    rows = len(next(iter(columns.values()))) if columns else 0
    if rows == 0:
        return memoryview(b"")
    c = ffi.new("mp_csv_column[]", len(columns))
    line_bytes = 0
    kept: list[Any] = []
    for column, (name, array) in zip(c, columns.items(), strict=True):
        if array.dtype.kind != "u" or len(array) != rows:
            message = f"column {name!r}: {len(array)} values of {array.dtype}: must be {rows} unsigned integers"
            raise UsageError(message)
        values = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        kept.append(values)
        column.values, column.item_bytes = ffi.from_buffer(values), values.itemsize
        if name in texts:
            texts[name].point(column)
            line_bytes += texts[name].longest + 1
        else:
            line_bytes += _DIGITS_MAX[values.itemsize] + 1
    out = np.empty(rows * line_bytes, np.uint8)
    written = lib.mp_csv_format(c, len(columns), rows, ffi.from_buffer("uint8_t[]", out, require_writable=True))
    if written < 0:
        message = f"a code of the columns {', '.join(texts)} has no text"
        raise InternalError(message)
    return out.data[:written]


class CsvTexts:
    """The texts of one column's codes, quoted for csv, as C reads them.

    Args:
        texts: what the codes stand for, from 0.

    Attributes:
        longest: bytes of the longest.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        quoted = [_quoted(text).encode() for text in texts]
        self.longest = max(map(len, quoted), default=0)
        self._count = len(quoted)
        self._offsets = np.cumsum([0, *map(len, quoted)], dtype=np.uint32)
        self._bytes = b"".join(quoted)

    def point(self, column: Any) -> None:  # noqa: ANN401 - a cffi struct
        """Make a column of C one of these texts; they must outlive it."""
        column.text_count = self._count
        column.text_offsets = ffi.from_buffer("uint32_t[]", self._offsets)
        column.texts = ffi.from_buffer("uint8_t[]", self._bytes)


def _quoted(text: str) -> str:
    """Return a text as csv has it: in quotation marks only if it would not be read back as it is."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def write_npz(file: IO[bytes], table: Table) -> None:
    """Write every column as an array of its own, as ``numpy.load`` reads it; codes stay codes, with their texts beside.

    Cost: one pass over the pieces per column.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, kind in table.schema.items():
            dtype = np.dtype(kind).newbyteorder("<")
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (table.rows,)}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for piece in table.pieces((name,)):
                    member.write(np.ascontiguousarray(piece[name], dtype=dtype).data)
        for name, texts in table.texts.items():
            with archive.open(f"{name}_texts.npy", "w") as member:
                np.lib.format.write_array(member, np.array(texts, dtype=np.str_), allow_pickle=False)


def write_parquet(file: IO[bytes], table: Table) -> None:
    """Write the rows as parquet; texts are dictionary-encoded strings."""
    arrow, parquet = _pyarrow()
    texts = {name: arrow.array(values, arrow.string()) for name, values in table.texts.items()}
    kinds = [
        (name, arrow.dictionary(arrow.int32(), arrow.string()) if name in texts else arrow.from_numpy_dtype(kind))
        for name, kind in table.schema.items()
    ]
    schema = arrow.schema(kinds)
    with parquet.ParquetWriter(file, schema) as writer:
        for piece in table.pieces(tuple(table.schema)):
            columns = [
                arrow.DictionaryArray.from_arrays(arrow.array(piece[name].astype(np.int32)), texts[name])
                if name in texts
                else arrow.array(piece[name])
                for name in table.schema
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its parquet module, or say in one line how to get them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as missing:
        message = "format parquet needs pyarrow, which is not installed: pip install megaphone[arrow]"
        raise UsageError(message) from missing
    return pyarrow, sys.modules["pyarrow.parquet"]


_WRITERS: Final[dict[str, Callable[[IO[bytes], Table], None]]] = {
    "csv": write_csv,
    "npz": write_npz,
    "parquet": write_parquet,
}
