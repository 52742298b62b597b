"""Results of plausible shape for each experiment, made of its points and of nothing measured; the same every time.

Figures follow what each experiment is about (latency grows with bins, all at once is the highest), so that a chart of
them can be judged by eye, and none of them is a claim.
"""

from __future__ import annotations

import math
import random
import shlex
from typing import TYPE_CHECKING, Any

from megaphone.bench.catalog import EXPERIMENTS
from megaphone.bench.experiments.nexmark import ORIGINAL_FLEX_HALF_P99_MS, ORIGINAL_FLEX_M_S
from megaphone.bench.plot import DRAWINGS
from megaphone.bench.results import FORMAT, Result

if TYPE_CHECKING:
    from pathlib import Path

    from megaphone.bench.experiment import Experiment, Point, Size

WINDOW_SECONDS = 0.25
YARDSTICK = {"increments_80mb_prefetch_m_s_2": 130.0, "futex_wake_us_p50": 9.0, "copy_256m_gb_s_2": 11.0}
MACHINE_FIGURES = {
    "copy_1m_gb_s_1": 21.0, "copy_1m_gb_s_2": 40.0, "copy_256m_gb_s_1": 7.1, "copy_256m_gb_s_2": 11.0,
    "increments_8mb_m_s_1": 210.0, "increments_8mb_m_s_2": 400.0, "increments_80mb_m_s_1": 41.0,
    "increments_80mb_m_s_2": 77.0, "increments_80mb_prefetch_m_s_1": 70.0, "increments_80mb_prefetch_m_s_2": 130.0,
    "ring_m_records_s": 420.0, "hop_ns": 62.0, "held_up_ms_p99": 0.07, "held_up_ms_p999": 1.2,
    "futex_wake_us_p50": 9.0, "futex_wake_us_p99": 31.0,
    "first_touch_us_per_page_1": 0.45, "first_touch_us_per_page_2": 0.6,
}  # fmt: skip
# Highest latency in a migration and its length, in ms, for 2^24 keys in 2^10 bins, by (transfer, strategy).
MOVES = {
    ("handover", "sudden"): (0.9, 0.2), ("handover", "fluid"): (0.5, 60.0), ("handover", "batched"): (0.6, 12.0),
    ("copy", "sudden"): (160.0, 150.0), ("copy", "fluid"): (1.5, 420.0), ("copy", "batched"): (2.0, 220.0),
}  # fmt: skip


def result(name: str, size: Size = "full", repeat: int | None = None) -> Result:
    """Return a whole result of an experiment."""
    experiment = EXPERIMENTS[name]
    rounds = experiment.repeat[size] if repeat is None else repeat
    asked = "" if repeat is None else f" --repeat {repeat}"
    head = {
        "format": FORMAT, "experiment": name, "size": size, "seed": 0, "version": "0.1.0", "commit": "0123456789ab",
        "command": f"megaphone bench run {name} --size {size}{asked} --seed 0", "tree": "0" * 16,
        "machine": {"cpu": "A Processor With 2 Cores", "cores": 2, "cores_usable": 2, "memory_bytes": 25 * 10**9,
                    "kernel": "Linux 6.1", "python": "CPython 3.11.7"},
        "packages": {},
    }  # fmt: skip
    rows = [
        _row(experiment, point, turn)
        for turn in range(rounds)
        for point in experiment.points(size)
        if turn < experiment.rounds(point, size, repeat)
    ]
    return Result(head, rows)


def folder(path: Path, size: Size = "full") -> Path:
    """Write a result of every experiment that has a chart into a folder."""
    for name in DRAWINGS:
        result(name, size).write(path / f"{name}.json")
    return path


def _row(experiment: Experiment, point: Point, turn: int) -> dict[str, Any]:
    rng = random.Random(f"{experiment.name} {point.name} {turn}")
    figures, series = _of(experiment.name, dict(point.parameters), _rate_m(point), _length(point), rng)
    return {
        "point": dict(point.parameters), "repeat": turn, "started": "2025-01-31T12:00:00+00:00",
        "paced": point.paced,
        "seconds": point.seconds, "command": shlex.join(["python", "-m", point.module, *point.flags, "--seed", "0"]),
        "figures": figures, "series": series,
        "yardstick": {name: YARDSTICK.get(name, 1.0) for name in experiment.yardsticks},
    }  # fmt: skip


def _of(
    name: str, of: dict[str, Any], rate_m: float | None, length: float, rng: random.Random
) -> tuple[dict[str, float | str | None], dict[str, list[list[float]]]]:
    """Return figures and series of a point."""
    noise = math.exp(rng.gauss(0, 0.1))
    if name == "machine":
        return {figure: value * noise for figure, value in MACHINE_FIGURES.items()}, {}
    if name == "nexmark":
        number = int(of["query"][1:])
        highest = (9.0 - 0.8 * number) * (0.8 if of["style"] == "flex" else 1.0) * noise
        low = 0.4 * (1 + number / 4) * noise
        compared = of["style"] == "flex" and of["windows"] == "12h"
        return {"closed_m_s": highest * 1.2, "highest_m_s": highest, "half_p50_ms": low, "half_p99_ms": 5 * low,
                "half_max_ms": 20 * low,
                "rate_over_original": highest / ORIGINAL_FLEX_M_S[of["query"]] if compared else None,
                "p99_over_original": 5 * low / ORIGINAL_FLEX_HALF_P99_MS[of["query"]] if compared else None,
                }, {}  # fmt: skip
    if name == "ledger":
        copies = 0.0 if of["way"] == "keep" else 1.0
        return {"rate_m_s": 200 * noise / of["columns"], "cpu_ns_per_record": 8 * noise, "copies_per_record": copies,
                "fresh_per_k_batches": 0.1, "recycled_per_k_batches": 990.0, "faults_per_m_records": 12 * noise,
                "pinned_mb_max": 4.0, "copies_ns_per_record": 3.3 * copies, "scatter_ns_per_record": 3.3 * copies,
                "own_ns_per_record": 0.0, "ingest_ns_per_record": 0.0, "allocation_ns_per_record": 0.4,
                "system_ns_per_record": 0.5 * noise, "faults_ns_estimated": 0.4 * noise}, {}  # fmt: skip
    if name == "rivals":
        if of["rival"] == "bytewax":
            return {**dict.fromkeys(("rate_m_s", "sent_gb_s", "one_way_us_p50", "one_way_us_p99")),
                    "installed": "not installed"}, {}  # fmt: skip
        by = 1.0 if of["rival"] == "engine" else 0.3
        return {"rate_m_s": 60 * noise * by, "sent_gb_s": 5 * noise * by, "one_way_us_p50": 20 * noise / by,
                "one_way_us_p99": 60 * noise / by, "installed": "yes"}, {}  # fmt: skip
    if name == "restart":
        return {"without_output_ms": noise * (0.5 if of["how"] == "migrate" else 300 + of["keys"] / 1e4)}, {}
    if of.get("mark") == "empty time":
        return {"empty_us": noise * (9.0 if of["workers"] == 1 else 45.0), "empty_p99_us": 80 * noise}, {}
    base = 0.1 * noise * (1 + (rate_m or 0) / 20)
    if "bins" in of and of["bins"] != "native":
        base *= 1 + 2.0 ** (int(of["bins"][2:]) - 13)
    rate = 60.0 * noise if rate_m is None else min(rate_m, 40.0)
    figures: dict[str, float | str | None] = {}
    figures |= _latency(base if rate_m is None or rate_m < 40 else 800 * base)
    figures |= {"rate_m_s": rate, "copies_per_record": 1.0, "pss_mb": 900.0, "committed_mb": 850.0,
                "fresh_after_warmup": 0, "grow_pause_ms": 0.3 * noise if "inserting" in of.get("mark", "") else None,
                }  # fmt: skip
    if rate_m is None:
        figures |= dict.fromkeys(("p50_ms", "p99_ms", "p999_ms", "max_ms"))
    strategy = of.get("strategy", "sudden" if of.get("mark") in ("hand-over", "copy") else "none")
    moves: list[list[float]] = []
    highest, took = 0.0, 0.0
    if strategy in ("sudden", "fluid", "batched"):
        transfer = of.get("transfer", of["mark"].replace("-", "") if "mark" in of else "handover")
        highest, took = (value * noise for value in MOVES[transfer, strategy])
        if "varies" in of:
            highest, took = _scaled(of, highest, took)
        figures["handover_ms"] = 0.05 * noise if strategy == "sudden" else None
        figures |= {"migration_ms": took, "migration_max_ms": highest, "warming_ms": 4.0, "moved_m_keys": 2.5,
                    "moved_mb": 20.0, "copied_mb": 20.0 if transfer == "copy" else 0.0,
                    "moved_m_keys_s": 2.5 / took * 1e3}  # fmt: skip
        figures["max_ms"] = max(30 * base, highest)
        moves = [[start, start + took / 1e3] for start in (length / 3, 2 * length / 3)]
    if name == "memory":
        return figures, _memory(length, moves, of["transfer"] == "copy", strategy)
    series: dict[str, list[list[float]]] = {}
    if name in ("timeline", "headline"):
        series = {"timeline": [] if rate_m is None else _timeline(length, moves, base, highest, rng),
                  "migrations": moves}  # fmt: skip
    if name == "headline":
        slices = [] if rate_m is None else _slices(base, bool(moves), rng)
        series["slices"] = slices
        second = [row[2] for row in slices if row[0] >= 0]
        figures |= {"second_p99_ms": sum(second) / len(second) if second else None,
                    "second_max_ms": max((row[3] for row in slices), default=None),
                    "worst_10ms_p99_ms": max(second, default=None)}  # fmt: skip
    return figures, series


def _scaled(of: dict[str, Any], highest: float, took: float) -> tuple[float, float]:
    """Return the figures of another number of keys and bins, as the paper found them."""
    keys = 2.0 ** (int(of["keys"][2:]) - 24)
    bins = 2.0 ** (int(of["bins"][2:]) - 10)
    if of["transfer"] == "handover":
        return highest, took * (1.0 if of["strategy"] == "sudden" else bins)
    return 0.5 + highest * keys / (1.0 if of["strategy"] == "sudden" else bins), took * keys


def _latency(base: float) -> dict[str, float | None]:
    return {"p50_ms": base, "p90_ms": 2 * base, "p99_ms": 5 * base, "p999_ms": 12 * base, "max_ms": 30 * base}


def _timeline(
    length: float, moves: list[list[float]], base: float, highest: float, rng: random.Random
) -> list[list[float]]:
    rows = []
    for number in range(int(length / WINDOW_SECONDS)):
        start = number * WINDOW_SECONDS
        scale = base * math.exp(rng.gauss(0, 0.15))
        row = [start, *(scale * by for by in (0.7, 1.0, 1.4, 3.0, 5.0, 12.0, 20.0))]
        if any(begin < start + WINDOW_SECONDS and end >= start for begin, end in moves):
            row[5:] = [max(value, highest * by) for value, by in zip(row[5:], (0.6, 0.9, 1.0), strict=True)]
        rows.append(row)
    return rows


def _slices(base: float, moving: bool, rng: random.Random) -> list[list[float]]:
    """Return latency in slices of 10 ms around a switch, a little higher in the first 50 ms after one that moves."""
    rows = []
    for number in range(-25, 100):
        scale = base * math.exp(rng.gauss(0, 0.25)) * (1.6 if moving and 0 <= number < 5 else 1.0)
        rows.append([10.0 * number, *(scale * by for by in (1.0, 5.0, 14.0))])
    return rows


def _memory(length: float, moves: list[list[float]], copies: bool, strategy: str) -> dict[str, list[list[float]]]:
    accounts, pss = [], []
    for number in range(-2, int(length * 10)):
        at = number / 10
        state = 800.0 * min(1.0, (number + 3) / 3)
        moving = any(begin - 0.1 <= at <= end + 0.1 for begin, end in moves)
        extra = (200.0 if strategy == "sudden" else 15.0) if copies and moving else 0.0
        accounts.append([at, state + 120 + extra, state + extra, 4.0 + number % 3])
        if number % 3 == 0:
            pss.append([at, state + 210.0])
    return {"accounts": accounts, "pss": pss, "migrations": moves}


def _rate_m(point: Point) -> float | None:
    flags = list(point.flags)
    return float(flags[flags.index("--total-rate") + 1]) / 1e6 if "--total-rate" in flags else None


def _length(point: Point) -> float:
    flags = list(point.flags)
    return float(flags[flags.index("--duration") + 1]) if "--duration" in flags else 1.0
