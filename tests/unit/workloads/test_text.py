"""The text source: what is found, what is skipped, what is refused, and how counts are printed."""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from megaphone.errors import UsageError
from megaphone.workloads import text as source
from megaphone.workloads.text import (
    CORPUS_EXCLUDED_FOLDERS,
    CORPUS_SUFFIXES,
    STDIN,
    SkippedFile,
    TextFile,
    default_corpus,
    find_files,
    format_counts,
    pieces,
)

LATIN_1 = "déjà".encode("latin-1")


def paths_of(files: Sequence[TextFile | SkippedFile], folder: Path) -> list[str]:
    return [str(Path(file.path).relative_to(folder)) for file in files]


def words_of(files: Sequence[TextFile], piece_bytes: int = 1 << 20) -> list[str]:
    return [word for piece in pieces(files, piece_bytes) for word in piece.words()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b" / "x.py").write_text("two\n")
    (tmp_path / "c.txt").write_text("three\n")
    return tmp_path


def test_a_folder_is_walked_in_the_order_of_names(folder: Path) -> None:
    files, skipped = find_files([folder])
    assert paths_of(files, folder) == ["a.txt", "b/x.py", "c.txt"]
    assert skipped == []
    assert words_of(files) == ["one", "two", "three"]


def test_several_paths_keep_their_order_and_may_repeat(folder: Path) -> None:
    files, _ = find_files([str(folder / "c.txt"), folder / "b", folder / "c.txt"])
    assert paths_of(files, folder) == ["c.txt", "b/x.py", "c.txt"]


def test_suffixes_choose_files_in_folders_but_not_files_named_outright(folder: Path) -> None:
    files, _ = find_files([folder, folder / "c.txt"], suffixes=(".py",))
    assert paths_of(files, folder) == ["b/x.py", "c.txt"]


def test_excluded_folders_are_not_entered(folder: Path) -> None:
    files, _ = find_files([folder], exclude_folders=("b",))
    assert paths_of(files, folder) == ["a.txt", "c.txt"]


def test_a_file_in_a_folder_with_one_bad_byte_at_its_end_is_skipped_whole_and_named(folder: Path) -> None:
    bad = folder / "b" / "bad.txt"
    bad.write_bytes(b"good words\n" * 200_000 + b"\xff")
    files, skipped = find_files([folder])
    assert paths_of(files, folder) == ["a.txt", "b/x.py", "c.txt"]
    assert skipped == [SkippedFile(str(bad), 2_200_000, 200_001)]
    assert str(skipped[0]) == f"{bad}: not UTF-8 at byte 2200000 (line 200001)"


def test_a_file_named_outright_that_is_not_utf8_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"line\nd" + LATIN_1)
    with pytest.raises(UsageError) as caught:
        find_files([path])
    assert str(caught.value) == f"{path}: not UTF-8 at byte 7 (line 2): convert it with iconv, or leave it out"


@pytest.mark.parametrize("content", [None, b"", LATIN_1])
def test_a_folder_without_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "file.txt").write_bytes(content)
    with pytest.raises(UsageError, match="a folder without text"):
        find_files([tmp_path])


def test_a_folder_without_text_is_refused_also_beside_one_with_text(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="empty: a folder without text"):
        find_files([folder, folder / "empty"])


def test_an_empty_file_named_outright_has_no_words(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    files, _ = find_files([tmp_path / "empty"])
    assert words_of(files) == []


@pytest.mark.parametrize("path", ["", "missing.txt", "missing/file.txt", "a\nb", "nul\0byte"])
def test_a_missing_path_is_refused_in_one_line_that_names_it(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_files([path])
    assert (path if path.isprintable() and path else repr(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_used_as_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        find_files([folder / "a.txt" / "inside"])


def test_no_path_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no text"):
        find_files([])


@pytest.mark.parametrize("in_folder", [False, True])
def test_an_unreadable_file_is_refused_and_never_left_out_silently(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, in_folder: bool
) -> None:
    # Permission bits do not stop root, who runs tests in containers; so the refusal is played.
    locked = folder / "c.txt"
    opened = Path.open

    def refuse(path: Path, mode: str = "r") -> object:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"c\.txt: cannot be read \(Permission denied\): make it readable"):
        find_files([folder if in_folder else locked])


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not stop root")
def test_an_unreadable_folder_is_refused_and_never_left_out_silently(folder: Path) -> None:
    (folder / "b").chmod(0)
    try:
        with pytest.raises(UsageError, match="cannot be read"):
            find_files([folder])
    finally:
        (folder / "b").chmod(0o700)


def test_links_to_folders_are_not_followed_so_that_a_loop_ends(folder: Path) -> None:
    (folder / "b" / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "self").symlink_to("self")
    (folder / "link.txt").symlink_to(folder / "a.txt")
    files, _ = find_files([folder])
    assert paths_of(files, folder) == ["a.txt", "b/x.py", "c.txt", "link.txt"]


def test_pipes_in_a_folder_are_passed_over_and_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    files, _ = find_files([folder])
    assert paths_of(files, folder) == ["a.txt", "b/x.py", "c.txt"]


def test_a_pipe_named_outright_is_a_stream_that_is_not_read_ahead(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    files, _ = find_files([tmp_path / "pipe"])
    assert files == [TextFile(str(tmp_path / "pipe"), None)]


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("here")
        with pytest.raises(UsageError, match="neither a file nor a folder"):
            find_files(["here"])


def test_a_hundred_nested_folders_are_no_trouble(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    (deep / "file").write_text("down here")
    files, _ = find_files([tmp_path])
    assert words_of(files) == ["down", "here"]


def test_standard_input_is_read_once_and_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO("Σίσυφος ΣΊΣΥΦΟΣ".encode())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=buffer))
    files, _ = find_files([STDIN])
    assert files == [TextFile(STDIN, None)]
    assert words_of(files) == ["σίσυφος", "σίσυφος"]
    assert not buffer.closed


def test_standard_input_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="named twice"):
        find_files([STDIN, STDIN])


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        words_of([TextFile(STDIN, None)])


def test_a_file_that_goes_bad_after_the_check_is_refused_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "changing.txt"
    path.write_text("fine\nfine\n")
    files, _ = find_files([path])
    path.write_bytes(b"fine\nb\xff\n")
    with pytest.raises(UsageError, match=r"not UTF-8 at byte 6 \(line 2\)"):
        words_of(files, piece_bytes=4)


def test_a_byte_order_mark_is_a_character_and_no_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "bom.txt"
    path.write_bytes(b"\xef\xbb\xbfword\n")
    files, _ = find_files([path])
    (piece,) = pieces(files)
    assert piece.words() == ["word"]
    assert piece.input_bytes == 8


@pytest.mark.parametrize("letter", ["w", "ω"])
def test_a_word_may_be_longer_than_many_pieces(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "long.txt"
    path.write_text(f"short\n{letter * 100_000} {letter * 3}\nend")
    files, _ = find_files([path])
    assert words_of(files, piece_bytes=1000) == ["short", letter * 100_000, letter * 3, "end"]


def test_a_line_too_long_for_32_bit_offsets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LINE_BYTES_MAX", 100)
    path = tmp_path / "line.txt"
    path.write_text("w" * 120)
    files, _ = find_files([path])
    with pytest.raises(UsageError, match=r"line\.txt: a line of more than 100 bytes: break it"):
        words_of(files, piece_bytes=50)


def test_a_piece_without_words_still_carries_its_input_bytes(tmp_path: Path) -> None:
    path = tmp_path / "blank.txt"
    path.write_text("\n \n\t\n…\n")
    files, _ = find_files([path])
    (piece,) = pieces(files)
    assert (piece.n_words, piece.data, piece.offsets.tolist(), piece.input_bytes) == (0, b"", [0], 9)


def test_a_piece_tells_its_file(folder: Path) -> None:
    files, _ = find_files([folder])
    assert [(piece.file_index, piece.words()) for piece in pieces(files)] == [
        (0, ["one"]),
        (1, ["two"]),
        (2, ["three"]),
    ]


def test_counts_come_by_falling_count_then_by_code_points() -> None:
    words = ["b", "a", "Z", "é", "𝔸", "\uffee", "often"]
    counts = np.array([1, 1, 1, 1, 1, 1, 2**63], dtype=np.uint64)
    lines = list(format_counts(words, counts))
    assert lines == ["often\t9223372036854775808", "Z\t1", "a\t1", "b\t1", "é\t1", "\uffee\t1", "𝔸\t1"]
    assert list(format_counts(words, counts, top=2)) == lines[:2]


def test_counts_without_as_many_words_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(format_counts(["a", "b"], [1]))


def test_the_default_corpus_is_the_standard_library_without_what_was_installed_into_it() -> None:
    folder = default_corpus()
    assert (folder / "argparse.py").is_file()
    # A part of it, since all of it takes a second.
    files, _ = find_files([folder / "json"], suffixes=CORPUS_SUFFIXES, exclude_folders=CORPUS_EXCLUDED_FOLDERS)
    assert "decoder.py" in paths_of(files, folder / "json")
    assert all(Path(file.path).suffix in CORPUS_SUFFIXES for file in files)
