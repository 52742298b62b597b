"""Broadcast: every worker gets every record, out of the same bytes."""

from __future__ import annotations

from megaphone.dataflow.graph import BROADCAST, Pact
from megaphone.dataflow.operators.exchange import Forward
from megaphone.dataflow.stream import Stream, stream_method


@stream_method
def broadcast(stream: Stream, *, name: str = "broadcast") -> Stream:
    """Send each record to all workers; its bytes are written once and read by all."""
    return Stream(stream.graph, Forward(stream, name, Pact(BROADCAST)).out)
