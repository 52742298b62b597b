"""Soft state that is wrong in the middle of a run: noticed, repaired, and the run ends with the right result."""

from __future__ import annotations

import errno
import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.recounting import RecountingWorker, describe, recount_run
from megaphone.errors import InternalError
from megaphone.migration.control import Map, Move
from tests.native.libraries import Scribble, scribble
from tests.native.recounting import RecountedSimulation
from tests.property import migrating
from tests.property.migrating import BACKENDS, Round, Script, Sending, Update, check_outcome, run_script
from tests.unit.dataflow import runs

SLOTS, BIN_SHIFT = 3, 4
Spoil = Callable[[Scribble, RecountingWorker], bool]
"""Makes something wrong that the worker keeps; False where there is nothing of the kind yet."""


def script_of(transfer: str, seed: int = 1) -> Script:
    """Records with and without delay, tables that grow, and all bins on their way more than once."""
    keys = tuple(range(150))
    bins = 1 << BIN_SHIFT
    moves: list[tuple[Update, ...]] = [
        (),
        (Update((Map([(number + 1) % SLOTS for number in range(bins)]),)),),
        (Update((Move(3, 0), Move(4, 0)), ahead=2),),
        (Update((Map([number * number % SLOTS for number in range(bins)]),)),),
    ]
    rounds = tuple(
        Round(tuple(Sending(slot, keys, delay=(slot + number) % 4) for slot in range(SLOTS)), moves[number % 4], 4)
        for number in range(8)
    )
    return Script(SLOTS, BIN_SHIFT, BACKENDS[seed % len(BACKENDS)], transfer, rounds, seed)


def recount_all(worker: RecountingWorker) -> None:
    """Recount a slot alone, then the sums over all."""
    worker.recount()
    recount_run(worker)


class SpoiledSimulation(RecountedSimulation):
    """Something is spoiled after each of some steps, found and mended, as often as it can be."""

    spoil: Spoil
    expected: str
    mend: Callable[[RecountedSimulation, RecountingWorker], None]
    spoiled = 0

    def step(self, slot: int | None = None) -> bool:
        active = super().step(slot)
        worker = self.recounting[self.steps % SLOTS]
        is_even = not any(each._dirty for each in self.workers)  # noqa: SLF001
        # Not when the run is over: what is mended by a message would be on its way when all is looked at.
        if is_even and not self.done and self.steps % 5 == 0 and type(self).spoil(scribble(), worker):
            type(self).spoiled += 1
            with pytest.raises(InternalError, match=type(self).expected) as told:
                recount_all(worker)
            assert f"recount of worker {worker.index}" in str(told.value)
            type(self).mend(self, worker)
            recount_all(worker)
        return active


def rebuild(_: RecountedSimulation, worker: RecountingWorker) -> None:
    worker.rebuild()


@pytest.fixture
def spoiled(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, Any], None]
) -> Iterator[Callable[..., None]]:
    """Return what plays a script with a spoil, checks its result, and that it was spoiled at all."""
    spoils = 0

    def play(spoil: Spoil, expected: str, mend: Any = rebuild, transfer: str = "handover") -> None:
        nonlocal spoils

        class Spoiled(SpoiledSimulation):
            spoiled = 0

        Spoiled.spoil, Spoiled.expected, Spoiled.mend = staticmethod(spoil), expected, staticmethod(mend)
        monkeypatch.setattr(migrating, "Simulation", Spoiled)
        script = script_of(transfer)
        check_outcome(script, run_script(script))
        assert Spoiled.spoiled
        spoils += Spoiled.spoiled

    yield play
    record_property("runs", spoils)


def change(pointer: Any, value: int) -> bool:
    """Write a word that is another than before."""
    if pointer[0] == value:
        return False
    pointer[0] = value
    return True


def slabs_of(s: Scribble, worker: RecountingWorker, *, named: bool) -> list[int]:
    """Return slabs that the worker's column names, or does not."""
    slabs = worker.data_bytes // int(lib.mp_slab_bytes(worker.memory.control))
    return [slab for slab in range(1, slabs) if bool(s.reference(worker.slot, slab)[0]) == named]


def count_changed(by: int, *, named: bool) -> Spoil:
    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        slabs = slabs_of(s, worker, named=named)
        if slabs:
            s.reference(worker.slot, slabs[len(slabs) // 2])[0] += by
        return bool(slabs)

    return spoil


def column_of_noise(s: Scribble, worker: RecountingWorker) -> bool:
    noise = random.Random(worker.index)
    for slab in slabs_of(s, worker, named=False) + slabs_of(s, worker, named=True):
        s.reference(worker.slot, slab)[0] = noise.randrange(1, 1 << 20)
    return True


def column_of_zeros(s: Scribble, worker: RecountingWorker) -> bool:
    slabs = slabs_of(s, worker, named=True)
    for slab in slabs:
        s.reference(worker.slot, slab)[0] = 0
    return bool(slabs)


REFERENCES: dict[str, Spoil] = {
    "too high": count_changed(1, named=True),
    "too low": count_changed(-1, named=True),
    "of a slab that nothing names": count_changed(2, named=False),
    "all noise": column_of_noise,
    "all zero": column_of_zeros,
}


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("what", REFERENCES)
def test_counts_of_references_that_are_wrong_are_told_and_repaired(
    what: str, transfer: str, spoiled: Callable[..., None]
) -> None:
    spoiled(REFERENCES[what], r"slab \d+ is named \d+ times, and its count is \d+", transfer=transfer)


def test_the_column_of_a_slot_is_rebuilt_from_outside_of_its_process(spoiled: Callable[..., None]) -> None:
    """As for a slot that is dead: through a handle that is attached to no slot, with no views."""

    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        gc.collect()  # a view of the last call may be part of a cycle
        worker.take_back()
        return not len(worker.held()) and column_of_noise(s, worker)

    def mend(simulation: RecountedSimulation, worker: RecountingWorker) -> None:
        look = lib.mp_look_open(simulation.memory.control, simulation.memory.data)
        assert lib.mp_refs_rebuild(look, worker.index, ffi.NULL, 0) > 0
        assert lib.mp_refs_rebuild(look, worker.index, ffi.NULL, 0) == 0
        lib.mp_look_close(look)

    spoiled(spoil, "is named", mend)


def due_changed(make: Callable[[Scribble, Any, Any], None], entries_min: int = 1) -> Spoil:
    """Spoil the index of bins with post-dated records where it has so many entries."""

    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        # Entries may be out of date; a rebuilt index has none that is.
        worker.rebuild()
        due = s.due(worker.slot)
        if due.tail < entries_min:
            return False
        make(s, due, worker.slot)
        return True

    return spoil


def drop_top(s: Scribble, due: Any, slot: Any) -> None:
    last = s.due_entry(slot, due.tail - 1)[0]
    top = s.due_entry(slot, 0)
    top.time, top.bin = last.time, last.bin
    due.tail -= 1


def swap_ends(s: Scribble, due: Any, slot: Any) -> None:
    first, last = s.due_entry(slot, 0), s.due_entry(slot, due.tail - 1)
    first.time, first.bin, last.time, last.bin = last.time, last.bin, first.time, first.bin


def name_no_bin(s: Scribble, due: Any, slot: Any) -> None:
    s.due_entry(slot, due.tail - 1).bin = 1 << 30


def postpone_all(s: Scribble, due: Any, slot: Any) -> None:
    for number in range(due.tail):
        s.due_entry(slot, number).time += 1


def forget_all(_: Scribble, due: Any, __: Any) -> None:
    due.tail = 0


def out_of_reach(_: Scribble, due: Any, __: Any) -> None:
    due.tail = due.capacity + 1


INDEX: dict[str, tuple[Spoil, str]] = {
    "an entry that is lost": (due_changed(drop_top), "post-dated records from time"),
    "an order that is none": (due_changed(swap_ends, 2), "entries in the index"),
    "a bin that does not exist": (due_changed(name_no_bin), "entries in the index"),
    "times that are not those of the bins": (due_changed(postpone_all), "0 entries in the index"),
    "an index that is empty": (due_changed(forget_all), "0 entries in the index"),
    "more entries than room": (due_changed(out_of_reach), "entries in the index"),
}


@pytest.mark.parametrize("what", INDEX)
def test_an_index_of_post_dated_records_that_is_wrong_is_told_and_repaired(
    what: str, spoiled: Callable[..., None]
) -> None:
    spoiled(*INDEX[what])


def bin_with_records(worker: RecountingWorker) -> int | None:
    look = ffi.new("uint64_t[10]")
    for bin_id in range(1 << BIN_SHIFT):
        lib.mp_bin_look(worker.slot, worker._c_ops[0], bin_id, look)  # noqa: SLF001
        if list(look[0:2]) == [worker.index, 1] and look[5]:
            return bin_id
    return None


@pytest.mark.parametrize("by", [-1, 1, 1000])
def test_a_least_time_of_a_bin_that_is_wrong_is_told_and_repaired(by: int, spoiled: Callable[..., None]) -> None:
    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        if (bin_id := bin_with_records(worker)) is None:
            return False
        s.pending_time(worker.slot, bin_id)[0] += by
        return True

    spoiled(spoil, r"the post-dated records of bin \d+ begin at \d+, and \d+ is kept")


def test_records_that_are_no_heap_are_told_and_not_guessed(spoiled: Callable[..., None]) -> None:
    kept: list[tuple[Any, int]] = []

    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        if (bin_id := bin_with_records(worker)) is None or s.pending_count(worker.slot, bin_id)[0] < 2:
            return False
        kept.append((s.first_row(worker.slot, bin_id), s.first_row(worker.slot, bin_id)[0]))
        return change(kept[-1][0], 1 << 60)

    def mend(_: RecountedSimulation, worker: RecountingWorker) -> None:
        with pytest.raises(InternalError, match="what must be true at"):
            worker.rebuild()
        pointer, value = kept[-1]
        pointer[0] = value
        worker.rebuild()

    spoiled(spoil, "post-dated records of bin", mend)


def put_back(words: list[tuple[Any, int]]) -> Callable[..., None]:
    """What cannot be rebuilt by one slot alone is put back by the test."""

    def mend(*_: Any) -> None:
        pointer, value = words.pop()
        pointer[0] = value

    return mend


@pytest.mark.parametrize(
    ("word", "expected"),
    [("applied_time", "the least time waiting for location"), ("waiting_time", "the least time waiting for location")],
)
def test_a_capability_of_a_stateful_operator_that_is_wrong_is_told(
    word: str, expected: str, spoiled: Callable[..., None]
) -> None:
    kept: list[tuple[Any, int]] = []

    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        pointer = getattr(s, word)(worker.slot)
        kept.append((pointer, pointer[0]))
        return change(pointer, 12345)

    spoiled(spoil, expected, put_back(kept))


def test_a_capability_that_is_held_for_nothing_is_told(spoiled: Callable[..., None]) -> None:
    def spoil(_: Scribble, worker: RecountingWorker) -> bool:
        op = worker._c_ops[0]  # noqa: SLF001
        lib.mp_begin(worker.slot, ffi.NULL, 0)
        lib.mp_capability(worker.slot, op.s_out, 1 << 40, 1)
        lib.mp_publish(worker.slot)
        return True

    def mend(_: RecountedSimulation, worker: RecountingWorker) -> None:
        lib.mp_begin(worker.slot, ffi.NULL, 0)
        lib.mp_capability(worker.slot, worker._c_ops[0].s_out, 1 << 40, -1)  # noqa: SLF001
        lib.mp_publish(worker.slot)

    spoiled(spoil, f"0 capabilities are due at location .* for time {1 << 40}, and 1 are held", mend)


@pytest.mark.parametrize("by", [64, -64])
def test_credit_that_is_wrong_is_told_and_repaired(by: int, spoiled: Callable[..., None]) -> None:
    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        s.credit(worker.slot, 1)[0] = (s.credit(worker.slot, 1)[0] + by) % 2**64
        return True

    def mend(_: RecountedSimulation, worker: RecountingWorker) -> None:
        assert lib.mp_credit_rebuild(worker.slot) == 0

    spoiled(spoil, r"\d+ bytes under credit are on their way to worker 1, and \d+ are counted", mend)


@pytest.mark.parametrize("by", [1, -1])
def test_a_count_of_progress_that_is_wrong_is_told(by: int, spoiled: Callable[..., None]) -> None:
    kept: list[tuple[Any, int]] = []

    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        for location in range(worker.graph.location_count):
            pointer = s.count(worker.slot, location)
            if pointer != s.ffi.NULL:
                kept.append((pointer, pointer[0]))
                pointer[0] += by
                return True
        return False

    spoiled(spoil, r"is the count at location \d+ for time \d+, and will be known as", put_back(kept))


@pytest.mark.parametrize("is_sent", [False, True], ids=["in hand", "on its way home"])
def test_a_block_that_nobody_names_is_told_and_reclaimed(is_sent: bool, spoiled: Callable[..., None]) -> None:
    """As what a slot had in hand when it died, or had taken out of its queue of freed blocks and not yet sent."""

    def spoil(_: Scribble, worker: RecountingWorker) -> bool:
        assert lib.mp_blocks_unreached(worker.slot) == 0
        leaked = lib.mp_block_alloc(worker.slot, 5000)
        if is_sent:
            # A holder in another slot; the simulation has them all.
            holders.append(lib.mp_slot_attach(
                worker.memory.control, worker.memory.data, worker.memory.view, (worker.index + 1) % SLOTS, -1, -1
            ))  # fmt: skip
            taken = ffi.new("uint64_t[64]")
            lib.mp_block_free(holders[-1], leaked)
            count = lib.mp_block_frees_take(holders[-1], worker.index, taken, 64)
            assert taken[count - 1] == leaked
            for offset in taken[0 : count - 1]:
                lib.mp_block_take_back(worker.slot, offset)
            lib.mp_slot_detach(holders.pop())
        assert lib.mp_blocks_unreached(worker.slot) == 1
        return True

    holders: list[Any] = []

    def mend(simulation: RecountedSimulation, worker: RecountingWorker) -> None:
        dead = simulation.workers[(worker.index + 1) % SLOTS]
        lib.mp_begin(dead.slot, ffi.NULL, 0)
        assert lib.mp_blocks_reclaim(worker.slot, lib.MP_NO_SLOT) == -errno.EBUSY  # it may still name it
        assert lib.mp_blocks_reclaim(worker.slot, dead.index) == 1
        assert lib.mp_blocks_reclaim(worker.slot, dead.index) == 0
        lib.mp_publish(dead.slot)

    spoiled(spoil, r"the block at \d+ is named 0 times, and should be 1 times", mend)


def test_a_name_of_a_block_that_is_none_is_told(spoiled: Callable[..., None]) -> None:
    kept: list[tuple[Any, int]] = []

    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        block = s.ffi.addressof(s.held(worker.slot, 0)[0], "block")
        kept.append((block, block[0]))
        return change(block, 64 * 999)

    spoiled(spoil, "is named 1 times, and should be 0 times|is named 0 times", put_back(kept))


def test_lists_of_blocks_and_slabs_that_are_noise_are_told_and_repaired(spoiled: Callable[..., None]) -> None:
    def spoil(s: Scribble, worker: RecountingWorker) -> bool:
        noise = random.Random(worker.index)
        maps = s.second_maps(worker.slot)
        lists = s.ffi.cast("uint64_t *", maps + 36)
        for number in range(32 * 4 - 1):
            lists[number] = noise.getrandbits(64)
        s.ffi.memmove(maps, noise.randbytes(32), 32)
        s.span_list(worker.slot)[0] = noise.getrandbits(64)
        s.slab_open(worker.slot)[0] = 0
        return True

    spoiled(spoil, "the lists of blocks differ")


# -- what only the process knows ---------------------------------------------------------------------------------------


def test_views_and_loans_count_until_the_worker_has_dropped_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "Simulation", RecountedSimulation)
    kept: list[Any] = []
    with runs.Run({"n": "u8"}, lambda s: s.exchange("n").inspect(kept.append), 2, 3) as run:
        run.send({"n": np.arange(100)})
        while len(kept) < 2:
            run.simulation.step()
        assert isinstance(run.simulation, RecountedSimulation)
        workers = run.simulation.recounting
        loan = run.inputs[0].loan(5)
        views = [batch["n"] for batch in kept]

        def held() -> int:
            for worker in workers:
                worker.take_back()
            return sum(len(worker.held()) for worker in workers)

        assert held() == len(kept) + 1
        run.simulation.step(0)
        difference = ffi.new("mp_difference *")
        for worker in workers:
            worker.recount()
            assert lib.mp_refs_recount(worker.slot, worker.index, ffi.NULL, 0, difference) == 1
            assert "times, and its count is" in describe(difference)
        del loan
        assert held() == len(kept)
        del views
        kept.clear()
        run.finish()
        assert held() == 0


def test_a_recount_inside_an_activation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "Simulation", RecountedSimulation)
    with runs.Run({"n": "u8"}, lambda s: s.exchange("n"), 2, 3) as run:
        run.send({"n": np.arange(10)})
        assert isinstance(run.simulation, RecountedSimulation)
        with pytest.raises(InternalError, match="only true between two activations"):
            run.simulation.recounting[0].recount()
        run.finish()
