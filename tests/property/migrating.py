"""A dataflow that counts by key and notes all it sees, and what it must see: for tests of migration.

``Script`` says what is sent when, and which instructions; ``run_script`` plays it in a Simulation; ``reference`` works
out with plain dicts what each key must be shown, in which order, and ``owner_history`` which worker owns each bin from
which time on. Nothing of the engine decides what is expected, except the hashes, which have tests of their own.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.migration.control import Instruction, Map, Move, Noop
from megaphone.migration.operators.fold_context import FoldContext, taken
from megaphone.shm.limits import Limits, parse_size
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation

MEMORY = "32M"
LAST_TIME = 2**64 - 2
POST_DATED = 1 << 40
"""Added to the number of a record that comes back."""


@dataclass(frozen=True)
class Backend:
    """A store and the hash that routes to it."""

    name: str
    hash: str
    key: str

    @property
    def state(self) -> DenseArray | HashTable:
        return DenseArray({"n": "u8"}) if self.hash == "dense" else HashTable(self.key, {"n": "u8"})

    def column(self, keys: list[int]) -> Any:
        """Return keys as the column of a batch."""
        if self.key == "bytes":
            return BytesColumn.of([b"key %d" % key * (1 + key % 3) for key in keys])
        return np.array(keys, np.uint64)

    def number(self, key: Any) -> int:
        """Return the number that stands behind a key of the store."""
        return int(key.split()[1].removesuffix(b"key")) if self.key == "bytes" else int(key)


BACKENDS = [
    Backend("vec", "dense", "u8"),
    Backend("hashmap fnv", "fnv", "u8"),
    Backend("hashmap mix", "mix", "u8"),
    Backend("bytes", "mix", "bytes"),
]


@dataclass(frozen=True)
class Sending:
    """One batch, whose records are ``spread`` apart in time; each comes back ``delay`` later unless that is 0."""

    slot: int
    keys: tuple[int, ...]
    delay: int = 0
    spread: int = 0


@dataclass(frozen=True)
class Update:
    """Instructions for a time ``ahead`` of the control's (LAST_TIME: the last there is)."""

    instructions: tuple[Instruction, ...]
    ahead: int = 0


@dataclass(frozen=True)
class Round:
    """What happens at one time."""

    sendings: tuple[Sending, ...] = ()
    updates: tuple[Update, ...] = ()
    steps: int = 1


@dataclass(frozen=True)
class Script:
    """A whole run."""

    slots: int
    bin_shift: int
    backend: Backend
    transfer: str
    rounds: tuple[Round, ...]
    seed: int = 0
    manual: bool = False
    eager: bool = False
    per_time: bool = True
    initial: tuple[int, ...] | None = None
    control_closes: int | None = None

    @property
    def has_pending(self) -> bool:
        return any(sending.delay for round_ in self.rounds for sending in round_.sendings)

    @property
    def first_owner(self) -> np.ndarray[Any, np.dtype[np.uint32]]:
        bins = 1 << self.bin_shift
        if self.initial is None:
            return (np.arange(bins) % self.slots).astype(np.uint32)
        return np.resize(np.array(self.initial, np.uint32) % self.slots, bins)


@dataclass
class Sent:
    """One record as it was sent."""

    time: int
    slot: int
    ident: int
    key: int
    delay: int


@dataclass
class Slot:
    """What build makes on one slot."""

    words: Any
    control: Any
    counts: Any
    probe: Any
    log: list[tuple[int, int]] = field(default_factory=list)  # (time, ident) in the order in which the fold saw them
    outputs: list[tuple[int, int, int]] = field(default_factory=list)  # (time, ident, running count)
    grown: int = 0  # rows that growth has moved or made, at the end


@dataclass
class Outcome:
    """What a run has shown."""

    sent: list[Sent]
    updates: list[tuple[int, tuple[Instruction, ...]]]  # in the order in which they were sent
    slots: list[Slot]
    moved: int
    counts: dict[int, int]


def build_of(script: Script) -> Callable[[Graph], Slot]:
    """Return build: an input, a control, the count, a probe."""

    def build(graph: Graph) -> Slot:
        words, stream = graph.input("words", {"k": script.backend.key, "id": "u8", "delay": "u8"})
        control = graph.control(manual=True) if script.manual else graph.control(words)
        log: list[tuple[int, int]] = []
        outputs: list[tuple[int, int, int]] = []

        def fold(context: FoldContext) -> None:
            for time, segments in context.by_time():
                for segment in segments:
                    keys, idents, delays = segment["k"], segment["id"], segment["delay"]
                    running = context.state.add_emit(keys)
                    log.extend((time, ident) for ident in idents.tolist())
                    context.output.send({"id": idents, "n": running}, time=time)
                    late = np.flatnonzero(delays)
                    if len(late):
                        again = idents[late] + np.uint64(POST_DATED)
                        back = {"k": taken(keys, late), "id": again, "delay": 0 * late}
                        context.post_date(back, np.uint64(time) + delays[late])

        def see(batch: Any, _: Any) -> None:
            outputs.extend(zip([batch.time] * batch.n, batch["id"].tolist(), batch["n"].tolist(), strict=True))

        counts = stream.stateful_unary(
            key="k", hash=script.backend.hash, state=script.backend.state, fold=fold, columns={"id": "u8", "n": "u8"},
            control=control, bin_shift=script.bin_shift, transfer=script.transfer, eager=script.eager,
            per_time=script.per_time, initial=script.first_owner, name="count",
            pending={"delay": "u8", "k": script.backend.key, "id": "u8"} if script.has_pending else None,
        )  # fmt: skip
        return Slot(words, control, counts, counts.unary(see).probe(), log, outputs)

    return build


def run_script(script: Script) -> Outcome:
    """Play a script to its end, checking on the way that time goes on, and at the end that nothing is left."""
    with Simulation(build_of(script), slots=script.slots, seed=script.seed, memory=MEMORY) as simulation:
        outcome = Outcome([], [], simulation.handles, 0, {})
        for time, round_ in enumerate(script.rounds):
            _play(script, outcome, time, round_)
            for _ in range(round_.steps):
                simulation.step()
        end = len(script.rounds)
        probes = [slot.probe for slot in outcome.slots]
        # Property 3: inputs that stop at a frontier are enough for the output to come there.
        simulation.run_until(lambda: all(probe.frontier() >= end for probe in probes))
        assert [probe.frontier() for probe in probes] == [end] * script.slots
        for slot in outcome.slots:
            slot.words.close()
            slot.control.close()
        simulation.run()
        assert_at_rest(simulation, [slot.counts for slot in outcome.slots])
        outcome.moved = simulation.counter("bins_in")
        assert outcome.moved == simulation.counter("bins_out")
        final = owner_history(script, outcome.updates)[-1][1]
        for slot in outcome.slots:
            statistics = slot.counts.state.statistics()
            slot.grown = statistics.rows_moved + statistics.rows_made
        outcome.counts = dict(final_counts(script, outcome.slots, final))
        return outcome


def _play(script: Script, outcome: Outcome, time: int, round_: Round) -> None:
    for sending in round_.sendings:
        slot = sending.slot % script.slots
        count = len(sending.keys)
        idents = np.arange(count) + len(outcome.sent)
        times = time + np.arange(count) % 4 * sending.spread
        outcome.sent += [
            Sent(at, slot, ident, key, sending.delay)
            for at, ident, key in zip(times.tolist(), idents.tolist(), sending.keys, strict=True)
        ]
        delays = np.full(count, sending.delay, np.uint64)
        columns = {"k": script.backend.column(list(sending.keys)), "id": idents, "delay": delays}
        outcome.slots[slot].words.send(columns, times=times if sending.spread else None)
    control = outcome.slots[0].control
    for update in round_.updates:
        if control.closed:
            break
        ahead = LAST_TIME if update.ahead == LAST_TIME else control.time + update.ahead
        at = max(ahead, control.sent_time)
        outcome.updates.append((control.send_instructions(update.instructions, at=at), update.instructions))
    if script.manual and not control.closed:
        control.advance_to(time + 1)
    if script.control_closes == time and script.manual:
        control.close()
    for handle in outcome.slots:
        handle.words.advance_to(time + 1)


# -- what must be ----------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What a run must show: for each key (time, ident, running count) in order."""

    of_key: dict[int, list[tuple[int, int, int]]]

    def outputs(self) -> Counter[tuple[int, int, int]]:
        return Counter(shown for records in self.of_key.values() for shown in records)

    def counts(self) -> dict[int, int]:
        return {key: len(records) for key, records in self.of_key.items()}


def reference(sent: list[Sent]) -> Expected:
    """Apply all records one by one: by time, those that came back first, then by sender and order of sending."""
    inputs: dict[int, list[Sent]] = defaultdict(list)
    for record in sent:
        inputs[record.time].append(record)
    back: dict[int, list[Sent]] = defaultdict(list)
    count: Counter[int] = Counter()
    of_key: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    while inputs or back:
        time = min([*inputs, *back])
        for record in back.pop(time, []) + sorted(inputs.pop(time, []), key=lambda record: record.slot):
            count[record.key] += 1
            of_key[record.key].append((time, record.ident, count[record.key]))
            if record.delay:
                again = Sent(time + record.delay, record.slot, record.ident + POST_DATED, record.key, 0)
                back[again.time].append(again)
    return Expected(dict(of_key))


def owner_history(
    script: Script, updates: list[tuple[int, tuple[Instruction, ...]]]
) -> list[tuple[int, np.ndarray[Any, np.dtype[np.uint32]]]]:
    """Return (from time, owner of each bin), the first from time 0."""
    history = [(0, script.first_owner)]
    for time, instructions in updates:
        owner = history[-1][1].copy()
        for instruction in instructions:
            if isinstance(instruction, Map):
                owner = np.array(instruction.owner)
            elif isinstance(instruction, Move):
                owner[instruction.bin_id] = instruction.worker
            else:
                assert isinstance(instruction, Noop)
        if time == history[-1][0]:
            history.pop()
        history.append((time, owner))
    return history


def bins_of_keys(script: Script, keys: list[int]) -> dict[int, int]:
    """Return the bin of each key."""
    hashes = hash_keys(script.backend.column(keys), script.backend.hash, script.bin_shift)  # type: ignore[arg-type]
    return dict(zip(keys, bins_of(hashes, script.bin_shift).tolist(), strict=True))


def check_outcome(script: Script, outcome: Outcome) -> None:
    """Compare a run with the reference and its owners with the configurations."""
    expected = reference(outcome.sent)
    outputs = Counter(shown for slot in outcome.slots for shown in slot.outputs)
    key_of = {ident: key for key, records in expected.of_key.items() for _, ident, _ in records}
    assert outcome.counts == expected.counts()
    seen: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for slot in outcome.slots:
        assert [time for time, _ in slot.log] == sorted(time for time, _ in slot.log), "a slot went back in time"
        for time, ident in slot.log:
            seen[key_of[ident]].append((time, ident))
    if script.eager:
        # Within a time any order will do, so a running count may be another record's.
        assert Counter((time, key_of[ident], n) for time, ident, n in outputs.elements()) == Counter(
            (time, key, n) for key, records in expected.of_key.items() for time, _, n in records
        )
        assert Counter((time, ident) for time, ident, _ in outputs.elements()) == Counter(
            (time, ident) for time, ident, _ in expected.outputs()
        )
    else:
        assert outputs == expected.outputs()
        for key, records in expected.of_key.items():
            # At one time one slot applies a key, so sorting by time alone puts the slots' logs together.
            assert sorted(seen[key], key=lambda shown: shown[0]) == [(time, ident) for time, ident, _ in records]
    check_owners(script, outcome, key_of)


def check_owners(script: Script, outcome: Outcome, key_of: dict[int, int]) -> None:
    """Each record was applied by the worker that the configuration of its time names."""
    history = owner_history(script, outcome.updates)
    starts = np.array([time for time, _ in history], np.uint64)
    bin_of = bins_of_keys(script, sorted(set(key_of.values())))
    for index, slot in enumerate(outcome.slots):
        for time, ident in slot.log:
            owner = history[int(np.searchsorted(starts, np.uint64(time), "right")) - 1][1]
            assert owner[bin_of[key_of[ident]]] == index, f"time {time}, key {key_of[ident]}: applied by {index}"


def assert_at_rest(simulation: Simulation, operators: list[Any]) -> None:
    """Nothing is left of a run but state: no count, message, reference, stash or broken list of blocks."""
    settle(simulation)
    control = simulation.memory.control
    for worker, stream in zip(simulation.workers, operators, strict=True):
        left = ffi.new("int64_t[3]")
        assert lib.mp_times_left(worker.slot, left) == 0, list(left)
        assert lib.mp_block_check(worker.slot) == 0
        assert lib.mp_queued_cells(control, worker.index) == 0
        assert lib.mp_router_updates(worker.slot, stream.operator.op) == 0
        assert lib.mp_applier_stashed(worker.slot, stream.operator.op) == 0
    if slabs_named(simulation):
        gc.collect()  # views may be part of cycles; collecting is slow beside hypothesis, so only then
        settle(simulation)
    assert slabs_named(simulation) == []


def settle(simulation: Simulation) -> None:
    """Let every slot see all that is on its way, and drop what it no longer names."""
    simulation.late = False
    for _ in range(3):
        for slot in range(len(simulation.workers)):
            simulation.step(slot)


def slabs_named(simulation: Simulation) -> list[int]:
    """Return the slabs that any slot holds a reference to."""
    limits = Limits.for_memory(parse_size(MEMORY))
    slabs = limits.memory_bytes // limits.slab_bytes
    return [slab for slab in range(slabs) if lib.mp_ref_row(simulation.memory.control, slab)]


def final_counts(script: Script, slots: list[Slot], owner: Any) -> Iterator[tuple[int, int]]:
    """Yield each key and its count, having checked that it lies at its bin's owner."""
    for index, slot in enumerate(slots):
        owners = ffi.new("uint8_t[]", 1 << script.bin_shift)
        operator = slot.counts.operator
        lib.mp_router_owners(operator._worker.slot, operator.op, owners)
        assert bytes(ffi.buffer(owners)) == owner.astype(np.uint8).tobytes()
        look = ffi.new("uint64_t[10]")
        for own in np.flatnonzero(owner == index).tolist():
            lib.mp_bin_look(operator._worker.slot, operator.op, own, look)
            assert list(look[0:2]) == [index, 1], f"bin {own} is not resident at its owner {index}"
        for bin_id in np.flatnonzero(owner == index).tolist() if script.bin_shift < 9 else [None]:
            for keys, values in slot.counts.state.items(bin_id):
                for key, count in zip(list(keys), values["n"].tolist(), strict=True):
                    yield script.backend.number(key), count
