"""The law of the audit at every step of a Simulation, and that a broken hand-over is found."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph
from megaphone.migration.control import Move
from megaphone.migration.operators.applying import Applier
from megaphone.observe.inspect_look import Audit, Look, read_about
from megaphone.observe.inspect_model import model_of
from megaphone.shm.counters import COUNTER_INDEX
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation
from tests.property import migrating
from tests.property.migrating import Script, check_outcome, run_script
from tests.property.test_migration import scripts
from tests.unit.observe import law

LOOKS: dict[str, int] = {}


def look_at(simulation: Simulation) -> Look:
    """Return a look at a Simulation's own memory, which stays as it is between two steps."""
    memory = simulation.memory
    return Look(memory.control, memory.data, read_about(memory.control), simulation)


# -- any script, a look around each step and each call of a fold -------------------------------------------------------


class Watched(Simulation):
    """A Simulation that is looked at before and after each step, and inside each call of a fold."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.look = look_at(self)
        self.counts: list[Any] = [handle.counts.operator for handle in self.handles]
        for worker in self.workers:
            worker.watched = self  # type: ignore[attr-defined]  # how a fold's operator finds it

    def step(self, slot: int | None = None) -> bool:
        self.check()
        active = super().step(slot)
        audit = self.check()
        # What is post-dated is either still in its bin or has been shown once more than it was sent.
        shown = [ident for handle in self.handles for _, ident in handle.log[-1:]]
        assert shown or audit["applied"] == 0
        return active

    def check(self) -> Audit:
        LOOKS["script"] = LOOKS.get("script", 0) + 1
        audit = law.check(self.look, rows=False)
        if not audit["in_s"]:
            # Bins count every record that is folded, those that come back too.
            logged = sum(len(handle.log) for handle in self.handles)
            assert audit["applied"] == logged
            if LOOKS["script"] % 8 == 0:
                assert law.content(self.look, self.look.stateful[0])[0] == self.in_tables(logged)
        return audit

    def in_tables(self, logged: int) -> int:
        """Return what the rows of bins add up to; bins that are copied at the moment are in messages."""
        (stateful,) = self.look.stateful
        if stateful.about["transfer"] == "handover":
            return logged
        # A bin's count of records stays in the directory while its rows travel.
        moving = sum(
            int(bins["updates"][bins["resident"] == 0].sum()) for _, bins, _ in self.look.bins(stateful, content=False)
        )
        return logged - moving


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let scripts run in a Watched."""
    apply = Applier.apply

    def look_and_apply(self: Applier, context: Any) -> None:
        simulation = self._worker.watched  # type: ignore[attr-defined]
        simulation.check()
        apply(self, context)
        simulation.check()

    with monkeypatch.context() as patch:
        patch.setattr(migrating, "Simulation", Watched)
        patch.setattr(Applier, "apply", look_and_apply)
        yield


def test_any_run_adds_up_at_every_step(record_property: Callable[[str, object], None]) -> None:
    monkeypatch = pytest.MonkeyPatch()

    @settings(max_examples=settings().max_examples)
    @given(scripts())
    def run(script: Script) -> None:
        check_outcome(script, run_script(script))

    with watched(monkeypatch):
        run()
    record_property("states", LOOKS["script"])


# -- a long run, looked at by the core alone ---------------------------------------------------------------------------


class Handles:
    """What build makes."""

    def __init__(self, graph: Graph, backend: str, transfer: str) -> None:
        self.words, stream = graph.input("words", {"k": "u8"})
        self.control = graph.control(self.words, lead=2)
        dense = backend == "dense"
        self.counts = stream.stateful_unary(
            key="k", state=DenseArray({"n": "u8"}) if dense else HashTable("u8", {"n": "u8"}),
            hash="dense" if dense else "mix", fold=lambda context: context.add_emit("k"),
            columns={"k": "u8", "n": "u8"}, control=self.control, bin_shift=4, transfer=transfer, name="count",
        )  # fmt: skip
        self.probe = self.counts.probe()


@contextmanager
def counting(slots: int, seed: int, backend: str = "table", transfer: str = "handover") -> Iterator[Simulation]:
    """A Simulation of a keyed count."""
    build = lambda graph: Handles(graph, backend, transfer)  # noqa: E731 - a closure
    with Simulation(build, slots=slots, seed=seed, memory="16M") as simulation:
        yield simulation


def caught_up(simulation: Simulation, at: int) -> bool:
    """Return whether the output is nearly where the inputs are."""
    return all(handles.probe.frontier() + 8 > at for handles in simulation.handles)


def play(simulation: Simulation, chance: random.Random, at: int) -> None:
    """Send something at a time, move some bins, and let time go on."""
    for handles in simulation.handles:
        if chance.random() < 0.6:
            n = chance.randrange(1, 40)
            handles.words.send({"k": np.array([chance.randrange(200) for _ in range(n)], np.uint64)})
    if chance.random() < 0.3:
        moves = [Move(chance.randrange(16), chance.randrange(len(simulation.handles))) for _ in range(3)]
        simulation.handles[0].control.send_instructions(moves)
    for handles in simulation.handles:
        handles.words.advance_to(at)


@pytest.mark.parametrize(("backend", "transfer"), [("table", "handover"), ("dense", "handover"), ("table", "copy")])
def test_bins_stashes_and_messages_add_up_at_each_of_many_thousand_steps(
    backend: str, transfer: str, record_property: Callable[[str, object], None]
) -> None:
    looks, migrating_looks, odd = 0, 0, 0
    for seed in range(4):
        chance = random.Random(seed)
        with counting(2 + seed % 3, seed, backend, transfer) as simulation:
            look = look_at(simulation)
            at = 0
            while looks < 8000 * (seed + 1):
                at += 1
                play(simulation, chance, at)
                for number in range(chance.randrange(1, 40)):
                    audit = law.check(look, rows=transfer == "handover" and looks % 4 == 0)
                    looks += 1
                    migrating_looks += audit["migrating"]
                    odd += audit["odd"] != 0
                    simulation.step()
                    if number % 20 == 19:
                        simulation.run_until(partial(caught_up, simulation, at))
    assert migrating_looks > looks / 10
    assert odd > looks / 100
    record_property("states", looks)


# -- seen to fail ------------------------------------------------------------------------------------------------------


class Damaged:
    """A Simulation's memory with a copy of its control region that can be damaged."""

    def __init__(self, simulation: Simulation) -> None:
        memory = simulation.memory
        self.control = bytearray(ffi.buffer(memory.control, memory.control_region.size_bytes))
        self.look = Look(ffi.from_buffer(self.control), memory.data, read_about(memory.control), self.control)

    def word(self, bin_id: int, number: int) -> int:
        """Return where a word of a bin lies: 0 its owner, 1 resident."""
        return int(lib.mp_bins_at(ffi.from_buffer(self.control), 0)) + 128 * bin_id + 4 * number

    def put(self, bin_id: int, *, owner: int | None = None, resident: int | None = None) -> None:
        """Overwrite words of a bin."""
        for number, value in ((0, owner), (1, resident)):
            if value is not None:
                struct.pack_into("=I", self.control, self.word(bin_id, number), value)

    def found(self) -> list[tuple[int, int | None]]:
        """Return kind and bin of what the audit finds."""
        return [(found.kind, found.bin_id) for found in self.look.audit(self.look.stateful[0]).findings]


def at_rest(simulation: Simulation) -> None:
    """Play a little, and bring all of it to its end."""
    chance = random.Random(1)
    for at in range(1, 20):
        play(simulation, chance, at)
    simulation.run_until(lambda: all(handles.probe.frontier() >= 19 for handles in simulation.handles))


def until_moving(simulation: Simulation) -> int:
    """Play until a bin is on its way and no slot is odd; return the bin."""
    look = look_at(simulation)
    chance = random.Random(2)
    for at in range(1, 400):
        play(simulation, chance, at)
        for _ in range(10):
            simulation.step()
            audit = look.audit(look.stateful[0])
            if audit["bins_moving"] and not audit["odd"]:
                ((_, bins, _),) = look.bins(look.stateful[0], content=False)
                return int(np.flatnonzero(bins["resident"] == 0)[0])
    raise AssertionError


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ({"resident": 0}, lib.MP_FOUND_NOT_CARRIED),
        ({"owner": 1}, lib.MP_FOUND_OWNER_UNKNOWN),
        ({"owner": 63}, lib.MP_FOUND_NO_SLOT),
    ],
)
def test_a_bin_that_is_lost_or_with_nobody_that_the_maps_name_is_found(damage: dict[str, int], kind: int) -> None:
    with counting(2, 1) as simulation:
        at_rest(simulation)
        damaged = Damaged(simulation)
        assert damaged.found() == []
        ((_, bins, _),) = damaged.look.bins(damaged.look.stateful[0])
        mine = int(np.flatnonzero(bins["owner"] == 0)[0])
        damaged.put(mine, **damage)
        assert damaged.found() == [(kind, mine)]


def test_a_bin_that_is_resident_and_in_a_message_is_found() -> None:
    with counting(3, 4) as simulation:
        moving = until_moving(simulation)
        damaged = Damaged(simulation)
        damaged.put(moving, resident=1)
        assert damaged.found() == [(lib.MP_FOUND_CARRIED_RESIDENT, moving)]


def test_a_message_that_carries_a_bin_to_somebody_else_than_its_owner_is_found() -> None:
    with counting(3, 4) as simulation:
        moving = until_moving(simulation)
        damaged = Damaged(simulation)
        ((_, bins, _),) = damaged.look.bins(damaged.look.stateful[0], content=False)
        damaged.put(moving, owner=(int(bins["owner"][moving]) + 1) % 3)
        assert (lib.MP_FOUND_CARRIED_ELSEWHERE, moving) in damaged.found()


def test_a_record_that_is_missing_is_found() -> None:
    with counting(2, 1) as simulation:
        at_rest(simulation)
        look = look_at(simulation)
        law.check(look)
        lib.mp_counter_add(simulation.workers[0].slot, COUNTER_INDEX["input_records"], 1)
        assert model_of(look, None)["violations"]
        with pytest.raises(AssertionError):
            law.check(look)
