"""The dataflow of a script, and one worker's part in it: the same in a process and in the Simulation.

::

    words ─ front ... ─> count (F, S: bins move) ─> see ─> [ again (F, S) ─> see ] ─> probe
              └ tee ─> side: exchange ─> broadcast? ─> see

    front   see front.py
    again   a fold, a state machine, or one whose input is looked at and post-dated first
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch, Loan
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.input import Input
from megaphone.dataflow.operators.probe import Probe
from megaphone.dataflow.operators.unary import Output
from megaphone.dataflow.stream import Stream
from megaphone.dataflow.worker import Worker
from megaphone.errors import SharedMemoryError
from megaphone.migration import plan
from megaphone.migration.control import Instruction, encode
from megaphone.migration.operators.control import Control
from megaphone.migration.operators.fold_context import FoldContext, taken
from megaphone.migration.operators.state_machine import KeyGroups, Transition
from megaphone.migration.operators.stateful import StatefulStream
from megaphone.migration.pacing import Pacer
from megaphone.shm.limits import SLABS_PER_CHUNK_MIN
from megaphone.state.stores import DenseArray, HashTable
from tests.stress.front import front
from tests.stress.keeping import Keeper
from tests.stress.records import BACK, DTYPES, U64, columns_of, mix, numbers_of_keys, put_off, schema_of, times_of
from tests.stress.script import SECOND_KEYS, SECOND_SHIFT, Hog, Script, Sending

CONTROLLER: Final = 0


@dataclass
class Seen:
    """Copies of columns that have passed a place, batch by batch."""

    names: tuple[str, ...]
    parts: list[list[Any]] = field(default_factory=list)

    def __call__(self, batch: Batch, output: Output) -> None:
        """Note a batch, and hand it on."""
        times = batch.times
        stamps = np.full(batch.n, batch.time, np.uint64) if times is None else times.copy()
        self.parts.append([stamps, *(np.array(batch[name].tolist(), "S") if batch.schema.dtype(name) is None
                                     else batch[name].copy() for name in self.names)])  # fmt: skip
        output.forward(batch)

    def columns(self) -> list[Any]:
        """Return times, then each column, of all batches in the order of arrival."""
        if not self.parts:
            return [np.empty(0, np.uint64) for _ in range(len(self.names) + 1)]
        return [np.concatenate(column) for column in zip(*self.parts, strict=True)]


@dataclass
class Handles:
    """What build makes on one worker."""

    words: Input
    controls: list[Control]
    counts: list[StatefulStream]
    probe: Probe
    keeper: Keeper
    seen: Seen
    second: Seen
    side: Seen


def build(graph: Graph, text: str, *, threaded: bool) -> Handles:
    """Build the dataflow of a script that is given as JSON."""
    script = Script.from_json(text)
    keeper = Keeper(script.keep, script.keep_ms, threaded=threaded)
    words, stream = graph.input("words", schema_of(script))
    side = Seen(("id",))
    beside: list[Stream] = []
    for place, name in enumerate(script.front):
        stream = front(stream, name, place, keeper, beside)
    controls = [graph.control(words, lead=script.lead, name=f"control{stage}") for stage in range(1 + script.second)]
    counted, seen = _count(stream, script, controls[0], keeper)
    counts = [counted]
    second = Seen(("g", "n"))
    out: Stream = counted.unary(seen, name="see")
    if script.second:
        again = out.map(_groups if not script.kernel else _groups_of_counts, columns={"g": "u8"}, name="groups")
        counts.append(_again(again, script, controls[1]))
        out = counts[1].unary(second, name="see again")
    for branch in beside:
        branch.exchange("stamp").inspect(keeper.offer).unary(side, name="see side")
    return Handles(words, controls, counts, out.probe(), keeper, seen, second, side)


def _groups(batch: Batch) -> dict[str, Any]:
    return {"g": mix(batch["id"]) % np.uint64(SECOND_KEYS)}


def _groups_of_counts(batch: Batch) -> dict[str, Any]:
    return {"g": mix(batch["n"]) % np.uint64(SECOND_KEYS)}


def _again(stream: Stream, script: Script, control: Control) -> StatefulStream:
    """Count groups; each kind of operator must show the same counts, one of them at other times."""
    declared: dict[str, Any] = {
        "key": "g", "state": HashTable("u8", {"n": "u8"}), "columns": {"g": "u8", "n": "u8"}, "control": control,
        "bin_shift": SECOND_SHIFT, "initial": script.first_owner(1), "name": "again", "per_time": script.per_time,
        "transfer": "copy" if script.transfer == "handover" else "handover",
    }  # fmt: skip
    if script.second_kind == "machine":
        return stream.stateful_state_machine(fold=_count_machine, **declared)
    if script.second_kind == "consume":
        return stream.stateful_unary_input(consume=_put_off, fold=_add_groups, pending={"g": "u8"}, **declared)
    return stream.stateful_unary(fold=_add_groups, **declared)


def _add_groups(context: FoldContext) -> None:
    context.add_emit("g")


def _count_machine(groups: KeyGroups) -> Transition:
    before = np.repeat(groups.state["n"], groups.counts)
    place = np.arange(len(before)) - np.repeat(groups.offsets[:-1], groups.counts)
    return Transition(
        state={"n": groups.state["n"] + groups.counts.astype(np.uint64)},
        outputs={"g": np.repeat(groups.keys, groups.counts), "n": before + place.astype(np.uint64) + np.uint64(1)},
    )


def _put_off(context: FoldContext) -> None:
    groups = context.column("g")
    context.post_date({"g": groups}, put_off(context.times, groups))


def _count(stream: Stream, script: Script, control: Control, keeper: Keeper) -> tuple[StatefulStream, Seen]:
    values = {"n": "u8", "x": "u8"} if script.wide else {"n": "u8"}
    state = DenseArray(values) if script.store == "dense" else HashTable(DTYPES[script.store], values)

    def fold(context: FoldContext) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                keeper.offer(segment)
                running = context.state.add_emit(segment["k"])
                if script.wide:
                    _add_stamps(context, segment["k"], segment["stamp"])
                context.output.send({"id": segment["id"], "n": running}, time=time)
                if script.has_pending:
                    _come_back(context, segment, time)

    def kernel(context: FoldContext) -> None:
        keeper.offer(context.segments[-1])
        context.add_emit("k")

    columns = {"k": DTYPES[script.store], "n": "u8"} if script.kernel else {"id": "u8", "n": "u8"}
    counted = stream.stateful_unary(
        key="k", hash=script.hash, state=state, fold=kernel if script.kernel else fold, columns=columns,
        control=control, bin_shift=script.bin_shift, transfer=script.transfer, eager=script.eager,
        per_time=script.per_time, initial=script.first_owner(), name="count",
        pending=schema_of(script) if script.has_pending else None,
    )  # fmt: skip
    return counted, Seen(tuple(columns))


def _add_stamps(context: FoldContext, keys: Any, stamps: U64) -> None:
    rows, which = np.unique(context.state.rows(keys), return_inverse=True)
    sums = context.state.gather(rows, "x")
    np.add.at(sums, which, stamps)
    context.state.put(rows, "x", sums)


def _come_back(context: FoldContext, segment: Batch, time: int) -> None:
    late = np.flatnonzero(segment["delay"])
    if not len(late):
        return
    back = {name: taken(segment[name], late) for name in segment.schema.names}
    back["id"] = back["id"] + BACK
    back["delay"] = np.zeros(len(late), np.uint64)
    context.post_date(back, np.uint64(time) + segment["delay"][late])


# -- one worker's part -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Action:
    """What a worker's main program does next: send a batch, update a control, advance, or wait for the probe."""

    kind: str
    epoch: int
    what: Any = None


def actions_of(script: Script, slot: int) -> Iterator[Action]:
    """Yield what one worker does, in order."""
    for epoch, happening in enumerate(script.epochs):
        yield from (Action("hog", epoch, hog) for hog in happening.hogs if hog.slot % script.workers == slot)
        if slot == CONTROLLER:
            yield from (Action("update", epoch, update) for update in happening.updates)
        for sending in happening.sendings:
            if sending.slot % script.workers == slot:
                yield Action("send", epoch, sending)
        if slot == CONTROLLER and script.paced:
            yield Action("pace", epoch)
        yield Action("advance", epoch + 1)
        yield Action("wait", epoch - script.window)


class Part:
    """One worker's part of a script.

    Args:
        script: whole.
        worker: hosts the slot.
        handles: what build returned there.

    Attributes:
        updates: (stage, time, words) of what has been sent to a control, in order.
        timers: that let go of loans.
        refused: hogs that were given less than they wanted.
    """

    def __init__(self, script: Script, worker: Worker, handles: Handles) -> None:
        self.script, self.worker, self.handles = script, worker, handles
        self.updates: list[tuple[int, int, Any]] = []
        self.timers: list[threading.Timer] = []
        self.refused = 0
        self._strategies = 0
        self._owner = script.first_owner()
        self._pacer: Pacer | None = None
        handles.keeper.start(script.seed * 64 + worker.index)

    def perform(self, action: Action) -> None:
        """Do what does not wait."""
        if action.kind == "send":
            self._send(action.what, action.epoch)
        elif action.kind == "update":
            bins = 1 << (SECOND_SHIFT if self._stage(action.what.stage) else self.script.bin_shift)
            for step, instructions in enumerate(action.what.instructions(bins, self.script.workers)):
                self._tell(self._stage(action.what.stage), instructions, action.what.ahead + step)
        elif action.kind == "hog" and self.handles.keeper.threaded:
            self._hog(action.what)
        elif action.kind == "pace":
            self._pace()
        elif action.kind == "advance":
            self.handles.words.advance_to(action.epoch)
            self.handles.keeper.let_go()

    def is_over(self, action: Action) -> bool:
        """Return whether a wait is over."""
        return action.kind != "wait" or self.handles.probe.frontier() > action.epoch

    def _stage(self, stage: int) -> int:
        return min(stage, len(self.handles.controls) - 1)

    def _send(self, sending: Sending, epoch: int) -> None:
        columns = columns_of(self.script, sending)
        times = times_of(sending, epoch) if sending.spread else None
        words = self.handles.words
        if not sending.loan or not sending.records:
            words.send(columns, times=times)
            return
        rooms = {name: max(1, len(columns[name].data)) for name in columns if hasattr(columns[name], "offsets")}
        loan = words.loan(sending.records, timed=times is not None, bytes_room=rooms)
        for name, column in columns.items():
            if name in rooms:
                offsets, data = loan[name]
                offsets[:] = column.offsets
                data[: len(column.data)] = column.data
            else:
                loan[name][:] = column
        if loan.times is not None and times is not None:
            loan.times[:] = times
        words.send(loan)

    def _hog(self, hog: Hog) -> None:
        """Hold loans for a while; a timer lets go of them, as this worker may be waiting for memory itself by then."""
        worker, words = self.worker, self.handles.words
        chunk_bytes = SLABS_PER_CHUNK_MIN * int(lib.mp_slab_bytes(worker.memory.control))
        records = (chunk_bytes - 4096) // (words.schema.row_bytes + 4)
        rooms = {name: 1 for name, dtype in zip(words.schema.names, words.schema.dtypes, strict=True) if dtype is None}
        held: list[Loan] = []
        # What is not there at once is not waited for: nothing is held back before the timer runs.
        patience_ns = lib.mp_relief_patience(worker.slot, 0)
        try:
            for _ in range(hog.chunks):
                held.append(Loan(worker, words.schema, records, bytes_room=rooms))  # noqa: PERF401 - up to an error
        except SharedMemoryError:
            self.refused += 1
        finally:
            lib.mp_relief_patience(worker.slot, patience_ns)
        timer = threading.Timer(hog.ms / 1000, held.clear)
        timer.daemon = True
        timer.start()
        self.timers.append(timer)

    def _tell(self, stage: int, instructions: list[Instruction], ahead: int) -> None:
        control = self.handles.controls[stage]
        time = control.send_instructions(instructions, at=max(control.time + ahead, control.sent_time))
        self.updates.append((stage, time, encode(instructions)))

    def _pace(self) -> None:
        """Send the next step of a plan if it is due; when one plan is complete, begin another at once."""
        control = self.handles.controls[0]
        if self._pacer is None or self._pacer.finished:
            strategy = self.script.paced[self._strategies % len(self.script.paced)]
            self._strategies += 1
            random = np.random.default_rng((self.script.seed, self._strategies))
            target = random.integers(0, self.script.workers, self.script.bins).astype(np.uint32)
            self._pacer = Pacer(plan.one_way(strategy, self._owner, target, 1))
            self._owner = target
        step = self._pacer.due(max(control.time, control.sent_time), self.handles.probe.frontier())
        if step is not None:
            self._tell(0, list(step.instructions), 0)

    # -- what is left ----------------------------------------------------------------------------------------------

    def state(self) -> list[dict[str, Any]]:
        """Return for each stateful operator its owners as this worker sees them, and what lies in its own bins."""
        found = []
        for stage, counts in enumerate(self.handles.counts):
            shift = SECOND_SHIFT if stage else self.script.bin_shift
            owners = ffi.new("uint8_t[]", 1 << shift)
            operator = counts.operator
            lib.mp_router_owners(self.worker.slot, operator.op, owners)
            bins = {}
            look = ffi.new("uint64_t[10]")
            for bin_id, owner in enumerate(bytes(ffi.buffer(owners))):
                if owner != self.worker.index:
                    continue
                lib.mp_bin_look(self.worker.slot, operator.op, bin_id, look)
                bins[bin_id] = {"look": list(look[0:6]), "rows": self._rows(stage, counts, bin_id)}
            found.append({
                "owners": bytes(ffi.buffer(owners)), "bins": bins,
                "updates": lib.mp_router_updates(self.worker.slot, operator.op),
                "stashed": lib.mp_applier_stashed(self.worker.slot, operator.op),
            })  # fmt: skip
        return found

    def _rows(self, stage: int, counts: StatefulStream, bin_id: int) -> list[tuple[int, ...]]:
        rows: list[tuple[int, ...]] = []
        for keys, values in counts.state.items(bin_id):
            numbers = numbers_of_keys(self.script, keys) if stage == 0 else keys.tolist()
            rows += zip(numbers, *(column.tolist() for column in values.values()), strict=True)
        return rows

    def at_rest(self) -> dict[str, Any]:
        """Return what should be nothing: counts of times, queued messages, a broken heap; and what was counted."""
        slot, control = self.worker.slot, self.worker.memory.control
        left = ffi.new("int64_t[3]")
        return {
            "times": [lib.mp_times_left(slot, left), *left] if lib.mp_times_left(slot, left) else [],
            "blocks": int(lib.mp_block_check(slot)),
            "queued": int(lib.mp_queued_cells(control, self.worker.index)),
            "capabilities": self.worker.why_waiting(),
        }

    def is_quiet(self) -> bool:
        """Return whether nothing is on its way to anybody, freed blocks included, and no slab is named."""
        control = self.worker.memory.control
        if any(lib.mp_queued_cells(control, slot) for slot in range(self.worker.peers)):
            return False
        return not self.slabs_named()

    def slabs_named(self) -> list[int]:
        """Return the slabs that any slot holds a reference to."""
        slabs = self.worker.data_bytes // int(lib.mp_slab_bytes(self.worker.memory.control))
        return [slab for slab in range(slabs) if lib.mp_ref_row(self.worker.memory.control, slab)]

    def seen(self) -> dict[str, list[Any]]:
        """Return what has come out on this worker."""
        handles = self.handles
        return {"seen": handles.seen.columns(), "second": handles.second.columns(), "side": handles.side.columns()}
