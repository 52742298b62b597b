"""Signals that come while a run is under way: held back, and then treated as if the run had never replaced anything."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from megaphone.dataflow.signals import DeferredSignals


@pytest.fixture
def wake_fd() -> Iterator[int]:
    """An eventfd that does not block."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """What a plain program has, and afterwards what the test runner had."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_interrupt_is_raised_when_it_is_handled_and_not_before(wake_fd: int) -> None:
    with DeferredSignals(wake_fd) as signals:
        signal.raise_signal(signal.SIGINT)
        assert os.eventfd_read(wake_fd) == 1
        with pytest.raises(KeyboardInterrupt):
            signals.handle()
        signals.handle()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_nobody_handled_is_raised_at_the_end(wake_fd: int) -> None:
    with pytest.raises(KeyboardInterrupt), DeferredSignals(wake_fd):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_does_not_hide_the_error_that_ended_the_run(wake_fd: int) -> None:
    def interrupted_and_failing() -> None:
        with DeferredSignals(wake_fd):
            signal.raise_signal(signal.SIGINT)
            int("no number")

    with pytest.raises(ValueError, match="invalid literal"):
        interrupted_and_failing()


def test_term_becomes_an_exit_with_its_code_and_has_its_default_afterwards(wake_fd: int) -> None:
    with pytest.raises(SystemExit) as caught, DeferredSignals(wake_fd):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_callers_that_returns_lets_the_run_go_on(wake_fd: int) -> None:
    seen: list[int] = []

    def note(number: int, _: Any) -> None:
        seen.append(number)

    signal.signal(signal.SIGTERM, note)
    with DeferredSignals(wake_fd) as signals:
        signal.raise_signal(signal.SIGTERM)
        assert seen == []
        signals.handle()
        assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is note


def test_a_signal_that_is_ignored_stays_ignored(wake_fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with DeferredSignals(wake_fd):
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_nothing_is_replaced(wake_fd: int) -> None:
    seen: list[Any] = []

    def look() -> None:
        with DeferredSignals(wake_fd):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
