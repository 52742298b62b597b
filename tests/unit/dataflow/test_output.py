"""What workers print is shown line by line, whatever the pieces in which it arrives."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from megaphone.dataflow.output import LINE_BYTES_MAX, LineForwarder


@pytest.fixture
def pipe() -> Iterator[tuple[LineForwarder, int]]:
    """A forwarder and the end that a worker writes to."""
    reading, writing = os.pipe()
    yield LineForwarder(reading, "[w7] "), writing
    os.close(reading)
    os.close(writing)


def test_a_line_is_shown_once_it_is_whole(pipe: tuple[LineForwarder, int], capsys: pytest.CaptureFixture[str]) -> None:
    forwarder, writing = pipe
    os.write(writing, b"one\ntw")
    assert forwarder.read()
    assert capsys.readouterr().err == "[w7] one\n"
    os.write(writing, b"o\n\n")
    assert forwarder.read()
    assert capsys.readouterr().err == "[w7] two\n[w7] \n"
    assert forwarder.last_line == "two"
    assert not forwarder.read()


def test_draining_shows_the_rest_of_a_line(pipe: tuple[LineForwarder, int], capsys: pytest.CaptureFixture[str]) -> None:
    forwarder, writing = pipe
    os.write(writing, b"\xffend")
    forwarder.drain()
    forwarder.drain()
    assert capsys.readouterr().err == "[w7] \ufffdend\n"
    assert forwarder.last_line == "\ufffdend"


def test_a_line_without_an_end_is_shown_in_pieces(
    pipe: tuple[LineForwarder, int], capsys: pytest.CaptureFixture[str]
) -> None:
    forwarder, writing = pipe
    for _ in range(3):
        os.write(writing, b"x" * (LINE_BYTES_MAX // 2))
        forwarder.read()
    shown = capsys.readouterr().err.splitlines()
    assert [len(line) for line in shown] == [len("[w7] ") + 3 * LINE_BYTES_MAX // 2]


@pytest.mark.parametrize("closed", [True, False])
def test_nobody_listening_is_no_error(
    pipe: tuple[LineForwarder, int], monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    forwarder, writing = pipe
    with open(os.devnull, "w") as stream:  # noqa: PTH123 - a device
        pass
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    os.write(writing, b"one\n")
    assert forwarder.read()
