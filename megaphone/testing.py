"""Simulation: all slots of a dataflow in one process, one step of one slot at a time, in an order from a seed.

It runs the C and the Python that ship: the same rings, tracker and operators.  What differs is who calls ``step`` and
how much a step may see: deliveries are late on purpose (a step takes only some messages of each ring) and rings are
small, so that outboxes and merged progress are the rule.  The same seed gives the same run.

    >>> import megaphone
    >>> def build(graph):
    ...     numbers, stream = graph.input("numbers", {"n": "u8"})
    ...     return numbers, stream.exchange("n").probe()
    >>> with Simulation(build, slots=2, seed=1) as simulation:
    ...     for numbers, _ in simulation.handles:
    ...         numbers.send({"n": [1, 2, 3]})
    ...         numbers.close()
    ...     _ = simulation.run()
    ...     simulation.done
    True
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import megaphone.dataflow.operators  # noqa: F401 - registers the operators on Graph and Stream
import megaphone.migration.operators  # noqa: F401 - as above
from megaphone._core import lib
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.memory import RunMemory
from megaphone.dataflow.recounting import worker_of
from megaphone.errors import MegaphoneError, StuckError
from megaphone.shm.limits import Limits, parse_size

IDLE_ROUNDS_MAX: Final = 4


class Simulation:
    """A dataflow whose workers are all hosted here.

    Args:
        build: as for ``execute``; called once per slot.
        slots: workers.
        seed: of the order of steps and of what each sees.
        memory: size of the data region.
        ring_cells: cells per ring, a power of two from 64; small ones fill.
        late: deliver only some messages of a ring per step, at random.

    Attributes:
        workers: one per slot.
        handles: what build returned, one per slot.
    """

    def __init__(
        self,
        build: Callable[[Graph], Any],
        slots: int = 2,
        seed: int = 0,
        *,
        memory: int | str = "32M",
        ring_cells: int = 64,
        late: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.late = late
        graphs: list[Graph] = []
        self.handles: list[Any] = []
        for _ in range(slots):
            graph = Graph(slots)
            self.handles.append(build(graph))
            graph.finish()
            graphs.append(graph)
        if len({graph.hash() for graph in graphs}) != 1:
            message = "build made different graphs when called twice: it must not depend on anything but its argument"
            raise MegaphoneError(message)
        limits = Limits.for_memory(parse_size(memory))
        limits = Limits(limits.memory_bytes, limits.chunk_bytes, limits.slab_bytes, ring_cells)
        self.memory = RunMemory.create(graphs[0], limits)
        self.workers = [worker_of(graph, self.memory, index) for index, graph in enumerate(graphs)]
        self.steps = 0

    def step(self, slot: int | None = None) -> bool:
        """Run one step of a slot, a random one by default; returns whether an operator was active."""
        worker = self.workers[self.random.randrange(len(self.workers)) if slot is None else slot]
        limit = self.random.choice((0, 1, 1, 2, 5)) if self.late else 0
        lib.mp_slot_limit_receive(worker.slot, limit)
        self.steps += 1
        return worker.step()

    @property
    def done(self) -> bool:
        """Whether nothing can appear anywhere any more."""
        return all(worker.done() for worker in self.workers)

    def run(self, steps_max: int = 1_000_000) -> int:
        """Step until the dataflow is empty; returns the number of steps.

        Raises:
            StuckError: nothing is left to do and a frontier is not empty.
        """
        start = self.steps
        self.run_until(lambda: self.done, steps_max)
        return self.steps - start

    def run_until(self, condition: Callable[[], bool], steps_max: int = 1_000_000) -> None:
        """Step until the condition holds; raises StuckError when nothing is left to do before it does."""
        idle = 0
        for _ in range(steps_max):
            if condition():
                return
            idle = 0 if self.step() else idle + 1
            if idle > IDLE_ROUNDS_MAX * len(self.workers) and self._settled():
                if condition():
                    return
                raise StuckError(self.why_stuck())
        message = f"{steps_max} steps were not enough: {self.why_stuck()}"
        raise StuckError(message)

    def _settled(self) -> bool:
        """Let every slot see everything, twice; True when none had anything to do."""
        late, self.late = self.late, False
        active = [self.step(slot) for _ in range(2) for slot in range(len(self.workers))]
        self.late = late
        queued = [lib.mp_queued_cells(self.memory.control, slot) for slot in range(len(self.workers))]
        return not any(active) and not any(queued)

    def why_stuck(self) -> str:
        """Return who holds the earliest time back."""
        return f"nothing is in flight and the dataflow is not empty{self.workers[0].why_waiting()}"

    def counter(self, name: str) -> int:
        """Return the sum of a counter over all slots."""
        return sum(worker.counters()[name] for worker in self.workers)

    def close(self) -> None:
        """Let go of slots and memory."""
        for worker in self.workers:
            worker.detach()
        self.memory.close()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
