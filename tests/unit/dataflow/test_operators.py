"""What each operator without a frontier does to batches, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.batch import Batch, BytesColumn, Loan
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.stream import Stream
from megaphone.errors import GraphError, UsageError
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import Run, one, rows

N = {"n": "u8"}
WORDS = {"n": "u8", "word": "bytes"}
COPIES = ("copied_ingest", "copied_scatter", "copied_own", "copied_gather", "copied_concat", "copied_split")


def copies(run: Run) -> dict[str, int]:
    """Return bytes copied by cause, those that are not zero."""
    return {name: run.counter(name) for name in COPIES if run.counter(name)}


# -- map ---------------------------------------------------------------------------------------------------------


def test_map_makes_other_columns() -> None:
    captured = one(N, lambda s: s.map(lambda b: {"half": b["n"] / 2}, columns={"half": "f8"}), {"n": [1, 2]})
    assert rows(captured) == [(0, 0.5), (0, 1.0)]


def test_map_of_all_views_hands_the_batch_on_by_reference() -> None:
    with Run(WORDS, lambda s: s.map(lambda b: b.columns()), slots=1) as run:
        run.send({"n": [1, 2], "word": [b"a", b"bc"]})
        assert rows(run.finish()) == [(0, 1, b"a"), (0, 2, b"bc")]
        assert copies(run) == {"copied_ingest": 2 * 12 + 3, "copied_own": 2 * 8 + 3 * 4 + 3}


def test_map_that_renames_columns_copies_nothing() -> None:
    with Run(N, lambda s: s.map(lambda b: {"m": b["n"]}, columns={"m": "u8"}), slots=1) as run:
        run.send({"n": [1, 2]})
        assert rows(run.finish()) == [(0, 1), (0, 2)]
        assert run.counter("copied_ingest") == 16


def test_map_of_swapped_views_copies_once() -> None:
    two = {"a": "u8", "b": "u8"}
    with Run(two, lambda s: s.map(lambda x: {"a": x["b"], "b": x["a"]}), slots=1) as run:
        run.send({"a": [1], "b": [2]})
        assert rows(run.finish()) == [(0, 2, 1)]
        assert run.counter("copied_ingest") == 2 * 16


def test_map_of_a_shorter_view_is_not_taken_for_the_whole() -> None:
    with Run(N, lambda s: s.map(lambda b: {"n": b["n"][:1]}), slots=1) as run:
        run.send({"n": [1, 2]})
        with pytest.raises(UsageError, match=r"'map' made 1 records of 2: use flat_map"):
            run.finish()


def test_map_fills_a_loan_without_a_copy() -> None:
    def double(batch: Batch, loan: Any) -> Loan:
        room: Loan = loan()
        np.multiply(batch["n"], 2, out=room["n"])
        return room

    with Run(N, lambda s: s.map(double, loan=True), slots=1) as run:
        run.send({"n": [1, 2]})
        assert rows(run.finish()) == [(0, 2), (0, 4)]
        assert run.counter("copied_ingest") == 16


def test_map_fills_a_loan_of_byte_strings() -> None:
    def initials(batch: Batch, loan: Any) -> Loan:
        room: Loan = loan(bytes_room={"word": batch.n})
        offsets, data = room["word"]
        offsets[:] = np.arange(batch.n + 1)
        data[: batch.n] = [word[0] for word in batch["word"]]
        return room

    captured = one({"word": "bytes"}, lambda s: s.map(initials, loan=True), {"word": [b"lead", b"tin"]})
    assert rows(captured) == [(0, b"l"), (0, b"t")]


@pytest.mark.parametrize("with_loan", [False, True])
def test_map_keeps_the_times_of_records(with_loan: bool) -> None:
    def fill(batch: Batch, loan: Any) -> Loan:
        room: Loan = loan()
        room["n"][:] = batch["n"] + 1
        return room

    def dataflow(stream: Stream) -> Stream:
        return stream.map(fill, loan=True) if with_loan else stream.map(lambda b: {"n": b["n"] + 1})

    assert rows(one(N, dataflow, {"n": [1, 2]}, times=[7, 3])) == [(3, 3), (7, 2)]


# -- filter ------------------------------------------------------------------------------------------------------


def test_filter_that_keeps_all_hands_the_batch_on() -> None:
    with Run(WORDS, lambda s: s.filter(lambda b: b["n"] > 0), slots=1) as run:
        run.send({"n": [1, 2], "word": [b"a", b"bc"]})
        assert len(run.finish()) == 2
        assert run.counter("copied_gather") == 0


def test_filter_that_keeps_none_sends_nothing() -> None:
    with Run(N, lambda s: s.filter(lambda b: b["n"] > 9), slots=1) as run:
        run.send({"n": [1, 2]})
        assert len(run.finish()) == 0
        assert run.simulation.workers[0].counters()["batches_out"] == 1


def test_filter_writes_what_it_keeps_once() -> None:
    with Run(WORDS, lambda s: s.filter(lambda b: b["n"] % 2 == 1), slots=1) as run:
        run.send({"n": [1, 2, 3], "word": [b"a", b"bc", b"def"]}, times=[5, 6, 7])
        assert rows(run.finish()) == [(5, 1, b"a"), (7, 3, b"def")]
        assert run.counter("copied_gather") == 2 * (8 + 4 + 8) + 4


@pytest.mark.parametrize("mask", [[1, 0], [True], np.array([[True, False]])])
def test_filter_refuses_what_is_no_mask(mask: Any) -> None:
    with Run(N, lambda s: s.filter(lambda _: np.asarray(mask)), slots=1) as run:
        run.send({"n": [1, 2]})
        with pytest.raises(UsageError, match=r"operator 'filter': the predicate gave .* needs bool\[2\]"):
            run.finish()


# -- flat_map ----------------------------------------------------------------------------------------------------


def test_flat_map_sends_each_batch_that_it_yields() -> None:
    def split(batch: Batch) -> Any:
        yield {"n": batch["n"]}
        yield {"n": batch["n"][:0]}
        yield {"n": np.repeat(batch["n"], 2)}

    assert rows(one(N, lambda s: s.flat_map(split), {"n": [1, 2]})) == [(0, 1), (0, 1), (0, 1), (0, 2), (0, 2), (0, 2)]


def test_flat_map_gives_records_their_times() -> None:
    captured = one(N, lambda s: s.flat_map(lambda b: [({"n": b["n"]}, b.times + 1)]), {"n": [1, 2]}, times=[4, 8])
    assert rows(captured) == [(5, 1), (9, 2)]


def test_flat_map_does_not_forget_the_times_of_records() -> None:
    with Run(N, lambda s: s.flat_map(lambda b: [{"n": b["n"]}]), slots=1) as run:
        run.send({"n": [1]}, times=[4])
        with pytest.raises(UsageError, match=r"'flat_map': records of the batch have times of their own: yield"):
            run.finish()


def test_flat_map_fills_loans() -> None:
    def copy(batch: Batch, loan: Any) -> Any:
        room = loan(batch.n + 5)
        room["n"][: batch.n] = batch["n"]
        room.n = batch.n
        yield room

    assert rows(one(N, lambda s: s.flat_map(copy, loan=True), {"n": [1, 2]})) == [(0, 1), (0, 2)]


# -- inspect, concat, partition ----------------------------------------------------------------------------------


def test_inspect_shows_every_batch_and_copies_nothing() -> None:
    seen: list[int] = []
    with Run(N, lambda s: s.inspect(lambda b: seen.append(int(b["n"].sum()))), slots=1) as run:
        run.send({"n": [1, 2]})
        run.send({"n": [3]})
        assert len(run.finish()) == 3
        assert seen == [3, 3]
        assert copies(run) == {"copied_ingest": 24, "copied_own": 24}


def test_byte_strings_are_counted_on_every_edge_that_they_are_handed_along() -> None:
    with Run(WORDS, lambda s: s.inspect(lambda _: None), slots=1) as run:
        run.send({"n": [1, 2], "word": [b"a", b"bc"]})
        assert len(run.finish()) == 2
        assert run.counter("bytes_in") == run.counter("bytes_out") == 2 * (2 * 12 + 3)


def test_concat_hands_on_what_comes_from_any_stream() -> None:
    def dataflow(stream: Stream) -> Stream:
        return stream.concat(stream.filter(lambda b: b["n"] > 1), stream, name="joined")

    with Run(N, dataflow, slots=1) as run:
        run.send({"n": [2, 3]})
        assert rows(run.finish()) == [(0, 2)] * 3 + [(0, 3)] * 3
        assert run.counter("copied_ingest") == 16


@pytest.mark.parametrize("batches", range(48, 64))
def test_concat_into_full_rings_loses_none_of_its_inputs(batches: int) -> None:
    """With one of these numbers the first input's last batch fills the ring, and the second is not looked at."""

    def build(graph: Graph) -> Any:
        first, one_stream = graph.input("first", N)
        second, other_stream = graph.input("second", N)
        return first, second, one_stream.concat(other_stream).broadcast().capture()

    with Simulation(build, slots=2, ring_cells=64) as simulation:
        for number in range(batches):
            for source in simulation.handles[0][:2]:
                assert source.try_send({"n": [number]})
        # The inputs stay open, so no frontier moves and gives a second chance.
        simulation.run_until(lambda: all(len(handles[2].result()) == 2 * batches for handles in simulation.handles))
        for *_, capture in simulation.handles:
            assert sorted(capture.result()["n"].tolist()) == sorted([*range(batches), *range(batches)])


def test_concat_refuses_other_columns_when_it_is_built() -> None:
    with pytest.raises(GraphError, match=r"operator 'concat' \(.*s\.concat.*stream 2 has .*'f8'|float64"):
        one(N, lambda s: s.concat(s.map(lambda b: {"n": b["n"]}, columns={"n": "f8"})), {"n": [1]})


def test_partition_sends_each_record_to_its_part() -> None:
    def dataflow(stream: Stream) -> Stream:
        low, high, never = stream.partition(3, lambda b: (b["n"] > 2).astype(int))
        return low.map(lambda b: {"n": b["n"] + 100, "word": b["word"]}).concat(high, never)

    with Run(WORDS, dataflow, slots=1) as run:
        run.send({"n": [3, 1, 4, 2], "word": [b"three", b"", b"four", b"two"]})
        assert rows(run.finish()) == [(0, 3, b"three"), (0, 4, b"four"), (0, 101, b""), (0, 102, b"two")]
        assert run.counter("copied_gather") == 4 * 12 + 12


def test_partition_hands_a_batch_of_one_part_on() -> None:
    with Run(N, lambda s: s.partition(2, lambda b: np.ones(b.n, int))[1], slots=1) as run:
        run.send({"n": [3, 1]})
        assert rows(run.finish()) == [(0, 1), (0, 3)]
        assert run.counter("copied_gather") == 0


@pytest.mark.parametrize(
    ("part", "said"),
    [([0, 2], "part 2, there are 0 to 1"), ([-1, 0], "part -1"), ([0.0, 1.0], r"float64\[2\]"), ([0], r"int64\[1\]")],
)
def test_partition_refuses_what_names_no_part(part: list[Any], said: str) -> None:
    with Run(N, lambda s: s.partition(2, lambda _: np.array(part))[0], slots=1) as run:
        run.send({"n": [3, 1]})
        with pytest.raises(UsageError, match=said):
            run.finish()


def test_partition_refuses_a_count_of_parts_when_it_is_built() -> None:
    with pytest.raises(GraphError, match="0 parts: ask for 1 to 256"):
        one(N, lambda s: s.partition(0, lambda b: b["n"])[0], {"n": [1]})


# -- edges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns", [{"a": "u8"}, {"a": "u8", "b": "f8", "c": "i8"}, {"a": "u4", "b": "S3", "c": "bytes"}]
)
def test_an_exchange_that_scatters_writes_each_byte_once(columns: dict[str, str]) -> None:
    count = 5000
    values: dict[str, Any] = {"a": np.arange(count)}
    if "c" in columns:
        values["b"] = np.full(count, b"abc") if columns["b"] == "S3" else np.ones(count)
        values["c"] = [b"word"] * count if columns["c"] == "bytes" else np.ones(count, int)
    width = {"u8": 8, "f8": 8, "i8": 8, "u4": 4, "S3": 3, "bytes": 8}
    row_bytes = sum(width[dtype] for dtype in columns.values())
    with Run(columns, lambda s: s.exchange("a"), slots=3) as run:
        run.send(values)
        assert len(run.finish()) == count
        assert run.counter("copied_scatter") == count * row_bytes
        assert run.counter("copied_ingest") == 0


def test_a_batch_that_all_goes_to_one_worker_is_handed_on() -> None:
    with Run(N, lambda s: s.inspect(lambda _: None).exchange("n"), slots=3) as run:
        run.send({"n": np.full(100, 7)})
        assert len(run.finish()) == 100
        assert run.counter("copied_scatter") == 0
        assert sum(len(capture.result()) > 0 for capture in run.captures) == 1


def test_a_broadcast_writes_each_byte_once_for_all_workers() -> None:
    with Run(WORDS, lambda s: s.broadcast(), slots=4) as run:
        run.send({"n": np.arange(100), "word": [b"abc"] * 100})
        assert len(run.finish()) == 400
        assert run.counter("copied_ingest") == 100 * (8 + 4 + 3)
        assert run.counter("copied_scatter") == 0


def test_pipeline_and_tee_copy_nothing() -> None:
    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", N)
        probes = [stream.inspect(lambda _: None).probe() for _ in range(3)]
        return source, probes

    with Simulation(build, slots=1) as simulation:
        source, _ = simulation.handles[0]
        room = source.loan(4)
        room["n"][:] = 1
        source.send(room)
        source.close()
        simulation.run()
        assert all(simulation.counter(name) == 0 for name in COPIES)
        assert simulation.counter("records_out") == 2 * 3 * 4


def test_an_exchange_by_a_function_sends_each_record_where_its_hash_says() -> None:
    def halves(batch: Batch) -> Any:
        return (batch["n"] % 2).astype(np.uint64) << np.uint64(63)

    with Run(N, lambda s: s.exchange(halves), slots=2) as run:
        run.send({"n": np.arange(10)})
        run.finish()
        got = [sorted(capture.result()["n"].tolist()) for capture in run.captures]
        assert got == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


@pytest.mark.parametrize("hashes", [np.zeros(2, np.int64), np.zeros(3, np.uint64)])
def test_an_exchange_refuses_hashes_of_another_kind_and_sends_nothing(hashes: Any) -> None:
    with Run(N, lambda s: s.exchange(lambda _: hashes), slots=2) as run:
        with pytest.raises(GraphError, match=r"operator 'source' .*the key function gave"):
            run.inputs[0].send({"n": [1, 2]})
        assert run.counter("records_out") == 0
        assert len(run.finish()) == 0


@pytest.mark.parametrize(
    ("key", "hash_name", "said"),
    [("m", "mix", "unknown column 'm': the stream has n"), ("n", "md5", "unknown hash 'md5'")],
)
def test_an_exchange_refuses_its_key_when_it_is_built(key: str, hash_name: str, said: str) -> None:
    with pytest.raises(GraphError, match=rf"operator 'exchange' \(.*{said}"):
        one(N, lambda s: s.exchange(key, hash=hash_name), {"n": [1]})


def test_an_exception_in_a_function_leaves_as_it_is() -> None:
    def fail(_: Batch) -> None:
        message = "mine"
        raise LookupError(message)

    with Run(N, lambda s: s.inspect(fail), slots=1) as run:
        run.send({"n": [1]})
        with pytest.raises(LookupError, match="mine"):
            run.finish()


def test_capture_joins_byte_strings_and_is_empty_where_nothing_came() -> None:
    with Run(WORDS, lambda s: s.exchange("n"), slots=2) as run:
        run.send({"n": [1, 1], "word": [b"x", b"yz"]})
        run.send({"n": [1], "word": [b""]})
        captured = run.finish()
        assert isinstance(captured["word"], BytesColumn)
        assert rows(captured) == [(0, 1, b""), (0, 1, b"x"), (0, 1, b"yz")]
        assert {len(capture.result()) for capture in run.captures} == {0, 3}
        assert captured["n"].dtype == np.uint64
        captured["n"][:] = 0  # it is the caller's own
