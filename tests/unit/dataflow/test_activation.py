"""One activation: what it has taken stays where it was, and the slot's page says that it is under way."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch
from tests.unit.dataflow.runs import Run, references

N = {"n": "u8"}


def activation_seq(run: Run, slot: int = 0) -> int:
    """Return the word of a slot's page that is odd while an activation is under way."""
    look = ffi.new("uint64_t[7]")
    lib.mp_slot_look(run.simulation.memory.control, slot, look)
    return int(look[0])


def test_an_activation_is_marked_from_its_beginning_until_it_has_published() -> None:
    inside: list[int] = []
    with Run(N, lambda s: s.inspect(lambda _: inside.append(activation_seq(run))), slots=1) as run:
        assert activation_seq(run) % 2 == 0
        run.send({"n": [1]})
        # What the main program does to its inputs is an activation too, until the next step publishes it.
        assert activation_seq(run) % 2 == 1
        run.simulation.workers[0].commit()
        assert activation_seq(run) % 2 == 0
        assert not inside
        run.finish()
        assert [seq % 2 for seq in inside] == [1]
        assert activation_seq(run) % 2 == 0
        assert activation_seq(run) > inside[0]


def test_what_an_activation_takes_stays_in_its_inbox_and_named_until_it_has_published() -> None:
    inside: list[tuple[int, int]] = []

    def look(batch: Batch) -> None:
        control = run.simulation.memory.control
        slab = batch.address("n") // int(lib.mp_slab_bytes(control))  # without a view: that would name the slab as well
        inside.append((int(lib.mp_ref_row(control, slab)), int(lib.mp_queued_cells(control, 0))))

    with Run(N, lambda s: s.inspect(look), slots=1) as run:
        run.send({"n": [1]})
        run.simulation.workers[0].commit()
        assert lib.mp_queued_cells(run.simulation.memory.control, 0) == 1
        run.finish()
    # The message is named by its inbox, and by what the operator has sent on.
    assert [named >= 1 and queued >= 1 for named, queued in inside] == [True]


# -- finalisers ------------------------------------------------------------------------------------------------------


def written_while(run: Run, act: Any) -> bool:
    """Return whether anything in the control region has changed while something was done."""
    region = run.simulation.memory.control_region
    words = ffi.buffer(run.simulation.memory.control, region.size_bytes)
    gc.collect()
    before = bytes(words)
    act()
    gc.collect()
    return bytes(words) != before


@pytest.mark.parametrize("thread", ["the worker's", "another"])
@pytest.mark.parametrize("what", ["view", "loan"])
def test_what_dies_writes_no_shared_memory_before_the_worker_steps(what: str, thread: str) -> None:
    kept: list[Any] = []
    with Run(N, lambda s: s.inspect(lambda b: kept.append(b["n"]) if what == "view" else None), slots=2) as run:
        run.send({"n": [1, 2, 3]})
        run.simulation.run_until(lambda: len(run.result()["n"]) == 3)
        if what == "loan":
            kept.append(run.inputs[0].loan(10))
            run.simulation.workers[0].commit()

        def forget() -> None:
            if thread == "another":
                other = threading.Thread(target=kept.clear)
                other.start()
                other.join()
            else:
                kept.clear()

        assert not written_while(run, lambda: None)
        assert not written_while(run, forget)
        run.finish_without_references()
        assert references(run.simulation) == 0
