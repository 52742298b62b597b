"""A dataflow in which a hidden operator holds one batch up, to see that the driver's latency shows it."""

from __future__ import annotations

import time
from typing import Any

from megaphone.dataflow.operators.probe import Probe
from megaphone.dataflow.worker import Worker
from megaphone.workloads.driver import Driver

DELAY_NS = 50_000_000
RATE = 1000.0


def build(graph: Any) -> tuple[Any, Probe]:
    """Numbers go through an operator that sleeps once, half a second into the run."""
    numbers, stream = graph.input("numbers", {"n": "u8"})
    slept: list[bool] = []

    def hold_up(batch: Any, output: Any) -> None:
        if batch.time > 500_000_000 and not slept:
            slept.append(True)
            time.sleep(DELAY_NS / 1e9)
        output.forward(batch)

    return numbers, stream.exchange("n").unary(hold_up, name="hidden").probe()


class Numbers:
    """A source of ones."""

    exhausted = False
    position = None

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def send(self, records: int) -> int:
        """Send so many ones."""
        self.numbers.send({"n": [1] * records})
        return records


def drive(seconds: float, worker: Worker, handles: tuple[Any, Probe]) -> tuple[Any, int]:
    """Offer records by a schedule and bring the timeline home."""
    numbers, probe = handles
    driver = Driver(worker, numbers, probe, Numbers(numbers), rate=RATE, duration_ns=int(seconds * 1e9), first_time=0)
    measured = driver.run()
    return measured.timeline, measured.window_ns
