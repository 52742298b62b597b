"""What experiments read of the reports of ``megaphone word-count``, ``nexmark`` and ``exchange``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.experiment import START_SECONDS, Column, Point, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from megaphone.bench.experiment import Report

NS_PER_MS: Final = 1e6
_QUANTILES: Final = ("p50", "p90", "p99", "p999", "max")
RATE: Final = Column("rate_m_s", "M records/s", better="more")
LATENCY: Final = (
    Column("p50_ms", "p50 ms", 3, better="less"), Column("p99_ms", "p99 ms", 3, better="less"),
    Column("p999_ms", "p99.9 ms", 3, better="less"),
    Column("max_ms", "max ms", 3, better="less"),
)  # fmt: skip
TIMELINE_COLUMNS: Final = ("start_s", "p25_ms", "p50_ms", "p75_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms")
SLICE_COLUMNS: Final = ("start_ms", "p50_ms", "p99_ms", "max_ms")
KEY_BYTES: Final = {"vec": 8, "vecnative": 8, "hashmap": 40, "hashmapnative": 40}
"""About what a key takes, the growth of a table included; only to tell which points fit into memory."""

FILLED_PER_S: Final = {"vec": 2e8, "hashmap": 2e7}
"""Keys/s that two workers put into the state before the clock starts; for the time left."""


_TAKES: Final = {"--no-preload", "copy"}
"""Flags with which a run takes memory while it is measured: tables that grow, and state that is copied."""


def word_count(
    parameters: Mapping[str, Value], seconds: float, *flags: str, backend: str = "vec", domain: int, rate: int | None
) -> Point:
    """Return a point of ``megaphone word-count`` with two workers, or as many as the flags say.

    Args:
        parameters: of the point.
        seconds: of the run.
        flags: further ones.
        backend: of the counts.
        domain: keys.
        rate: records/s over all workers; None: a closed loop.
    """
    filling = domain / FILLED_PER_S[backend.removesuffix("native")]
    offered = ("--rate", "max") if rate is None else ("--total-rate", str(rate))
    return Point(
        parameters, "megaphone",
        ("word-count", "--backend", backend, *(("--hash", "mix") if backend.startswith("hashmap") else ()), "--domain",
         str(domain), *offered, "--duration", f"{seconds:g}", *flags),
        seconds + START_SECONDS + filling, domain * KEY_BYTES[backend], paced=rate is not None,
        touched_bytes=2 * domain * KEY_BYTES[backend] if _TAKES.intersection(flags) else 0,
    )  # fmt: skip


def rate_and_latency(report: Report) -> dict[str, float | None]:
    """Return the rate, the latency after the warm-up, memory, and what was copied and allocated."""
    latency = report["latency_ns"]
    ledger = report["ledger"]
    return {
        "rate_m_s": report["records_per_s"] / 1e6,
        **{f"{name}_ms": latency[name] / NS_PER_MS if latency else None for name in _QUANTILES},
        "copies_per_record": ledger["copies_per_record"],
        "fresh_after_warmup": ledger["fresh_after_warmup"],
        "minor_faults": ledger["minor_faults"],
        "pss_mb": report["memory"]["pss_bytes_max"] / 1e6,
        "committed_mb": report["memory"]["committed_bytes"] / 1e6,
    }


def last_migration(report: Report) -> dict[str, float | None]:
    """Return what the last migration of a run moved and took; the original's reports tell the second of two as well."""
    if not report["migrations"]:
        return {}
    return migration(report["migrations"][-1])


def first_migration(report: Report) -> dict[str, float | None]:
    """Return what the first migration of a run moved and took."""
    return migration(report["migrations"][0]) if report["migrations"] else {}


def migration(moved: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what one migration of a report moved and took.

    It took from sending the first step to the probe's passing the last; the hand-over itself is the part of a single
    step after it takes effect.
    """
    single = moved["steps"] == 1 and moved["lead_ns"] is not None
    return {
        "handover_ms": (moved["duration_ns"] - moved["lead_ns"]) / NS_PER_MS if single else None,
        "migration_ms": moved["duration_ns"] / NS_PER_MS,
        "warming_ms": moved["warming_ns"] / NS_PER_MS,
        "migration_max_ms": None if moved["latency_ns_max"] is None else moved["latency_ns_max"] / NS_PER_MS,
        "moved_m_keys": moved["keys"] / 1e6,
        "moved_mb": moved["bytes_moved"] / 1e6,
        "copied_mb": moved["bytes_copied"] / 1e6,
        "copied_gb_s": moved["bytes_copied"] / moved["duration_ns"] if moved["bytes_copied"] else None,
    }


def first_switch(report: Report) -> dict[str, float | None]:
    """Return the latency of exactly the second after the first switch, and that of its worst 10 ms.

    The first migration is the one that brings bins to a worker that has never mapped their pages; the way back finds
    them mapped.  A run without migrations tells of the time at which it would have begun.
    """
    if not report["switches"] or report["switches"][0]["latency_ns"] is None:
        return {"second_p99_ms": None, "second_max_ms": None, "worst_10ms_p99_ms": None}
    first = report["switches"][0]
    return {
        "second_p99_ms": first["latency_ns"]["p99"] / NS_PER_MS,
        "second_max_ms": first["latency_ns"]["max"] / NS_PER_MS,
        "worst_10ms_p99_ms": first["worst_slice_ns"]["p99"] / NS_PER_MS,
    }


def switch_slices(report: Report) -> list[list[float]]:
    """Return latency around the first switch, by slice: its start in ms since the switch, then `SLICE_COLUMNS`."""
    return [
        [round((start - switch["time_ns"]) / NS_PER_MS, 3), *(round(value / NS_PER_MS, 4) for value in told)]
        for switch in report["switches"][:1]
        for start, *told in switch["slices"]
    ]


def timeline(report: Report) -> dict[str, list[list[float]]]:
    """Return the latency of each window, and when migrations began and ended, in s and ms."""
    rows = [[row[0] / 1e9, *(round(value / NS_PER_MS, 4) for value in row[1:])] for row in report["timeline"]]
    return {"timeline": rows, "migrations": moves(report)}


def memory(report: Report) -> dict[str, list[list[float]]]:
    """Return PSS where it was read, and the regions' accounts, in s and MB, and when migrations began and ended."""
    samples = report["memory"]["samples"]
    accounts = [[time_ns / 1e9, *(round(value / 1e6, 3) for value in told)] for time_ns, _, *told in samples]
    pss = [[time_ns / 1e9, pss_bytes / 1e6] for time_ns, pss_bytes, *_ in samples if pss_bytes is not None]
    return {"accounts": accounts, "pss": pss, "migrations": moves(report)}


def moves(report: Report) -> list[list[float]]:
    """Return when each migration began and ended, in s."""
    return [[m["time_ns"] / 1e9, (m["time_ns"] + m["duration_ns"]) / 1e9] for m in report["migrations"]]
