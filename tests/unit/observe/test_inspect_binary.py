"""The law of the audit for operators with two inputs, and for those without state, at every step of a Simulation."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from megaphone._core import lib
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.hashing import hash_keys
from megaphone.errors import InternalError
from megaphone.migration.control import Move
from megaphone.migration.operators.applying import Applier
from megaphone.observe.inspect_model import model_of
from megaphone.observe.inspect_text import render
from megaphone.state.stores import HashTable
from megaphone.testing import Simulation
from tests.native.libraries import scribble
from tests.native.recounting import RecountedSimulation
from tests.unit.observe import law
from tests.unit.observe.test_inspect_law import look_at

SLOTS, BINS = 3, 8


LOOK: list[Callable[[], None]] = []
"""What a function for a key calls, in the middle of an activation of F."""


def hashed(batch: Any) -> Any:
    """Return the hashes of a batch, having looked."""
    for look in LOOK:
        look()
    return hash_keys(batch["k"], "mix", 3)


def joining_by_function(graph: Graph) -> Any:
    """The same with functions for keys."""
    return joining(graph, keys=hashed)


def joining(graph: Graph, keys: Any = "k") -> Any:
    """Two inputs whose records are counted by key."""
    left, left_stream = graph.input("left", {"k": "u8"})
    right, right_stream = graph.input("right", {"id": "u8", "k": "u8"})
    control = graph.control(left, lead=2)

    def fold(context: Any) -> None:
        for segment in context.segments:
            context.output.send({"k": segment["k"], "n": context.state.add_emit(segment["k"])}, time=segment.time)

    counts = left_stream.stateful_binary(
        right_stream, left_key=keys, right_key=keys, state=HashTable("u8", {"n": "u8"}), fold=fold,
        columns={"k": "u8", "n": "u8"}, control=control, bin_shift=3, name="join",
    )  # fmt: skip
    return (left, right), control, counts, counts.probe()


def passing(graph: Graph) -> Any:
    """One input whose records are distributed."""
    left, stream = graph.input("left", {"k": "u8"})
    control = graph.control(left, lead=2)
    out = stream.distribute("k", bin_shift=3, control=control, name="spread")
    return (left,), control, out, out.probe()


def play(simulation: Simulation, chance: random.Random, at: int) -> None:
    """Send something at a time, move some bins, and let time go on; one side is behind now and then."""
    for inputs, _, _, _ in simulation.handles:
        for number, handle in enumerate(inputs):
            if chance.random() < 0.6:
                keys = np.array([chance.randrange(200) for _ in range(chance.randrange(1, 40))], np.uint64)
                handle.send({"id": keys, "k": keys} if number else {"k": keys})
    control = simulation.handles[0][1]
    if chance.random() < 0.4:
        control.send_instructions([Move(chance.randrange(BINS), chance.randrange(SLOTS)) for _ in range(3)])
    for inputs, _, _, _ in simulation.handles:
        for handle in inputs:
            handle.advance_to(at)


@pytest.mark.parametrize("build", [joining, joining_by_function, passing])
def test_records_of_all_inputs_bins_and_maps_add_up_at_every_step_and_in_every_fold(
    build: Callable[[Graph], Any], monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    looks: dict[str, int] = {"all": 0, "migrating": 0, "odd": 0, "in_f2": 0}
    simulations: list[Simulation] = []
    apply = Applier.apply

    def check() -> None:
        audit = law.check(look_at(simulations[0]), rows=False)
        looks["all"] += 1
        looks["migrating"] += audit["migrating"]
        looks["odd"] += audit["odd"] != 0
        looks["in_f2"] += audit["in_f2"] != 0

    def look_and_apply(self: Applier, context: Any) -> None:
        check()
        apply(self, context)
        check()

    monkeypatch.setattr(Applier, "apply", look_and_apply)
    monkeypatch.setattr("tests.unit.observe.test_inspect_binary.LOOK", [check])
    chance = random.Random(3)
    with Simulation(build, slots=SLOTS, seed=5, memory="16M") as simulation:
        simulations.append(simulation)
        for at in range(1, 120):
            play(simulation, chance, at)
            for _ in range(chance.randrange(1, 12)):
                check()
                simulation.step()
        for inputs, _, _, _ in simulation.handles:
            for handle in inputs:
                handle.close()
        while not simulation.done:
            check()
            simulation.step()
        audit = law.check(look_at(simulation), rows=False)
        assert audit["shown"] == law.sent_records(look_at(simulation)) > 1000
        assert simulation.counter("bins_in") > 20
    assert looks["migrating"] > looks["all"] / 20
    assert build is passing or looks["odd"] > looks["all"] / 20
    assert build is not joining_by_function or looks["in_f2"] > looks["all"] / 20
    record_property("states", looks["all"])


@pytest.mark.parametrize("build", [joining, passing])
def test_what_inspect_says_names_all_ports_and_balances_what_was_sent(build: Callable[[Graph], Any]) -> None:
    chance = random.Random(1)
    with Simulation(build, slots=SLOTS, seed=1, memory="16M") as simulation:
        for at in range(1, 20):
            play(simulation, chance, at)
            for _ in range(3):
                simulation.step()
        look = look_at(simulation)
        model = model_of(look, None)
        assert model["balance"] is not None
        assert model["balance"]["wrong"] == ""
        assert model["balance"]["sent"] == law.sent_records(look)
        names = {port["name"] for port in look.about["ports"]}
        text = "\n".join(render(model, width=200).splitlines())
    if build is joining:
        assert {"join.left", "join.state", "join.right", "join.out"} <= names
        assert {"join.route.data", "join.route.state_out"} <= names
        assert {"join.route-right.data", "join.route-right.feedback", "join.route-right.data_out"} <= names
        assert "join.route-right.state_out" not in names
    else:
        assert {"spread.data", "spread.state", "spread.out"} <= names
        assert "spread: 8 bins, without state" in text


def test_a_right_input_whose_records_are_lost_is_found() -> None:
    chance = random.Random(1)
    with Simulation(joining, slots=SLOTS, seed=1, memory="16M") as simulation:
        for at in range(1, 20):
            play(simulation, chance, at)
        look = look_at(simulation)
        law.check(look, rows=False)
        op = look.stateful[0].op
        op.f_data2, op.s_data2 = 2**32 - 1, 2**32 - 1  # as if nobody had told of the right input's ports
        with pytest.raises(AssertionError):
            law.check(look, rows=False)


def joined_at_rest(simulation: Simulation) -> None:
    """Play, and bring all of it to its end."""
    chance = random.Random(1)
    for at in range(1, 10):
        play(simulation, chance, at)
    for inputs, _, _, _ in simulation.handles:
        for handle in inputs:
            handle.close()
    simulation.run()


def test_a_map_of_a_right_input_that_is_not_the_left_ones_is_found() -> None:
    with Simulation(joining, slots=SLOTS, seed=1, memory="16M") as simulation:
        joined_at_rest(simulation)
        look = look_at(simulation)
        law.check(look, rows=False)
        word = scribble().owner_right(simulation.workers[1].slot, 5)
        word[0] = (word[0] + 1) % SLOTS
        assert [found.kind for found in look_at(simulation).audit(look.stateful[0]).findings] == [
            lib.MP_FOUND_MAPS_DIFFER
        ]


def test_a_capability_of_a_right_input_that_is_wrong_is_told_by_a_recount() -> None:
    with RecountedSimulation(joining, slots=SLOTS, seed=1, memory="16M") as simulation:
        joined_at_rest(simulation)
        assert isinstance(simulation, RecountedSimulation)
        (worker, *_) = simulation.recounting
        worker.recount()
        scribble().waiting_time_right(worker.slot)[0] = 7
        with pytest.raises(InternalError, match="the least time waiting for location"):
            worker.recount()
