r"""Files in, columns of words out: the text source of word count.

The rule is one line: the words of a file are ``re.findall(r"\w+", text.lower())`` of its whole decoded text.  This
module gets the same words from pieces, so that a file never has to fit into memory:

    file --read--> piece of whole lines --decode, lower, find--> one ``bytes`` column (offsets and bytes) per piece

Why cutting after a newline changes nothing.  UTF-8 never uses the byte 0x0A inside a longer sequence, so pieces decode
on their own.  ``\w`` never matches a newline, so no word spans two pieces.  ``str.lower`` looks at neighbours in one
case only, the capital sigma, and that look stops at the first character that is neither cased nor ignorable in case;
a newline is neither.  No other character is cut at: not ``\r``, nor ``\x85``, nor U+2028.

Decoding is Python's strict "utf-8": a byte order mark is a character like any other (it belongs to no word), and
overlong forms and surrogates are refused.  The text of a file is checked as a whole before any word of it is counted:
a folder's file with one bad byte at its end counts nothing.
"""

from __future__ import annotations

import codecs
import itertools
import os
import re
import stat
import sys
import sysconfig
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from megaphone.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from megaphone.observe.report import Report

STDIN = "-"
PIECE_BYTES = 1 << 20
# Offsets are 32 bits wide, and lower-casing lengthens UTF-8 by at most one half (U+023A: 2 bytes, its small form 3).
LINE_BYTES_MAX = (2**32 - 1) * 2 // 3
CORPUS_SUFFIXES = (".py", ".txt")
CORPUS_EXCLUDED_FOLDERS = ("__pycache__", "dist-packages", "site-packages")

_CHECK_BYTES = 1 << 20
_WORD = re.compile(r"\w+")
_ASCII_WORD_BYTES = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_ASCII_OTHER_BYTES = bytes(sorted(set(range(256)) - set(_ASCII_WORD_BYTES)))
_ASCII_LOWER = bytes(range(256)).lower()
_ASCII_IS_WORD = np.isin(np.arange(256), np.frombuffer(_ASCII_WORD_BYTES, np.uint8))


@dataclass(frozen=True)
class TextFile:
    """One text to be read, in the order given.

    Attributes:
        path: as named or as found in a folder; ``-`` is standard input.
        size_bytes: size when it was checked; None for a stream (standard input, a pipe), which can be read only once
            and is checked while it is read.
        start_bytes: of a part: a line belongs to the part in which it begins.
        end_bytes: of a part; None is the end of the text.
    """

    path: str
    size_bytes: int | None
    start_bytes: int = 0
    end_bytes: int | None = None

    @property
    def part_bytes(self) -> int:
        """Bytes of this part, for sharing work out; 0 for a stream."""
        return (self.end_bytes if self.end_bytes is not None else self.size_bytes or 0) - self.start_bytes


@dataclass(frozen=True)
class SkippedFile:
    """A file of a folder that was left out, as a whole, because it is not UTF-8.

    Attributes:
        path: as found in the folder.
        offset_bytes: of the first byte that cannot be decoded.
        line: the line of that byte, from 1.
    """

    path: str
    offset_bytes: int
    line: int

    def __str__(self) -> str:
        """Return the path and the place, as the command line names it."""
        return f"{shown(self.path)}: not UTF-8 at byte {self.offset_bytes} (line {self.line})"


@dataclass(frozen=True, eq=False)
class Piece:
    """The words of some whole lines of one file, as a ``bytes`` column.

    Attributes:
        file_index: position of the file in the list given to `pieces`.
        data: the words' UTF-8, one after the other without separators.
        offsets: uint32[n_words + 1], bytes; word ``i`` is ``data[offsets[i]:offsets[i + 1]]``.
        input_bytes: bytes of the file that this piece covers; over a file they add up to its size.
    """

    file_index: int
    data: bytes
    offsets: NDArray[np.uint32]
    input_bytes: int

    @property
    def n_words(self) -> int:
        """Number of words; 0 is possible (blank lines) and still carries `input_bytes`."""
        return len(self.offsets) - 1

    def words(self) -> list[str]:
        """Return the words as strings: for tests and for the comparison with a Counter, never on the measured path."""
        bounds = self.offsets.tolist()
        return [self.data[start:end].decode() for start, end in zip(bounds, bounds[1:], strict=False)]


@dataclass(frozen=True, eq=False)
class TextResult:
    """What counting the words of a text gives.

    Attributes:
        report: figures of the run.
        words: each word once, in any order.
        counts: uint64[len(words)], how often each occurs.
        skipped: files of folders that were left out because they are not UTF-8.
        counter_agrees: whether `collections.Counter` over the same text found the same; None if it was not asked.
    """

    report: Report
    words: Sequence[str]
    counts: NDArray[np.uint64]
    skipped: Sequence[SkippedFile] = ()
    counter_agrees: bool | None = None


def shown(path: str) -> str:
    """Return a path as a message shows it: quoted and escaped if it would break the line or is empty."""
    return path if path and path.isprintable() else repr(path)


def default_corpus() -> Path:
    """Return the folder of Python's standard library: text that is on every machine and that nobody here wrote.

    Read it with ``find_files([default_corpus()], suffixes=CORPUS_SUFFIXES, exclude_folders=CORPUS_EXCLUDED_FOLDERS)``.
    """
    return Path(sysconfig.get_path("stdlib"))


def find_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    suffixes: Collection[str] | None = None,
    exclude_folders: Collection[str] = (),
) -> tuple[list[TextFile], list[SkippedFile]]:
    r"""Return the texts that `paths` name, all of them checked, before anything is counted.

    Args:
        paths: files, folders, or ``-`` for standard input (once).  A folder is walked in the order of names, folders
            within it included, regular files only; links to files are followed, links to folders are not, so that a
            loop ends and nothing is counted twice.
        suffixes: if given, a folder's files count only if their name ends in one of these, such as ``.txt``; a
            file that is named outright always counts.
        exclude_folders: names of folders that are not entered.

    Returns:
        The files in order, and those files of folders that were skipped because they are not UTF-8.

    Raises:
        UsageError: a path is missing or cannot be read; a file named outright is not UTF-8; a folder has no text.

    Cost: reads every regular file once, in pieces of 1 MiB.
    """
    if not paths:
        message = "no text: name files or folders, or - for standard input"
        raise UsageError(message)
    files: list[TextFile] = []
    skipped: list[SkippedFile] = []
    for named in paths:
        path = os.fspath(named)
        if path == STDIN:
            if any(file.path == STDIN for file in files):
                message = "-: standard input is named twice and can be read once: name it once"
                raise UsageError(message)
            files.append(TextFile(STDIN, None))
            continue
        with _refusing(path):
            mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            _find_in_folder(path, suffixes, frozenset(exclude_folders), files, skipped)
        else:
            files.append(_named_file(path, mode))
    return files, skipped


def pieces(files: Sequence[TextFile], piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """Yield the words of all files, in order, in pieces that end at a newline or at the end of their file.

    Args:
        files: from `find_files`.
        piece_bytes: how much is read at a time; a piece is about as long, or as long as its longest line.

    Raises:
        UsageError: a stream is not UTF-8 (regular files were checked before, unless they have changed since), cannot
            be read, or has a line of more than `LINE_BYTES_MAX` bytes.

    Cost: memory for one piece.  A piece of pure ASCII costs a few passes of numpy; any other one makes a string per
    word, for which nothing beats the regular expression itself.
    """
    for file_index, file in enumerate(files):
        offset_bytes = 0
        line = 1
        with _refusing(file.path), _opened(file) as stream:
            for raw in _whole_lines(stream, piece_bytes, file.path):
                try:
                    data, offsets = _words_ascii(raw) if raw.isascii() else _words(raw.decode("utf-8"))
                except UnicodeDecodeError as error:
                    line += raw.count(b"\n", 0, error.start)
                    raise _not_utf8(file.path, offset_bytes + error.start, line) from None
                yield Piece(file_index, data, offsets, len(raw))
                offset_bytes += len(raw)
                line += raw.count(b"\n")


def format_counts(
    words: Sequence[str], counts: Sequence[int] | NDArray[np.uint64], top: int | None = None
) -> Iterator[str]:
    """Yield ``word<TAB>count`` lines without line ends, by falling count, then by word in the order of code points.

    Args:
        words: each word once.
        counts: as many, in the same order.
        top: stop after so many lines; None is all.
    """
    numbers = [int(count) for count in counts]
    order = sorted(zip(words, numbers, strict=True), key=lambda pair: (-pair[1], pair[0]))
    for word, count in order[:top]:
        yield f"{word}\t{count}"


def _words_ascii(raw: bytes) -> tuple[bytes, NDArray[np.uint32]]:
    r"""Return (bytes, offsets) of the words of pure ASCII, where ``\w`` and ``lower`` are tables of 128 entries."""
    is_word = np.zeros(len(raw) + 2, np.bool_)
    np.take(_ASCII_IS_WORD, np.frombuffer(raw, np.uint8), out=is_word[1:-1])
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    offsets = np.zeros(len(edges) // 2 + 1, np.uint32)
    np.cumsum(edges[1::2] - edges[0::2], out=offsets[1:])
    return raw.translate(_ASCII_LOWER, _ASCII_OTHER_BYTES), offsets


def _words(text: str) -> tuple[bytes, NDArray[np.uint32]]:
    r"""Return (bytes, offsets) of the words of any text; NUL is no ``\w``, so it can mark the ends of words."""
    words = _WORD.findall(text.lower())
    joined = "\0".join(words).encode("utf-8")
    offsets = np.zeros(len(words) + 1, np.uint32)
    if words:
        ends = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0)
        offsets[1:-1] = ends - np.arange(len(ends))
        offsets[-1] = len(joined) - len(ends)
    return joined.replace(b"\0", b""), offsets


def _whole_lines(stream: BinaryIO, piece_bytes: int, path: str) -> Iterator[bytes]:
    """Yield the stream in pieces that end after a newline, the last one at the end; joins each byte at most once."""
    # A pipe is taken as it comes: waiting for a full piece would hold back the words of a slow writer.
    read = getattr(stream, "read1", stream.read)
    held: list[bytes] = []
    held_bytes = 0
    while chunk := read(piece_bytes):
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield b"".join([*held, chunk[:cut]])
            held = [chunk[cut:]]
            held_bytes = len(chunk) - cut
        else:
            held.append(chunk)
            held_bytes += len(chunk)
            if held_bytes > LINE_BYTES_MAX:
                message = f"{shown(path)}: a line of more than {LINE_BYTES_MAX} bytes: break it into shorter lines"
                raise UsageError(message)
    if held_bytes:
        yield b"".join(held)


def _first_bad_byte(stream: BinaryIO) -> tuple[int, int] | None:
    """Return (offset in bytes, line from 1) of the first byte that is not UTF-8, or None if all of it is."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    read_bytes = 0
    line = 1
    while True:
        chunk = stream.read(_CHECK_BYTES)
        undecided = decoder.getstate()[0]
        if undecided or not chunk.isascii():
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # The undecided end of the chunk before holds no newline: it is the begin of a longer sequence.
                lines_before = (undecided + chunk).count(b"\n", 0, error.start)
                return read_bytes - len(undecided) + error.start, line + lines_before
        if not chunk:
            return None
        read_bytes += len(chunk)
        line += chunk.count(b"\n")


def _named_file(path: str, mode: int) -> TextFile:
    """Return a file that was named outright, or refuse it."""
    if not os.access(path, os.R_OK):
        raise _unreadable(path, "no permission to read it")
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return TextFile(path, None)
    if not stat.S_ISREG(mode):
        message = f"{shown(path)}: neither a file nor a folder nor a pipe: name one of those"
        raise UsageError(message)
    with _refusing(path), Path(path).open("rb") as stream:
        bad = _first_bad_byte(stream)
        if bad is not None:
            raise _not_utf8(path, *bad)
        return TextFile(path, stream.tell())


def _find_in_folder(
    top: str,
    suffixes: Collection[str] | None,
    exclude_folders: frozenset[str],
    files: list[TextFile],
    skipped: list[SkippedFile],
) -> None:
    """Add the texts of one folder to `files`, and what is not UTF-8 to `skipped`."""
    files_before = len(files)
    skipped_before = len(skipped)
    for path in _walk(top, suffixes, exclude_folders):
        with _refusing(path), Path(path).open("rb") as stream:
            bad = _first_bad_byte(stream)
            if bad is None:
                files.append(TextFile(path, stream.tell()))
            else:
                skipped.append(SkippedFile(path, *bad))
    if not any(file.size_bytes for file in files[files_before:]):
        wanted = f" {' or '.join('*' + suffix for suffix in suffixes)}" if suffixes else ""
        message = (
            f"{shown(top)}: a folder without text: {len(skipped) - skipped_before}{wanted} files are not UTF-8, "
            f"{len(files) - files_before} are empty: name a folder that has text in UTF-8"
        )
        raise UsageError(message)


def _walk(top: str, suffixes: Collection[str] | None, exclude_folders: frozenset[str]) -> Iterator[str]:
    """Yield the regular files under a folder, depth first in the order of names; as deep as paths can be."""
    pending = [(top, True)]
    while pending:
        path, is_folder = pending.pop()
        if not is_folder:
            yield path
            continue
        with _refusing(path), os.scandir(path) as entries:
            here = sorted(entries, key=lambda entry: entry.name, reverse=True)
        for entry in here:
            with _refusing(entry.path):
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in exclude_folders:
                        pending.append((entry.path, True))
                # Path and not entry asks, because a link to itself is to it no file, and to entry an error.
                elif Path(entry.path).is_file() and (suffixes is None or entry.name.endswith(tuple(suffixes))):
                    # Files wait among the folders, so that both come out in the order of their names.
                    pending.append((entry.path, False))


@contextmanager
def _opened(file: TextFile) -> Iterator[BinaryIO]:
    """Open a text for reading bytes; standard input stays open afterwards."""
    if file.path == STDIN:
        if sys.stdin is None:
            message = "-: standard input is closed: redirect it from a file"
            raise UsageError(message)
        yield sys.stdin.buffer
    else:
        with Path(file.path).open("rb") as stream:
            # The part is read like a stream of its own; nothing else of BinaryIO is used on it.
            end = file.end_bytes
            yield stream if end is None else cast("BinaryIO", _Part(stream, file.start_bytes, end))


class _Part:
    """The lines of a file that begin in [start, end)."""

    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        self._stream, self._end = stream, end
        if start:
            stream.seek(start - 1)
            stream.readline()

    def read(self, size: int) -> bytes:
        """Return up to size bytes, at the end more: the last line is read to its own end."""
        left = self._end - self._stream.tell()
        if left <= 0:
            return b""
        chunk = self._stream.read(min(size, left))
        if len(chunk) == left and not chunk.endswith(b"\n"):
            chunk += self._stream.readline()
        return chunk


def share_out(files: Sequence[TextFile], workers: int) -> list[list[TextFile]]:
    """Return each worker's files: large ones are cut at lines, the rest goes to whoever has least.

    Args:
        files: from `find_files`.
        workers: how many lists to make.

    Returns:
        One list per worker; together they have every line once.
    """
    parts: list[TextFile] = []
    for file in files:
        size = file.size_bytes
        if size is None or size < workers * PIECE_BYTES or workers == 1:
            parts.append(file)
        else:
            cuts = [size * number // workers for number in range(workers + 1)]
            parts += [replace(file, start_bytes=a, end_bytes=b) for a, b in itertools.pairwise(cuts)]
    shares: list[list[TextFile]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for part in sorted(parts, key=lambda part: (-part.part_bytes, part.path, part.start_bytes)):
        least = loads.index(min(loads))
        shares[least].append(part)
        loads[least] += part.part_bytes
    return shares


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    """Turn the system's refusal to open or read a path into a UsageError that names it."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        message = f"{shown(path)}: no such file or folder: check the spelling"
        raise UsageError(message) from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except ValueError as error:
        if isinstance(error, UsageError | UnicodeError):
            raise
        # A NUL inside a path reaches Python's own check before the system's.
        raise _unreadable(path, str(error)) from None


def _unreadable(path: str, reason: str) -> UsageError:
    return UsageError(f"{shown(path)}: cannot be read ({reason}): make it readable, or leave it out")


def _not_utf8(path: str, offset_bytes: int, line: int) -> UsageError:
    return UsageError(
        f"{shown(path)}: not UTF-8 at byte {offset_bytes} (line {line}): convert it with iconv, or leave it out"
    )
