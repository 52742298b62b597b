"""Rules of the stateful operators: what is refused, where, and with which words; and what a fold may rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from megaphone._core import lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.graph import STATEFUL_MAX, Graph
from megaphone.errors import GraphError, PlanError, SharedMemoryError, StaleRowError, TimeError, UsageError
from megaphone.migration.control import Map, Move
from megaphone.migration.operators.fold_context import FoldContext, joined_bytes, taken
from megaphone.migration.operators.routing import FUEL_RECORDS
from megaphone.migration.operators.state_machine import KeyGroups, Transition, grouped
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation

COLUMNS = {"k": "u8", "v": "u8"}
TABLE = HashTable("u8", {"n": "u8", "last": "u8"}, default={"last": 7})


def nothing(_: Any) -> None:
    """A fold that lets records go."""


def post_dating_to_0(context: FoldContext) -> None:
    """A fold that behaves at time 0."""
    if context.time:
        context.post_date({"k": [1], "v": [0]}, 0)


def refused(**options: Any) -> str:
    """Return the message with which stateful_unary refuses options, having checked that it names this line."""
    given: dict[str, Any] = {"key": "k", "state": TABLE, "fold": nothing, "columns": COLUMNS, "name": "mine"}
    with pytest.raises(GraphError) as caught:
        Graph(2).input("words", COLUMNS)[1].stateful_unary(**given | options)
    assert "'mine" in str(caught.value)
    assert "test_stateful.py:" in str(caught.value)
    return str(caught.value)


@contextmanager
def one(
    build_operator: Callable[[Any, Any], Any], columns: Any = COLUMNS
) -> Iterator[tuple[Any, list[Any], Simulation]]:
    """One worker with an operator on an input; yields the input, what was sent as (time, columns), the simulation."""
    sent: list[tuple[int, dict[str, Any]]] = []

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", columns)
        out = build_operator(stream, graph.control(words))

        def see(batch: Any, _: Any) -> None:
            sent.append((batch.time, {name: _list(column) for name, column in batch.columns().items()}))

        return words, out.unary(see).probe()

    with Simulation(build, slots=1, late=False) as simulation:
        yield simulation.handles[0][0], sent, simulation


def _list(column: Any) -> list[Any]:
    result: list[Any] = column.tolist()
    return result


def run_fold(fold: Callable[[FoldContext], Any], **options: Any) -> list[Any]:
    """Send four records, two each at times 0 and 1, through stateful_unary; returns what came out."""
    given: dict[str, Any] = {"key": "k", "state": TABLE, "fold": fold, "columns": COLUMNS, "name": "mine"}
    with one(lambda stream, control: stream.stateful_unary(control=control, **given | options)) as (
        words,
        sent,
        simulation,
    ):
        words.send({"k": [1, 2], "v": [10, 20]})
        words.advance_to(1)
        words.send({"k": [1, 3], "v": [30, 40]})
        words.close()
        simulation.run()
    return sent


# -- what build refuses ----------------------------------------------------------------------------------------------


def test_build_refuses_what_does_not_fit_and_names_the_operator_and_the_line() -> None:
    assert "unknown column 'x': the stream has k, v" in refused(key="x")
    assert "bin_shift 21: use 1 to 20" in refused(bin_shift=21)
    assert "bin_shift 0: use 1 to 20" in refused(bin_shift=0)
    assert "transfer 'move': use handover or copy" in refused(transfer="move")
    assert "state is not declared, {}: give state=" in refused(state={})
    assert "unknown hash 'crc': use fnv, mix or dense" in refused(hash="crc")
    assert "fold is no function, 3" in refused(fold=3)
    assert "the keys of a HashTable are bytes: declare" in refused(state=HashTable("bytes", "u8"))
    assert "cannot be routed by the hash 'mix': use 'dense'" in refused(state=DenseArray())
    assert "initial map of shape (3,)" in refused(initial=[0, 1, 0], bin_shift=1)
    assert "initial map" in refused(initial=[0, 2], bin_shift=1)
    assert "a stream without columns" in refused(columns={})


def test_build_refuses_pending_columns_that_do_not_lead_back_to_the_bin() -> None:
    assert "pending: unknown column 'k'" in refused(pending={"v": "u8"})
    assert "pending: 'k' is uint32, the input's uint64" in refused(pending={"k": "u4"})
    assert "give pending_key too" in refused(key=lambda batch: batch["k"], pending=COLUMNS)
    assert "has dtype" in refused(pending={"k": object})


def test_build_refuses_a_control_that_is_none() -> None:
    wrong: Any = "c"
    stream = Graph(1).input("words", COLUMNS)[1]
    with pytest.raises(GraphError, match=r"operator 'mine' .*test_stateful.py:.*: control='c' is none: make one"):
        stream.stateful_unary(key="k", state=TABLE, fold=nothing, columns=COLUMNS, control=wrong, name="mine")


def test_build_refuses_an_operator_that_consumes_without_pending_and_a_machine_without_a_key_column() -> None:
    graph = Graph(1)
    stream = graph.input("words", COLUMNS)[1]
    options: Any = {"state": TABLE, "columns": COLUMNS}
    with pytest.raises(GraphError, match=r"'eats' \(test_stateful.py.*pending is None"):
        stream.stateful_unary_input(key="k", consume=nothing, fold=nothing, pending=None, name="eats", **options)
    options |= {"key": lambda batch: batch["k"], "fold": nothing}
    stream.stateful_state_machine(name="machine", **options)
    with pytest.raises(GraphError, match=r"'machine' \(test_stateful.py.*needs the column of its keys"):
        graph.finish()


def test_instructions_that_an_operator_cannot_follow_are_refused_when_they_are_sent() -> None:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", COLUMNS)
        control = graph.control(words)
        for bin_shift in (2, 3):
            stream.stateful_unary(
                key="k", state=TABLE, fold=nothing, columns=COLUMNS, control=control, bin_shift=bin_shift
            ).probe()
        return words, control

    with Simulation(build, slots=2) as simulation:
        words, control = simulation.handles[0]
        for instruction in (Move(4, 0), Move(0, 2), Map([0] * 8)):
            with pytest.raises(PlanError):
                control.send_instructions([instruction])
        control.send_instructions([Move(3, 0)])
        for handle in simulation.handles:
            handle[0].close()
        simulation.run()
        assert words.closed


# -- what a fold is shown and may do ---------------------------------------------------------------------------------


def test_a_fold_is_called_once_with_all_complete_times_in_order() -> None:
    calls: list[Any] = []

    def fold(context: FoldContext) -> None:
        calls.append((context.time, len(context), context.times.tolist(), context.column("v").tolist()))

    run_fold(fold)
    assert calls == [(0, 4, [0, 0, 1, 1], [10, 20, 30, 40])]
    calls.clear()
    run_fold(fold, per_time=True)
    assert calls == [(0, 2, [0, 0], [10, 20]), (1, 2, [1, 1], [30, 40])]


def test_columns_that_a_fold_keeps_stay_as_they_were_when_it_has_returned() -> None:
    kept: list[Any] = []

    def fold(context: FoldContext) -> None:
        kept.extend(context.segments)
        kept.append(context.segments[0]["v"])

    with one(
        lambda stream, control: stream.stateful_unary(key="k", state=TABLE, fold=fold, columns=COLUMNS, control=control)
    ) as (words, _, simulation):
        for time in range(300):  # enough to use every slab again
            words.send({"k": np.full(500, time), "v": np.full(500, time)})
            words.advance_to(time + 1)
            simulation.step()
        words.close()
        simulation.run()
        values = [item["v"] if hasattr(item, "schema") else item for item in kept]
        assert [sorted(set(value.tolist())) for value in values if len(value)] == [[int(value[0])] for value in values]
        assert simulation.counter("views_escaped") > 0
        del kept[:], values


def test_new_rows_hold_the_default_and_puts_last() -> None:
    gathered: list[Any] = []

    def fold(context: FoldContext) -> None:
        rows = context.state.rows(context.column("k"))
        gathered.append(context.state.gather(rows, "last").tolist())
        context.state.put(rows, "last", context.column("v"))

    run_fold(fold, per_time=True)
    assert gathered == [[7, 7], [10, 7]]


def test_a_row_address_is_refused_after_the_fold_that_looked_it_up() -> None:
    found: list[Any] = []

    def fold(context: FoldContext) -> None:
        if found:
            context.state.rows(np.arange(2000, dtype=np.uint64))  # inserts, and so grows the bins
            context.state.put(found[0], "n", 1)
        found.append(context.state.rows(context.column("k")))

    with pytest.raises(StaleRowError, match=r"call rows\(\) again in the same fold"):
        run_fold(fold, per_time=True, bin_shift=1)


def test_an_unknown_column_is_named_with_those_there_are() -> None:
    with pytest.raises(GraphError, match=r"unknown column 'x': the stream has k, v"):
        run_fold(lambda context: context.column("x"))
    with pytest.raises(UsageError, match=r"a HashTable has no column 'x': it has n, last"):
        run_fold(lambda context: context.state.gather(context.state.rows(context.column("k")), "x"))


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (("x",), {}, "unknown column 'x'"),
        (("v",), {}, "routed by column 'k', not by 'v'"),
        (("k",), {"columns": {"k": "u8"}}, "declare two columns"),
        (("k",), {"columns": {"k": "u4", "n": "u8"}}, "it sends uint64 and uint64, the output has"),
        (("k",), {"state": HashTable("u8", "u4")}, "first column 'value' is uint32: make it 8 bytes wide"),
        (("k", "v"), {"state": HashTable("u8", "f8"), "columns": {"k": "u8", "n": "f8"}}, "'v' is uint64, the state's"),
        (("k",), {"pending": {"k": "u8"}}, "input and pending have different columns"),
    ],
)
def test_add_emit_refuses_columns_that_do_not_fit(call: tuple[str, ...], options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=rf"operator 'mine' \(test_stateful.py:.*add_emit: .*{message}"):
        run_fold(lambda context: context.add_emit(*call), **options)


def test_add_emit_sends_running_values_at_the_times_of_their_records() -> None:
    assert run_fold(lambda context: context.add_emit("k", "v")) == [
        (0, {"k": [1, 2], "v": [10, 20]}),
        (1, {"k": [1, 3], "v": [40, 40]}),
    ]


@pytest.mark.parametrize(
    ("dtype", "keys"), [("u8", list(range(40))), (bytes, [str(n).encode() for n in range(40)])], ids=["u8", "bytes"]
)
def test_add_emit_sends_along_edges_whose_key_is_a_function(dtype: Any, keys: list[Any]) -> None:
    def to_last(batch: Any) -> Any:
        return np.full(batch.n, 2**64 - 1, np.uint64)

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": dtype})
        counts = stream.stateful_unary(
            key="k", state=HashTable(dtype, "u8"), fold=lambda context: context.add_emit("k"),
            columns={"k": dtype, "n": "u8"},
        )  # fmt: skip
        seen: list[Any] = []

        def note(batch: Any) -> None:
            key = batch["k"]
            seen.extend(zip([key[i] for i in range(batch.n)], batch["n"].tolist(), strict=True))

        moved, stayed = counts.exchange(to_last, name="moved"), counts.exchange("n", hash="mix", name="stayed")
        return words, seen, moved.inspect(note), stayed.probe()

    with Simulation(build, slots=2, seed=3) as simulation:
        for words, *_ in simulation.handles:
            words.send({"k": keys})
            words.close()
        simulation.run()
        seen = [handles[1] for handles in simulation.handles]
        assert seen[0] == []
        assert sorted(seen[1]) == sorted((key, count) for key in keys for count in (1, 2))
        assert simulation.counter("copied_gather") == 2 * sum(8 if dtype == "u8" else 4 + len(key) for key in keys)


def test_add_emit_works_where_nobody_takes_the_output() -> None:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", COLUMNS)
        counts = stream.stateful_unary(
            key="k", state=TABLE, fold=lambda context: context.add_emit("k"), columns=COLUMNS
        )
        return words, counts

    with Simulation(build, slots=1) as simulation:
        words, counts = simulation.handles[0]
        words.send({"k": np.arange(1000), "v": np.arange(1000)})
        words.close()
        simulation.run()
        assert counts.state.live() == 1000


def test_a_dense_index_that_no_array_can_hold_is_the_users_error() -> None:
    def operator(stream: Any, control: Any) -> Any:
        return stream.stateful_unary(
            key="k", state=DenseArray(), hash="dense", fold=lambda context: context.add_emit("k"), columns=COLUMNS,
            control=control, name="mine",
        )  # fmt: skip

    with one(operator) as (words, _, simulation):
        words.send({"k": [2**63], "v": [1]})
        words.close()
        with pytest.raises(UsageError, match=r"'mine' \(test_stateful.py.*more than 2 GiB: raise --bin-shift"):
            simulation.run()


def test_more_complete_times_than_one_activation_applies_are_applied_without_a_further_message() -> None:
    times: list[int] = []

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", COLUMNS)
        control = graph.control(manual=True)
        stream.stateful_unary(
            key="k", state=TABLE, columns=COLUMNS, control=control, per_time=True,
            fold=lambda context: times.append(context.time),
        ).probe()  # fmt: skip
        return words, control

    with Simulation(build, slots=1) as simulation:
        words, control = simulation.handles[0]
        words.send({"k": np.zeros(200, np.uint64), "v": np.zeros(200, np.uint64)}, times=np.arange(200))
        words.close()
        control.close()
        simulation.run()
    assert times == list(range(200))


def test_input_behind_stashed_batches_that_take_all_the_fuel_is_routed_without_a_further_message() -> None:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        control = graph.control(manual=True)
        counts = stream.stateful_unary(
            key="k", state=TABLE, fold=lambda context: context.add_emit("k"), columns=COLUMNS, control=control
        )
        return words, control, counts, counts.probe()

    with Simulation(build, slots=1, memory="64M") as simulation:
        words, control, counts, _ = simulation.handles[0]
        words.in_flight_bytes_max = 1 << 30
        for _ in range(FUEL_RECORDS // 2048):
            words.send({"k": np.arange(2048)})
        simulation.step()  # all of it waits for control
        words.send({"k": [5000]})
        words.close()
        control.close()
        simulation.run()
        assert counts.state.live() == 2049


# -- post-dated records ----------------------------------------------------------------------------------------------


def test_post_dated_records_are_shown_at_their_times_before_input_and_in_the_order_in_which_they_were_sent() -> None:
    shown: list[Any] = []

    def fold(context: FoldContext) -> None:
        shown.append((context.time, [segment["v"].tolist() for segment in context.segments]))
        if context.time == 0:
            context.post_date({"k": [1, 1, 1], "v": [100, 101, 102]}, [1, 2**64 - 2, 1])

    run_fold(fold, pending=COLUMNS)
    assert shown == [(0, [[10, 20]]), (1, [[100, 102], [30, 40]]), (2**64 - 2, [[101]])]


def test_a_fold_of_one_time_may_post_date_to_that_time_and_not_before_it() -> None:
    turns: list[int] = []

    def fold(context: FoldContext) -> None:
        turns.append(context.time)
        if context.time == 1 and len(turns) < 5:
            context.post_date({"k": [1], "v": [0]}, 1)

    run_fold(fold, pending=COLUMNS)
    assert turns == [0, 1, 1, 1, 1]
    with pytest.raises(TimeError, match=r"'mine' \(test_stat.*to 0 in a call that covers times up to 1: use that"):
        run_fold(post_dating_to_0, pending=COLUMNS)


def test_a_fold_of_many_times_may_only_post_date_beyond_all_of_them() -> None:
    late: list[int] = []

    def fold(context: FoldContext) -> None:
        late.append(context.time)
        if context.time == 0:
            context.post_date({"k": [1], "v": [0]}, 2)

    run_fold(fold, pending=COLUMNS, per_time=False)
    assert late == [0, 2]
    with pytest.raises(TimeError, match=r"covers times up to 1: use later times, or declare per_time"):
        run_fold(lambda context: context.post_date({"k": [1], "v": [0]}, 1), pending=COLUMNS, per_time=False)


@pytest.mark.parametrize("times", [2**64 - 1, -1, 1.5, [1, 2], "soon", [1.5]])
def test_post_date_refuses_times_that_are_none(times: Any) -> None:
    with pytest.raises(UsageError, match=r"operator 'mine' \(test_stateful.py.*post_date: .*time"):
        run_fold(lambda context: context.post_date({"k": [1], "v": [0]}, times), pending=COLUMNS)


def test_post_date_refuses_what_was_not_declared_and_bins_of_others() -> None:
    with pytest.raises(UsageError, match=r"operator 'mine' .*declared without pending: give pending=columns"):
        run_fold(lambda context: context.post_date({"k": [1], "v": [0]}, 9))
    with pytest.raises(UsageError, match=r"operator 'mine' .*post_date: column 'v' is missing"):
        run_fold(lambda context: context.post_date({"k": [1]}, 9), pending=COLUMNS)

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", COLUMNS)
        stream.stateful_unary(
            key="k", state=DenseArray(), hash="dense", columns=COLUMNS, pending=COLUMNS, bin_shift=1, name="mine",
            fold=lambda context: context.post_date({"k": [1], "v": [0]}, 9),
        ).probe()  # fmt: skip
        return words

    with Simulation(build, slots=2) as simulation:
        simulation.handles[0].send({"k": [0], "v": [0]})
        for words in simulation.handles:
            words.close()
        with pytest.raises(UsageError, match="for a bin that is not here: only for keys of the same call"):
            simulation.run()


def test_a_pending_key_gives_the_bins_of_columns_of_another_kind() -> None:
    def fold(context: FoldContext) -> None:
        for segment in context.segments:
            if "half" in segment.schema.index:
                context.output.send({"k": segment["half"] * 2, "v": segment["half"]}, time=segment.time)
            else:
                context.post_date({"half": (segment["k"] // 2).astype(np.uint32)}, segment.time + 5)

    sent = run_fold(
        fold, state=DenseArray(), hash="dense", bin_shift=1, pending={"half": "u4"},
        pending_key=lambda columns: np.zeros(len(columns["half"]), np.uint64), per_time=False,
    )  # fmt: skip
    assert sent == [(5, {"k": [0, 2], "v": [0, 1]}), (6, {"k": [0, 2], "v": [0, 1]})]
    with pytest.raises(UsageError, match=r"'mine' .*pending_key gave float64\[1\], it must be uint64\[2\]"):
        run_fold(fold, pending={"half": "u4"}, pending_key=lambda _: np.zeros(1), per_time=False)


# -- what consumes input ---------------------------------------------------------------------------------------------


def run_input(consume: Any, fold: Any, **options: Any) -> list[Any]:
    given: dict[str, Any] = {
        "key": "k", "state": TABLE, "columns": COLUMNS, "pending": {"w": "u8", "k": "u8"}, "name": "eats",
    }  # fmt: skip

    def operator(stream: Any, control: Any) -> Any:
        return stream.stateful_unary_input(consume=consume, fold=fold, control=control, **given | options)

    with one(operator) as (words, sent, simulation):
        words.send({"k": [1, 2], "v": [10, 20]})
        words.advance_to(1)
        words.send({"k": [1, 3], "v": [30, 40]})
        words.close()
        simulation.run()
    return sent


@pytest.mark.parametrize("per_time", [True, False])
def test_consume_sees_each_batch_once_and_fold_only_what_was_post_dated(per_time: bool) -> None:
    calls: list[Any] = []

    def consume(context: FoldContext) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                calls.append(("consume", time, segment["v"].tolist()))
                context.post_date({"k": segment["k"], "w": segment["v"] + 1}, time + np.array([0, 2], np.uint64))

    def fold(context: FoldContext) -> None:
        for time, segments in context.by_time():
            calls.extend(("fold", time, segment["w"].tolist()) for segment in segments)

    run_input(consume, fold, per_time=per_time)
    folds = [("fold", 0, [11]), ("fold", 1, [31]), ("fold", 2, [21]), ("fold", 3, [41])]
    eaten = [("consume", 0, [10, 20]), ("consume", 1, [30, 40])]
    if per_time:
        assert calls == [eaten[0], folds[0], eaten[1], *folds[1:]]
    else:
        assert calls == eaten + folds


def test_consume_may_send_at_the_time_of_its_input_and_read_the_state_before_it() -> None:
    def consume(context: FoldContext) -> None:
        rows = context.state.rows(context.column("k"), insert=False)
        seen = (rows != np.uint64(2**64 - 1)).astype(np.uint64)
        context.output.send({"k": context.column("k"), "v": seen})
        context.post_date({"k": context.column("k"), "w": context.column("v")}, context.time)

    def fold(context: FoldContext) -> None:
        context.state.rows(context.column("k"))

    assert run_input(consume, fold) == [(0, {"k": [1, 2], "v": [0, 0]}), (1, {"k": [1, 3], "v": [1, 0]})]


def test_consume_may_not_post_date_before_its_input() -> None:
    with pytest.raises(TimeError, match=r"operator 'eats' .*post-dates to 0 in a call that covers times up to 1"):
        run_input(post_dating_to_0, nothing, pending=COLUMNS)


def test_add_emit_applies_post_dated_records_behind_consume() -> None:
    def consume(context: FoldContext) -> None:
        context.post_date({"k": context.column("k"), "w": context.column("v")}, context.times)

    sent = run_input(consume, lambda context: context.add_emit("k", "w"), per_time=False)
    shown = [(time, k, v) for time, columns in sent for k, v in zip(columns["k"], columns["v"], strict=True)]
    assert sorted(shown) == [(0, 1, 10), (0, 2, 20), (1, 1, 40), (1, 3, 40)]


# -- state machines --------------------------------------------------------------------------------------------------


def run_machine(
    fold: Callable[[KeyGroups], Any], state: Any = TABLE, columns: Any = COLUMNS, **options: Any
) -> list[Any]:
    def operator(stream: Any, control: Any) -> Any:
        return stream.stateful_state_machine(
            key="k", state=state, fold=fold, columns=columns, control=control, name="machine", **options
        )

    with one(operator) as (words, sent, simulation):
        words.send({"k": [5, 2, 5], "v": [10, 20, 30]})
        words.advance_to(1)
        words.send({"k": [2, 9], "v": [40, 50]})
        words.close()
        simulation.run()
    return sent


def test_a_machine_is_shown_each_key_once_with_its_records_in_order_of_time() -> None:
    def fold(groups: KeyGroups) -> Transition:
        assert groups.keys.tolist() == [5, 2, 9]
        assert groups.offsets.tolist() == [0, 2, 4, 5]
        assert groups.counts.tolist() == [2, 2, 1]
        assert len(groups) == 3
        assert groups["v"].tolist() == [10, 30, 20, 40, 50]
        assert groups.times.tolist() == [0, 0, 0, 1, 1]
        assert {name: column.tolist() for name, column in groups.state.items()} == {"n": [0, 0, 0], "last": [7, 7, 7]}
        return Transition()

    assert run_machine(fold) == []


def test_outputs_of_a_machine_carry_the_times_of_their_records_and_not_the_earliest() -> None:
    # The published operator sends all outputs of an activation at its earliest time.
    def fold(groups: KeyGroups) -> Transition:
        return Transition(outputs={"k": np.repeat(groups.keys, groups.counts), "v": groups["v"]})

    assert run_machine(fold) == [(0, {"k": [5, 5, 2], "v": [10, 30, 20]}), (1, {"k": [2, 9], "v": [40, 50]})]


def test_outputs_of_a_machine_may_have_times_of_their_own_from_the_earliest_on() -> None:
    def fold(groups: KeyGroups) -> Transition:
        return Transition(outputs={"k": groups.keys, "v": groups.keys}, times=np.array([8, 0, 8], np.uint64))

    assert run_machine(fold) == [(0, {"k": [2], "v": [2]}), (8, {"k": [5, 9], "v": [5, 9]})]
    with pytest.raises(TimeError, match=r"operator 'machine' .*sends at time 1, and a record has time 0"):
        run_machine(
            lambda groups: Transition(outputs={"k": groups.keys, "v": groups.keys}, times=0 * groups.keys),
            per_time=True,
        )


def test_state_that_a_machine_returns_is_shown_next_and_what_it_leaves_out_stays() -> None:
    shown: list[Any] = []

    def fold(groups: KeyGroups) -> Transition:
        shown.append((groups.keys.tolist(), groups.state["n"].tolist(), groups.state["last"].tolist()))
        return Transition({"n": groups.state["n"] + groups.counts.astype(np.uint64)})

    run_machine(fold, per_time=True)
    assert shown == [([5, 2], [0, 0], [7, 7]), ([2, 9], [1, 0], [7, 7])]


@pytest.mark.parametrize(("state", "options"), [(TABLE, {}), (DenseArray({"n": "u8"}), {"hash": "dense"})])
def test_a_key_that_a_machine_removes_begins_anew(state: Any, options: Any) -> None:
    shown: list[Any] = []

    def fold(groups: KeyGroups) -> Transition:
        shown.append(groups.state["n"].tolist())
        return Transition({"n": groups.state["n"] + np.uint64(1)}, remove=groups.keys == 2)

    run_machine(fold, state, per_time=True, **options)
    assert shown == [[0, 0], [0, 0]]


def test_a_machine_of_byte_strings_sees_them_grouped() -> None:
    seen: list[Any] = []

    def fold(groups: KeyGroups) -> Transition:
        seen.append((groups.keys.tolist(), groups["word"].tolist(), groups.times.tolist()))
        return Transition(outputs={"word": groups["word"]})

    def operator(stream: Any, control: Any) -> Any:
        return stream.stateful_state_machine(
            key="word", state=HashTable("bytes", "u8"), fold=fold, columns={"word": "bytes"}, control=control
        )

    with one(operator, {"word": "bytes"}) as (words, sent, simulation):
        words.send({"word": [b"b", b"", b"b"]})
        words.advance_to(1)
        words.send({"word": [b"long" * 9, b"b"]})
        words.close()
        simulation.run()
    assert seen == [([b"b", b"", b"long" * 9], [b"b", b"b", b"b", b"", b"long" * 9], [0, 0, 1, 0, 1])]
    assert sent == [(0, {"word": [b"b", b"b", b""]}), (1, {"word": [b"b", b"long" * 9]})]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "the fold returned NoneType: return a Transition"),
        (Transition({"x": [1, 2, 3]}), "has no column 'x': it has n, last"),
        (Transition({"n": [1]}), r"values of shape \[1\] for 3 rows of column 'n'"),
        (Transition(remove=[1, 0, 0]), r"remove is int64\[3\], it must be bool\[3\]"),
        (Transition(outputs={"k": [1], "v": [1]}), "1 outputs of 5 records without times: give one for each"),
        (Transition(outputs={"k": [1]}), "column 'v' is missing"),
        (Transition(outputs={"k": [1], "v": [1]}, times=[1, 2]), "2 times for 1 records"),
        (Transition(outputs={"k": [1], "v": [1]}, times=np.array([2**64 - 1], np.uint64)), "which means never"),
    ],
)
def test_what_a_machine_returns_is_checked(result: Any, message: str) -> None:
    with pytest.raises(UsageError, match=rf"operator 'machine'.*{message}"):
        run_machine(lambda _: result)


# -- pieces ----------------------------------------------------------------------------------------------------------


def test_groups_keep_the_order_of_first_appearance_and_of_records() -> None:
    random = np.random.default_rng(2)
    for count in (0, 1, 50):
        rows = random.integers(0, 9, count).astype(np.uint64)
        order, offsets, first = grouped(rows)
        names = list(dict.fromkeys(rows.tolist()))
        expected = [[i for i, row in enumerate(rows.tolist()) if row == name] for name in names]
        assert [order[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)] == expected
        assert first.tolist() == [positions[0] for positions in expected]


def test_byte_strings_are_joined_and_taken_as_lists_are() -> None:
    words = [b"a", b"", b"ccc", b"dd"]
    column = BytesColumn.of(words)
    part = BytesColumn(column.offsets[1:], column.data)
    assert joined_bytes([part, column]).tolist() == words[1:] + words
    assert taken(part, np.array([2, 0, 1, 1])).tolist() == [b"dd", b"", b"ccc", b"ccc"]
    assert taken(column, np.array([], np.intp)).tolist() == []


# -- memory that is short ----------------------------------------------------------------------------------------------


def exhausting_state(context: FoldContext) -> None:
    context.state.rows(context.column("k"))


def exhausting_kernel(context: FoldContext) -> None:
    context.add_emit("k")


def exhausting_pending(context: FoldContext) -> None:
    context.post_date({"k": context.column("k"), "v": context.column("v")}, 2**40)


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("fold", [exhausting_state, exhausting_kernel, exhausting_pending, nothing])
def test_memory_that_is_short_is_one_clear_error_wherever_it_is_short(fold: Any, transfer: str) -> None:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", COLUMNS)
        control = graph.control(words) if fold is not nothing else graph.control(manual=True)
        stream.stateful_unary(
            key="k", state=TABLE, fold=fold, columns=COLUMNS, control=control, transfer=transfer, per_time=False,
            pending=COLUMNS if fold is exhausting_pending else None, bin_shift=2,
        ).probe()  # fmt: skip
        return words, control

    def overfill(simulation: Simulation) -> None:
        for words, _ in simulation.handles:
            words.in_flight_bytes_max = 1 << 40  # nobody else steps while a send waits
        for time in range(4000):
            for words, _ in simulation.handles:
                words.send({"k": np.arange(1000) + 1000 * time, "v": np.arange(1000)})
                words.advance_to(time + 1)
            if time % 5 == 0:
                simulation.handles[0][1].send_instructions([Move(time % 4, time % 2)])
            simulation.step()

    with Simulation(build, slots=2, memory="8M", seed=4) as simulation:
        with pytest.raises(SharedMemoryError, match=r"raise --memory"):
            overfill(simulation)
        for worker in simulation.workers:
            assert lib.mp_block_check(worker.slot) == 0


def test_the_error_of_memory_that_is_short_for_state_names_the_operator() -> None:
    def fold(context: FoldContext) -> None:
        context.state.rows(np.arange(10**6, dtype=np.uint64))

    with pytest.raises(SharedMemoryError, match=r"operator 'mine' of worker 0 needs \d+ bytes more"):
        run_fold(fold)


def test_a_stateful_operator_that_the_control_region_has_no_room_for_is_refused() -> None:
    graph = Graph(workers=1)
    _, stream = graph.input("words", {"key": "u8"})
    for _ in range(STATEFUL_MAX):
        stream.stateful_unary(key="key", state=DenseArray({"n": "u8"}), hash="dense", fold=nothing, columns={"n": "u8"})
    with pytest.raises(GraphError, match=f"at most {STATEFUL_MAX} are possible"):
        stream.stateful_unary(key="key", state=DenseArray({"n": "u8"}), hash="dense", fold=nothing, columns={"n": "u8"})
