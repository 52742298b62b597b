r"""The text source against its rule: ``re.findall(r"\w+", text.lower())`` of the whole text, however it is cut."""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from megaphone.errors import UsageError
from megaphone.workloads import text as source
from megaphone.workloads.text import STDIN, TextFile, find_files, pieces

if TYPE_CHECKING:
    from pathlib import Path

# Where lower() looks at its neighbours (sigma, with what it looks through), grows, or where Python splits lines.
AWKWARD = [
    "Σ",
    "ΑΣ",
    "σ",
    "ς",
    "İ",
    "ı",
    "ẞ",
    "Ⱥ",
    "\u0307",
    "\u0301",
    "'",
    "\u00ad",
    "\ufeff",
    "\u200b",
    "ʰ",
    ":",
    ".",
]
BREAKS = [
    "\n",
    "\r\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\0",
    " ",
    "_",
    "9",
    "٣",
    "a",
    "Z",
    "𝔸",
]
any_text = st.lists(
    st.one_of(st.sampled_from(AWKWARD + BREAKS), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    max_size=60,
).map("".join)
ascii_text = st.text(st.characters(max_codepoint=127), max_size=200)
piece_sizes = st.integers(1, 40)


class StdinOf:
    """Standard input with given bytes, and nothing else that the text source could lean on."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def pieces_of(data: bytes, piece_bytes: int) -> list[source.Piece]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", StdinOf(data))
        return list(pieces([TextFile(STDIN, None)], piece_bytes))


def expected_words(data: bytes) -> list[str]:
    return re.findall(r"\w+", data.decode("utf-8").lower())


@given(any_text, piece_sizes)
@example("ΟΔΟΣ\nΑ", 1)
@example("Α\u0301Σ\u0301\n\u0301Α", 3)
@example("\ufeffΣ\n\ufeffΣ", 2)
def test_words_in_pieces_are_those_of_the_whole_text(text: str, piece_bytes: int) -> None:
    data = text.encode()
    assert [word for piece in pieces_of(data, piece_bytes) for word in piece.words()] == expected_words(data)


@given(ascii_text, piece_sizes)
def test_words_of_ascii_take_the_fast_way_and_are_the_same(text: str, piece_bytes: int) -> None:
    data = text.encode()
    assert [word for piece in pieces_of(data, piece_bytes) for word in piece.words()] == expected_words(data)


@given(any_text, piece_sizes)
def test_pieces_cover_the_input_once_and_end_at_newlines(text: str, piece_bytes: int) -> None:
    data = text.encode()
    end = 0
    for piece in pieces_of(data, piece_bytes):
        assert piece.input_bytes > 0
        end += piece.input_bytes
        assert end == len(data) or data[end - 1 : end] == b"\n"
        assert piece.offsets.dtype == "u4"
        assert piece.offsets[0] == 0
        assert piece.offsets[-1] == len(piece.data)
        assert (piece.offsets[1:] > piece.offsets[:-1]).all()
    assert end == len(data)


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(st.sampled_from([b"\n", b"a", b"\xce", b"\xa3", b"\xf0\x90", b"\xed\xa0"])).map(b"".join),
    ),
    piece_sizes,
)
def test_a_stream_is_refused_exactly_at_the_first_byte_that_python_refuses(data: bytes, piece_bytes: int) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        with pytest.raises(UsageError, match=rf"not UTF-8 at byte {error.start} \(line {line}\)"):
            pieces_of(data, piece_bytes)
    else:
        pieces_of(data, piece_bytes)


@given(
    st.one_of(
        st.binary(max_size=60),
        any_text.map(str.encode),
        st.lists(st.sampled_from([b"\n", b"a", b"\xce", b"\xa3", b"\xf0\x90", b"\xed\xa0"])).map(b"".join),
    ),
    st.integers(1, 9),
)
def test_a_file_is_found_or_refused_as_python_decodes_it(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, check_bytes: int
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "checked.txt"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_CHECK_BYTES", check_bytes)
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            with pytest.raises(UsageError, match=rf"not UTF-8 at byte {error.start} \(line {line}\)"):
                find_files([path])
        else:
            assert find_files([path]) == ([TextFile(str(path), len(data))], [])


def test_lower_case_never_lengthens_utf8_by_more_than_one_half() -> None:
    characters = (chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    assert all(2 * len(one.lower().encode()) <= 3 * len(one.encode()) for one in characters)
    assert source.LINE_BYTES_MAX * 3 // 2 < 2**32
