"""Memory that is exhausted for a while: whoever needs it waits for what other workers, or views, give back."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from megaphone._core import lib
from megaphone.dataflow.batch import Loan
from megaphone.dataflow.execute import execute
from megaphone.dataflow.operators.input import Input
from megaphone.dataflow.operators.probe import Probe
from megaphone.dataflow.worker import Worker
from megaphone.errors import SharedMemoryError

pytestmark = pytest.mark.process

LARGE = 120_000  # records, nearly a chunk of this memory
HELD_SECONDS = 0.6  # longer than so many tries of an input as there once were, and far below what a worker waits


def hungry(graph: Any) -> tuple[Input, Probe]:
    """An operator that needs a chunk for each batch."""
    numbers, stream = graph.input("numbers", {"n": "u8"})
    return numbers, stream.exchange("n").unary(send_large, name="hungry").probe()


def send_large(batch: Any, output: Any) -> None:
    """Send a large batch for each small one."""
    loan = output.loan(LARGE)
    loan["n"][:] = batch.time
    output.send(loan)


def plain(graph: Any) -> tuple[Input, Probe]:
    """No operator that needs memory."""
    numbers, stream = graph.input("numbers", {"n": "u8"})
    return numbers, stream.probe()


def hold_everything(worker: Worker, numbers: Input) -> None:
    """Take all the memory there is, and let go of it from another thread later."""
    held: list[Loan] = []
    patience_ns = lib.mp_relief_patience(worker.slot, 0)
    try:
        while True:
            held.append(Loan(worker, numbers.schema, LARGE))
    except SharedMemoryError:
        pass
    lib.mp_relief_patience(worker.slot, patience_ns)
    threading.Timer(HELD_SECONDS, held.clear).start()


def send_and_hold(holder: int, worker: Worker, handles: tuple[Input, Probe]) -> bool:
    """One worker sends to both, then takes all memory before either has received anything."""
    numbers, probe = handles
    if worker.index == holder:
        numbers.send({"n": np.arange(64, dtype=np.uint64)})
        hold_everything(worker, numbers)
    numbers.close()
    worker.step_until(partial(probe.done, 0))
    return True


def hold_then_loan(worker: Worker, handles: tuple[Input, Probe]) -> bool:
    """The main program wants more while its own loans are all that there is."""
    numbers, _ = handles
    hold_everything(worker, numbers)
    numbers.send(numbers.loan(LARGE))
    numbers.close()
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_an_operator_that_finds_memory_exhausted_waits_for_what_is_given_back(workers: int) -> None:
    # With two workers one waits for what the other process lets go, with one for what its own thread does.
    result = execute(hungry, workers, partial(send_and_hold, workers - 1), memory="16M")
    assert result.returned == [True] * workers
    assert result.counter("memory_waits") > 0


def test_an_input_that_finds_memory_exhausted_waits_longer_than_some_tries_take() -> None:
    assert execute(plain, 1, hold_then_loan, memory="16M").returned == [True]
