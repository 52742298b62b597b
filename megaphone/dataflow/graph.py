"""The dataflow as it is built: operators, their ports, the edges between them, and what follows from their shape.

``build(graph)`` runs once on every worker; equal graphs are a precondition, so a hash of the shape is compared at the
start.  Locations number the ports of all operators: inputs and outputs, in the order in which they were made.  From
the edges and each operator's own summaries follows the path table: how much later a time at one location can appear
at an input, at the least.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi
from megaphone.dataflow.methods import GraphMethods
from megaphone.dataflow.schema import Schema, as_schema
from megaphone.errors import GraphError

if TYPE_CHECKING:
    from megaphone.dataflow.batch import Batch
    from megaphone.dataflow.stream import Stream
    from megaphone.dataflow.worker import Worker

PIPELINE, EXCHANGE, BROADCAST, ROUTED = 0, 1, 2, 3
PART_BITS: Final = 12
"""An exchange spreads so many parts of the hash over the workers, as a power of two, unless it is told otherwise."""
HASHES: Final = {"fnv": 0, "mix": 1, "dense": 2, "given": 3}
STATEFUL_MAX: Final = len(ffi.new("mp_limits *").bin_shift)
"""Stateful operators of one dataflow: the control region's header has room for so many."""
_FAR: Final = 1 << 61  # no path; the sum of two still fits an int64
_PACKAGE: Final = Path(__file__).resolve().parent.parent

KeyFunction = Callable[["Batch"], npt.NDArray[np.uint64]]


@dataclass(frozen=True)
class Pact:
    """How an edge chooses the worker for each record.

    Attributes:
        kind: PIPELINE (stays), EXCHANGE (by hash of a key), BROADCAST (to all), ROUTED (the operator names it).
        key: column, or a function from a batch to uint64[n] hashes; EXCHANGE only.
        hash: name of the hash over a key column.
        credit: whether messages count as in flight, which sources wait for.
        part_bits: log2 of the parts of the hash that are spread over the workers; EXCHANGE only.
    """

    kind: int = PIPELINE
    key: str | KeyFunction | None = None
    hash: str = "mix"
    credit: bool = True
    part_bits: int = PART_BITS

    def describe(self) -> str:
        """Return the pact as text for the hash of the graph."""
        key = self.key if isinstance(self.key, str) or self.key is None else "function"
        return f"{self.kind}/{key}/{self.hash}/{self.credit}/{self.part_bits}"

    def owners(self, workers: int) -> npt.NDArray[np.uint8]:
        """Return uint8[2 ** part_bits], the worker of each part: neighbours together, or, for dense keys, in turn."""
        parts = np.arange(1 << self.part_bits, dtype=np.uint64)
        is_dense = self.hash == "dense" and not callable(self.key)
        owner = parts % np.uint64(workers) if is_dense else parts * np.uint64(workers) >> np.uint64(self.part_bits)
        return owner.astype(np.uint8)


@dataclass(eq=False)
class OutputPort:
    """Where an operator sends; holds its edges and, once the graph is attached, their C form."""

    operator: Operator
    schema: Schema
    holders: frozenset[int] = frozenset()  # workers with a capability at time 0
    location: int = -1
    edges: list[tuple[InputPort, Pact]] = field(default_factory=list)
    c_edges: Any = None
    edge_count: int = 0  # of c_edges
    by_function: bool = False  # whether the key of one of them is a user's function

    @property
    def sent_edges(self) -> list[tuple[InputPort, Pact]]:
        """The edges that ``push`` serves; along ROUTED ones the operator sends by itself, if at all."""
        return [edge for edge in self.edges if edge[1].kind != ROUTED]


@dataclass(eq=False)
class InputPort:
    """Where an operator receives: the end of one edge."""

    operator: Operator
    source: OutputPort
    pact: Pact
    location: int = -1

    @property
    def schema(self) -> Schema:
        """The columns that arrive here."""
        return self.source.schema


class Operator:
    """Base of all operators: ports, summaries, and ``activate``.

    Args:
        graph: where it is added.
        name: for errors and reports; made unique by a number where it is taken.
    """

    volatile = True
    """Whether its Python state is lost with the process; operators that keep theirs in shared memory say False."""
    messages_alone = False
    """Whether an activation that finds no message changes nothing: then the core runs it."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.inputs: list[InputPort] = []
        self.outputs: list[OutputPort] = []
        self.summaries: dict[tuple[int, int], int | None] = {}  # (input, output) that differ from 0; None: no path
        self.line = user_line()
        self.name = graph.add(self, name)

    def add_input(self, stream: Stream, pact: Pact | None = None) -> InputPort:
        """Connect a stream; raise GraphError when it is another graph's or the key does not exist."""
        if stream.graph is not self.graph:
            message = "its input belongs to another graph: use streams of the graph that build was given"
            raise self.error(message)
        pact = pact or Pact()
        if isinstance(pact.key, str):
            _check_key(self, stream.schema, pact)
        port = InputPort(self, stream.port, pact)
        self.inputs.append(port)
        stream.port.edges.append((port, pact))
        return port

    def add_output(self, schema: Schema | Mapping[str, Any], holders: frozenset[int] = frozenset()) -> OutputPort:
        """Add an output of these columns; holders are the workers that may send at time 0 unasked."""
        try:
            port = OutputPort(self, as_schema(schema), holders)
        except GraphError as error:
            raise self.error(str(error)) from None
        self.outputs.append(port)
        return port

    def error(self, message: str) -> GraphError:
        """Return a GraphError that names this operator and the user's line."""
        return GraphError(f"operator {self.name!r} ({self.line}): {message}")

    def check_key(self, key: str, hash_name: str) -> None:
        """Refuse a key column that the first input does not have, or that the hash cannot take; raises GraphError."""
        _check_key(self, self.inputs[0].schema, Pact(EXCHANGE, key, hash_name))

    @property
    def sends_away(self) -> bool:
        """Whether its output may need room in a ring: such an operator waits while its outbox is not empty."""
        return any(p.kind in (EXCHANGE, BROADCAST) for output in self.outputs for _, p in output.edges)

    def check(self) -> None:
        """Refuse what can only be seen when the graph is whole; raise GraphError."""

    def setup(self, worker: Worker) -> None:
        """Get ready to run on a worker; called once, after locations are known."""

    def task(self) -> tuple[Any, Any] | None:
        """Return the C function that runs an activation and what it is given (schedule.h); None: ``activate`` does.

        Asked for once, after all operators have been set up.
        """
        return None

    def activate(self) -> None:
        """Run one activation: take what has arrived, send, publish."""
        raise NotImplementedError  # pragma: no cover - every operator has its own

    def go_on(self, value: int) -> None:  # noqa: ARG002 - for those whose C function has begun the activation
        """Run what the C function of ``task`` has left, which has answered ``value``, above 0."""
        self.activate()

    def fail(self, worker: Worker, rc: int) -> None:
        """Raise what a negative answer of the C function means."""
        worker.check(rc)

    def port_names(self) -> list[str]:
        """Return what tools call its ports, inputs first; in the order of their locations."""
        inputs = ["in"] if len(self.inputs) == 1 else [f"in{number}" for number in range(len(self.inputs))]
        return inputs + (["out"] if len(self.outputs) == 1 else [f"out{n}" for n in range(len(self.outputs))])

    def about(self) -> dict[str, Any]:
        """Return what tools that look at a run from outside are told about it, as plain data; see about.py."""
        return {}

    def describe(self) -> str:
        """Return what must be equal on all workers."""
        inputs = [f"{p.source.operator.name}:{p.source.operator.outputs.index(p.source)}:{p.pact.describe()}"
                  for p in self.inputs]  # fmt: skip
        return f"{type(self).__name__} {self.name} {inputs} {[o.schema.describe() for o in self.outputs]}"


class Graph(GraphMethods):
    """What ``build`` fills: operators in the order in which they were made.

    Attributes:
        workers: how many workers run this graph.
        operators: all of them, sources first.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.operators: list[Operator] = []
        self.keyed: list[int] = []  # bin_shift of each stateful operator
        self.captures: list[str] = []
        self._names: set[str] = set()
        self._finished = False

    def add(self, operator: Operator, name: str) -> str:
        """Add an operator; returns its unique name."""
        if self._finished:
            message = f"operator {name!r}: the graph is running already; make all operators inside build"
            raise GraphError(message)
        unique, number = name, 2
        while unique in self._names:
            unique, number = f"{name}-{number}", number + 1
        self._names.add(unique)
        self.operators.append(operator)
        return unique

    def add_keyed(self, bin_shift: int) -> int:
        """Number a stateful operator."""
        if len(self.keyed) == STATEFUL_MAX:
            message = f"one stateful operator too many: at most {STATEFUL_MAX} are possible in one dataflow"
            raise GraphError(message)
        self.keyed.append(bin_shift)
        return len(self.keyed) - 1

    # -- what follows from the shape ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """Number the locations and check the whole; raises GraphError. May be called again."""
        if self._finished:
            return
        location = 0
        for operator in self.operators:
            for port in ports_of(operator):
                port.location = location
                location += 1
        self.location_count = location
        for operator in self.operators:
            operator.check()
        self._finished = True
        self.path_index, self.path_from, self.path_step = self._paths()

    def ports(self) -> list[InputPort | OutputPort]:
        """Return all ports by location."""
        return [port for operator in self.operators for port in ports_of(operator)]

    def _paths(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
        """Return the path table of each input: (index uint32[n+1], from uint32[m], step uint64[m])."""
        count = self.location_count
        step = np.full((count, count), _FAR, np.int64)
        for operator in self.operators:
            for i, port in enumerate(operator.inputs):
                step[port.source.location, port.location] = 0
                for o, output in enumerate(operator.outputs):
                    summary = operator.summaries.get((i, o), 0)
                    if summary is not None:
                        step[port.location, output.location] = summary
        for via in range(count):
            np.minimum(step, step[:, via : via + 1] + step[via : via + 1, :], out=step)  # _FAR never grows
        for operator in self.operators:
            for port in operator.inputs:
                if step[port.location, port.location] < 1:
                    message = "it is in a loop that does not advance time: give feedback a step of 1 or more"
                    raise operator.error(message)
        index, sources, steps = [0], [], []
        for any_port in self.ports():
            if isinstance(any_port, InputPort):
                column = step[:, any_port.location].copy()
                column[any_port.location] = 0
                reach = np.flatnonzero(column < _FAR)
                sources.extend(reach.tolist())
                steps.extend(column[reach].tolist())
            index.append(len(sources))
        return np.array(index, np.uint32), np.array(sources, np.uint32), np.array(steps, np.uint64)

    def hash(self) -> str:
        """Return a digest of the shape; workers whose digests differ have built different graphs."""
        text = "\n".join(operator.describe() for operator in self.operators)
        return hashlib.sha256(text.encode()).hexdigest()

    def operator_at(self, location: int) -> Operator | None:
        """Return the operator that has a location."""
        ports = self.ports()
        return ports[location].operator if 0 <= location < len(ports) else None


def ports_of(operator: Operator) -> list[InputPort | OutputPort]:
    """Return an operator's ports in the order of their locations."""
    return [*operator.inputs, *operator.outputs]


def _check_key(operator: Operator, schema: Schema, pact: Pact) -> None:
    if pact.hash not in HASHES:
        message = f"unknown hash {pact.hash!r}: use fnv, mix or dense"
        raise operator.error(message)
    try:
        dtype = schema.dtype(str(pact.key))
    except GraphError as error:
        raise operator.error(str(error)) from None
    if pact.hash == "dense" and (dtype is None or dtype.kind not in "iu"):
        message = f"hash dense of column {pact.key!r}, which is no integer: use fnv or mix"
        raise operator.error(message)


def user_line() -> str:
    """Return ``file:line`` of the nearest caller outside the package."""
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way to the caller without building a whole traceback
    while frame is not None:
        path = frame.f_code.co_filename
        if not Path(path).is_relative_to(_PACKAGE):
            source = linecache.getline(path, frame.f_lineno).strip()
            where = f"{Path(path).name}:{frame.f_lineno}"
            return f"{where}: {source}" if source else where
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "megaphone"
