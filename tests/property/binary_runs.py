"""A dataflow with two inputs that counts by key and notes all it sees, and what it must see: for tests of migration.

As migrating.py, with a left and a right input of different columns: the reference applies, at each time, what was
post-dated to it, then the left input, then the right one, each by sender and order of sending.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megaphone._core import lib
from megaphone.dataflow.graph import Graph
from megaphone.migration.control import Instruction
from megaphone.migration.operators.binary import BinaryContext
from megaphone.testing import Simulation
from tests.property.migrating import (
    LAST_TIME,
    MEMORY,
    POST_DATED,
    Backend,
    Update,
    assert_at_rest,
    bins_of_keys,
    owner_history,
)

LEFT, RIGHT = 0, 1
KEY_OF_SIDE = {"pending": "key", "left": "k", "right": "who"}


@dataclass(frozen=True)
class Sending:
    """One batch of one side; as in migrating.py."""

    side: int
    slot: int
    keys: tuple[int, ...]
    delay: int = 0
    spread: int = 0


@dataclass(frozen=True)
class Round:
    """What happens at one time."""

    sendings: tuple[Sending, ...] = ()
    updates: tuple[Update, ...] = ()
    steps: int = 1


@dataclass(frozen=True)
class BinaryScript:
    """A whole run.

    Attributes:
        closes: for each side the round after which it is closed on every slot, None at the end.
        consumes: whether it is a stateful_binary_input.
        plain: whether owners are fixed.
    """

    slots: int
    bin_shift: int
    backend: Backend
    transfer: str
    rounds: tuple[Round, ...]
    seed: int = 0
    manual: bool = False
    eager: bool = False
    per_time: bool = True
    closes: tuple[int | None, int | None] = (None, None)
    consumes: bool = False
    plain: bool = False

    @property
    def has_pending(self) -> bool:
        return self.consumes or any(sending.delay for round_ in self.rounds for sending in round_.sendings)

    @property
    def first_owner(self) -> np.ndarray[Any, np.dtype[np.uint32]]:
        return (np.arange(1 << self.bin_shift) % self.slots).astype(np.uint32)


@dataclass(frozen=True)
class Sent:
    """One record as it was sent."""

    time: int
    side: int
    slot: int
    ident: int
    key: int
    delay: int


@dataclass
class Slot:
    """What build makes on one slot."""

    sides: tuple[Any, Any]
    control: Any
    counts: Any
    probe: Any
    log: list[tuple[int, int]] = field(default_factory=list)  # (time, ident) in the order in which they were counted
    consumed: list[tuple[int, int]] = field(default_factory=list)  # the same, of what consume saw
    outputs: list[tuple[int, int, int]] = field(default_factory=list)  # (time, ident, running count)
    one_sided: int = 0  # calls that had nothing of one side


@dataclass
class Outcome:
    """What a run has shown."""

    sent: list[Sent]
    updates: list[tuple[int, tuple[Instruction, ...]]]
    slots: list[Slot]
    counts: dict[int, int]
    moved: int


# -- the dataflow ----------------------------------------------------------------------------------------------------


def build_of(script: BinaryScript) -> Callable[[Graph], Slot]:
    """Return a build for a script."""

    def post_date(context: BinaryContext, segment: Any, key: str, time: int) -> None:
        delays = segment["delay"]
        again = delays > 0 if not script.consumes else delays >= 0
        if again.any():
            # All records of a batch have one delay, so a segment comes back whole or not at all.
            ident = segment["id"] if script.consumes else segment["id"] + np.uint64(POST_DATED)
            context.post_date({"id": ident, "key": segment[key]}, np.minimum(np.uint64(time) + delays, LAST_TIME))

    def count(slot: Slot, context: BinaryContext) -> None:
        for time, *parts in context.by_side():
            for side, segments in zip(KEY_OF_SIDE, parts, strict=True):
                for segment in segments:
                    ident, key = segment["id"], KEY_OF_SIDE[side]
                    n = context.state.add_emit(segment[key])
                    slot.log.extend((time, number) for number in ident.tolist())
                    context.output.send({"id": ident, "n": n}, time=time)
                    if side != "pending" and not script.consumes and script.has_pending:
                        post_date(context, segment, key, time)
        shown = {side: sum(segment.n for segment in context.side(side)) for side in KEY_OF_SIDE}
        slot.one_sided += shown["left"] == 0 or shown["right"] == 0
        # What is joined is what the segments have, empty sides too.
        for side, name in KEY_OF_SIDE.items():
            if shown[side] or side != "pending" or script.has_pending:
                assert len(context.side_column(side, name)) == len(context.side_times(side)) == shown[side]
        assert len(context) == sum(shown.values())
        assert [s for s in context.sides if s == "left"] == ["left"] * len(context.left)

    def consume(slot: Slot, context: BinaryContext) -> None:
        assert context.pending == ()
        for time, segments in context.by_time():
            for segment in segments:
                slot.consumed.extend((time, number) for number in segment["id"].tolist())
                post_date(context, segment, "k" if "k" in segment.schema else "who", time)

    def build(graph: Graph) -> Slot:
        key = script.backend.key
        left, left_stream = graph.input("left", {"k": key, "id": "u8", "delay": "u8"})
        right, right_stream = graph.input("right", {"delay": "u8", "id": "u8", "who": key})
        control = None if script.plain else graph.control(manual=True) if script.manual else graph.control(left)
        slot = Slot((left, right), control, None, None)
        options: dict[str, Any] = {
            "left_key": "k", "right_key": "who", "state": script.backend.state, "hash": script.backend.hash,
            "fold": lambda context: count(slot, context), "columns": {"id": "u8", "n": "u8"}, "control": control,
            "bin_shift": script.bin_shift, "transfer": script.transfer, "eager": script.eager,
            "per_time": script.per_time, "plain": script.plain,
        }  # fmt: skip
        if script.has_pending:
            options |= {"pending": {"id": "u8", "key": key}, "pending_key": "key"}
        if script.consumes:
            slot.counts = left_stream.stateful_binary_input(
                right_stream, consume=lambda context: consume(slot, context), **options
            )
        else:
            slot.counts = left_stream.stateful_binary(right_stream, **options)

        def see(batch: Any, _: Any) -> None:
            slot.outputs.extend(zip([batch.time] * batch.n, batch["id"].tolist(), batch["n"].tolist(), strict=True))

        slot.probe = slot.counts.unary(see).probe()
        return slot

    return build


def run_script(script: BinaryScript) -> Outcome:
    """Play a script to its end, check that nothing is left, and return what was seen."""
    with Simulation(build_of(script), slots=script.slots, seed=script.seed, memory=MEMORY) as simulation:
        outcome = Outcome([], [], simulation.handles, {}, 0)
        for time, round_ in enumerate(script.rounds):
            _play(script, outcome, time, round_)
            for _ in range(round_.steps):
                simulation.step()
        end = len(script.rounds)
        probes = [slot.probe for slot in outcome.slots]
        simulation.run_until(lambda: all(probe.frontier() >= end for probe in probes))
        for slot in outcome.slots:
            for side in slot.sides:
                side.close()
            if slot.control is not None:
                slot.control.close()
        simulation.run()
        assert_at_rest(simulation, [slot.counts for slot in outcome.slots])
        for worker, slot in zip(simulation.workers, outcome.slots, strict=True):
            for router in getattr(slot.counts.operator.entry, "routers", ()):
                assert lib.mp_router_updates(worker.slot, router.op) == 0
        outcome.moved = simulation.counter("bins_in")
        assert outcome.moved == simulation.counter("bins_out")
        for slot in outcome.slots:
            for keys, values in slot.counts.state.items():
                for key, n in zip(list(keys), values["n"].tolist(), strict=True):
                    assert outcome.counts.setdefault(script.backend.number(key), n) == n
        return outcome


def _play(script: BinaryScript, outcome: Outcome, time: int, round_: Round) -> None:
    for sending in round_.sendings:
        slot = sending.slot % script.slots
        handle = outcome.slots[slot].sides[sending.side]
        if handle.closed:
            continue
        count = len(sending.keys)
        idents = np.arange(count) + len(outcome.sent)
        times = time + np.arange(count) % 4 * sending.spread
        outcome.sent += [
            Sent(at, sending.side, slot, ident, key, sending.delay)
            for at, ident, key in zip(times.tolist(), idents.tolist(), sending.keys, strict=True)
        ]
        name = "who" if sending.side == RIGHT else "k"
        delays = np.full(count, sending.delay, np.uint64)
        columns = {name: script.backend.column(list(sending.keys)), "id": idents, "delay": delays}
        handle.send(columns, times=times if sending.spread else None)
    control = outcome.slots[0].control
    for update in round_.updates:
        if control is None or control.closed:
            break
        ahead = LAST_TIME if update.ahead == LAST_TIME else control.time + update.ahead
        at = max(ahead, control.sent_time)
        outcome.updates.append((control.send_instructions(update.instructions, at=at), update.instructions))
    if control is not None and script.manual and not control.closed:
        control.advance_to(time + 1)
    for handle in outcome.slots:
        for side, closes in zip(handle.sides, script.closes, strict=True):
            if closes == time:
                side.close()
            elif not side.closed:
                side.advance_to(time + 1)


# -- what must be ----------------------------------------------------------------------------------------------------


def reference(script: BinaryScript, sent: list[Sent]) -> tuple[dict[int, list[tuple[int, int, int]]], list[Any]]:
    """Return, of each key, (time, ident, running count) in order; and what consume must see, by key."""
    inputs: dict[int, list[Sent]] = defaultdict(list)
    for record in sent:
        inputs[record.time].append(record)
    back: dict[int, list[tuple[int, int]]] = defaultdict(list)
    count: Counter[int] = Counter()
    of_key: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    consumed: list[Any] = []
    while inputs or back:
        time = min([*inputs, *back])
        given = sorted(inputs.pop(time, []), key=lambda record: (record.side, record.slot))
        if script.consumes:
            for record in given:
                consumed.append((time, record.ident, record.key))
                back[time + record.delay].append((record.ident, record.key))
            given = []
        for ident, key in back.pop(time, []):
            count[key] += 1
            of_key[key].append((time, ident, count[key]))
        for record in given:
            count[record.key] += 1
            of_key[record.key].append((time, record.ident, count[record.key]))
            if record.delay:
                back[time + record.delay].append((record.ident + POST_DATED, record.key))
    return dict(of_key), consumed


def check_outcome(script: BinaryScript, outcome: Outcome) -> None:
    """Compare a run with the reference and its owners with the configurations."""
    of_key, consumed = reference(script, outcome.sent)
    key_of = {ident: key for key, records in of_key.items() for _, ident, _ in records}
    expected = Counter(shown for records in of_key.values() for shown in records)
    outputs = Counter(shown for slot in outcome.slots for shown in slot.outputs)
    assert outcome.counts == {key: len(records) for key, records in of_key.items()}
    assert Counter(shown for slot in outcome.slots for shown in slot.consumed) == Counter(
        (time, ident) for time, ident, _ in consumed
    )
    seen: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for slot in outcome.slots:
        for log in (slot.log, slot.consumed):
            assert [time for time, _ in log] == sorted(time for time, _ in log), "a slot went back in time"
        for time, ident in slot.log:
            seen[key_of[ident]].append((time, ident))
    if script.eager:
        # Within a time any order will do, so a running count may be another record's.
        for one, other in ((outputs, expected),):
            assert Counter((time, key_of[ident], n) for time, ident, n in one.elements()) == Counter(
                (time, key_of[ident], n) for time, ident, n in other.elements()
            )
    else:
        assert outputs == expected
        for key, records in of_key.items():
            assert sorted(seen[key], key=lambda shown: shown[0]) == [(time, ident) for time, ident, _ in records]
    if not script.plain:
        _check_owners(script, outcome, key_of)


def _check_owners(script: BinaryScript, outcome: Outcome, key_of: dict[int, int]) -> None:
    history = owner_history(script, outcome.updates)  # type: ignore[arg-type]  # it has what that needs
    starts = np.array([time for time, _ in history], np.uint64)
    bin_of = bins_of_keys(script, sorted(set(key_of.values())))  # type: ignore[arg-type]  # as above
    for index, slot in enumerate(outcome.slots):
        for time, ident in [*slot.log, *slot.consumed]:
            owner = history[int(np.searchsorted(starts, np.uint64(time), "right")) - 1][1]
            assert owner[bin_of[key_of[ident]]] == index, f"time {time}, key {key_of[ident]}: applied by {index}"
