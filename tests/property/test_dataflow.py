"""Laws of the dataflow layer, for any batches, columns, times, slots, orders of steps and sizes of rings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megaphone.dataflow.batch import Batch, BytesColumn
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.unary_frontier import FrontierInput, FrontierOutput
from megaphone.dataflow.stream import Stream
from megaphone.testing import Simulation
from tests.unit.dataflow.runs import Run, assert_at_rest, references, rows

DTYPES = ("u1", "i2", "u4", "f4", "u8", "f8", "S16", "M8[s]", "bytes")
SLOTS = st.integers(1, 5)
SEEDS = st.integers(0, 2**32 - 1)
RINGS = st.sampled_from((64, 128))


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, str]:
    """Columns of any kinds, at most three of them of byte strings; the first is the key."""
    kinds = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=5))
    while kinds.count("bytes") > 3:
        kinds.remove("bytes")
    return {f"c{number}": kind for number, kind in enumerate(kinds)}


def values_of(kind: str, n: int, random: np.random.Generator) -> Any:
    """Return n values of a kind, with many repeated."""
    whole = random.integers(0, 50, n)
    if kind == "bytes":
        return [b"x" * int(length) + b"%d" % length for length in whole]
    if kind == "S16":
        return np.array([b"%d" % number for number in whole], "S16")
    return whole.astype(kind)


@st.composite
def batches(draw: st.DrawFn, columns: dict[str, str]) -> list[tuple[int, int, Any, Any]]:
    """Batches to send: (slot, time, columns, times or None), in the order of time."""
    random = np.random.default_rng(draw(SEEDS))
    made = []
    time = 0
    for _ in range(draw(st.integers(1, 12))):
        time += draw(st.sampled_from((0, 0, 1, 7)))
        n = draw(st.sampled_from((0, 1, 2, 17, 300)))
        values = {name: values_of(kind, n, random) for name, kind in columns.items()}
        times = time + random.integers(0, 5, n) if draw(st.booleans()) else None
        made.append((draw(st.integers(0, 4)), time, values, times))
    return made


def expected_rows(sent: list[tuple[int, int, Any, Any]]) -> list[tuple[Any, ...]]:
    """Return what was sent as rows (time, values...)."""
    told = []
    for _, time, values, times in sent:
        plain = [v if isinstance(v, list) else v.tolist() for v in values.values()]
        stamps = [time] * len(plain[0]) if times is None else times.tolist()
        told += list(zip(stamps, *plain, strict=True))
    return told


def play(run: Run, sent: list[tuple[int, int, Any, Any]], watch: Any = lambda: None) -> None:
    """Send all batches, each from its slot and at its time, with steps in between."""
    slots = len(run.inputs)
    for slot, time, values, times in sent:
        for source in run.inputs:
            source.advance_to(max(time, source.time))
        run.send(values, slot % slots, times=times)
        for _ in range(slot):
            run.simulation.step()
            watch()


def through(shape: str) -> Any:
    """Return a dataflow and how often each record comes out of it, per slot if negative."""

    def parts(stream: Stream) -> Stream:
        first, *others = stream.partition(3, lambda b: np.arange(b.n) % 3)
        return first.concat(*others)

    def kept(stream: Stream) -> Stream:
        odd = stream.filter(lambda b: np.arange(b.n) % 2 == 1)
        return odd.concat(stream.filter(lambda b: np.arange(b.n) % 2 == 0))

    return {
        "pipeline": (lambda s: s.map(lambda b: b.columns()), 1),
        "copied": (lambda s: s.map(lambda b: b.own()), 1),
        "exchange": (lambda s: s.exchange("c0"), 1),
        "fnv": (lambda s: s.exchange("c0", hash="fnv"), 1),
        "function": (lambda s: s.exchange(lambda b: np.arange(b.n, dtype=np.uint64) << np.uint64(57)), 1),
        "broadcast": (lambda s: s.broadcast(), -1),
        "partition": (parts, 1),
        "filter": (kept, 1),
        "concat": (lambda s: s.concat(s, s.exchange("c0")), 3),
        "twice": (lambda s: s.exchange("c0").broadcast().exchange("c0"), -1),
    }[shape]


@given(st.data(), schemas(), st.sampled_from(sorted(["pipeline", "copied", "exchange", "fnv", "function", "broadcast",
       "partition", "filter", "concat", "twice"])), SLOTS, SEEDS, RINGS)  # fmt: skip
def test_every_record_that_goes_in_comes_out_with_its_time(
    data: st.DataObject, columns: dict[str, str], shape: str, slots: int, seed: int, ring_cells: int
) -> None:
    dataflow, times_out = through(shape)
    sent = data.draw(batches(columns))
    with Run(columns, dataflow, slots, seed, ring_cells=ring_cells, memory="16M") as run:
        play(run, sent)
        captured = run.finish()  # checks counts, queues and references too
        out = Counter(normal(row) for row in rows(captured))
    copies = times_out if times_out > 0 else slots
    expected = Counter(normal(row) for row in expected_rows(sent))
    assert out == Counter({row: count * copies for row, count in expected.items()})


def normal(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row with dates and numbers in one form."""
    return tuple(value if isinstance(value, bytes) else str(value) for value in row)


@given(st.data(), SLOTS, SEEDS)
def test_records_of_one_key_reach_one_worker(data: st.DataObject, slots: int, seed: int) -> None:
    kind = data.draw(st.sampled_from(DTYPES))
    columns = {"c0": kind}
    sent = data.draw(batches(columns))
    with Run(columns, lambda s: s.exchange("c0"), slots, seed) as run:
        play(run, sent)
        run.finish()
        owner: dict[Any, int] = {}
        for slot, capture in enumerate(run.captures):
            column = capture.result()["c0"]
            for key in column.tolist():
                assert owner.setdefault(str(key), slot) == slot


@given(st.data(), SLOTS, SEEDS, RINGS)
def test_a_frontier_never_falls_never_passes_a_record_and_reaches_the_end(
    data: st.DataObject, slots: int, seed: int, ring_cells: int
) -> None:
    sent = data.draw(batches({"c0": "u8"}))
    seen: dict[int, int] = {}

    def build(graph: Graph) -> Any:
        frontiers: list[int] = [0]

        def watch(source: FrontierInput, output: FrontierOutput, _: Any) -> None:
            assert source.frontier >= frontiers[-1], "a frontier fell"
            for batch in source:
                assert batch.time >= frontiers[-1], "a record came behind the frontier"
                assert batch.times is None or int(batch.times.min()) >= batch.time
                output.forward(batch)
            frontiers.append(source.frontier)

        source, stream = graph.input("source", {"c0": "u8"})
        probe = stream.exchange("c0").unary_frontier(watch).broadcast().probe()
        return source, probe

    with Simulation(build, slots, seed, ring_cells=ring_cells) as simulation:

        def check() -> None:
            for slot, (_, probe) in enumerate(simulation.handles):
                assert probe.frontier() >= seen.get(slot, 0)
                seen[slot] = probe.frontier()

        for slot, time, values, times in sent:
            for source, _ in simulation.handles:
                source.advance_to(max(time, source.time))
            while not simulation.handles[slot % slots][0].try_send(values, times=times):
                simulation.step()
            simulation.step()
            check()
        for source, _ in simulation.handles:
            source.close()
        while not simulation.done:
            simulation.step()
            check()
        assert all(probe.frontier() == 2**64 - 1 for _, probe in simulation.handles)
        assert_at_rest(simulation)
        assert references(simulation) == 0


@given(SLOTS, SEEDS, RINGS, st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40)), min_size=1, max_size=12))
def test_what_is_complete_is_counted_whole(
    slots: int, seed: int, ring_cells: int, rounds: list[tuple[int, int]]
) -> None:
    """A count per time and key is sent when the time is complete, and then it is the whole count."""

    def count(stream: Stream) -> Stream:
        kept: dict[int, list[Any]] = {}

        def on_call(source: FrontierInput, output: FrontierOutput, notificator: Any) -> None:
            for batch in source:
                if batch.time not in kept:
                    notificator.notify_at(output.capability())
                kept.setdefault(batch.time, []).append(batch["n"])
            for time, _ in notificator:
                keys, counts = np.unique(np.concatenate(kept.pop(time)), return_counts=True)
                output.send({"n": keys, "count": counts})

        return stream.exchange("n").unary_frontier(on_call, columns={"n": "u8", "count": "u8"})

    expected: Counter[tuple[int, int]] = Counter()
    with Run({"n": "u8"}, count, slots, seed, ring_cells=ring_cells) as run:
        time = 0
        for number, (later, n) in enumerate(rounds):
            time += later
            for source in run.inputs:
                source.advance_to(time)
            run.send({"n": np.arange(n) % 7}, number % slots)
            expected.update((time, key % 7) for key in range(n))
            run.simulation.step()
        assert rows(run.finish()) == sorted((time, key, count) for (time, key), count in expected.items())


@given(SLOTS, SEEDS, st.integers(1, 9), st.lists(st.integers(0, 12), min_size=1, max_size=30))
def test_a_loop_ends_and_each_round_is_a_step_later(slots: int, seed: int, step: int, numbers: list[int]) -> None:
    def down(stream: Stream) -> Stream:
        handle, back = stream.graph.feedback(stream.schema, step)
        both = stream.concat(back).exchange("n")
        done, more = both.partition(2, lambda b: (b["n"] > 0).astype(int))
        handle.connect(more.map(lambda b: {"n": b["n"] - 1}))
        return done

    with Run({"n": "u8"}, down, slots, seed) as run:
        run.send({"n": numbers})
        assert rows(run.finish()) == sorted((n * step, 0) for n in numbers)


@given(SLOTS, SEEDS, st.integers(0, 200), st.booleans())
def test_views_kept_by_an_operator_read_the_same_at_the_end(slots: int, seed: int, every: int, timed: bool) -> None:
    kept: list[tuple[Batch, Any, list[bytes]]] = []

    def keep(batch: Batch) -> None:
        if batch.n % (every + 1) < 3:
            kept.append((batch, batch["n"].copy(), batch["word"].tolist()))

    with Run({"n": "u8", "word": "bytes"}, lambda s: s.exchange("n").inspect(keep), slots, seed, memory="16M") as run:
        for number in range(40):
            n = 50 + number
            words = BytesColumn.of([b"%d" % (number * 1000 + i) for i in range(n)])
            run.send({"n": np.arange(n), "word": words}, number % slots, times=np.arange(n) if timed else None)
            run.simulation.step()
        run.finish_without_references()
        for batch, numbers, words_then in kept:
            assert batch["n"].tolist() == numbers.tolist()
            assert batch["word"].tolist() == words_then
        kept.clear()
        batch = None  # type: ignore[assignment]
        assert references(run.simulation) == 0
