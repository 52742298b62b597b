"""A data region that is full: what waits, what is refused, and that nothing is sent by halves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.batch import Batch
from megaphone.dataflow.operators import input as input_module
from megaphone.dataflow.operators.unary import Output
from megaphone.dataflow.stream import Stream
from megaphone.errors import SharedMemoryError
from tests.unit.dataflow.runs import Run, references, rows

N = {"n": "u8"}
BATCH = np.arange(4000)  # 32 KB: two to a slab at this size


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after few tries: here nobody else makes room meanwhile."""
    monkeypatch.setattr(input_module, "_RELIEF_TRIES", 3)


def fill(run: Run, kept: list[Any]) -> int:
    """Send until memory is used up, without letting views go; returns how many batches were sent."""
    for sent in range(10_000):
        try:
            run.send({"n": BATCH})
        except SharedMemoryError:
            return sent
        run.simulation.run_until(lambda expected=sent: len(kept) > expected)  # type: ignore[misc]
    pytest.fail("memory never ended")


def keeping(kept: list[Any]) -> Any:
    return lambda stream: stream.inspect(lambda batch: kept.append(batch["n"]), name="keep")


def test_progress_resumes_when_views_that_filled_memory_are_let_go() -> None:
    kept: list[Any] = []
    with Run(N, keeping(kept), slots=1, memory="8M") as run:
        sent = fill(run, kept)
        assert sent > 100
        assert all(int(view.sum()) == int(BATCH.sum()) for view in kept)
        kept.clear()
        for _ in range(100):
            run.send({"n": BATCH})
            run.simulation.run_until(lambda: bool(kept))
            kept.clear()
        assert len(run.finish()) == (sent + 100) * len(BATCH)


def test_the_error_names_what_is_needed_what_holds_it_and_the_cure() -> None:
    kept: list[Any] = []
    with Run(N, keeping(kept), slots=1, memory="8M") as run:
        fill(run, kept)
        with pytest.raises(SharedMemoryError) as error:
            run.inputs[0].loan(4000)
        said = str(error.value)
        assert "worker 0 needs 32000 bytes more, and 8388608 bytes of shared memory have no such room" in said
        assert "hold batches" in said
        assert "raise --memory" in said
        assert "\n" not in said


def test_a_loan_that_can_never_be_had_is_refused() -> None:
    with Run(N, lambda s: s, slots=1, memory="8M") as run:
        with pytest.raises(SharedMemoryError, match="needs 16000000 bytes"):
            run.inputs[0].loan(2_000_000)
        run.send({"n": [1]})
        assert len(run.finish()) == 1


def test_views_that_are_let_go_while_a_send_waits_serve_it() -> None:
    kept: list[Any] = []
    count = 0

    def dataflow(stream: Stream) -> Stream:
        def look(batch: Batch) -> None:
            nonlocal count
            count += 1
            kept.append(batch["n"])
            if len(kept) > 400:
                kept.clear()

        return stream.inspect(look)

    with Run(N, dataflow, slots=1, memory="8M") as run:
        for _ in range(900):
            run.inputs[0].send({"n": BATCH[:2000]})  # steps itself while there is no room
            run.simulation.step()
            if len(kept) > 390:
                kept.clear()
        kept.clear()
        assert len(run.finish()) == 900 * 2000


@pytest.mark.parametrize("how", ["columns", "loan", "function", "loan by function"])
def test_a_send_that_finds_no_room_half_way_has_sent_nothing(how: str) -> None:
    kept: list[Any] = []

    def parity(batch: Batch) -> Any:
        return (batch["n"] % 2).astype(np.uint64) << np.uint64(63)

    # Two edges: the first finds room, the second is an exchange that needs more.
    def dataflow(stream: Stream) -> Stream:
        return keeping(kept)(stream).concat(stream.exchange(parity if "function" in how else "n"))  # type: ignore[no-any-return]

    with Run(N, dataflow, slots=2, memory="8M") as run:
        source = run.inputs[0]
        values = np.arange(100_000)
        loan = source.loan(len(values)) if "loan" in how else None
        if loan is not None:
            loan["n"][:] = values
        room: list[Any] = []
        with pytest.raises(SharedMemoryError):
            room.extend(source.loan(4000) for _ in range(10_000))
        # Let go a little at a time: enough for a part of what is to be sent, never for all.
        for _ in range(4):
            del room[-4:]
            run.simulation.step(0)
            before = [run.counter(name) for name in ("records_out", "batches_out", "bytes_out", "ring_cells")]
            in_flight = run.simulation.workers[0].in_flight_bytes()
            with pytest.raises(SharedMemoryError):
                source.try_send(loan if loan is not None else {"n": values})
            assert [run.counter(n) for n in ("records_out", "batches_out", "bytes_out", "ring_cells")] == before
            assert run.simulation.workers[0].in_flight_bytes() == in_flight
        assert not kept
        room.clear()
        assert source.try_send(loan if loan is not None else {"n": values})
        loan = None
        source.close()
        run.inputs[1].close()
        run.simulation.run()
        assert sorted(run.result()["n"].tolist()) == sorted(values.tolist() * 2)
        kept.clear()
        assert references(run.simulation) == 0


def test_an_operator_that_finds_no_room_is_named() -> None:
    def greedy(_: Batch, output: Output) -> None:
        assert [output.loan(4000) for _ in range(10_000)] == []

    with Run(N, lambda s: s.unary(greedy, name="greedy"), slots=1, memory="8M") as run:
        run.send({"n": [1]})
        with pytest.raises(SharedMemoryError, match="operator 'greedy' of worker 0 needs 32000 bytes"):
            run.simulation.run()


def test_memory_that_one_worker_has_emptied_serves_another() -> None:
    """Chunks go back to the pool when somebody is short."""
    kept: list[Any] = []
    with Run(N, keeping(kept), slots=2, memory="8M") as run:
        fill(run, kept)  # nearly all chunks are slot 0's now
        kept.clear()
        other = run.inputs[1]
        sent = 0
        for _ in range(4000):
            run.simulation.step()
            try:
                other.try_send({"n": BATCH})
                sent += 1
            except SharedMemoryError:
                continue
            if sent == 60:
                break
        assert sent == 60
        run.finish_without_references()


def test_batches_larger_than_a_slab_are_sent_in_parts_and_larger_loans_whole() -> None:
    with Run(N, lambda s: s.exchange("n"), slots=2, memory="8M") as run:
        values = np.arange(60_000)
        run.send({"n": values})
        run.simulation._settled()
        loan = run.inputs[0].loan(60_000)
        loan["n"][:] = values
        run.send(loan)
        del loan
        assert rows(run.finish()) == sorted((0, int(n)) for n in values for _ in range(2))
