"""The driver's stamps, on a clock that moves where the test says: a step takes time, and ends with its effect."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from megaphone._core import lib
from megaphone.dataflow.graph import Graph
from megaphone.migration import plan
from megaphone.migration.plan import load_plan, round_trip
from megaphone.observe.switch import Switch
from megaphone.shm.counters import read_counters
from megaphone.state.stores import HashTable
from megaphone.testing import Simulation
from megaphone.workloads import driver
from megaphone.workloads.driver import Driver, Measured, switch_covers, switch_times

STEP_NS = 70_000
RATE = 20_000.0
DURATION_NS = 20_000_000


class Clock:
    """Stands in for the core in the driver: its clock is ours, all else is the core's."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def mp_now_ns(self) -> int:
        self.now_ns += 1  # reading a clock takes time too
        return self.now_ns


@dataclass
class Samples:
    """What the driver records, in order: (end, due of the first record, distance, records)."""

    window_ns: int = 1
    seen: list[tuple[int, int, int, int]] = field(default_factory=list)

    def record_schedule(self, now_ns: int, first_ns: int, step_ns: int, count: int) -> None:
        self.seen.append((now_ns, first_ns, step_ns, count))

    def to_array(self) -> None:
        return None


class World:
    """A count on one worker whose steps take STEP_NS, at the end of which their effect is there.

    Attributes:
        sent: (batch time, records) in the order of sending.
        complete: batch time to the moment at which the probe was first beyond it.
        parks: (moment, longest rest) while there is input.
    """

    def __init__(self, clock: Clock, lead: int = 1) -> None:
        def build(graph: Graph) -> Any:
            words, stream = graph.input("words", {"k": "u8"})
            control = graph.control(words, lead=lead)
            counts = stream.stateful_unary(
                key="k", state=HashTable("u8", {"n": "u8"}), fold=lambda _: None, columns={"k": "u8"},
                control=control, bin_shift=2,
            )  # fmt: skip
            return words, control, counts.probe()

        self.clock = clock
        self.simulation = Simulation(build, slots=1, late=False)
        self.worker = self.simulation.workers[0]
        self.words, self.control, self.probe = self.simulation.handles[0]
        self.sent: list[tuple[int, int]] = []
        self.complete: dict[int, int] = {}
        self.steps = 0
        self.parks: list[tuple[int, int]] = []
        self.exhausted = False
        self.position = None

    def __getattr__(self, name: str) -> Any:  # all else that a driver asks its worker
        return getattr(self.worker, name)

    def step(self) -> bool:
        self.clock.now_ns += STEP_NS
        self.steps += 1
        if self.steps % 3:
            # Told what time it is, and not yet what is in it: as when its operators wait for room.
            self.worker.commit()
            active = True
        else:
            active = self.worker.step()
        frontier = self.probe.frontier()
        for time in [*dict.fromkeys(time for time, _ in self.sent), *self.control_times()]:
            if time < frontier:
                self.complete.setdefault(time, self.clock.now_ns)
        return active

    def control_times(self) -> list[int]:
        return [self.control.sent_time] if self.control.sent_time else []

    def park(self, timeout_ns: int) -> None:
        if not self.words.closed:
            self.parks.append((self.clock.now_ns, timeout_ns))
        self.clock.now_ns += min(timeout_ns, 10_000)

    def send(self, records: int) -> int:
        """Be the source, too."""
        self.words.send({"k": np.arange(records)})
        self.sent.append((self.words.time, records))
        return records


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    clock = Clock()
    monkeypatch.setattr(driver, "lib", clock)
    monkeypatch.setattr(driver, "start_together", lambda _: clock.now_ns)
    monkeypatch.setattr(driver, "_cores", lambda: 64)
    made = World(clock, getattr(request, "param", 1))
    yield made
    made.simulation.close()


def drive(world: World, **options: Any) -> tuple[Measured, list[tuple[int, int, int, int]]]:
    """Run an open loop; returns what it brings home, and its samples."""
    made: Any = world  # worker and source in one
    loop = Driver(made, world.words, world.probe, made, rate=RATE, duration_ns=DURATION_NS, **options)
    samples: Any = Samples()
    loop.timeline = samples
    return loop.run(), samples.seen


def test_the_longest_pause_of_growth_counts_from_the_start_of_the_timed_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes its first memory before that, while no record is due; if it is late, some are."""
    monkeypatch.setattr(gc, "freeze", lambda: None)  # these objects are not to stay
    with Simulation(lambda graph: graph.input("words", {"k": "u8"})[0], slots=2) as simulation:
        early, late = simulation.workers
        control = early.memory.control

        def longest(worker: Any) -> int:
            return read_counters(control, worker.index)["grow_pause_max_ns"]

        began = int(lib.mp_now_ns())
        for worker in (early, late):
            lib.mp_pause_count(worker.slot, began - 10**9)
            assert longest(worker) >= 10**9  # a run without a timed part is timed as a whole
        origin = driver.start_together(early)
        assert longest(early) == 0
        lib.mp_pause_count(late.slot, origin - 10**9)  # it ends after the zero, and only that part counts
        assert 0 < longest(late) < 10**9
        counted = longest(late)
        assert driver.start_together(late) == origin
        assert longest(late) == counted


def test_no_sample_ends_before_its_batch_is_complete(world: World) -> None:
    origin = world.clock.now_ns
    measured, samples = drive(world)
    assert measured.records == sum(count for *_, count in samples) == DURATION_NS * RATE // 10**9
    assert len(samples) == len(world.sent) > 100
    for (end, *_), (time, _) in zip(samples, world.sent, strict=True):
        assert end + origin >= world.complete[time]


def test_latency_runs_from_the_time_at_which_a_record_was_due_and_not_from_when_it_was_sent(world: World) -> None:
    """A stall delays the sending, and that delay is part of what a user waits."""
    _, samples = drive(world)
    step_ns = round(1e9 / RATE)
    assert [first for _, first, *_ in samples] == [
        1 + step_ns * sum(count for *_, count in samples[:index]) for index in range(len(samples))
    ]
    assert {distance for _, _, distance, _ in samples} == {step_ns}


def test_what_is_due_around_a_switch_is_what_the_timeline_has_of_that_time(world: World) -> None:
    at = DURATION_NS // 3
    measured, samples = drive(world, switches_ns=[at])
    expected = Switch(at)
    for sample in samples:
        expected.record_schedule(*sample)
    ((time_ns, words),) = measured.switches
    assert time_ns == at
    assert expected.latency() == Switch(at, words).latency() is not None


def test_the_second_after_a_switch_is_that_of_the_plan_and_the_same_where_nothing_moves(tmp_path: Path) -> None:
    initial, target = [0, 1, 0, 1], [1, 1, 0, 0]
    plans = {name: round_trip(name, initial, target, 6_000) for name in ("none", "sudden", "fluid")}
    assert {name: switch_times(plan, 6_000) for name, plan in plans.items()} == dict.fromkeys(plans, [2_000, 4_000])
    path = tmp_path / "plan.txt"
    path.write_text("".join(f"D {time} 0 {time % 2}\n" for time in range(1, 100)))
    assert switch_times(load_plan(path, 4, 2), 6_000) == list(range(1, 17))


def test_a_switch_has_the_time_to_the_next_one_or_to_the_end_of_the_run(tmp_path: Path) -> None:
    def covers(text: str, seconds: float) -> list[float]:
        path = tmp_path / "plan.txt"
        path.write_text(text)
        plan = load_plan(path, 4, 2)
        told = switch_covers(plan, round(seconds * 1e9))
        assert len(told) == len(switch_times(plan, round(seconds * 1e9)))
        return [round(one / 1e9, 3) for one in told]

    every = "".join(f"D {time}00000000 0 {time % 2}\n" for time in range(10, 60, 3))
    assert covers(every, 60) == [0.3] * 16  # the 17th is not told, and yet ends the 16th
    assert covers("D 1000000000 0 1\nD 2000000000 0 0\nD 2600000000 1 1\n", 3) == [1, 0.6, 0.4]
    assert covers("D 1000000000 0 1\nD 7000000000 0 0\n", 3) == [1, 0]
    assert switch_covers(round_trip("none", [0, 1], [1, 0], 6 * 10**9), 6 * 10**9) == [10**9] * 2
    assert switch_covers(round_trip("sudden", [0, 1], [1, 0], 9 * 10**8), 9 * 10**8) == [3 * 10**8] * 2


def test_a_migration_is_not_over_before_the_probe_has_passed_its_last_step(world: World) -> None:
    origin = world.clock.now_ns
    steps = plan.sudden(np.zeros(4, np.int64), np.zeros(4, np.int64), 5_000_000)
    measured, _ = drive(world, plan=steps, control=world.control)
    complete = world.complete[world.control.sent_time]
    assert [note.completed_ns + origin >= complete for note in measured.migrations] == [True]
    (note,) = measured.migrations
    # Its lead is what lies between the moment at which it was sent and the time at which it takes effect.
    assert note.lead_ns is not None
    assert note.sent_ns + note.lead_ns == world.control.sent_time - 1 <= note.completed_ns


@pytest.mark.parametrize("world", [1, STEP_NS, 3 * STEP_NS, 1_000_000], indirect=True)
def test_a_migration_takes_effect_after_it_was_sent_and_before_it_is_over(world: World, tmp_path: Path) -> None:
    """Also where a step of the worker takes longer than control is ahead: what is left is the hand-over's own time."""
    path = tmp_path / "plan"
    path.write_text("".join(f"D {time} {bin_id} 0\n" for time in (5_000_000, 13_000_000) for bin_id in range(4)))
    measured, _ = drive(world, plan=load_plan(path, 4, 1), control=world.control)
    assert [note.steps for note in measured.migrations] == [4, 4]
    for note in measured.migrations:
        assert note.lead_ns is not None
        assert 0 <= note.lead_ns <= note.completed_ns - note.sent_ns


class SlowProbe:
    """Shows the end of the records for a while longer than it is true."""

    def __init__(self, world: World, until_ns: int) -> None:
        self._world, self._until_ns = world, until_ns

    def frontier(self) -> int:
        frontier = int(self._world.probe.frontier())
        return min(frontier, DURATION_NS) if self._world.clock.now_ns < self._until_ns else frontier


def test_a_step_that_outlasts_the_records_of_a_closed_loop_waits_for_no_long_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time passes only as the driver says: where a step waits for nothing else, nobody else would wake it."""
    monkeypatch.setattr(driver, "TICK_NS", 2_000_000)  # many steps, so that some have nothing to do
    origin = world.clock.now_ns
    made: Any = world
    loop = Driver(
        made, world.words, SlowProbe(world, origin + 3 * DURATION_NS), made, rate=None, duration_ns=DURATION_NS,
        plan=plan.sudden(np.zeros(4, np.int64), np.zeros(4, np.int64), DURATION_NS - 1), control=world.control,
    )  # fmt: skip
    assert len(loop.run().migrations) == 1
    late = [rest for moment, rest in world.parks if moment - origin > DURATION_NS]
    assert late
    assert max(late) <= driver.TICK_NS


class Warmed:
    """A warmer of 2 GiB that are due at 4 s, with what it asked of the core."""

    WHOLE = 2 << 30
    AT_NS = 4_000_000_000

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mapped, self.budgets = 0, list[int]()

        def warm(*given: Any) -> int:
            budget: int = given[-1]
            piece = min(budget, self.WHOLE - self.mapped)
            self.budgets.append(budget)
            self.mapped += piece
            return piece

        monkeypatch.setattr(driver, "lib", SimpleNamespace(mp_warm_bytes=lambda *_: self.WHOLE, mp_warm=warm))
        path = tmp_path / "plan"
        path.write_text(f"D {self.AT_NS} 0 1\nD {self.AT_NS} 2 1\n")
        self.warmer = driver.Warmer(SimpleNamespace(slot=None), None, load_plan(path, 4, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [300, 1_000, 40_000])
def test_pages_are_warm_before_the_switch_however_few_steps_there_are(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed = Warmed(tmp_path, monkeypatch)
    for step in range(steps):
        warmed.warmer.step(warmed.AT_NS * step // steps)
        if step < steps // 2:
            assert not warmed.mapped
    assert warmed.mapped == warmed.WHOLE
    # A piece is what the time since the last one asks for, and never less than what is worth a call.
    assert min(warmed.budgets) >= driver.WARM_BYTES
    assert max(warmed.budgets) <= max(driver.WARM_BYTES, 1.6 * warmed.WHOLE * 2 / steps / driver.WARM_SHARE)


@pytest.mark.parametrize("away_ms", [(), (2_001, 3_500), (2_001, 3_980), (0, 3_980)])
def test_no_piece_of_warming_keeps_a_worker_from_its_work_however_long_it_was_away(
    away_ms: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pieces it receives, sends and looks for the end of the run; the steps that follow catch up."""
    warmed = Warmed(tmp_path, monkeypatch)
    for at_ms in range(4_000):
        if not (away_ms and away_ms[0] <= at_ms < away_ms[1]):
            warmed.warmer.step(at_ms * 1_000_000)
    assert max(warmed.budgets) <= 16 << 20
    if 3_980 not in away_ms:
        assert warmed.mapped == warmed.WHOLE
    else:  # no time for all of it: as much as the steps until the switch may
        assert warmed.mapped >= 19 * driver.WARM_BYTES_MAX == 19 * (16 << 20)
    asked = len(warmed.budgets)
    warmed.warmer.step(warmed.AT_NS)
    assert len(warmed.budgets) == asked
