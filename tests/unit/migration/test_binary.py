"""Rules of operators with two inputs, of distribute and of fixed owners: what is refused, what a fold may rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.graph import Graph, Pact
from megaphone.errors import GraphError, TimeError, UsageError
from megaphone.migration.control import Map, Move
from megaphone.migration.operators.binary import BinaryContext
from megaphone.migration.operators.fold_context import FoldContext
from megaphone.migration.operators.state_machine import KeyGroups, Transition
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation

TABLE = HashTable("u8", {"n": "u8"})
LEFT, RIGHT = {"k": "u8", "v": "u4"}, {"word": "bytes", "who": "u8"}


def nothing(_: Any) -> None:
    """A fold that lets records go."""


def joined(left: Any, right: Any, control: Any = None, **options: Any) -> Any:
    """A stateful_binary, or with consume a stateful_binary_input."""
    given: dict[str, Any] = {
        "left_key": "k", "right_key": "who", "state": TABLE, "fold": nothing, "columns": {"k": "u8"}, "name": "mine",
        "control": control,
    }  # fmt: skip
    given |= options
    return left.stateful_binary_input(right, **given) if "consume" in given else left.stateful_binary(right, **given)


def run(play: Callable[[Any, Any], Any], slots: int = 1, **options: Any) -> None:
    """Run two inputs into an operator; ``play(left, right)`` sends on slot 0."""

    def build(graph: Graph) -> Any:
        left, left_stream = graph.input("left", LEFT)
        right, right_stream = graph.input("right", RIGHT)
        return left, right, joined(left_stream, right_stream, **options).probe()

    with Simulation(build, slots=slots, late=False) as simulation:
        left, right, _ = simulation.handles[0]
        play(left, right)
        for handles in simulation.handles:
            handles[0].close()
            handles[1].close()
        simulation.run()


# -- what build refuses ------------------------------------------------------------------------------------------------


def refused(**options: Any) -> str:
    """Return the message with which it is refused, having checked that it names this line."""
    graph = Graph(2)
    left, right = graph.input("left", LEFT)[1], graph.input("right", RIGHT)[1]
    with pytest.raises(GraphError) as caught:
        joined(left, right, **options)
    assert "'mine" in str(caught.value)
    assert "test_binary.py:" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"right_key": "k"}, "unknown column 'k': the stream has word, who"),
        ({"left_key": "who"}, "unknown column 'who': the stream has k, v"),
        ({"right_key": "word"}, "column 'word' is bytes, the keys of"),
        ({"left_key": 3}, "key 3: give a column, or a function"),
        ({"fold": None}, "fold is no function"),
        ({"state": {}}, "state is not declared"),
        ({"control": "me"}, "make one with graph.control"),
        ({"bin_shift": 21}, "use 1 to 20"),
        ({"pending": {"x": "u8"}}, "pending: unknown column 'k'"),
        ({"pending": {"k": "u4"}}, "'k' is uint32, the input's uint64: make them equal"),
        ({"pending": {"x": "u4"}, "pending_key": "x"}, "'x' is uint32, the input's uint64: make them equal"),
        ({"consume": nothing, "pending": None}, "pending is None: declare the columns"),
        ({"consume": 7, "pending": {"k": "u8"}}, "consume is no function, 7"),
        ({"initial": [0]}, "initial map of shape (1,), 256 bins"),
        ({"plain": True, "initial": [0] * 256}, "an initial map, and plain=True"),
        (
            {"plain": True, "hash": "dense", "state": DenseArray("u8"), "right_key": lambda batch: batch["who"]},
            "hash dense of a column on one side",
        ),
    ],
)  # fmt: skip
def test_build_refuses_what_does_not_fit_with_the_operators_name_and_the_users_line(
    options: dict[str, Any], said: str
) -> None:
    assert said in refused(**options)


def test_control_beside_fixed_owners_is_refused() -> None:
    graph = Graph(2)
    words, left = graph.input("left", LEFT)
    control = graph.control(words)
    with pytest.raises(GraphError, match="control, and plain=True, whose owners stay"):
        joined(left, graph.input("right", RIGHT)[1], control=control, plain=True)
    for options in ({"control": control}, {"initial": [0] * 256}):
        with pytest.raises(GraphError, match="and plain=True, whose owners are the exchange's"):
            left.distribute("k", plain=True, **options)


def test_a_stream_of_another_graph_is_refused_on_the_right_too() -> None:
    with pytest.raises(GraphError, match="belongs to another graph"):
        joined(Graph(1).input("left", LEFT)[1], Graph(1).input("right", RIGHT)[1])


def test_distribute_refuses_a_key_and_a_map_that_do_not_fit() -> None:
    graph = Graph(2)
    _, stream = graph.input("left", LEFT)
    with pytest.raises(GraphError, match="unknown column 'x'"):
        stream.distribute("x")
    with pytest.raises(GraphError, match="initial map of shape"):
        stream.distribute("k", initial=[0])
    with pytest.raises(GraphError, match="use 1 to 20"):
        stream.distribute("k", bin_shift=0)


# -- what a fold is shown ----------------------------------------------------------------------------------------------


def test_a_fold_sees_what_was_post_dated_then_left_then_right_and_each_side_by_itself() -> None:
    shown: list[Any] = []

    def fold(context: BinaryContext) -> None:
        shown.append((context.time, context.sides, len(context)))
        assert context.input == context.left + context.right
        assert context.side("left") == context.left
        if context.left:
            context.post_date({"k": context.left_column("k"), "why": np.zeros(len(context.left_column("k")), "u1")}, 5)
        parts = [(time, len(pending), len(left), len(right)) for time, pending, left, right in context.by_side()]
        shown.append(parts)
        shown.append(
            [context.left_column("v").tolist(), context.right_column("word").tolist(), context.left_times.tolist(),
             context.right_times.tolist(), context.pending_column("k").tolist()]
        )  # fmt: skip

    def play(left: Any, right: Any) -> None:
        right.send({"word": [b"a", b"bc"], "who": [1, 2]})
        left.send({"k": [1, 2], "v": [10, 20]})
        left.advance_to(5)
        right.advance_to(5)
        right.send({"word": [b"d"], "who": [1]})

    run(play, fold=fold, pending={"why": "u1", "k": "u8"})
    assert shown == [
        (0, ("left", "right"), 4), [(0, 0, 1, 1)], [[10, 20], [b"a", b"bc"], [0, 0], [0, 0], []],
        (5, ("pending", "right"), 3), [(5, 1, 0, 1)], [[], [b"d"], [], [5], [1, 2]],
    ]  # fmt: skip


def test_columns_of_a_side_without_records_are_empty_and_of_its_types() -> None:
    kinds: list[Any] = []

    def fold(context: BinaryContext) -> None:
        for side, name in (("left", "v"), ("right", "word")):
            column = context.side_column(side, name)
            kinds.append("bytes" if isinstance(column, BytesColumn) else str(column.dtype))
            assert len(column) == sum(segment.n for segment in context.side(side))
        with pytest.raises(UsageError, match="no side is called 'middle'"):
            context.side("middle")
        with pytest.raises(GraphError, match="unknown column 'x'"):
            context.left_column("x")

    run(lambda left, _: left.send({"k": [1], "v": [1]}), fold=fold)
    run(lambda _, right: right.send({"word": [b"x"], "who": [1]}), fold=fold)
    assert kinds == ["uint32", "bytes"] * 2


def test_a_time_waits_for_both_inputs_and_an_input_that_is_closed_holds_nothing_up() -> None:
    times: list[int] = []

    def build(graph: Graph) -> Any:
        left, left_stream = graph.input("left", LEFT)
        right, right_stream = graph.input("right", RIGHT)
        fold = lambda context: times.extend(time for time, _ in context.by_time())  # noqa: E731 - a closure
        return left, right, joined(left_stream, right_stream, fold=fold).probe()

    with Simulation(build, slots=1, late=False) as simulation:
        left, right, probe = simulation.handles[0]
        left.send({"k": [1], "v": [1]})
        left.advance_to(1)
        for _ in range(20):
            simulation.step()
        assert times == []
        assert probe.frontier() == 0
        right.advance_to(7)
        simulation.run_until(lambda: probe.frontier() == 1)
        assert times == [0]
        right.close()
        left.send({"k": [1], "v": [1]})
        left.advance_to(100)
        simulation.run_until(lambda: probe.frontier() == 100)
        assert times == [0, 1]
        left.close()
        simulation.run()


def test_what_consumes_both_inputs_sees_them_once_and_the_fold_what_was_post_dated() -> None:
    seen: list[Any] = []

    def consume(context: BinaryContext) -> None:
        seen.append(("consume", context.time, context.sides))
        keys = np.concatenate([context.left_column("k"), context.right_column("who")])
        context.post_date({"k": keys}, context.time + keys % 2)

    def fold(context: BinaryContext) -> None:
        seen.append(("fold", context.time, context.sides, context.pending_column("k").tolist()))
        assert context.left == context.right == ()

    def play(left: Any, right: Any) -> None:
        right.send({"word": [b"a", b"b"], "who": [3, 4]})
        left.send({"k": [1, 2], "v": [0, 0]})

    run(play, consume=consume, fold=fold, pending={"k": "u8"})
    assert [entry[:3] for entry in seen] == [
        ("consume", 0, ("left", "right")), ("fold", 0, ("pending",)), ("fold", 1, ("pending",)),
    ]  # fmt: skip
    assert [sorted(entry[3]) for entry in seen[1:]] == [[2, 4], [1, 3]]


def test_add_emit_of_a_call_and_what_is_post_dated_too_early_are_refused() -> None:
    def adding(context: BinaryContext) -> None:
        with pytest.raises(UsageError, match="add_emit is for one input"):
            context.add_emit("k")

    def early(context: BinaryContext) -> None:
        if context.time == 3:
            with pytest.raises(TimeError, match="post-dates to 2"):
                context.post_date({"k": [1]}, 2)

    run(lambda left, _: left.send({"k": [1], "v": [1]}), fold=adding)
    run(lambda left, _: left.send({"k": [1], "v": [1]}, times=[3]), fold=early, pending={"k": "u8"})


def test_either_key_may_be_a_function_and_equal_hashes_meet_in_one_bin() -> None:
    from megaphone.dataflow.hashing import hash_keys  # noqa: PLC0415 - of this test only

    met: list[Any] = []

    def fold(context: BinaryContext) -> None:
        n = context.state.add_emit(context.left_column("k"))
        met.append((n.tolist(), context.state.add_emit(context.right_column("who")).tolist()))

    def play(left: Any, right: Any) -> None:
        left.send({"k": list(range(50)), "v": [0] * 50})
        right.send({"word": [b"x"] * 50, "who": list(range(50))})

    for keys in ({"left_key": lambda batch: hash_keys(batch["k"], "mix", 8)},
                 {"right_key": lambda batch: hash_keys(batch["who"], "mix", 8)}):  # fmt: skip
        for plain in (False, True):
            met.clear()
            run(play, slots=3, fold=fold, plain=plain, **keys)
            # One call per slot that has any of them: each key is one higher when the right side adds to it.
            assert sum(len(left) for left, _ in met) == sum(len(right) for _, right in met) == 50
            assert all(set(left) <= {1} and set(right) <= {2} for left, right in met)


# -- fixed owners ------------------------------------------------------------------------------------------------------


def counted(stream: Any, **options: Any) -> Any:
    """Counts by key, each record twice: the second time two times later."""

    def fold(context: FoldContext) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                n = context.state.add_emit(segment["k"])
                context.output.send({"k": segment["k"], "n": n}, time=time)
            fresh = [segment["k"] for segment in segments if segment in context.input]
            for keys in fresh:
                context.post_date({"k": keys}, time + 2)

    return stream.stateful_unary(
        key="k", state=TABLE, fold=fold, columns={"k": "u8", "n": "u8"}, pending={"k": "u8"}, **options
    )


def consumed(stream: Any, **options: Any) -> Any:
    """The same through a function for input."""

    def consume(context: FoldContext) -> None:
        context.post_date({"k": context.column("k")}, context.times + context.column("k") % 3)

    def fold(context: FoldContext) -> None:
        keys = context.column("k")
        context.output.send({"k": keys, "n": context.state.add_emit(keys)}, time=context.time)

    return stream.stateful_unary_input(
        key="k", state=TABLE, consume=consume, fold=fold, columns={"k": "u8", "n": "u8"}, pending={"k": "u8"}, **options
    )


def machines(stream: Any, **options: Any) -> Any:
    """The same by groups."""

    def fold(groups: KeyGroups) -> Transition:
        total = groups.state["n"] + groups.counts.astype(np.uint64)
        last = groups.times[groups.offsets[1:] - 1]
        return Transition({"n": total}, None, {"k": groups.keys, "n": total}, last)

    columns = {"k": "u8", "n": "u8"}
    return stream.stateful_state_machine(key="k", state=TABLE, fold=fold, columns=columns, per_time=True, **options)


def distributed(stream: Any, **options: Any) -> Any:
    return stream.distribute("k", **options)


@pytest.mark.parametrize("operator", [counted, consumed, machines, distributed])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_plain_operator_shows_the_same_without_f_control_and_moves(operator: Callable[..., Any], slots: int) -> None:
    shown: list[list[Any]] = []
    for plain in (False, True):
        outputs: list[Any] = []

        def build(graph: Graph, plain: bool = plain, outputs: list[Any] = outputs) -> Any:
            words, stream = graph.input("words", {"k": "u8"})
            control = None if plain else graph.control(words)
            out = operator(stream, control=control, bin_shift=4, plain=plain)

            def see(batch: Any, _: Any) -> None:
                columns = [batch[name].tolist() for name in batch.schema.names]
                times = [batch.time] * batch.n if batch.times is None else batch.times.tolist()
                outputs.extend(zip(times, *columns, strict=True))

            return words, control, out.unary(see).probe()

        with Simulation(build, slots=slots, seed=2) as simulation:
            names = {type(o).__name__ for o in simulation.workers[0].graph.operators}
            assert ("Router" in names) != plain
            for time in range(8):
                for slot, handles in enumerate(simulation.handles):
                    # Times of their own: what no F splits, S splits.
                    keys = np.arange(40, dtype=np.uint64) * np.uint64(slot + 1) % np.uint64(23)
                    handles[0].send({"k": keys}, times=time + np.arange(40) % 3)
                if not plain:
                    simulation.handles[0][1].send_instructions([Move(time, (time + 1) % slots)])
                for handles in simulation.handles:
                    handles[0].advance_to(time + 1)
                for _ in range(5):
                    simulation.step()
            for handles in simulation.handles:
                handles[0].close()
            simulation.run()
            moved = simulation.counter("bins_in")
            assert (moved > 0) == (slots > 1 and not plain)
        shown.append(sorted(outputs))
    assert shown[0] == shown[1]
    assert len(shown[0]) >= 8


def test_the_parts_of_a_plain_operator_are_its_bins() -> None:
    assert Pact(1, "k", part_bits=3).owners(3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert Pact(1, "k", "dense", part_bits=3).owners(3).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert Pact(1, lambda batch: batch["k"], "dense", part_bits=3).owners(3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert len(Pact(1, "k").owners(2)) == 4096


# -- distribute --------------------------------------------------------------------------------------------------------


def distributing(initial: Any, seen: list[Any]) -> Callable[[Graph], Any]:
    """One input, distributed; notes where each batch lies and how much of it there is."""

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        control = graph.control(words)
        out = stream.inspect(lambda batch: seen.append(("in", batch.address("k"), batch.n))).distribute(
            "k", control=control, bin_shift=3, initial=initial
        )  # fmt: skip
        return words, control, out.inspect(lambda batch: seen.append(("out", batch.address("k"), batch.n))).probe()

    return build


def test_a_batch_whose_records_have_one_owner_is_handed_on_and_not_copied() -> None:
    seen: list[Any] = []
    with Simulation(distributing([1] * 8, seen), slots=2, seed=1) as simulation:
        words, control, _ = simulation.handles[0]
        words.send({"k": np.arange(100, dtype=np.uint64)})
        words.advance_to(1)
        control.send_instructions([Map([0] * 8)])
        words.advance_to(3)
        words.send({"k": np.arange(50, dtype=np.uint64)})
        for handles in simulation.handles:
            handles[0].close()
        simulation.run()
        assert simulation.counter("copied_scatter") == 0
        assert simulation.counter("bins_in") == 8
        assert simulation.counter("bytes_moved") == 0
    assert sorted(entry[1:] for entry in seen if entry[0] == "in") == sorted(
        entry[1:] for entry in seen if entry[0] == "out"
    )
    assert sorted(entry[2] for entry in seen if entry[0] == "out") == [50, 100]


def test_a_record_is_handed_on_before_its_time_is_complete_and_not_before_its_configuration_is_final() -> None:
    seen: list[Any] = []

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        control = graph.control(manual=True)
        out = stream.distribute("k", control=control, bin_shift=3)
        return words, control, out.inspect(lambda batch: seen.append(batch.n)).probe()

    with Simulation(build, slots=2, seed=1, late=False) as simulation:
        words, control, probe = simulation.handles[0]
        words.send({"k": np.arange(10, dtype=np.uint64)})
        for _ in range(20):
            simulation.step()
        assert seen == []
        control.advance_to(1)
        for _ in range(40):
            simulation.step()
        assert sum(seen) == 10
        assert probe.frontier() == 0
        for handles in simulation.handles:
            handles[0].close()
        control.close()
        simulation.run()
