"""A column of many segments is the same whether it is joined in C or from views, of one side or of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.graph import Graph
from megaphone.errors import GraphError
from megaphone.migration.operators import fold_context
from megaphone.state.stores import HashTable
from megaphone.testing import Simulation

LEFT, RIGHT = {"k": "u8", "v": "u4"}, {"w": "u2", "word": "bytes", "who": "u8", "v": "i8"}
PENDING = {"late": "u1", "k": "u8"}
AFTERWARDS = {"late": "u1", "v": "u4", "k": "u8"}
"""The columns of LEFT in another order, so that a column has another place in what was post-dated."""
TABLE = HashTable("u8", {"n": "u8"})


def seen(consuming: bool, rounds: int) -> tuple[list[Any], int]:
    """Run two inputs, all complete at once; return what a fold saw of each column, and the bytes copied."""
    found: list[Any] = []

    def note(context: Any) -> None:
        sides = {"left": LEFT, "right": RIGHT, **({"pending": PENDING} if consuming else {})}
        for side, names in sides.items():
            for name in names:
                column = context.side_column(side, name)
                values = column.tolist() if isinstance(column, np.ndarray) else list(column)
                found.append((side, name, str(getattr(column, "dtype", "bytes")), values))
        with pytest.raises(GraphError, match="unknown column 'x'"):
            context.side_column("right", "x")

    def first(context: Any) -> None:
        note(context)
        keys = context.left_column("k")
        context.post_date({"k": keys, "late": np.arange(len(keys))}, context.left_times + np.uint64(2))

    def build(graph: Graph) -> Any:
        left, left_stream = graph.input("left", LEFT)
        right, right_stream = graph.input("right", RIGHT)
        both: dict[str, Any] = {"left_key": "k", "right_key": "who", "state": TABLE, "columns": {"k": "u8"}}
        if consuming:
            made = left_stream.stateful_binary_input(
                right_stream, consume=first, fold=note, pending=PENDING, per_time=False, **both
            )
        else:
            made = left_stream.stateful_binary(right_stream, fold=note, **both)
        return left, right, made.probe()

    draw = np.random.default_rng(5)
    with Simulation(build, slots=1, late=False) as simulation:
        left, right, _ = simulation.handles[0]
        for time in range(rounds):
            left.advance_to(3 * time)
            right.advance_to(3 * time)
            for handle in (left, right) if time % 3 else (right, left):
                n = int(draw.integers(1, 5))
                k, v = draw.integers(0, 99, n).astype(np.uint64), draw.integers(0, 99, n)
                if handle is left:
                    left.send({"k": k, "v": v.astype(np.uint32)})
                else:
                    words = BytesColumn.of([b"x" * int(i) for i in v])
                    right.send({"w": v.astype(np.uint16), "word": words, "who": k, "v": -v})
        left.close()
        right.close()
        simulation.run()
        return found, simulation.counter("copied_concat")


@pytest.mark.parametrize("consuming", [True, False])
def test_columns_joined_in_c_are_those_joined_from_views(consuming: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    in_c, copied_in_c = seen(consuming, 40)
    assert max(len(values) for *_, values in in_c) > 60
    monkeypatch.setattr("megaphone.migration.operators.binary.VIEWS_MAX", 1 << 30)
    monkeypatch.setattr(fold_context, "VIEWS_MAX", 1 << 30)
    of_views, copied_of_views = seen(consuming, 40)
    assert in_c == of_views
    assert copied_in_c >= copied_of_views > 0  # of a side with one segment there is a view


@pytest.mark.parametrize("per_time", [True, False])
def test_columns_of_input_and_of_what_was_post_dated_are_joined_in_order(
    per_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folded(views_max: int) -> list[Any]:
        found: list[Any] = []

        def fold(context: Any) -> None:
            found.append([context.column(name).tolist() for name in ("k", "v")])
            old = context.column("v")
            if per_time and context.time < 60:
                late = {"late": np.ones(len(old), np.uint8), "k": context.column("k"), "v": old + 1000}
                context.post_date(late, context.time + 7)

        def build(graph: Graph) -> Any:
            source, stream = graph.input("in", LEFT)
            folded = stream.stateful_unary(
                key="k", state=TABLE, fold=fold, columns={"k": "u8"}, pending=AFTERWARDS if per_time else None,
                per_time=per_time,
            )  # fmt: skip
            return source, folded.probe()

        monkeypatch.setattr(fold_context, "VIEWS_MAX", views_max)
        with Simulation(build, slots=1, late=False) as simulation:
            source, _ = simulation.handles[0]
            for time in range(0, 60, 7):
                source.advance_to(time)
                for part in range(6):
                    source.send({"k": [time, part], "v": [part, time]})
                if time == 28:
                    simulation.run_until(lambda: bool(found))
            source.close()
            simulation.run()
        return found

    assert folded(4) == folded(1 << 30)
