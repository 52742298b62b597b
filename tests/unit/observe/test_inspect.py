"""The inspection on a Simulation: what it shows, how it fits a terminal, and that no word can lead it astray."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.cli import main
from megaphone.observe.inspect import inspect, list_runs
from megaphone.observe.inspect_attach import Attachment, Moment
from megaphone.observe.inspect_look import InspectError, Look, OtherVersionError, read_about, sum_of
from megaphone.observe.inspect_model import model_of
from megaphone.observe.inspect_table import Column, number_runs, table
from megaphone.observe.inspect_text import render, render_runs
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation
from tests.unit.observe import law
from tests.unit.observe.test_inspect_law import Damaged, counting, look_at, play, until_moving

WIDTHS = [60, 80, 100, 120, 160]
ME = os.getpid()
SHIFTS = range(72, 200, 8)
"""In a header: bin shifts of operators that this dataflow does not have; they mean nothing."""
GROWING = 2
"""Of a bin's flags, MP_BIN_GROWING in store.h."""


def fd_of(simulation: Simulation) -> int:
    """Return the descriptor of a Simulation's control region: other tests may have left runs in this process."""
    return simulation.memory.control_region.fd


@pytest.fixture
def middle() -> Iterator[Simulation]:
    """A count in the middle of a migration, with messages about."""
    with counting(3, 4) as simulation:
        until_moving(simulation)
        yield simulation


# -- what it shows -----------------------------------------------------------------------------------------------------


def test_the_model_is_one_json_object_that_names_ports_and_adds_up(middle: Simulation) -> None:
    model = json.loads(json.dumps(model_of(look_at(middle), None)))
    assert model["violations"] == []
    assert model["balance"]["off"] == 0
    assert model["balance"]["sent"] == middle.counter("input_records")
    (count,) = model["stateful"]
    assert count["name"] == "count"
    assert count["migrating"]
    assert len(count["bins"]) == 16
    assert sum(entry["sums"]["n"] for entry in count["bins"]) == count["records"]["applied"]
    assert sum(entry["keys"] for entry in count["bins"]) == sum(
        len({int(key) for keys, _ in handles.counts.state.items() for key in keys}) for handles in middle.handles
    ) + sum(entry["keys"] for entry in count["bins"] if not entry["resident"])
    assert {port for slot in model["slots"] for port in slot["frontiers"]} == {
        "count.route.data", "count.route.control", "count.route.feedback", "count.data", "count.state", "probe.in",
    }  # fmt: skip
    held = {(slot["slot"], entry["port"]) for slot in model["slots"] for entry in slot["capabilities"]}
    assert {(0, "words.out"), (0, "control.out"), (1, "words.out")} <= held


def test_frontiers_and_capabilities_are_what_the_workers_themselves_know(middle: Simulation) -> None:
    look = look_at(middle)
    for worker in middle.workers:
        told = look.frontiers(worker.index)
        for operator in middle.workers[0].graph.operators:
            for port in operator.inputs:
                assert int(told[port.location]) == int(lib.mp_frontier(worker.slot, port.location))
            for out in operator.outputs:
                held = look.times(worker.index, out.location, held=True)
                least = int(lib.mp_held_least(worker.slot, worker.index, out.location))
                assert min((at for at, _ in held), default=2**64 - 1) == least


def test_maps_and_waiting_configurations_are_those_of_the_workers(middle: Simulation) -> None:
    look = look_at(middle)
    (stateful,) = look.stateful
    for worker, handles in zip(middle.workers, middle.handles, strict=True):
        out = np.empty(16, np.uint8)
        lib.mp_router_owners(worker.slot, handles.counts.operator.op, ffi.from_buffer("uint8_t[]", out))
        owners = look.owners(stateful, worker.index)
        assert owners is not None
        assert owners.tolist() == out.tolist()
        waiting = int(lib.mp_router_updates(worker.slot, handles.counts.operator.op))
        assert len(look.updates(stateful, worker.index)) == waiting


@pytest.mark.parametrize("kind", ["u1", "i2", "i8", "u8", "f4", "f8", "?", "S3"])
def test_columns_of_numbers_are_summed_and_others_are_not(kind: str) -> None:
    values = [1, 0, 3] if kind == "?" else [5, -7, 3] if kind.startswith(("i", "f")) else [5, 250, 3]

    def build(graph: Any) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        state = HashTable("u8", {"v": kind, "other": "f8"}, default={"other": 0.5})
        counts = stream.stateful_unary(
            key="k", state=state, fold=lambda _: None, columns={"k": "u8"}, bin_shift=1, name="sum"
        )
        counts.probe()
        return words, counts

    with Simulation(build, slots=1, memory="16M") as simulation:
        state = simulation.handles[0][1].state
        rows = state.rows(np.arange(3, dtype=np.uint64))
        state.put(rows, "v", np.array(values, kind))
        look = look_at(simulation)
        (entry,) = model_of(look, None)["stateful"]
        sums = [found["sums"] for found in entry["bins"]]
        assert sum(found["other"] for found in sums) == 1.5
        if kind == "S3":
            assert all("v" not in found for found in sums)
        else:
            assert sum(found["v"] for found in sums) == sum(np.array(values, kind).astype(object))


@pytest.mark.parametrize(
    "store", [HashTable("u8", {"v": "u8"}), DenseArray({"v": "u8"}), HashTable("bytes", {"v": "u8"})]
)
def test_rows_are_found_at_every_stage_of_growth(store: Any) -> None:
    dense = isinstance(store, DenseArray)

    def build(graph: Any) -> Any:
        _, stream = graph.input("words", {"k": "bytes" if store.key is None else "u8"})
        counts = stream.stateful_unary(
            key="k", hash="dense" if dense else "mix", state=store, fold=lambda _: None, columns={"v": "u8"},
            bin_shift=1, name="grow",
        )  # fmt: skip
        counts.probe()
        return counts

    growing = 0
    with Simulation(build, slots=1, memory="16M") as simulation:
        state = simulation.handles[0].state
        look = look_at(simulation)
        for key in range(3000):
            keys = np.array([key], np.uint64)
            state.add_emit(bytes_keys(keys) if store.key is None else keys)
            ((_, bins, sums),) = look.bins(look.stateful[0])
            assert sum(int(sum_of(sums[i, 0], look.stateful[0].kinds[0])) for i in range(2)) == key + 1
            assert not bins["torn"].any()
            growing += bool((bins["flags"] & GROWING).any())
    assert growing > 100


def bytes_keys(keys: Any) -> Any:
    """Return keys of a bytes column."""
    from megaphone.dataflow.batch import BytesColumn

    return BytesColumn.of([b"key %d" % key for key in keys])


# -- for people --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("slot", [None, 1])
def test_no_line_is_wider_than_the_terminal(middle: Simulation, width: int, slot: int | None) -> None:
    model = model_of(look_at(middle), None)
    model["violations"] = ["something that cannot be, described at more length than a line of a terminal has " * 2]
    for every_bin in (False, True):
        text = render(model, width=width, every_bin=every_bin, slot=slot)
        assert max(map(len, text.splitlines())) <= width
        assert text.index("VIOLATIONS") < text.index("Records") < text.index("Workers") < text.index("Memory")


def test_many_bins_are_summed_up_and_listed_on_demand() -> None:
    def build(graph: Any) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        counts = stream.stateful_unary(
            key="k", state=HashTable("u8", {"n": "u8"}), fold=lambda context: context.add_emit("k"),
            columns={"k": "u8", "n": "u8"}, bin_shift=10, name="count",
        )  # fmt: skip
        counts.probe()
        return words

    with Simulation(build, slots=2, memory="16M") as simulation:
        simulation.handles[0].send({"k": np.arange(5000, dtype=np.uint64)})
        for words in simulation.handles:
            words.close()
        simulation.run()
        model = model_of(look_at(simulation), None)
    short, long = render(model, width=100), render(model, width=100, every_bin=True)
    assert len(short.splitlines()) < 60
    assert "0-1022 by 2" in short
    assert len(long.splitlines()) > 1024


def test_columns_of_a_table_give_way_by_rank_and_text_is_cut_last() -> None:
    columns = [Column("name", text=True), Column("much"), Column("less", rank=1), Column("least", rank=2)]
    rows = [["a name of twenty-two c", "1", "22", "333"]]
    assert table(columns, rows, 60)[1] == "  a name of twenty-two c     1    22    333"
    assert table(columns, rows, 40)[1] == "  a name of twenty-two c     1    22"
    assert table(columns, rows, 32)[1] == "  a name of twenty-two c     1"
    assert table(columns, rows, 24)[1] == "  a name of twe...     1"


def test_numbers_are_written_as_runs() -> None:
    assert number_runs([], 40) == ""
    assert number_runs([3], 40) == "3"
    assert number_runs([0, 1, 2, 5, 7, 9, 30], 40) == "0-2, 5-9 by 2, 30"
    assert number_runs([1, 5, 6, 7], 40) == "1, 5-7"
    assert len(number_runs([n * n for n in range(100)], 40)) == 40


def test_a_list_without_runs_is_no_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert render_runs([], 80) == ""
    monkeypatch.setattr("megaphone.observe.inspect.runs", lambda: iter(()))
    assert main(["inspect"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "megaphone: no run can be seen from here\n")
    assert main(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_no_page_says_that_figures_are_right_which_contradict_each_other(middle: Simulation) -> None:
    model = model_of(look_at(middle), None)
    right = render(model, width=100)
    assert "the figures are exact\n" in right.replace("its fixed inputs", "the figures are exact")
    assert "adds up" in right
    model["balance"]["off"] = -3
    model["violations"] = ["records are lost"]
    wrong = render(model, width=100)
    assert "they CONTRADICT each other" in wrong
    assert "-3, WRONG" in wrong
    assert "adds up" not in wrong


def test_times_of_one_output_are_one_line_and_workers_with_one_frontier_one_entry(middle: Simulation) -> None:
    model = model_of(look_at(middle), None)
    for slot in model["slots"]:
        slot["capabilities"] = [{"port": "count.out", "time": time, "count": 1} for time in (1200, 1201, 1207)]
        slot["frontiers"]["probe.in"] = 7 if slot["slot"] == 0 else 1234567
    lines = render(model, width=80).splitlines()
    held = [line.split() for line in lines if " count.out " in line]
    assert held == [[str(slot), "count.out", "1,200", "1,207", "3"] for slot in range(3)]
    (probe,) = [line for line in lines if "probe.in" in line]
    assert probe.split() == ["probe.in", "7", "1,234,567", "at", "1-2"]


def test_keys_of_the_object_have_one_meaning_and_carry_their_units(middle: Simulation) -> None:
    model = json.loads(json.dumps(model_of(look_at(middle), None)))
    assert {"age_s", "started_s", "data_bytes", "committed_bytes"} <= model["run"].keys()
    (count,) = model["stateful"]
    assert {"applied_records", "pending_records", "bytes", "time_last_before_move"} <= count["bins"][0].keys()
    assert "configurations_to_come" in count["slots"][0]
    assert not [name for part in (model["run"], count["bins"][0], count["slots"][0]) for name in part
                if name in ("updates", "started", "pending", "age")]  # fmt: skip


# -- trust nothing -----------------------------------------------------------------------------------------------------


def test_whatever_words_are_damaged_the_look_ends_and_touches_nothing_it_may_not(middle: Simulation) -> None:
    chance = random.Random(5)
    whole = Damaged(middle).control
    header = 4096
    blocks = Path(f"/proc/self/fd/{middle.memory.data_fd}").stat().st_blocks
    interesting = [0, 1, 63, 64, 2**16, 2**31, 2**32 - 1, 2**33 + 64, 2**63, 2**64 - 1, 2**64 - 64]
    refused = 0
    for _ in range(600):
        damaged = Damaged(middle)
        for _ in range(chance.choice([1, 3, 30, 300])):
            at = header + 8 * chance.randrange((len(whole) - header) // 8)
            word = chance.choice([*interesting, chance.randrange(2**64), chance.randrange(2**20)])
            # The text is JSON and has its own test.
            if damaged.control[at : at + 8] != b"\0" * 8 or chance.random() < 0.3:
                struct.pack_into("=Q", damaged.control, at, word)
        try:
            render(model_of(damaged.look, None), width=100)
        except InspectError:
            refused += 1
    assert refused < 600
    assert Path(f"/proc/self/fd/{middle.memory.data_fd}").stat().st_blocks == blocks


def test_a_region_whose_layout_is_not_ours_is_refused(middle: Simulation) -> None:
    whole = Damaged(middle).control
    size = len(whole)
    assert lib.mp_control_verify(ffi.from_buffer(whole), size) == 0
    assert lib.mp_control_verify(ffi.from_buffer(whole), size - 64) < 0
    # Magic, ABI, sources, limits, offsets: all that stands before the first word that changes.
    for at in range(0, 320, 8):
        damaged = bytearray(whole)
        (word,) = struct.unpack_from("=Q", damaged, at)
        struct.pack_into("=Q", damaged, at, word + 64)
        if at in SHIFTS:
            continue
        assert lib.mp_control_verify(ffi.from_buffer(damaged), size) < 0, at


# -- finding a run -----------------------------------------------------------------------------------------------------


def test_a_process_that_hosts_a_run_itself_can_be_inspected(middle: Simulation) -> None:
    text = inspect(ME, width=100, fd=fd_of(middle))
    assert f"megaphone run of process {ME}: 3 workers" in text
    with Attachment(ME, fd_of(middle)) as attachment:
        look, moment = attachment.look()
        law.check(look)
        # Workers of a Simulation are no processes.
        assert moment.states == (None, None, None)
    assert str(ME) in list_runs(width=100)
    assert middle.workers


def test_one_of_several_runs_of_a_process_is_chosen_by_its_descriptor(middle: Simulation) -> None:
    with counting(2, 1) as other:
        with pytest.raises(InspectError, match=r"has \d+ runs: choose one with --fd"):
            inspect(ME, width=80)
        for simulation, slots in ((middle, 3), (other, 2)):
            with Attachment(ME, fd_of(simulation)) as attachment:
                assert attachment.look()[0].slots == slots
        with pytest.raises(InspectError, match="no run at that descriptor"):
            inspect(ME, width=80, fd=9999)


def test_a_run_of_another_version_is_refused_with_both_versions(middle: Simulation) -> None:
    abi = ffi.cast("uint32_t *", middle.memory.control + 8)
    abi[0] += 1
    try:
        with pytest.raises(OtherVersionError, match="made by another megaphone"):
            inspect(ME, width=80, fd=fd_of(middle))
        assert "(made by another megaphone)" in list_runs(width=120)
    finally:
        abi[0] -= 1


def test_a_run_that_has_not_told_what_it_is_yet_is_refused(middle: Simulation) -> None:
    size = ffi.new("uint32_t *")
    text = ffi.buffer(ffi.cast("char *", lib.mp_control_about(middle.memory.control, size)), size[0])
    whole = bytes(text)
    text[:] = bytes(len(whole))
    try:
        with pytest.raises(InspectError, match="only just being started"):
            inspect(ME, width=80, fd=fd_of(middle))
    finally:
        text[:] = whole


def test_another_users_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Iterator[Path]:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InspectError, match="another user's"):
        inspect(ME, width=80)


def test_the_command_lists_runs_and_refuses_in_one_line(middle: Simulation, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect"]) == 0
    assert str(ME) in capsys.readouterr().out
    assert main(["inspect", str(ME), "--fd", str(fd_of(middle)), "--bins", "--no-content"]) == 0
    assert "Bins of count" in capsys.readouterr().out
    assert main(["inspect", "4194304"]) == 2
    assert main(["inspect", str(ME), "--fd", str(fd_of(middle)), "--slot", "3"]) == 2
    refused = capsys.readouterr()
    assert refused.out == ""
    assert refused.err.splitlines() == [
        "megaphone: error: there is no process 4194304: `megaphone inspect` without a number lists the runs",
        f"megaphone: error: --slot 3: the run of process {ME} has workers 0 to 2",
    ]


def test_there_must_be_a_process() -> None:
    with pytest.raises(InspectError, match="no process 4194304"):
        inspect(4194304, width=80)


def test_a_look_at_a_run_that_goes_on_may_differ_but_is_no_violation(middle: Simulation) -> None:
    with Attachment(ME, fd_of(middle)) as attachment:
        look, _ = attachment.look()
        chance = random.Random(3)
        # The copy of the control region is of one moment, the data region of another.
        for at in range(500, 520):
            play(middle, chance, at)
            middle.run_until(lambda: True)
        moving = Moment(("running",) * 3, still=False, at=0.0)
        model = model_of(look, moving)
    assert model["violations"] == []
    assert "running" in render(model, width=80)


def test_the_text_about_a_run_names_what_the_graph_has(middle: Simulation) -> None:
    about = read_about(middle.memory.control)
    assert about["pid"] == ME
    names = [operator["name"] for operator in about["operators"]]
    assert names == ["words", "control", "count.route", "count", "probe"]
    (state,) = [operator["state"] for operator in about["operators"] if "state" in operator]
    assert state["store"]["columns"][0]["name"] == "n"
    assert isinstance(look_at(middle), Look)
