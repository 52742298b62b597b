"""Stream with the methods that operators of all layers add to it, for editors and type checkers."""

from collections.abc import Callable
from typing import Any, TypeVar, Unpack

from megaphone.dataflow.batch import Batch
from megaphone.dataflow.graph import Graph, KeyFunction, OutputPort, Pact
from megaphone.dataflow.operators.binary_frontier import BinaryFunction
from megaphone.dataflow.operators.capture import Capture
from megaphone.dataflow.operators.flat_map import FlatMapFunction
from megaphone.dataflow.operators.map import MapFunction
from megaphone.dataflow.operators.notificator import FrontierNotificator
from megaphone.dataflow.operators.probe import Probe
from megaphone.dataflow.operators.unary import Output
from megaphone.dataflow.operators.unary_frontier import FrontierInput, FrontierOutput
from megaphone.dataflow.schema import Schema
from megaphone.migration.operators.applying import PendingKey, State
from megaphone.migration.operators.control import Control
from megaphone.migration.operators.state_machine import Machine
from megaphone.migration.operators.stateful import BinaryFold, Fold, Stateful, StatefulStream

_F = TypeVar("_F", bound=Callable[..., Any])

class Stream:
    """The records that one output port sends."""

    graph: Graph
    port: OutputPort
    def __init__(self, graph: Graph, port: OutputPort) -> None: ...
    @property
    def schema(self) -> Schema:
        """Names and dtypes of the columns."""
    # -- layer 3, dataflow -----------------------------------------------------------------------------------------
    def map(self, function: MapFunction, *, columns: Any = None, loan: bool = False, name: str = "map") -> Stream:
        """Make other columns of each batch: ``function(batch)`` gives a mapping of arrays."""

    def filter(self, predicate: Callable[[Batch], Any], *, name: str = "filter") -> Stream:
        """Let records pass for which ``predicate(batch)``, bool[n], is True."""

    def flat_map(
        self, function: FlatMapFunction, *, columns: Any = None, loan: bool = False, name: str = "flat_map"
    ) -> Stream:
        """Make any number of batches of each: ``function(batch)`` yields mappings of arrays."""

    def inspect(self, function: Callable[[Batch], Any], *, name: str = "inspect") -> Stream:
        """Call ``function(batch)`` with each batch and hand the batch on."""

    def concat(self, *others: Stream, name: str = "concat") -> Stream:
        """Put several streams of equal columns into one."""

    def partition(self, parts: int, route: Callable[[Batch], Any], *, name: str = "partition") -> tuple[Stream, ...]:
        """Split into ``parts`` streams: ``route(batch)`` gives the part of each record."""

    def exchange(self, key: str | KeyFunction, *, hash: str = "mix", name: str = "exchange") -> Stream:  # noqa: A002
        """Send each record to the worker that the hash of its key names."""

    def broadcast(self, *, name: str = "broadcast") -> Stream:
        """Send each record to all workers."""

    def unary(
        self,
        function: Callable[[Batch, Output], Any],
        *,
        columns: Any = None,
        pact: Pact | None = None,
        name: str = "unary",
    ) -> Stream:
        """Call ``function(batch, output)`` with each batch."""

    def unary_frontier(
        self,
        function: Callable[[FrontierInput, FrontierOutput, FrontierNotificator], Any],
        *,
        columns: Any = None,
        pact: Pact | None = None,
        name: str = "unary_frontier",
    ) -> Stream:
        """Call ``function(input, output, notificator)`` on input and when the frontier moves."""

    def binary_frontier(
        self,
        other: Stream,
        function: BinaryFunction,
        *,
        columns: Any = None,
        pact: Pact | None = None,
        other_pact: Pact | None = None,
        name: str = "binary_frontier",
    ) -> Stream:
        """Call ``function(left, right, output, notificator)`` on input and when a frontier moves."""

    def probe(self, name: str = "probe") -> Probe:
        """Show how far time has come here, and let records go."""

    def capture(self, name: str = "capture") -> Capture:
        """Keep all records, in private memory, for the result of the run."""
    # -- layer 5, migration: stateful operators; kept by who adds them ----------------------------------------------
    def stateful_unary(
        self,
        *,
        key: str | KeyFunction,
        state: State,
        fold: Fold,
        columns: Any,
        pending: Any = None,
        pending_key: PendingKey | None = None,
        **options: Unpack[Stateful],
    ) -> StatefulStream:
        """Fold records into keyed state that can move between workers while the stream runs."""

    def stateful_unary_input(
        self,
        *,
        key: str | KeyFunction,
        state: State,
        consume: Fold,
        fold: Fold,
        columns: Any,
        pending: Any,
        pending_key: PendingKey | None = None,
        **options: Unpack[Stateful],
    ) -> StatefulStream:
        """Look at records when their time is complete, and fold what is post-dated of them."""

    def stateful_state_machine(
        self,
        *,
        key: str,
        state: State,
        fold: Machine,
        columns: Any,
        **options: Unpack[Stateful],
    ) -> StatefulStream:
        """Run a state machine per key: the fold gets groups of records and returns new states and outputs."""

    def stateful_binary(
        self,
        right: Stream,
        *,
        left_key: str | KeyFunction,
        right_key: str | KeyFunction,
        state: State,
        fold: BinaryFold,
        columns: Any,
        pending: Any = None,
        pending_key: PendingKey | None = None,
        **options: Unpack[Stateful],
    ) -> StatefulStream:
        """Fold two streams into one keyed state that can move between workers while they run."""

    def stateful_binary_input(
        self,
        right: Stream,
        *,
        left_key: str | KeyFunction,
        right_key: str | KeyFunction,
        state: State,
        consume: BinaryFold,
        fold: BinaryFold,
        columns: Any,
        pending: Any,
        pending_key: PendingKey | None = None,
        **options: Unpack[Stateful],
    ) -> StatefulStream:
        """Look at records of two streams when their time is complete, and fold what is post-dated of them."""

    def distribute(
        self,
        key: str | KeyFunction,
        *,
        hash: str = "mix",  # noqa: A002
        bin_shift: int = 8,
        control: Control | None = None,
        initial: Any = None,
        name: str = "distribute",
        plain: bool = False,
    ) -> Stream:
        """Send each record to the worker that owns the bin of its key at the record's time."""

    # -- end of layer 5 --------------------------------------------------------------------------------------------

def stream_method(function: _F) -> _F:
    """Make a function of (stream, ...) a method of Stream under its own name."""

def graph_method(function: _F) -> _F:
    """Make a function of (graph, ...) a method of Graph under its own name."""
