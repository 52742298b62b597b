"""Nothing belongs to the process (DESIGN 10.11): a process hosts any slots of any number of runs."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import megaphone
from megaphone import _core
from megaphone.testing import Simulation

PACKAGE = Path(megaphone.__file__).parent
WRITABLE = (".data", ".bss", ".tdata", ".tbss")
# What an interpreter that is a worker must remember before a slot exists: which, and whether a script runs again.
KNOWN = {"megaphone/dataflow/functions.py: _Role.worker", "megaphone/dataflow/functions.py: _Role.script"}


def writable_variables(library: Path) -> list[str]:
    """Return the variables of our C that are neither constant nor on a stack; cffi's are not ours."""
    listed = subprocess.run(["objdump", "-t", str(library)], capture_output=True, text=True, check=True).stdout
    # address flags section size name
    rows = [line.split() for line in listed.splitlines() if line.count(" ") >= 4]
    found = [row[-1] for row in rows if len(row) >= 5 and row[-3] in WRITABLE and "O" in row[1:-3]]
    return [name for name in found if not name.startswith(("_cffi_", "__", "completed."))]


def stores_to_module_state(path: Path) -> Iterator[str]:
    """Yield names of modules and classes that functions write to."""
    tree = ast.parse(path.read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    where = path.relative_to(PACKAGE.parent).as_posix()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield from (f"{where}: {name}" for name in node.names)
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id in classes
            ):
                yield f"{where}: {node.value.id}.{node.attr}"


def test_the_core_has_no_writable_variable_of_its_own() -> None:
    assert writable_variables(Path(str(_core.__file__))) == []


def test_the_look_for_writable_variables_finds_one(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("static int calls; const int most = 3; int count(void) { return ++calls < most; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "a.so", "a.c"], cwd=tmp_path, check=True)
    assert writable_variables(tmp_path / "a.so") == ["calls"]


def test_python_writes_to_no_module_and_no_class() -> None:
    found = {name for path in PACKAGE.rglob("*.py") for name in stores_to_module_state(path)}
    assert found == KNOWN


def count(graph: Any) -> Any:
    numbers, stream = graph.input("numbers", {"n": "u8"})
    counts = stream.stateful_unary(
        key="n",
        state=megaphone.HashTable("u8", {"count": "u8"}),
        fold=lambda context: context.add_emit("n"),
        columns={"n": "u8", "count": "u8"},
        name="count",
    )
    return numbers, counts


def outcome(simulation: Simulation) -> list[tuple[int, int]]:
    return sorted(
        (int(key), int(n))
        for _, counts in simulation.handles
        for keys, values in counts.state.items()
        for key, n in zip(keys, values["count"], strict=True)
    )


@given(st.integers(0, 2**32), st.lists(st.integers(1, 3), min_size=2, max_size=3))
def test_runs_that_take_turns_in_one_process_do_what_each_does_alone(seed: int, slots: list[int]) -> None:
    def started(index: int) -> Simulation:
        simulation = Simulation(count, slots=slots[index], seed=seed)
        random = np.random.default_rng(seed + index)
        for numbers, _ in simulation.handles:
            numbers.send({"n": random.integers(0, 20, 100).astype(np.uint64)})
            numbers.close()
        return simulation

    alone = []
    for index in range(len(slots)):
        with started(index) as simulation:
            simulation.run()
            alone.append(outcome(simulation))
    together = [started(index) for index in range(len(slots))]
    while not all(simulation.done for simulation in together):
        for simulation in together:
            simulation.step()
    assert [outcome(simulation) for simulation in together] == alone
    for simulation in together:
        simulation.close()
