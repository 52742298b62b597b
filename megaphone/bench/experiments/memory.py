"""Memory over time while state moves: what the kernel says (PSS), and what the regions account for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Point, Size
from megaphone.bench.experiments import reports

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_SECONDS: Final[dict[Size, float]] = {"smoke": 1.5, "full": 12.0}
_DOMAIN: Final[dict[Size, int]] = {"smoke": 100_000, "full": 100_000_000}
_RATE: Final[dict[Size, int]] = {"smoke": 100_000, "full": 1_000_000}


def _points(size: Size) -> list[Point]:
    return [
        reports.word_count(
            {"strategy": strategy, "transfer": transfer}, _SECONDS[size],
            "--migration", strategy, "--transfer", transfer, domain=_DOMAIN[size], rate=_RATE[size],
        )
        for transfer in ("handover", "copy")
        for strategy in ("sudden", "fluid", "batched")
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    samples = report["memory"]["samples"]
    before = [sample for sample in samples if sample[0] < report["migrations"][0]["time_ns"]]
    state = [sample[3] for sample in samples]
    return {
        **reports.rate_and_latency(report),
        **reports.last_migration(report),
        "state_mb_before": before[-1][3] / 1e6 if before else None,
        "state_mb_max": max(state) / 1e6,
        "committed_mb_before": before[-1][2] / 1e6 if before else None,
    }


MEMORY: Final = Experiment(
    name="memory",
    shows="memory over time by strategy, as PSS and as the regions' own accounts",
    after="Figure 20",
    points=_points,
    figures=_figures,
    columns=(
        Column("moved_mb", "MB moved", 1), Column("state_mb_before", "state before MB", 1, better="less"),
        Column("state_mb_max", "at most MB", 1, better="less"),
        Column("committed_mb_before", "committed before MB", 1, better="less"),
        Column("committed_mb", "at the end MB", 1, better="less"), Column("pss_mb", "PSS at most MB", 1, better="less"),
    ),
    series=reports.memory,
    beside={"copied_gb_s": "copy_256m_gb_s_2"},
    repeat={"smoke": 1, "full": 1},
)  # fmt: skip
