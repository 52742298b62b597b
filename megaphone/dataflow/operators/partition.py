"""Partition: each record goes to one of several streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from megaphone.dataflow.batch import Batch
from megaphone.dataflow.gathering import send_selected
from megaphone.dataflow.operators.unary import BatchOperator, Output
from megaphone.dataflow.sending import NEVER
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker


class Partition(BatchOperator):
    """One output per part."""

    def __init__(self, stream: Stream, name: str, parts: int, route: Callable[[Batch], Any]) -> None:
        super().__init__(stream, name)
        if not 1 <= parts <= 256:
            message = f"{parts} parts: ask for 1 to 256"
            raise self.error(message)
        self.route = route
        self.outs = [self.add_output(stream.schema) for _ in range(parts)]

    def setup(self, worker: Worker) -> None:
        """Make what each activation reuses."""
        super().setup(worker)
        self._outputs = [Output(worker, out) for out in self.outs]

    def on_batch(self, batch: Batch) -> None:
        """Send each record along its part's output."""
        part = np.asarray(self.route(batch))
        if part.shape != (batch.n,) or part.dtype.kind not in "iu":
            message = (
                f"operator {self.name!r}: route gave {part.dtype}{list(part.shape)}, "
                f"a batch of {batch.n} needs as many whole numbers below {len(self.outs)}"
            )
            raise UsageError(message)
        least, most = int(part.min()), int(part.max())
        if least < 0 or most >= len(self.outs):
            message = (
                f"operator {self.name!r}: route gave part {least if least < 0 else most}, "
                f"there are 0 to {len(self.outs) - 1}"
            )
            raise UsageError(message)
        # Sorted by part and, being stable, by position within it; eight bits are sorted by counting.
        order = np.argsort(part.astype(np.uint8), kind="stable")
        ends = np.cumsum(np.bincount(part.astype(np.intp), minlength=len(self.outs)))
        start = 0
        for output, end in zip(self._outputs, ends.tolist(), strict=True):
            output.time = batch.time
            try:
                send_selected(self._worker, batch, order[start:end], output)
            finally:
                output.time = NEVER
            start = end


@stream_method
def partition(
    stream: Stream, parts: int, route: Callable[[Batch], Any], *, name: str = "partition"
) -> tuple[Stream, ...]:
    """Split a stream into several.

    Args:
        stream: its input.
        parts: how many streams, 1 to 256.
        route: a function from a batch to whole numbers [n] below ``parts``.
        name: for errors and reports.

    Returns:
        The streams, by part.

    Cost: a batch of one part is handed on; otherwise each record is written once (``gather``).
    """
    operator = Partition(stream, name, parts, route)
    return tuple(Stream(stream.graph, out) for out in operator.outs)
