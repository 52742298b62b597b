"""A script in worker processes: the shipped way, watched, and compared with the oracle.

Nothing here waits for ever: a run that makes no progress is made to tell where each worker is (every worker's Python
stacks, its slot page, its queues) and then ends.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from megaphone._core import lib
from megaphone.dataflow.execute import Running, execute
from megaphone.dataflow.failures import Look
from megaphone.dataflow.recounting import VARIABLE
from megaphone.dataflow.worker import Worker
from megaphone.errors import MegaphoneError, SharedMemoryError
from tests.stress.dataflow import Handles, Part, actions_of, build
from tests.stress.oracle import Difference, Shown, compare
from tests.stress.script import Script

QUIET_SECONDS: Final = 45.0
"""Without a record, a step of progress or a bin on its way anywhere: then a run hangs."""
REST_SECONDS: Final = 30.0
"""For references to come back once nothing is left to do."""
PROGRESS: Final = ("records_in", "batches_in", "progress_cells", "bins_in", "input_records", "copied_migrate")


class HangError(Exception):
    """A run makes no progress."""


def drive(worker: Worker, handles: Handles, text: str) -> Shown:
    """Play one worker's part, then wait until all are through, and tell what is left."""
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    script = Script.from_json(text)
    waits = [0]
    describe = worker.memory_error

    def counted() -> SharedMemoryError:
        waits[0] += 1
        return describe()

    worker.memory_error = counted  # type: ignore[method-assign] # counts how often memory was short, and no more
    part = Part(script, worker, handles)
    order = random.Random(script.seed * 64 + worker.index)
    for action in actions_of(script, worker.index):
        part.perform(action)
        if action.kind == "wait":
            worker.step_until(lambda upto=action: part.is_over(upto))  # type: ignore[misc]
        for _ in range(order.choice((0, 0, 1, 3))):
            worker.step()
    handles.words.close()
    worker.run()
    handles.keeper.close()
    for timer in part.timers:
        timer.join()
    deadline = time.monotonic() + REST_SECONDS
    collected = False

    def is_free() -> bool:
        nonlocal collected
        if part.is_quiet() or time.monotonic() > deadline:
            return True
        if not collected:
            gc.collect()
            collected = True
        return False

    worker.step_until(is_free)
    rest = part.at_rest() | {"slabs": part.slabs_named()}
    facts = {"waits": waits[0] - part.refused, "refused": part.refused, "kept": handles.keeper.kept_count}
    return Shown(part.seen(), part.state(), rest, part.updates, facts)


class Watch:
    """Called with each tick of a run: raises HangError when nothing goes on, having made the workers tell all.

    Args:
        told: called with each line of a report.
        on_tick: called with each tick.
    """

    def __init__(self, told: Callable[[str], None], on_tick: Callable[[], None] = lambda: None) -> None:
        self._told, self._on_tick = told, on_tick
        self._before: list[int] = []
        self._since = time.monotonic()

    def __call__(self, running: Running) -> None:
        """Compare the counters with those of the last look."""
        self._on_tick()
        now = [counters[name] for counters in running.counters() for name in PROGRESS]
        if now != self._before:
            self._before, self._since = now, time.monotonic()
            return
        quiet = time.monotonic() - self._since
        if quiet < QUIET_SECONDS:
            return
        self.report(running)
        message = f"nothing has happened for {quiet:.0f} s"
        raise HangError(message)

    def report(self, running: Running) -> None:
        """Tell what shared memory says of each slot, and have each worker print its stacks."""
        control = running._memory.control  # noqa: SLF001 - a look at what nobody else will see any more
        for slot, (pid, counters) in enumerate(zip(running.pids, running.counters(), strict=True)):
            look = Look(control, slot)
            some = {name: counters[name] for name in ("steps", "parks", "records_in", "outbox", "bins_in", "bins_out")}
            queued = lib.mp_queued_cells(control, slot)
            self._told(f"worker {slot} (pid {pid}): {vars(look)}, {queued} cells queued, {some}")
        for pid in running.pids:
            os.kill(pid, signal.SIGUSR1)
        time.sleep(1.0)


def check_in_processes(script: Script, told: Callable[[str], None], on_tick: Callable[[], None]) -> dict[str, int]:
    """Run a script in worker processes; raises Difference, HangError, or what the engine raises."""
    text = script.to_json()
    watch = Watch(told, on_tick)
    os.environ[VARIABLE] = script.recount  # workers inherit it
    result = execute(
        build,
        script.workers,
        partial(drive, text=text),
        args=(text,),
        kwargs={"threaded": True},
        memory=script.memory,
        ring_cells=script.ring_cells,
        on_tick=watch,
    )
    parts: list[Shown] = result.returned
    figures = compare(script, parts)
    for name in ("bins_in", "bins_out"):
        if result.counter(name) != figures["moves"]:
            message = f"{result.counter(name)} {name} for {figures['moves']} moves"
            raise Difference(message)
    return figures | {
        "waits": sum(part.facts["waits"] for part in parts),
        "refused": sum(part.facts["refused"] for part in parts),
        "kept": sum(part.facts["kept"] for part in parts),
        "naps": result.counter("memory_waits"),
        "outbox": result.counter("outbox"),
        "ms": int(1000 * result.seconds),
    }


def outcome_of(script: Script, told: Callable[[str], None], on_tick: Callable[[], None]) -> dict[str, Any]:
    """Run a script and return its figures, or {"failed": what, "kind": which} for a failure of any kind."""
    try:
        return dict(check_in_processes(script, told, on_tick))
    except (MegaphoneError, AssertionError, HangError) as error:
        told(f"{type(error).__name__}: {error}")
        cause = error.__cause__
        while cause is not None:
            told(f"caused by {type(cause).__name__}: {cause}")
            cause = cause.__cause__
        return {"failed": str(error)[:2000], "kind": type(error).__name__}
