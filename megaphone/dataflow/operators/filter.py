"""Filter: some records of each batch go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from megaphone.dataflow.batch import Batch
from megaphone.dataflow.gathering import send_selected
from megaphone.dataflow.operators.unary import Output, Transform
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError


class Filter(Transform):
    """Sends the records for which a mask is True."""

    def __init__(self, stream: Stream, name: str, predicate: Callable[[Batch], Any]) -> None:
        super().__init__(stream, name)
        self.predicate = predicate

    def transform(self, batch: Batch, output: Output) -> None:
        """Send what the mask keeps."""
        mask = np.asarray(self.predicate(batch))
        if mask.dtype != np.bool_ or mask.shape != (batch.n,):
            message = (
                f"operator {self.name!r}: the predicate gave {mask.dtype}{list(mask.shape)}, "
                f"a batch of {batch.n} needs bool[{batch.n}]"
            )
            raise UsageError(message)
        send_selected(self._worker, batch, np.flatnonzero(mask), output)


@stream_method
def filter(stream: Stream, predicate: Callable[[Batch], Any], *, name: str = "filter") -> Stream:  # noqa: A001
    """Let records pass for which ``predicate(batch)``, bool[n], is True.

    Args:
        stream: its input.
        predicate: a function from a batch to a mask.
        name: for errors and reports.

    Cost: a batch that passes whole is handed on; of others the kept records are written once (``gather``).
    """
    return Stream(stream.graph, Filter(stream, name, predicate).out)
