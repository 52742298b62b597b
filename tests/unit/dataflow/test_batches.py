"""Batches and loans: the same bytes in every process, read-only, and there for as long as anybody looks at them."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch, BytesColumn, Loan
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.stream import Stream
from megaphone.errors import UsageError
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import Run, references, rows

N = {"n": "u8"}
WORDS = {"n": "u8", "word": "bytes"}


def keeping(kept: list[Any], part: Any = lambda batch: batch) -> Any:
    """Return a dataflow that keeps something of each batch."""
    return lambda stream: stream.inspect(lambda batch: kept.append(part(batch)))


# -- views -------------------------------------------------------------------------------------------------------


def test_a_byte_written_by_the_sender_is_seen_through_the_receivers_view() -> None:
    kept: list[Batch] = []
    with Run(N, lambda s: keeping(kept)(s.exchange(lambda b: np.full(b.n, 2**64 - 1, np.uint64))), slots=2) as run:
        loan = run.inputs[0].loan(3)
        loan["n"][:] = [1, 2, 3]
        mine = loan["n"]
        run.send(loan)
        run.simulation.run_until(lambda: bool(kept))
        received = kept[0]["n"]
        assert run.captures[1].result()["n"].tolist() == [1, 2, 3]
        mine[1] = 77  # what nobody may do after sending, and what shows that there is one page
        assert received.tolist() == [1, 77, 3]
        del mine, received
        kept.clear()
        run.finish()


def test_all_workers_read_a_broadcast_at_one_address() -> None:
    kept: list[int] = []
    with Run(N, lambda s: keeping(kept, lambda b: b.address("n"))(s.broadcast()), slots=3) as run:
        run.send({"n": [1, 2]}, slot=1)
        run.finish()
        assert len(kept) == 3
        assert len(set(kept)) == 1


@pytest.mark.parametrize("part", ["n", "times", "offsets", "data"])
def test_a_received_array_is_read_only_for_good(part: str) -> None:
    kept: list[Any] = []

    def pick(batch: Batch) -> Any:
        word = batch["word"]
        return {"n": batch["n"], "times": batch.times, "offsets": word.offsets, "data": word.data}[part]

    with Run(WORDS, keeping(kept, pick), slots=1) as run:
        run.send({"n": [1], "word": [b"abc"]}, times=[4])
        run.finish_without_references()
        with pytest.raises(ValueError, match="read-only"):
            kept[0][0] = 9
        with pytest.raises(ValueError, match="WRITEABLE"):
            kept[0].flags.writeable = True
        base = kept[0]
        while isinstance(base, np.ndarray):
            assert not base.flags.writeable
            base = base.base
        assert memoryview(base).readonly


def test_views_that_are_kept_have_their_contents_while_slabs_are_used_again() -> None:
    kept: list[Any] = []
    every = 40
    count = 0

    def some(batch: Batch) -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            kept.append((batch["n"], batch["word"], int(batch["n"][0])))

    with Run(WORDS, lambda s: s.exchange("n").inspect(some), slots=2, memory="8M") as run:
        for first in range(400):
            numbers = np.arange(2000) + first
            run.send({"n": numbers, "word": [b"w%d" % n for n in numbers]}, slot=first % 2)
            run.simulation.step()
        for slot in (0, 1):
            run.captures[slot].result()
        run.finish_without_references()
        assert run.counter("allocations_recycled") > 100
        assert run.counter("views_escaped") == len(kept) > 10
        for numbers, words, first in kept:
            assert numbers[0] == first
            assert words.tolist() == [b"w%d" % n for n in numbers]
        kept.clear()
        del numbers, words
        assert references(run.simulation) == 0


def test_a_batch_that_is_kept_unread_is_read_later_all_the_same() -> None:
    kept: list[Batch] = []
    with Run(N, keeping(kept), slots=1, memory="8M") as run:
        run.send({"n": [1, 2, 3]})
        run.simulation._settled()
        for _ in range(300):
            run.send({"n": np.zeros(8000, int)})
            run.simulation.step()
            del kept[1:]
        assert kept[0]["n"].tolist() == [1, 2, 3]
        kept.clear()
        run.finish()


def test_views_outlive_the_run() -> None:
    kept: list[Any] = []
    with Run(WORDS, keeping(kept), slots=1) as run:
        run.send({"n": [5], "word": [b"abc"]})
        run.finish_without_references()
    del run
    gc.collect()
    assert kept[0]["n"].tolist() == [5]
    assert kept[0].own()["word"].tolist() == [b"abc"]


def test_views_that_are_let_go_within_the_call_have_not_escaped() -> None:
    with Run(WORDS, lambda s: s.inspect(lambda b: b.columns()).filter(lambda b: b["n"] > 1), slots=1) as run:
        run.send({"n": [1, 2], "word": [b"a", b"b"]})
        assert len(run.finish()) == 1
        assert run.counter("views_escaped") == 0


def test_own_copies_and_counts() -> None:
    kept: list[Any] = []
    with Run(WORDS, keeping(kept, lambda b: b.own()), slots=1) as run:
        run.send({"n": [1, 2], "word": [b"a", b"bc"]})
        run.finish()  # nothing refers to shared memory any more
        kept[0]["n"][0] = 9
        assert kept[0]["n"].tolist() == [9, 2]
        assert run.counter("copied_own") == 2 * (16 + 12 + 3)


# -- loans -------------------------------------------------------------------------------------------------------


def test_a_loan_is_sent_without_a_copy() -> None:
    with Run(WORDS, lambda s: s, slots=1) as run:
        loan = run.inputs[0].loan(5, timed=True, bytes_room={"word": 10})
        loan["n"][:2] = [1, 2]
        offsets, data = loan["word"]
        offsets[:3] = [0, 2, 5]
        data[:5] = list(b"abcde")
        assert loan.times is not None
        loan.times[:2] = [7, 8]
        del offsets, data
        run.send(loan, n=2)
        assert rows(run.finish()) == [(7, 1, b"ab"), (8, 2, b"cde")]
        assert run.counter("copied_ingest") == 0
        assert run.counter("input_bytes") == 2 * (8 + 4 + 8) + 5


def test_a_loan_that_is_dropped_gives_its_room_back() -> None:
    with Run(N, lambda s: s, slots=1) as run:
        loan = run.inputs[0].loan(5)
        column = loan["n"]
        del loan
        assert references(run.simulation) == 1  # somebody could still write
        del column
        assert references(run.simulation) == 0
        run.finish()


def test_a_loan_of_a_function_that_raises_gives_its_room_back() -> None:
    def fail(_: Batch, loan: Any) -> Any:
        loan()["n"][0] = 1
        message = "mine"
        raise LookupError(message)

    with Run(N, lambda s: s.map(fail, loan=True), slots=1) as run:
        run.send({"n": [1]})
        with pytest.raises(LookupError):
            run.simulation.run()
        gc.collect()
        assert len(run.simulation.workers[0]._released) > 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda loan: setattr(loan, "n", 4), "4 records of a loan of 3"),
        (lambda loan: setattr(loan, "n", -1), "-1 records of a loan of 3"),
        (lambda loan: loan["word"][0].__setitem__(1, 9), "offsets of a bytes column fall"),
        (lambda loan: loan["word"][0].__setitem__(3, 100), "offsets of a bytes column fall, or pass its 64 bytes"),
        (lambda loan: loan["word"][0].__setitem__(0, 1), "column 'word' of a loan begin at 1: begin at 0"),
        (lambda loan: loan.leave(), "a loan of 3 records is sent twice"),
    ],
)
def test_a_loan_that_is_filled_wrongly_is_refused(spoil: Any, said: str) -> None:
    with Run(WORDS, lambda s: s, slots=1) as run:
        loan = run.inputs[0].loan(3, bytes_room={"word": 10})
        loan["word"][0][:] = [0, 3, 3, 10]
        spoil(loan)
        with pytest.raises(UsageError, match=said):
            run.send(loan)
        assert len(run.finish_without_references()) == 0


def test_a_loan_cannot_be_read_or_sent_again_after_it_was_sent() -> None:
    with Run(N, lambda s: s, slots=1) as run:
        loan = run.inputs[0].loan(3)
        loan["n"][:] = 1
        run.send(loan)
        with pytest.raises(UsageError, match="column 'n' of a loan that has been sent"):
            loan["n"]
        with pytest.raises(UsageError, match="sent twice"):
            run.send(loan)
        assert len(run.finish()) == 3


def test_a_loan_of_another_input_is_refused() -> None:
    def build(graph: Graph) -> Any:
        return graph.input("one", N)[0], graph.input("two", {"m": "u8"})[0]

    with Simulation(build, slots=1) as simulation:
        first, second = simulation.handles[0]
        loan = first.loan(1)
        with pytest.raises(UsageError, match="input 'two' is given a loan of .*'n'.* and sends .*'m'"):
            second.try_send(loan)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n": 5}, "a loan of 5 records with no bytes for column 'word': give bytes_room="),
        ({"n": 5, "bytes_room": {"word": -1}}, "with -1 bytes for column 'word'"),
        ({"n": 5, "bytes_room": {"word": 1, "x": 1}}, "bytes_room for 'x', which is no bytes column"),
        ({"n": -1, "bytes_room": {"word": 1}}, "a loan of -1 records"),
        ({"n": 2**32, "bytes_room": {"word": 1}}, "a loan of 4294967296 records"),
    ],
)
def test_a_loan_that_cannot_be_is_refused(arguments: dict[str, Any], said: str) -> None:
    with Run(WORDS, lambda s: s, slots=1) as run, pytest.raises(UsageError, match=said):
        run.inputs[0].loan(**arguments)


def test_columns_begin_on_cache_lines() -> None:
    kept: list[int] = []
    columns = {"a": "u1", "b": "S7", "c": "bytes", "d": "u8"}

    def addresses(batch: Batch) -> None:
        kept.extend(batch.address(name) for name in columns)

    with Run(columns, lambda s: s.exchange("d").inspect(addresses), slots=2) as run:
        run.send({"a": [1, 2], "b": [b"x", b"y"], "c": [b"long", b""], "d": [1, 2]})
        run.finish()
    assert kept
    assert all(address % 64 == 0 for address in kept)


# -- byte strings ------------------------------------------------------------------------------------------------


def test_a_bytes_column_behaves_like_a_sequence_of_bytes() -> None:
    column = BytesColumn.of([b"a", b"", b"bcd"])
    assert (len(column), column[0], column[-1], list(column)) == (3, b"a", b"bcd", [b"a", b"", b"bcd"])
    assert column.nbytes == 4 * 4 + 4
    assert BytesColumn.of(column) is column
    assert BytesColumn.of(np.array([b"x", b"yz"])).tolist() == [b"x", b"yz"]
    for index in (3, -4):
        with pytest.raises(IndexError):
            column[index]


def test_a_bytes_column_cut_out_of_a_larger_one_is_sent_as_it_is() -> None:
    whole = BytesColumn.of([b"a", b"bc", b"def", b"g"])
    part = BytesColumn(whole.offsets[1:4], whole.data)

    def build(stream: Stream) -> Stream:
        return stream.exchange("n").concat(stream)

    with Run(WORDS, build, slots=2) as run:
        run.send({"n": [1, 2], "word": part})
        assert rows(run.finish()) == [(0, 1, b"bc")] * 2 + [(0, 2, b"def")] * 2


def test_references_are_counted_by_the_test_itself() -> None:
    """Guards the checks above: a reference that is kept is seen."""
    kept: list[Any] = []
    with Run(N, keeping(kept, lambda b: b["n"]), slots=1) as run:
        run.send({"n": [1]})
        run.simulation._settled()
        assert references(run.simulation) == 1
        lib.mp_ref_add_at(run.simulation.workers[0].slot, 64)
        assert references(run.simulation) == 2
        lib.mp_ref_drop_at(run.simulation.workers[0].slot, 64)
        assert isinstance(run.inputs[0].loan(1), Loan)


def test_the_address_of_a_column_is_where_its_array_is_and_is_not_told_after_sending() -> None:
    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"a": "u1", "word": bytes, "b": "u8"})
        return source, stream.probe()

    with Simulation(build, slots=1) as simulation:
        source, _ = simulation.handles[0]
        loan = source.loan(100, timed=True, bytes_room={"word": 10})
        for name in ("b", "a"):  # whichever is asked for first
            assert int(ffi.cast("uintptr_t", loan.pointer(name))) == loan[name].ctypes.data
        assert loan.times is not None
        assert loan.times.ctypes.data - loan["b"].ctypes.data == 832  # 100 * 8, on a cache line
        loan["word"][0][:] = 0
        loan.times[:] = 0
        source.send(loan)
        with pytest.raises(UsageError, match="column 'b' of a loan that has been sent"):
            loan.pointer("b")


def test_a_loan_that_is_dropped_without_a_look_at_it_gives_its_room_back() -> None:
    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        return source, stream.probe()

    with Simulation(build, slots=1, memory="8M") as simulation:
        source, _ = simulation.handles[0]
        for _ in range(1000):
            source.loan(8000)  # 64 MB in all
            simulation.step()
