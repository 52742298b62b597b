"""Runs a NEXMark query in the Simulation, with bins that move or not, and compares what comes out with the oracle.

::

    Scenario ──> generators, one per slot ──> three inputs per slot, tick by tick ──> the query ──> captured rows
        └──────> plan ──> control ───────────────────────────────────────────────────────┘            │
    all events ──> oracle ──> expected rows ──────────────────────────────────> difference() <────────┘

``SCENARIOS`` is what must hold, as data: the short ones for every run of the tests, the rest (``stress``) for long
ones. Where the engine's queries and generators come in is at two places, ``definition`` and ``generated``; a test may
give its own instead.
"""

from __future__ import annotations

import importlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.capture import Captured
from megaphone.dataflow.stream import Stream
from megaphone.migration import plan as plans
from megaphone.migration.control import Instruction, Move
from megaphone.migration.operators.control import Control
from megaphone.migration.pacing import Pacer
from megaphone.testing import Simulation
from megaphone.workloads.nexmark.queries import find
from megaphone.workloads.nexmark.settings import NexmarkSettings
from megaphone.workloads.nexmark.style import Streams as QueryStreams
from megaphone.workloads.nexmark.style import Style
from tests.nexmark.oracle import AUCTION, BID, COLUMNS, KIND, PERSON, QUERIES, Streams, Windows, difference, expected
from tests.property.migrating import settle

MS: Final = 1_000_000
KINDS: Final = np.array(["person", "auction", "bid"], KIND)
"""Texts of q0's kind, by its code in the engine's rows."""
WIDTHS: Final = {"name": "u4", "city": "u1", "state": "u1"}
SCHEMAS: Final = {
    stream: {name: WIDTHS.get(name, "u8") for name in names}
    for stream, names in (("person", PERSON), ("auction", AUCTION), ("bid", BID))
}
STRATEGIES: Final = ("none", "sudden", "fluid", "batched", "random")
TRANSFERS: Final = ("handover", "copy")
GENERATORS: Final = ("exact", "fast")
LAPS: Final = 3
"""How often a random plan moves each bin."""
ROUNDS_MAX: Final = 2000
"""After the last event, for a plan to come to its end."""


@dataclass(frozen=True)
class Scenario:
    """One run of one query.

    Attributes:
        query: q0 to q8.
        flex: with state in bins that can move; otherwise on operators that know no bins.
        slots: workers.
        strategy: ``none``, ``sudden``, ``fluid``, ``batched``: there and back at a third and at two thirds of the run,
            each step when the one before is complete; ``random``: every bin ``LAPS`` times, to another worker, waiting
            for nothing.
        transfer: handover or copy.
        generator: exact or fast.
        seed: of the generator, the plan and the order of steps.
        events: of all slots.
        rate: events per second of event time, of all slots.
        in_flight: auctions that bids are for; so few that most close before the last event.
        tick: ns of event time that have one logical time; on purpose no divisor of the windows, mostly.
        bin_shift: log2 of the bins.
        windows: short ones, so that many end.
        stress: only for long runs.
    """

    query: str
    flex: bool
    slots: int
    strategy: str = "none"
    transfer: str = "handover"
    generator: str = "fast"
    seed: int = 0
    events: int = 3000
    rate: int = 1000
    in_flight: int = 20
    tick: int = 50 * MS
    bin_shift: int = 4
    windows: Windows = Windows(q5_size=600 * MS, q5_slide=60 * MS, q7=250 * MS, q8=400 * MS)
    stress: bool = False

    @property
    def name(self) -> str:
        """What a test calls it."""
        moves = f"flex-{self.strategy}-{self.transfer}" if self.flex else "plain"
        return f"{self.query}-{moves}-{self.slots}w-{self.generator}-s{self.seed}"


def of_scale(scale: int, run: Scenario) -> Scenario:
    """Return a scenario with more events in the same time."""
    return replace(run, events=scale * run.events, rate=scale * run.rate)


def scenarios() -> Iterator[Scenario]:
    """Yield what must hold: few of each query that together have every value of everything, then all combinations."""
    ticks = itertools.cycle((50 * MS, 7 * MS, 130 * MS, 20 * MS + 1))
    slots = itertools.cycle((1, 2, 3, 4))
    moved_slots = itertools.cycle((2, 3, 4))  # with one slot nothing moves
    generators = itertools.cycle(GENERATORS)
    transfers = itertools.cycle(TRANSFERS)  # three strategies a query, so each gets the other one with the next query
    seeds = itertools.count()
    for query in QUERIES:
        # These give few rows, of events that are few.
        scale = 2 if query in ("q2", "q3", "q8") else 1
        for _ in range(2):
            kind, seed = next(generators), next(seeds)
            yield of_scale(scale, Scenario(query, False, next(slots), generator=kind, seed=seed, tick=next(ticks)))
        moving = [("none", "handover"), *((strategy, next(transfers)) for strategy in STRATEGIES[1:4])]
        moving += [("random", transfer) for transfer in TRANSFERS]
        for strategy, transfer in moving:
            count = next(slots) if strategy == "none" else next(moved_slots)
            kind, seed = next(generators), next(seeds)
            yield of_scale(scale, Scenario(query, True, count, strategy, transfer, kind, seed, tick=next(ticks)))
        next(generators)  # so that what is exact for one query is fast for the next
    for query, count, kind, seed in itertools.product(QUERIES, (1, 2, 3, 4), GENERATORS, (1001, 1002, 1003)):
        long = Scenario(query, False, count, generator=kind, seed=seed, events=12_000, rate=3000, stress=True)
        long = replace(long, tick=next(ticks))
        yield long
        for strategy, transfer in itertools.product(STRATEGIES if count > 1 else STRATEGIES[:1], TRANSFERS):
            yield replace(long, flex=True, strategy=strategy, transfer=transfer, bin_shift=6)


# --- where the engine comes in ----------------------------------------------------------------------------------------


class Definition(Protocol):
    """A query as the engine has it: on this worker's graph, from three streams to one."""

    def __call__(self, person: Stream, auction: Stream, bid: Stream, control: Control | None, run: Scenario) -> Stream:
        """Add the query to the graph.

        Args:
            person: the persons that this worker makes, columns and order as in ``SCHEMAS``; ``auction`` and ``bid``
                likewise. A record's logical time is its date_time rounded down to ``run.tick``.
            auction: the auctions.
            bid: the bids.
            control: where migrations come from; None for the plain form.
            run: tick, windows, bin_shift and transfer are for the query.

        Returns:
            The rows, whose columns are ``COLUMNS[run.query]`` in this order, integers of any width; ``kind`` is the
            place in ``KINDS``. A row's logical time is less than a tick from its ``time``.
        """


def definition(query: str) -> Definition:
    """Return the engine's definition of a query."""

    def define(person: Stream, auction: Stream, bid: Stream, control: Control | None, run: Scenario) -> Stream:
        style = Style(query, control is not None, control, run.bin_shift, run.transfer)
        streams = QueryStreams({"person": person, "auction": auction, "bid": bid}, settings_of(run))
        return find(query).build(streams, style)

    return define


def settings_of(run: Scenario) -> NexmarkSettings:
    """Return what the command would be asked for, for the queries' parameters."""
    second = 1e9
    return NexmarkSettings(
        queries=run.query, workers=run.slots, rate_per_worker=run.rate / run.slots, events=run.events,
        in_flight=run.in_flight, generator=run.generator, seed=run.seed, tick_ns=run.tick, bin_shift=run.bin_shift,
        q5_size_s=run.windows.q5_size / second, q5_slide_s=run.windows.q5_slide / second,
        q7_window_s=run.windows.q7 / second, q8_window_s=run.windows.q8 / second,
    )  # fmt: skip


def generated(run: Scenario) -> list[Streams]:
    """Return the events of a run, by the slot that makes them."""
    generator = importlib.import_module("megaphone.workloads.nexmark.events").Generator
    made: list[Streams] = []
    for slot in range(run.slots):
        one = generator(run.generator, slot, run.slots, run.rate, run.in_flight, run.seed)
        made.append(one.take(one.share(run.events))._asdict())
    return made


def shared(streams: Streams, slots: int) -> list[Streams]:
    """Return events by slot where they were made by one: number n belongs to slot n % slots."""
    return [
        {
            stream: {name: values[columns["seq"] % np.uint64(slots) == slot] for name, values in columns.items()}
            for stream, columns in streams.items()
        }
        for slot in range(slots)
    ]


# --- one run ----------------------------------------------------------------------------------------------------------


@dataclass
class Slot:
    """What build makes on one slot."""

    inputs: dict[str, Any]
    control: Control | None
    rows: Any
    probe: Any


@dataclass(frozen=True)
class Outcome:
    """What a run has given.

    Attributes:
        rows: columns of all slots.
        times: uint64[n], the logical time of each row.
        moved: bins that have changed their owner, counted as often as they did.
    """

    rows: dict[str, npt.NDArray[Any]]
    times: npt.NDArray[np.uint64]
    moved: int


def check(
    run: Scenario,
    define: Definition | None = None,
    generate: Callable[[Scenario], list[Streams]] = generated,
) -> Outcome:
    """Play a scenario and compare it with the oracle.

    Raises:
        AssertionError: other rows than the oracle's, a row whose logical time is not its time's, none at all to
            compare, a plan that moved nothing, or something left of the run when it was over.
    """
    by_slot = generate(run)
    outcome = play(run, define or definition(run.query), by_slot)
    must = expected(joined(by_slot), run.windows, queries=[run.query])[run.query]
    assert must["time"].size, f"{run.name}: no row is expected, so nothing is shown: give more events"
    wrong = difference(must, outcome.rows, run.name)
    assert wrong is None, wrong
    exact = outcome.rows["time"].astype(np.uint64)
    apart = np.maximum(exact, outcome.times) - np.minimum(exact, outcome.times)
    off = np.flatnonzero(apart >= run.tick)
    assert not off.size, f"{run.name}: a row of time {exact[off[0]]} came at {outcome.times[off[0]]}, tick {run.tick}"
    assert (outcome.moved > 0) == (run.strategy != "none"), f"{run.name}: {outcome.moved} bins have moved"
    return outcome


def joined(by_slot: Sequence[Streams]) -> Streams:
    """Return the events of all slots together."""
    return {
        stream: {name: np.concatenate([one[stream][name] for one in by_slot]) for name in schema}
        for stream, schema in SCHEMAS.items()
    }


def build_of(run: Scenario, define: Definition) -> Callable[[Graph], Slot]:
    """Return build: the three inputs, the query, a capture and a probe."""

    def build(graph: Graph) -> Slot:
        made = {name: graph.input(name, schema) for name, schema in SCHEMAS.items()}
        inputs = {name: one for name, (one, _) in made.items()}
        person, auction, bid = (stream for _, stream in made.values())
        control = graph.control(inputs["bid"], lead=run.tick) if run.flex else None
        rows = define(person, auction, bid, control, run)
        return Slot(inputs, control, rows.capture("rows"), rows.probe())

    return build


def play(run: Scenario, define: Definition, by_slot: Sequence[Streams]) -> Outcome:
    """Run the query over the events, tick by tick, the slots in random order and some behind the others."""
    draw = random.Random(run.seed)
    cut = [_by_tick(streams, run.tick) for streams in by_slot]
    ticks = 1 + max((max(times) for times in cut if times), default=0) // run.tick
    with Simulation(build_of(run, define), slots=run.slots, seed=run.seed) as simulation:
        slots: list[Slot] = simulation.handles
        mover = Mover(run, slots[0].control, [slot.probe for slot in slots], ticks * run.tick)
        for number in range(ticks + ROUNDS_MAX):
            time = number * run.tick
            for index in draw.sample(range(run.slots), run.slots):
                for stream, columns in cut[index].get(time, {}).items():
                    slots[index].inputs[stream].send(columns)
            mover.move()
            for index in draw.sample(range(run.slots), run.slots):
                for one in slots[index].inputs.values():
                    one.advance_to(time + run.tick)
                for _ in range(draw.randrange(3)):
                    simulation.step()
            if number + 1 >= ticks and mover.finished:
                break
            if number + 1 >= ticks or draw.random() < 0.2:
                simulation.run_until(partial(_passed, slots, time))
        assert mover.finished, f"{run.name}: the plan has not come to its end"
        for slot in slots:
            for one in slot.inputs.values():
                one.close()
        simulation.run()
        parts: list[Captured] = [slot.rows.result() for slot in slots]
        moved = simulation.counter("bins_in")
        assert moved == simulation.counter("bins_out")
        _assert_at_rest(simulation)
    rows = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS[run.query]}
    assert all(list(part.columns) == list(rows) for part in parts), f"{run.name}: columns {list(parts[0].columns)}"
    if "kind" in rows:
        rows["kind"] = KINDS[rows["kind"]]
    return Outcome(rows, np.concatenate([part.times for part in parts]), moved)


def _assert_at_rest(simulation: Simulation) -> None:
    """No count, message or broken list of blocks is left of a run."""
    settle(simulation)
    left = ffi.new("int64_t[3]")
    for worker in simulation.workers:
        assert lib.mp_times_left(worker.slot, left) == 0, list(left)
        assert lib.mp_block_check(worker.slot) == 0
        assert lib.mp_queued_cells(simulation.memory.control, worker.index) == 0


def _passed(slots: list[Slot], time: int) -> bool:
    return all(slot.probe.frontier() > time for slot in slots)


def _by_tick(streams: Streams, tick: int) -> dict[int, dict[str, dict[str, npt.NDArray[Any]]]]:
    """Return the batches of one slot by logical time and stream; events come in the order of their numbers."""
    cut: dict[int, dict[str, dict[str, npt.NDArray[Any]]]] = {}
    for stream, columns in streams.items():
        times = columns["date_time"] // np.uint64(tick) * np.uint64(tick)
        assert (times[1:] >= times[:-1]).all(), f"{stream}: dates fall"
        starts = np.flatnonzero(np.diff(times, prepend=times[:1] + np.uint64(1)))
        for first, last in itertools.pairwise([*starts.tolist(), times.size]):
            batch = {name: columns[name][first:last] for name in SCHEMAS[stream]}
            cut.setdefault(int(times[first]), {})[stream] = batch
    return cut


class Mover:
    """Sends the migrations of a scenario through worker 0's control."""

    def __init__(self, run: Scenario, control: Control | None, probes: list[Any], duration: int) -> None:
        self._control, self._probes = control, probes
        self._pacer: Pacer | None = None
        self._random: list[tuple[int, int, list[Instruction]]] = []  # (lap, not before, moves), the last first
        self._lap_times = dict.fromkeys(range(-1, LAPS), -1)  # the control's time when a lap's moves were last sent
        if run.strategy == "none" or control is None:
            return
        bins = 1 << run.bin_shift
        initial = np.arange(bins) % run.slots  # what every stateful operator begins with
        draw = random.Random(run.seed + 1)
        if run.strategy == "random":
            self._random = list(_random_moves(draw, initial.tolist(), run.slots, duration))[::-1]
        else:
            target = (initial + np.array([draw.randrange(1, run.slots) for _ in range(bins)])) % run.slots
            self._pacer = Pacer(plans.round_trip(run.strategy, initial, target, duration, bins_per_pair=2))
            for step in self._pacer.initial_steps():
                control.send_instructions(step.instructions)

    @property
    def finished(self) -> bool:
        """Whether everything has been sent and, where steps wait for each other, is complete."""
        return not self._random and (self._pacer is None or self._pacer.finished)

    def move(self) -> None:
        """Send what is due at the control's present time."""
        if self._control is None or self._control.closed:
            return
        now = self._control.time
        # Of two moves of a bin at one time only the second would happen, so laps do not share a time.
        while self._random and self._random[-1][1] <= now and self._lap_times[self._random[-1][0] - 1] < now:
            lap, _, moves = self._random.pop()
            self._control.send_instructions(moves)
            self._lap_times[lap] = now
        if self._pacer is not None:
            step = self._pacer.due(now, min(probe.frontier() for probe in self._probes))
            if step is not None:
                self._control.send_instructions(step.instructions)


def _random_moves(
    draw: random.Random, owner: list[int], slots: int, duration: int
) -> Iterator[tuple[int, int, list[Instruction]]]:
    """Yield (lap, not before, moves): in a lap each bin goes to another worker, in groups of any size and distance."""
    for lap in range(LAPS):
        moves: list[Instruction] = []
        for bin_id in draw.sample(range(len(owner)), len(owner)):
            owner[bin_id] = (owner[bin_id] + draw.randrange(1, slots)) % slots
            moves.append(Move(bin_id, owner[bin_id]))
        starts = sorted({0, *(draw.randrange(len(moves)) for _ in range(len(moves) // 3))})
        first_time, last_time = lap * duration // LAPS, (lap + 1) * duration // LAPS
        times = sorted(draw.randrange(first_time, last_time) for _ in starts)
        for time, (first, last) in zip(times, itertools.pairwise([*starts, len(moves)]), strict=True):
            yield lap, time, moves[first:last]


SCENARIOS: Final = tuple(scenarios())
