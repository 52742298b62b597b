"""The progress line: seldom, only on a terminal, and gone afterwards."""

from __future__ import annotations

import io

import pytest

from megaphone.workloads.progress_line import REDRAW_NS, ProgressLine


class Terminal(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Nanoseconds that go on only when they are told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def seen(text: str) -> str:
    """Return what stands in the line after these characters."""
    line: list[str] = []
    column = 0
    for character in text:
        if character == "\r":
            column = 0
            continue
        line[column : column + 1] = character
        column += 1
    return "".join(line).rstrip()


def test_nothing_is_written_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with ProgressLine(10, "records", stream=stream) as line:
        line.update(5)
    assert stream.getvalue() == ""


def test_it_can_be_switched_off_on_a_terminal() -> None:
    stream = Terminal()
    with ProgressLine(10, "records", enabled=False, stream=stream) as line:
        line.update(5)
    assert stream.getvalue() == ""


def test_it_shows_how_far_the_run_is() -> None:
    stream, clock = Terminal(), Clock()
    line = ProgressLine(2000, "records", stream=stream, clock_ns=clock)
    clock.now_ns = 3_000_000_000
    line.update(1000, "migrating")
    assert seen(stream.getvalue()) == " 50%  1,000 records  3 s  migrating"


def test_it_does_without_a_total() -> None:
    stream = Terminal()
    ProgressLine(None, "words", stream=stream, clock_ns=Clock()).update(7)
    assert seen(stream.getvalue()) == "7 words  0 s"


def test_it_is_drawn_at_most_five_times_a_second() -> None:
    stream, clock = Terminal(), Clock()
    line = ProgressLine(1000, "records", stream=stream, clock_ns=clock)
    for done in range(1000):
        clock.now_ns = done * 1_000_000
        line.update(done)
    assert stream.getvalue().count("\r") == 5
    assert REDRAW_NS * 5 == 1_000_000_000


def test_a_shorter_line_leaves_nothing_of_a_longer_one() -> None:
    stream, clock = Terminal(), Clock()
    line = ProgressLine(None, "words", stream=stream, clock_ns=clock)
    line.update(1, "a long note about what goes on")
    clock.now_ns = REDRAW_NS
    line.update(2)
    assert seen(stream.getvalue()) == "2 words  0 s"


def test_it_clears_itself_also_after_an_error() -> None:
    stream = Terminal()

    def fail() -> None:
        with ProgressLine(10, "records", stream=stream) as line:
            line.update(5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen(stream.getvalue()) == ""
    assert stream.getvalue().endswith("\r")
    assert "\n" not in stream.getvalue()


def test_after_closing_nothing_is_drawn_any_more() -> None:
    stream, clock = Terminal(), Clock()
    line = ProgressLine(10, "records", stream=stream, clock_ns=clock)
    line.close()
    clock.now_ns = REDRAW_NS
    line.update(5)
    line.close()
    assert stream.getvalue() == ""


def test_a_line_wider_than_the_terminal_is_cut() -> None:
    stream = Terminal()
    ProgressLine(None, "words", stream=stream, clock_ns=Clock()).update(1, "x" * 500)
    assert len(seen(stream.getvalue())) == 79


def test_a_terminal_that_goes_away_does_not_end_the_run() -> None:
    class Gone(Terminal):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    with ProgressLine(10, "records", stream=Gone()) as line:
        line.update(5)


def test_a_process_without_standard_error_has_nobody_to_talk_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with ProgressLine(10, "records", enabled=True) as line:
        line.update(5)
