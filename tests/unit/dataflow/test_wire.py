"""Messages from worker to parent: whole whatever the pieces in which they arrive, and arrays without a copy."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from megaphone.dataflow import wire


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end and the parent's, which does not block."""
    theirs, mine = socket.socketpair()
    mine.setblocking(False)
    with theirs, mine:
        yield theirs, mine


def test_messages_that_arrive_together_are_read_together(ends: tuple[socket.socket, socket.socket]) -> None:
    theirs, mine = ends
    wire.send(theirs.fileno(), "ready", {"hash": "abc"})
    wire.send(theirs.fileno(), "done", {})
    wire.send(theirs.fileno(), "result", {}, wire.pack(("text", b"", np.zeros(0))))
    reader = wire.FrameReader(mine.fileno())
    (first, second, (kind, _, parts)) = reader.read()
    assert first == ("ready", {"hash": "abc"}, [])
    assert second == ("done", {}, [])
    assert kind == "result"
    assert wire.unpack(parts, {})[:2] == ("text", b"")
    assert reader.waiting
    assert not reader.closed


def test_a_message_in_single_bytes_is_read_once_it_is_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    theirs, mine = ends
    source, sink = socket.socketpair()
    with source, sink:
        wire.send(source.fileno(), "result", {"worker": 3}, wire.pack(np.arange(5)))
        message = sink.recv(1 << 16)
    reader = wire.FrameReader(mine.fileno())
    for at in range(len(message) - 1):
        theirs.send(message[at : at + 1])
        assert reader.read() == []
    theirs.send(message[-1:])
    ((kind, details, parts),) = reader.read()
    assert (kind, details) == ("result", {"worker": 3})
    assert wire.unpack(parts, {}).tolist() == [0, 1, 2, 3, 4]


def test_an_array_lies_in_what_was_received(ends: tuple[socket.socket, socket.socket]) -> None:
    theirs, mine = ends
    numbers = np.arange(1 << 20, dtype=np.uint64)
    numbers.flags.writeable = False
    sender = threading.Thread(target=wire.send, args=(theirs.fileno(), "result", {}, wire.pack(numbers)))
    sender.start()
    reader = wire.FrameReader(mine.fileno())
    messages: list[tuple[str, dict[str, object], list[bytearray]]] = []
    while not messages:
        messages = reader.read()
    sender.join()
    ((_, _, parts),) = messages
    received = wire.unpack(parts, {})
    assert np.array_equal(received, numbers)
    assert len(parts[1]) == numbers.nbytes
    assert np.shares_memory(received, np.frombuffer(parts[1], np.uint64))


def test_an_end_in_the_middle_of_a_message_is_an_end(ends: tuple[socket.socket, socket.socket]) -> None:
    theirs, mine = ends
    theirs.send(struct.pack("<QQ", 1, 100) + b"begun")
    reader = wire.FrameReader(mine.fileno())
    assert reader.read() == []
    theirs.close()
    assert reader.read() == []
    assert reader.closed
