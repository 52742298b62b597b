"""AddEmit: the fold that the core runs does what the same fold does in Python, in every counter."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.graph import Graph
from megaphone.errors import UsageError
from megaphone.migration.control import Move
from megaphone.migration.operators.adding import AddEmit
from megaphone.state.stores import DenseArray, HashTable, Rows
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import functions_called

TIMES = 30
ADD = AddEmit("k", "v")
STORES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "array": ("u8", DenseArray("u8"), {"hash": "dense"}),
    "table": ("u8", HashTable("u8", "u8"), {}),
    "fixed": ("S3", HashTable("S3", "u8"), {"transfer": "copy"}),
    "bytes": (bytes, HashTable(bytes, "u8"), {"per_time": True}),
    "eager": ("u8", HashTable("u8", "u8"), {"eager": True}),
    "pending": ("u8", HashTable("u8", "u8"), {"pending": {"k": "u8", "v": "u8"}}),
    "plain": ("u8", HashTable("u8", "u8"), {"plain": True}),
}


def everything(dtype: Any, state: Any, options: dict[str, Any], fold: Any, seed: int) -> Any:
    """Return all outputs of a run with migrations, in order, and all counters of all slots."""
    seen: list[Any] = []

    def listed(column: Any) -> list[Any]:
        return [column[i] for i in range(len(column))]

    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"k": dtype, "v": "u8"})
        control = None if options.get("plain") else graph.control(source)
        out = stream.stateful_unary(
            key="k", state=state, fold=fold, columns={"k": dtype, "n": "u8"}, control=control, bin_shift=3, **options
        )
        end = out.exchange("n").inspect(lambda b: seen.append((b.time, listed(b["k"]), b["n"].tolist())))
        return source, control, end.probe(), out.operator

    chosen = random.Random(seed)
    with Simulation(build, slots=2, seed=seed) as simulation:
        for time in range(1, TIMES):
            for source, *_ in simulation.handles:
                n = chosen.randrange(1, 40)
                keys: Any = [chosen.randrange(50) for _ in range(n)]
                source.send({"k": keys if dtype == "u8" else [b"%d" % key for key in keys], "v": np.arange(n)})
            if time % 7 == 3 and not options.get("plain"):
                simulation.handles[0][1].send_instructions([Move(chosen.randrange(8), chosen.randrange(2))])
            for source, *_ in simulation.handles:
                source.advance_to(time)
            for _ in range(chosen.randrange(8)):
                simulation.step()
        for source, *_ in simulation.handles:
            source.close()
        steps = simulation.run()
        counters = [worker.counters() for worker in simulation.workers]
        for counted in counters:
            del counted["grow_pause_max_ns"]  # a time, and no count
        return seen, steps, counters


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", STORES)
def test_outputs_steps_and_all_counters_are_those_of_the_same_fold_in_python(kind: str, seed: int) -> None:
    dtype, state, options = STORES[kind]
    in_core = everything(dtype, state, options, ADD, seed)
    in_python = everything(dtype, state, options, lambda context: context.add_emit("k", "v"), seed)
    assert in_core == in_python
    assert sum(len(keys) for _, keys, _ in in_core[0]) > TIMES


def single(fold: Callable[..., Any], **options: Any) -> Any:
    """Return a build of one such operator."""

    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"k": "u8", "v": "u8"})
        given: dict[str, Any] = {"state": HashTable("u8", "u8"), "columns": {"k": "u8", "n": "u8"}} | options
        return source, stream.stateful_unary(key="k", fold=fold, name="mine", **given).probe()

    return build


@pytest.mark.parametrize(
    ("fold", "options", "message"),
    [
        (AddEmit("x"), {}, "unknown column 'x'"),
        (AddEmit("v"), {}, "routed by column 'k', not by 'v'"),
        (AddEmit("k"), {"columns": {"k": "u8"}}, "declare two columns"),
        (AddEmit("k"), {"state": Rows("u8", "u8")}, "the state is Rows"),
    ],
)
def test_columns_that_do_not_fit_are_told_when_the_worker_starts(fold: Any, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=rf"operator 'mine' \(test_adding.py:.*add_emit: .*{message}"):
        Simulation(single(fold, **options), slots=1)


def test_a_key_that_the_store_refuses_is_told_as_in_python() -> None:
    messages = []
    for fold in (AddEmit("k"), lambda context: context.add_emit("k")):
        with Simulation(single(fold, state=DenseArray("u8"), hash="dense"), slots=1) as simulation:
            source, _ = simulation.handles[0]
            source.send({"k": [2**50], "v": [1]})
            source.close()
            with pytest.raises(UsageError) as caught:
                simulation.run()
            assert simulation.workers[0].current_operator() == "mine"
            messages.append(str(caught.value).partition(")")[2])
    assert messages[0] == messages[1] != ""


def test_no_python_runs_for_records_either() -> None:
    with Simulation(single(ADD), slots=1) as simulation:
        source, probe = simulation.handles[0]
        source.send({"k": [1, 2, 3], "v": [1, 1, 1]})
        source.advance_to(1)
        assert functions_called(simulation.workers[0].step) == ["step", "_step"]
        assert probe.frontier() == 1
