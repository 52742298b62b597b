"""What is refused at an input and at an output, in one line that names the place, the column and the cure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.batch import Batch, BytesColumn
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.unary import Output
from megaphone.dataflow.schema import Schema
from megaphone.dataflow.sending import checked_columns
from megaphone.errors import GraphError, MegaphoneError, TimeError, UsageError
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import Run, one, rows

N = {"n": "u8"}
NEVER = 2**64 - 1


def converted(dtype: str, values: Any) -> Any:
    """Return the column that a stream of one column makes of values."""
    (column,), _, _ = checked_columns(Schema({"c": dtype}), {"c": values}, "here")
    return column


# -- columns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("u8", [1, 2**64 - 1], [1, 2**64 - 1]),
        ("u8", np.array([1, 2], np.int32), [1, 2]),
        ("u1", [0, 255], [0, 255]),
        ("i8", np.array([True, False]), [1, 0]),
        ("f4", [0.5, 1], [0.5, 1.0]),
        ("f8", [1, 2], [1.0, 2.0]),
        ("f8", np.array([1.5], "f4"), [1.5]),
        ("?", [True, False], [True, False]),
        ("S4", [b"ab", b"c"], [b"ab", b"c"]),
        ("M8[us]", np.array(["2020-01-01"], "M8[D]"), None),
        ("u8", [], []),
        (">u4", [1], [1]),
        ("u8", range(3), [0, 1, 2]),
    ],
)
def test_values_that_the_stream_can_hold_are_taken(dtype: str, values: Any, expected: Any) -> None:
    column = converted(dtype, values)
    assert column.dtype == np.dtype(dtype).newbyteorder("=")
    assert column.flags.c_contiguous
    assert expected is None or column.tolist() == expected


def test_records_of_a_structured_dtype_are_taken() -> None:
    points = Schema({"p": [("x", "f4"), ("y", "f4")]})
    (column,), records, size = checked_columns(points, {"p": [(1, 2), (3, 4)]}, "here")
    assert (column["y"].tolist(), records, size) == ([2.0, 4.0], 2, 16)


@pytest.mark.parametrize(
    ("dtype", "values", "said"),
    [
        ("u8", [-1], "column 'c' is int64 with values that uint64 cannot hold"),
        ("u8", [-1, 2**63], "column 'c' has whole numbers that uint64 cannot hold"),
        ("u1", [256], "int64 with values that uint8 cannot hold: widen"),
        ("u8", [1.0], "column 'c' is float64, the stream has uint64: convert it first"),
        ("f4", np.array([0.1]), "column 'c' is float64, the stream has float32: convert it first"),
        ("f4", [2**24 + 1], "int64 with values that float32 cannot hold"),
        ("u8", ["a"], "column 'c' is <U1, the stream has uint64"),
        ("u8", [None], "column 'c' is object, the stream has uint64"),
        ("S2", [b"abc"], r"column 'c' is \|S3, the stream has \|S2"),
        ("u8", 5, r"column 'c' is of shape \(\): give one dimension of uint64"),
        ("u8", [[1, 2]], r"column 'c' is of shape \(1, 2\)"),
        ("u8", [[1], [1, 2]], "column 'c' is of unequal rows"),
        ("bytes", ["text"], "column 'c': 'text' is no byte string: encode text"),
        ("bytes", [b"a", None], "column 'c': None is no byte string"),
        ("bytes", 5, "column 'c': "),
    ],
)
def test_values_that_would_lose_something_are_refused(dtype: str, values: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"^here: .*{said}"):
        converted(dtype, values)


@pytest.mark.parametrize(
    ("offsets", "data"),
    [
        (np.array([0, 5], np.uint32), 4),
        (np.array([0, 3, 2], np.uint32), 4),
        (np.array([0, 3], np.int64), 4),
        (np.array([], np.uint32), 4),
        (np.array([[0, 1]], np.uint32), 4),
    ],
)
def test_offsets_that_the_core_must_not_follow_are_refused(offsets: Any, data: int) -> None:
    with pytest.raises(UsageError, match="here: column 'c': .*give"):
        converted("bytes", BytesColumn(offsets, np.zeros(data, np.uint8)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": [1], "b": [1], "d": [1]}, "unknown column 'd'; it has a, b"),
        ({"a": [1]}, "column 'b' is missing; it has a, b"),
        ({"a": [1], "b": [1, 2]}, "column 'b' has 2 values, the others 1: give equally many"),
        ([1, 2], "is given list: give a mapping"),
    ],
)
@pytest.mark.parametrize("place", ["input 'source'", "operator 'make'"])
def test_wrong_columns_are_refused_where_they_are_sent(values: Any, said: str, place: str) -> None:
    columns = {"a": "u8", "b": "u8"}

    def send(_: Batch, output: Output) -> None:
        output.send(values)

    with Run(columns, lambda s: s.unary(send, name="make"), slots=1) as run:
        if place == "input 'source'":
            with pytest.raises(UsageError, match=f"{place}.*{said}"):
                run.send(values)
            assert len(run.finish()) == 0
        else:
            run.send({"a": [1], "b": [1]})
            with pytest.raises(UsageError, match=f"{place}.*{said}"):
                run.finish()


# -- times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "kind", "said"),
    [
        ([4, 5], TimeError, "sends at time 5, and a record has time 4"),
        ([5, NEVER], TimeError, r"a record has time 2\*\*64 - 1, which means never"),
        ([5], UsageError, "1 times for 2 records"),
        ([5, -1], UsageError, "int64 with values that uint64 cannot hold"),
        ([5.0, 6.0], UsageError, "float64, the stream has uint64"),
    ],
)
def test_times_that_records_cannot_have_are_refused(times: Any, kind: type[Exception], said: str) -> None:
    def resend(batch: Batch, output: Output) -> None:
        output.send({"n": batch["n"]}, times=times)

    with Run(N, lambda s: s.unary(resend), slots=1) as run:
        run.inputs[0].advance_to(5)
        with pytest.raises(kind, match=f"input 'source'.*{said}"):
            run.send({"n": [1, 2]}, times=times)
        run.send({"n": [1, 2]})
        with pytest.raises(kind, match=f"operator 'unary'.*{said}"):
            run.finish()


def test_a_loan_with_a_time_before_its_batch_is_refused() -> None:
    with Run(N, lambda s: s, slots=1) as run:
        loan = run.inputs[0].loan(2, timed=True)
        run.inputs[0].advance_to(5)
        assert loan.times is not None
        loan.times[:] = [5, 4]
        with pytest.raises(TimeError, match="input 'source' sends at time 5, and a record has time 4"):
            run.send(loan)
        loan.times[1] = 6
        run.send(loan)
        assert sorted(run.finish().times.tolist()) == [5, 6]


def test_forward_to_a_time_that_records_are_before_is_refused() -> None:
    def later(batch: Batch, output: Output) -> None:
        output.forward(batch, time=batch.time + 2)

    with Run(N, lambda s: s.unary(later), slots=1) as run:
        run.send({"n": [1, 2]}, times=[1, 9])
        with pytest.raises(TimeError, match="operator 'unary' sends at time 2, and a record has time 1"):
            run.finish()


def test_forward_of_other_columns_is_refused() -> None:
    with Run(N, lambda s: s.unary(lambda b, o: o.forward(b), columns={"m": "u8"}), slots=1) as run:
        run.send({"n": [1]})
        with pytest.raises(GraphError, match="operator 'unary' .*forward of a batch of .*'n'.*the output has .*'m'"):
            run.finish()


@pytest.mark.parametrize(
    ("time", "said"),
    [(3, "at time 5 cannot go back to 3"), (NEVER, "outside 0"), (-1, "outside 0"), ("6", "no whole number")],
)
def test_an_input_goes_only_on_in_time(time: Any, said: str) -> None:
    with Run(N, lambda s: s, slots=1) as run:
        run.inputs[0].advance_to(5)
        run.inputs[0].advance_to(5)
        with pytest.raises(TimeError, match=f"input 'source'.*{said}"):
            run.inputs[0].advance_to(time)
        run.inputs[0].advance_to(np.uint64(6))  # type: ignore[arg-type] # whatever is a whole number
        run.send({"n": [1]})
        assert rows(run.finish()) == [(6, 1)]


# -- where and when ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["send", "try_send", "loan", "advance_to", "close"])
def test_an_input_is_not_used_inside_an_operator(call: str) -> None:
    inputs: list[Any] = []

    def misuse(_: Batch) -> None:
        argument = {"loan": [1], "advance_to": [9], "close": []}.get(call, [{"n": [1]}])
        getattr(inputs[0], call)(*argument)

    with Run(N, lambda s: s.inspect(misuse, name="misuse"), slots=1) as run:
        inputs.extend(run.inputs)
        run.send({"n": [1]})
        with pytest.raises(MegaphoneError, match="operator 'misuse'.*: use its own output"):
            run.simulation.run()


@pytest.mark.parametrize("call", ["send", "try_send", "loan", "advance_to", "close"])
def test_an_input_is_not_used_inside_build(call: str) -> None:
    def build(graph: Graph) -> None:
        source, _ = graph.input("source", N)
        argument: list[Any] = {"loan": [1], "advance_to": [9], "close": []}.get(call, [{"n": [1]}])
        getattr(source, call)(*argument)

    with pytest.raises(MegaphoneError, match="input 'source' is used inside build: use it in drive"):
        Simulation(build, slots=1)


def test_an_input_is_not_used_after_it_was_closed_or_after_the_run() -> None:
    with Run(N, lambda s: s, slots=1) as run:
        run.inputs[0].close()
        run.inputs[0].close()
        with pytest.raises(MegaphoneError, match="input 'source' is closed on worker 0: send before close"):
            run.send({"n": [1]})
    with pytest.raises(MegaphoneError, match="input 'source' is used after the run"):
        run.send({"n": [1]})


def test_a_block_closes_its_input_unless_it_raises() -> None:
    with Run(N, lambda s: s, slots=1) as run:
        with pytest.raises(UsageError), run.inputs[0] as source:
            source.send({"m": [1]})
        assert [source.closed for source in run.inputs] == [False]
        with run.inputs[0] as source:
            source.send({"n": [1]})
        assert [source.closed for source in run.inputs] == [True]
        run.simulation.run()


def test_try_send_says_no_while_too_much_is_in_flight() -> None:
    with Run(N, lambda s: s.exchange("n"), slots=2) as run:
        source = run.inputs[0]
        source.in_flight_bytes_max = 10_000
        sent = 0
        while source.try_send({"n": np.arange(1000)}):
            sent += 1
        assert sent == 2  # the mark was passed with the second
        assert run.simulation.workers[0].in_flight_bytes() >= 10_000
        source.advance_to(5)  # never refused
        run.simulation._settled()
        assert source.try_send({"n": np.arange(1000)})
        assert len(run.finish()) == 3000


def test_empty_batches_are_not_sent() -> None:
    with Run(N, lambda s: s.unary(lambda b, o: o.send({"n": b["n"][:0]})), slots=1) as run:
        run.send({"n": []})
        loan = run.inputs[0].loan(3)
        run.send(loan, n=0)
        run.send({"n": [1]})
        assert len(run.finish()) == 0
        assert run.counter("batches_in") == 1


@pytest.mark.parametrize(("n", "times"), [(2, None), (None, [0])])
def test_n_and_times_are_for_what_they_are_for(n: int | None, times: Any) -> None:
    with Run(N, lambda s: s, slots=1) as run:
        if n is None:
            with pytest.raises(UsageError, match="given a loan and times: fill the times of a loan"):
                run.inputs[0].send(run.inputs[0].loan(1), times=times)
        else:
            with pytest.raises(UsageError, match="n is 2 and the columns have 1 values: n is for loans"):
                run.inputs[0].send({"n": [1]}, n)


# -- schemas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "a stream without columns"),
        ({f"c{i}": "u8" for i in range(17)}, "17 columns, at most 16"),
        ({f"c{i}": "bytes" for i in range(4)}, "4 bytes columns, at most 3"),
        ({"x": "O"}, "column 'x' has dtype object"),
        ({"x": None}, "column 'x' has dtype object"),
        ({"x": "S"}, "column 'x' has dtype .*no fixed width"),
        ({"x": ("u8", 3)}, "column 'x' has dtype .*no fixed width"),
        ({"x": "nonsense"}, "column 'x' has no dtype that numpy knows, 'nonsense'"),
        ({"x": {"a": 1}}, "column 'x' has no dtype that numpy knows"),
        ({1: "u8"}, "a column's name is no text, 1"),
    ],
)
def test_columns_that_cannot_lie_in_shared_memory_are_refused_at_build(columns: Any, said: str) -> None:
    with pytest.raises(GraphError, match=rf"operator 'source' \(runs.py:\d+.*{said}"):
        one(columns, lambda s: s, {})


def test_a_stream_of_another_graph_is_refused() -> None:
    graphs: list[Any] = []

    def build(graph: Graph) -> None:
        graphs.append(graph.input("source", N)[1])
        graphs[-1].concat(graphs[0])

    with pytest.raises(GraphError, match="operator 'concat' .*belongs to another graph"):
        Simulation(build, slots=2)
