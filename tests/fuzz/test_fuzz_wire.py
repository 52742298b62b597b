"""A worker's messages to its parent, cut anywhere: what has come whole is told, in order, and nothing else is."""

from __future__ import annotations

import os
import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from megaphone.dataflow import wire

EXAMPLES_MAX = 2 * settings.default.max_examples if settings.default else 100

numbers = st.lists(st.integers(), max_size=9)
values = st.one_of(st.none(), st.integers(), st.text(max_size=20), st.binary(max_size=300), numbers)
messages = st.lists(st.tuples(st.sampled_from(["ready", "done", "result"]), values, values), max_size=4)


def framed(kind: str, detail: Any, value: Any) -> bytes:  # noqa: ANN401 - whatever is sent
    """Return the bytes that a worker would write."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        wire.send(ours.fileno(), kind, {"detail": detail}, wire.pack(value))
        return theirs.recv(1 << 20)


@settings(max_examples=EXAMPLES_MAX)
@given(sent=messages, data=st.data())
def test_messages_cut_into_pieces_and_cut_off_are_told_as_far_as_they_are_whole(
    sent: list[tuple[str, Any, Any]], data: st.DataObject
) -> None:
    frames = [framed(*message) for message in sent]
    stream = b"".join(frames)
    end = data.draw(st.one_of(st.just(len(stream)), st.integers(0, len(stream))))
    cuts = sorted(data.draw(st.lists(st.integers(0, end), max_size=6)))
    ours, theirs = socket.socketpair()
    reader = wire.FrameReader(theirs.fileno())
    told: list[tuple[str, Any, Any]] = []
    with ours, theirs:
        theirs.setblocking(False)
        for first, last in zip([0, *cuts], [*cuts, end], strict=True):
            os.write(ours.fileno(), stream[first:last])
            for kind, details, parts in reader.read():
                told.append((kind, details["detail"], wire.unpack(parts, {})))
            assert not reader.closed
        ours.close()
        assert reader.read() == []
        assert reader.closed
    whole, position = 0, 0
    for frame in frames:
        position += len(frame)
        whole += position <= end
    assert told == sent[:whole]
