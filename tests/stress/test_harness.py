"""The stress harness itself: a script is repeatable, the oracle and the keeper see what is wrong, shrinking shrinks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.graph import Graph
from megaphone.testing import Simulation
from tests.stress import run as stress
from tests.stress import simulated
from tests.stress.keeping import Keeper
from tests.stress.oracle import Difference, Shown, compare, expect
from tests.stress.records import BACK, after_loop, idents_of, stamps_of
from tests.stress.script import Epoch, Script, Sending, Update, round_of, script_of, snippet
from tests.stress.shrink import shrink, size_of
from tests.stress.simulated import check_in_simulation, failure_of

SMALL = Script(
    seed=3,
    epochs=(
        Epoch((Sending(0, 0, 40, delay=2), Sending(1, 1, 30, spread=1)), (Update("map", 5),)),
        Epoch((Sending(2, 2, 50, loan=True),), (Update("moves", 6, 2, stage=1),)),
    ),
    workers=3,
    front=("tee", "filter"),
    second=True,
    wide=True,
    payload=True,
    keep=4,
)


@pytest.fixture(scope="module", autouse=True)
def _only_what_is_new_is_collected() -> Iterator[None]:
    """Keep what other tests have left out of the collector's sight: a keeper collects often, and all of it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_a_round_is_a_pure_function_of_seed_and_number() -> None:
    assert [round_of(7, number) for number in range(20)] == [round_of(7, number) for number in range(20)]
    assert round_of(7, 1) != round_of(7, 2) != round_of(8, 2)


@pytest.mark.parametrize("seed", range(30))
def test_a_script_survives_json_and_python(seed: int) -> None:
    script = script_of(seed)
    assert Script.from_json(script.to_json()) == script
    names: dict[str, Any] = {"Script": Script, "Epoch": Epoch, "Sending": Sending, "Update": Update}
    names |= {"Hog": __import__("tests.stress.script", fromlist=["Hog"]).Hog}
    assert eval(snippet(script, seed), names | {"check_in_simulation": lambda *given: given}) == (script, seed)


# Seeds whose scripts are small: both stores, both transfers, several fronts.
@pytest.mark.parametrize("seed", [3, 8, 16, 19, 37])
def test_a_script_shows_what_the_oracle_says_in_the_simulation(seed: int) -> None:
    assert check_in_simulation(script_of(seed), seed)["records"] >= 0


@pytest.mark.parametrize("kind", ["unary", "machine", "consume"])
@pytest.mark.parametrize("front", [("loop", "tee", "filter"), ("tee", "loop"), ("broadcast", "loop", "hold")])
def test_every_kind_of_operator_shows_what_the_oracle_says(kind: str, front: tuple[str, ...]) -> None:
    script = replace(SMALL, front=front, second_kind=kind)
    rounds = after_loop(idents_of(Sending(0, 0, 40)), np.zeros(40, np.uint64))
    assert rounds.max() > 1  # some go round more than once
    for seed in range(2):
        figures = check_in_simulation(script, seed)
    assert figures["moves"] > 0


def tampered(change: Callable[[list[Shown]], object], monkeypatch: pytest.MonkeyPatch, script: Script = SMALL) -> str:
    """Return how a run fails whose results have been changed before they are compared."""

    def changed(script_: Script, parts: list[Shown]) -> dict[str, int]:
        change(parts)
        return compare(script_, parts)

    monkeypatch.setattr(simulated, "compare", changed)
    return failure_of(script, 1)


def worker_with_rows(parts: list[Shown], what: str) -> Shown:
    return next(part for part in parts if len(part.seen[what][0]) > 1)


def cut(what: str) -> Callable[[list[Shown]], object]:
    def change(parts: list[Shown]) -> None:
        part = worker_with_rows(parts, what)
        part.seen[what] = [column[:-1] for column in part.seen[what]]

    return change


def one_more(what: str, column: int) -> Callable[[list[Shown]], object]:
    def change(parts: list[Shown]) -> None:
        worker_with_rows(parts, what).seen[what][column][-1] += np.uint64(1)

    return change


def lose_a_row(parts: list[Shown]) -> None:
    bins = [entry for part in parts for entry in part.state[0]["bins"].values() if entry["rows"]]
    bins[0]["rows"].pop()
    bins[0]["look"][4] -= 1


def spoil_a_row(parts: list[Shown]) -> None:
    bins = [entry for part in parts for entry in part.state[0]["bins"].values() if entry["rows"]]
    number, count, stamps = bins[0]["rows"][0]
    bins[0]["rows"][0] = (number, count, stamps ^ 1)


def forget_an_update(parts: list[Shown]) -> None:
    parts[0].updates.pop(0)


def leave_a_message(parts: list[Shown]) -> None:
    parts[1].rest["queued"] = 1


def swap_workers(parts: list[Shown]) -> None:
    parts[0].seen["seen"], parts[1].seen["seen"] = parts[1].seen["seen"], parts[0].seen["seen"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut("seen"), "outputs: .* instead of"),
        (one_more("seen", 2), "outputs: .* differ"),
        (cut("second"), "second counts"),
        (cut("side"), "the branch beside"),
        (lose_a_row, "keys instead of"),
        (spoil_a_row, "keys instead of"),
        (forget_an_update, "other owners|other workers' bins"),
        (leave_a_message, "not at rest"),
        (swap_workers, "other workers' bins"),
    ],
)
def test_the_oracle_refuses_a_result_that_has_been_changed(
    change: Callable[[list[Shown]], object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not failure_of(SMALL, 1)
    failure = tampered(change, monkeypatch)
    with pytest.raises(Difference, match=says):
        raise Difference(failure)


def test_the_oracle_counts_a_record_that_comes_back_after_the_one_that_sent_it_back() -> None:
    expected = expect(replace(SMALL, front=()))
    back = expected.idents >= BACK
    assert back.sum() == (expected.idents[back] & ~BACK < 40).sum() > 0
    assert sorted(expected.running[expected.numbers == expected.numbers[0]].tolist())[0] == 1
    assert len(expected.idents) == 120 + int(back.sum())


def test_a_keeper_sees_that_the_memory_behind_a_view_has_been_used_again() -> None:
    private = np.arange(10, dtype=np.uint64)

    def build(graph: Graph) -> Any:
        numbers, stream = graph.input("numbers", {"id": "u8", "stamp": "u8"})
        keeper = Keeper(40, 10, threaded=False)
        return numbers, keeper, stream.inspect(keeper.offer).probe()

    with Simulation(build, slots=1, seed=1) as simulation:
        numbers, keeper, _ = simulation.handles[0]
        keeper.start(1)
        for _ in range(60):
            numbers.send({"id": private, "stamp": stamps_of(private)})
            simulation.run_until(lambda: simulation.counter("batches_in") % 2 == 0)
        numbers.close()
        simulation.run()
        assert keeper.kept_count > 3
        for kept in keeper._kept:
            kept.checksum ^= 1
        before = len(keeper._kept)
        assert before
        with pytest.raises(AssertionError, match="a view has changed"):
            keeper.close()


def test_shrinking_takes_away_all_that_a_failure_does_not_need() -> None:
    def fails(script: Script) -> bool:
        """A failure that needs a move in copy mode behind a batch of at least ten records of worker 1."""
        sent = [s for epoch in script.epochs for s in epoch.sendings if s.slot == 1 and s.records >= 10]
        moved = [update for epoch in script.epochs for update in epoch.updates if update.kind == "map"]
        return bool(sent and moved) and script.transfer == "copy"

    start = next(script for script in map(script_of, range(1000)) if fails(script) and script.second)
    smallest = shrink(start, fails, 60.0)
    assert fails(smallest)
    assert size_of(smallest)[:3] == (2, 10, 1)
    assert (smallest.front, smallest.second, smallest.keep, smallest.payload) == ((), False, 0, False)


def test_what_the_simulation_shows_too_is_printed_as_a_small_script_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that needs a state machine, a move and the third order of steps, and nothing else."""

    def failing(script: Script, seed: int) -> str:
        moved = any(epoch.updates for epoch in script.epochs)
        is_it = script.second and script.second_kind == "machine" and moved and seed == 2
        return "Difference: as was asked for" if is_it else ""

    monkeypatch.setattr(stress, "failure_of", failing)
    said: list[str] = []
    assert stress.replay(replace(SMALL, second_kind="machine", front=("loop", "tee")), said.append)
    assert said[0] == "the Simulation shows it with seed 2: Difference: as was asked for"
    assert said[1] == "the smallest script that fails: Difference: as was asked for"
    assert "second_kind='machine'" in said[2]
    assert "loop" not in said[2]
    assert "Update(" in said[2]


def test_ctrl_c_ends_rounds_with_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(stress, "run", interrupt)
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert stress.main() == 130
    assert capsys.readouterr().out == "interrupted\n"


@pytest.mark.parametrize("seconds", ["-1", "nan", "x"])
def test_seconds_that_are_none_are_refused(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", "--seconds", seconds])
    with pytest.raises(SystemExit) as ended:
        stress.main()
    assert ended.value.code == 2
