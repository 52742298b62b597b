"""Output files: whole or not at all, and refused before the run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from megaphone.errors import UsageError
from megaphone.observe.files import check_writable, write_whole


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_the_check_does_not_touch_a_file_that_is_there(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    before = target.stat()
    check_writable(target)
    assert target.read_text() == "old"
    assert target.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("call", [check_writable, lambda path: write_whole(path, "text")])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/report.json", "No such file or directory"),
        ("file/report.json", "Not a directory"),
        (".", "is a folder"),
        ("", "is empty"),
        ("x" * 300, "File name too long"),
        ("nul\0byte", "null"),
        ("loop/report.json", "oop"),
    ],
)
def test_an_unwritable_path_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: object, name: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    assert callable(call)
    with pytest.raises(UsageError) as caught:
        call(name)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_the_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot write '/proc/report.json'"):
        check_writable("/proc/report.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_a_file_or_folder_without_permission_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.touch(mode=0o400)
    with pytest.raises(UsageError, match="Permission denied"):
        check_writable(target)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="Permission denied"):
            check_writable(tmp_path / "other.json")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_without_permission_is_refused_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.json"
    target.touch()
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != target)
    with pytest.raises(UsageError, match="Permission denied"):
        check_writable(target)


def test_a_file_is_written_as_utf_8_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write_whole(target, "first, and longer")
    write_whole(str(target), "zweite, kürzer")
    assert target.read_bytes() == "zweite, kürzer".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_new_file_obeys_the_umask_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    plain = tmp_path / "plain"
    plain.touch()
    write_whole(target, "a")
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    target.chmod(0o640)
    write_whole(target, "b")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")

    def disk_is_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_whole(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.json"

    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(target, "new")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "latest.json"
    link.symlink_to(tmp_path / "there" / "report.json")
    check_writable(link)
    write_whole(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "there" / "report.json").read_text() == "text"


def test_what_is_no_plain_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    # A pipe of our own and not a device: run by root, a wrong replacement would take the device from the machine.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_writable(pipe)
        write_whole(pipe, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    with pytest.raises(UsageError, match="Bad file descriptor"):
        check_writable("/dev/fd/987654")


def test_a_pipe_is_written_to_through_its_descriptor() -> None:
    reader, writer = os.pipe()
    try:
        check_writable(f"/dev/fd/{writer}")
        write_whole(f"/dev/fd/{writer}", "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
        os.close(writer)
