"""How records come to S: through F, by configuration, or straight from an exchange, for good.

::

    RoutedEntry   left ---> F ---data_out, state_out---> S      right ---> F right ---data_out---> S
    FixedEntry    left ---exchange---> S                        right ---exchange---> S

S asks its entry for inputs, first owners and the core's description of them; the rest of it is the same, so that the
plain variant of an operator runs the same definition, and what migration costs is the difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import EXCHANGE, ROUTED, Graph, InputPort, Operator, Pact
from megaphone.dataflow.stream import Stream
from megaphone.errors import UsageError
from megaphone.migration.operators.routing import FUEL_RECORDS, Keying, Router

if TYPE_CHECKING:
    from megaphone.dataflow.graph import OutputPort
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker

NO_PORT = 2**32 - 1


class Entry(ABC):
    """The ways of all inputs to one S.

    Args:
        graph: the dataflow.
        schemas: of the only input, or of left and right.
        keyings: how records of each find their bin.

    Attributes:
        data: S's ports for records, once connected.
        moved: S's port for bins, or None where they stay.
        keyed: number of the operator among the stateful ones.
    """

    data: list[InputPort]
    moved: InputPort | None = None
    keyed: int

    def __init__(self, graph: Graph, schemas: tuple[Schema, ...], keyings: tuple[Keying, ...]) -> None:
        self.graph, self.schemas, self.keyings = graph, schemas, keyings
        self.bin_shift = keyings[0].bin_shift

    def connect(self, applier: Operator) -> None:
        """Give S its inputs and number it."""
        self.data = []
        self._connect(applier)
        self.keyed = self.graph.add_keyed(self.bin_shift)

    @abstractmethod
    def _connect(self, applier: Operator) -> None:
        """Add the inputs; the left one's location comes before the right one's."""

    def watch(self, out: OutputPort) -> None:  # noqa: B027 - where there is no F, nothing watches it
        """Let F see the frontier of S's output."""

    @abstractmethod
    def owners(self, initial: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401 - array-like
        """Return uint8[bins], the worker of each bin at the start; raises UsageError for a map that is none."""

    def port_names(self) -> list[str]:
        """Return what tools call S's ports for records and bins, by location."""
        records = ["data"] if len(self.data) == 1 else ["left", "right"]
        return [records[0], *(["state"] if self.moved else []), *records[1:]]

    def ports(self, out: OutputPort) -> dict[str, int]:
        """Return the locations of both halves by the names that inspection has for them."""
        found = dict(zip(("s_data", "s_data2"), (port.location for port in self.data), strict=False))
        return found | {"s_out": out.location} | ({"s_state": self.moved.location} if self.moved else {})

    def start(self, worker: Worker, out: OutputPort, owners: npt.NDArray[np.uint8]) -> Any:  # noqa: ANN401 - a cffi struct
        """Return S's ``mp_stateful`` with its ports, ready for ``mp_keyed_start``."""
        op = ffi.new("mp_stateful *")
        op.keyed, op.bin_shift, op.fuel = self.keyed, self.bin_shift, FUEL_RECORDS
        op.s_data, op.s_out = self.data[0].location, out.location
        op.s_state = self.moved.location if self.moved else NO_PORT
        self.schemas[0].fill(op.route.schema)
        if len(self.data) > 1:
            op.binary, op.s_data2 = 1, self.data[1].location
            self.schemas[1].fill(op.right)
        self._start(worker, op, ffi.from_buffer("uint8_t[]", owners))
        worker.check(lib.mp_keyed_start(worker.slot, op, ffi.from_buffer("uint8_t[]", owners)))
        return op

    def _start(self, worker: Worker, op: Any, owners: Any) -> None:  # noqa: ANN401, B027 - cffi; nothing by default
        """Fill in F's side."""


class RoutedEntry(Entry):
    """Through F: bins can move."""

    def __init__(self, routers: tuple[Router, ...]) -> None:
        schemas = tuple(router.data.schema for router in routers)
        super().__init__(routers[0].graph, schemas, tuple(router.keying for router in routers))
        self.routers = routers

    def _connect(self, applier: Operator) -> None:
        left, *right = self.routers
        self.data.append(applier.add_input(Stream(self.graph, left.data_out), Pact(ROUTED)))
        self.moved = applier.add_input(Stream(self.graph, left.state_out), Pact(ROUTED, credit=False))
        for router in right:
            self.data.append(applier.add_input(Stream(self.graph, router.data_out), Pact(ROUTED)))

    def watch(self, out: OutputPort) -> None:
        """Let each F see how far S's output has come; no record ever takes that edge."""
        for router in self.routers:
            feedback = router.add_input(Stream(self.graph, out), Pact(ROUTED))
            number = router.inputs.index(feedback)
            for index in range(len(router.outputs)):
                router.summaries[number, index] = None

    def owners(self, initial: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401 - array-like
        """Return the given map, or bin i at worker i % workers."""
        bins, workers = 1 << self.bin_shift, self.graph.workers
        if initial is None:
            return (np.arange(bins) % workers).astype(np.uint8)
        owner = np.asarray(initial)
        if owner.shape != (bins,) or owner.dtype.kind not in "iu" or owner.min() < 0 or owner.max() >= workers:
            message = f"initial map of shape {owner.shape}, {bins} bins, {workers} workers: name a worker for each bin"
            raise UsageError(message)
        return owner.astype(np.uint8)

    def ports(self, out: OutputPort) -> dict[str, int]:
        """Return the locations of F too."""
        found = super().ports(out)
        for suffix, router in zip(("", "2"), self.routers, strict=False):
            ports = (port.location for port in router.inputs)
            found |= dict(zip((f"f_data{suffix}", f"f_control{suffix}", f"f_feedback{suffix}"), ports, strict=True))
        return found

    def _start(self, worker: Worker, op: Any, owners: Any) -> None:  # noqa: ANN401 - cffi
        left, *right = self.routers
        left.start(op, self.data[0])
        for router in right:
            # The same operator's number: its maps lie beside the left one's, and its bins are the left one's.
            other = ffi.new("mp_stateful *")
            other.keyed, other.bin_shift, other.fuel, other.side = op.keyed, op.bin_shift, op.fuel, 1
            router.start(other, self.data[1])
            worker.check(lib.mp_keyed_start(worker.slot, other, owners))


class FixedEntry(Entry):
    """Straight from an exchange whose parts are the bins, so that each part's state lies where its records go."""

    def __init__(self, streams: tuple[Stream, ...], keyings: tuple[Keying, ...]) -> None:
        super().__init__(streams[0].graph, tuple(stream.schema for stream in streams), keyings)
        self._streams = streams
        self._pacts = tuple(
            Pact(EXCHANGE, keying.key, keying.hash, part_bits=keying.bin_shift) for keying in keyings
        )  # fmt: skip

    def _connect(self, applier: Operator) -> None:
        for stream, pact in zip(self._streams, self._pacts, strict=True):
            self.data.append(applier.add_input(stream, pact))

    def owners(self, initial: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401 - array-like
        """Return the map of the exchange."""
        maps = [pact.owners(self.graph.workers) for pact in self._pacts]
        if initial is not None:
            message = "an initial map, and plain=True: owners are the exchange's; leave one of them out"
            raise UsageError(message)
        if any((other != maps[0]).any() for other in maps[1:]):
            message = "hash dense of a column on one side, a function on the other: plain=True needs the same of both"
            raise UsageError(message)
        return maps[0]
