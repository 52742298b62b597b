"""A script in the Simulation: every slot in one process, in an order from a seed, so that a failure repeats."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from functools import partial
from typing import Final

from megaphone.errors import MegaphoneError, SharedMemoryError, StuckError
from megaphone.testing import Simulation
from tests.stress.dataflow import Action, Handles, Part, actions_of, build
from tests.stress.oracle import Difference, Shown, compare
from tests.stress.script import Script

MEMORY: Final = "128M"
"""More than the script says: here nobody else can free memory while one slot waits for it."""
STEPS_MAX: Final = 400_000


def check_in_simulation(script: Script, seed: int) -> dict[str, int]:
    """Play a script with one order of steps; raises Difference, or what the engine raises."""
    text = script.to_json()
    cells = min(script.ring_cells, 256)
    with Simulation(
        partial(build, text=text, threaded=False), script.workers, seed, memory=MEMORY, ring_cells=cells
    ) as simulation:
        try:
            return _play(script, simulation, random.Random(seed))
        finally:
            for handles in simulation.handles:
                handles.keeper.let_go(everything=True)


def _play(script: Script, simulation: Simulation, order: random.Random) -> dict[str, int]:
    handles: list[Handles] = simulation.handles
    parts = [Part(script, worker, made) for worker, made in zip(simulation.workers, handles, strict=True)]
    todo: list[Iterator[Action]] = [actions_of(script, slot) for slot in range(script.workers)]
    now: list[Action | None] = [next(actions, None) for actions in todo]
    for slot, action in enumerate(now):
        if action is None:
            handles[slot].words.close()
    eagerness = order.choice((0.1, 0.3, 0.6))
    idle = 0
    while any(now):
        slot = order.randrange(script.workers)
        action = now[slot]
        if action is not None and order.random() < eagerness and _done(parts[slot], action):
            now[slot] = next(todo[slot], None)
            if now[slot] is None:
                handles[slot].words.close()
            idle = 0
        else:
            idle = 0 if simulation.step() else idle + 1
        if simulation.steps > STEPS_MAX or idle > 2000:
            what = [(slot, action.kind, action.epoch) for slot, action in enumerate(now) if action is not None]
            message = f"after {simulation.steps} steps, {idle} of them idle: {what}; {simulation.why_stuck()}"
            raise StuckError(message)
    simulation.run(STEPS_MAX)
    for made in handles:
        made.keeper.close()
    _settle(simulation)
    if parts[0].slabs_named():
        gc.collect()
        _settle(simulation)
    if named := parts[0].slabs_named():
        message = f"slabs {named} have references at rest"
        raise Difference(message)
    shown = [Shown(part.seen(), part.state(), part.at_rest(), part.updates) for part in parts]
    figures = compare(script, shown)
    for name in ("bins_in", "bins_out"):
        if simulation.counter(name) != figures["moves"]:
            message = f"{simulation.counter(name)} {name} for {figures['moves']} moves"
            raise Difference(message)
    return figures


def _done(part: Part, action: Action) -> bool:
    """Do an action if that is possible now: in the Simulation nothing may wait, or the others would never run."""
    if not part.is_over(action):
        return False
    words = part.handles.words
    if action.kind == "send" and part.worker.in_flight_bytes() >= words.in_flight_bytes_max:
        return False
    try:
        part.perform(action)
    except SharedMemoryError:
        return False
    return True


def _settle(simulation: Simulation) -> None:
    simulation.late = False
    for _ in range(4):
        for slot in range(len(simulation.workers)):
            simulation.step(slot)


def failure_of(script: Script, seed: int) -> str:
    """Return how a script fails with one order of steps; empty when it does not."""
    try:
        check_in_simulation(script, seed)
    except (MegaphoneError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
