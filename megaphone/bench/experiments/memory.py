"""Memory over time while state moves: what the kernel says (PSS), and what the regions account for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Point, Size
from megaphone.bench.experiments import reports

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_SECONDS: Final[dict[Size, float]] = {"smoke": 1.5, "full": 18.0}
_DOMAIN: Final[dict[Size, int]] = {"smoke": 100_000, "full": 100_000_000}
# Four times a second: several before, in and after each migration, for the kernel's count to be seen beside our own.
_PSS_SECONDS: Final = 0.25
_RATE: Final[dict[Size, int]] = {"smoke": 100_000, "full": 1_000_000}


def _points(size: Size) -> list[Point]:
    return [
        reports.word_count(
            {"strategy": strategy, "transfer": transfer}, _SECONDS[size],
            "--migration", strategy, "--transfer", transfer, "--pss-interval", f"{_PSS_SECONDS:g}",
            domain=_DOMAIN[size], rate=_RATE[size],
        )
        for transfer in ("handover", "copy")
        for strategy in ("sudden", "fluid", "batched")
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    samples = report["memory"]["samples"]
    before = [sample for sample in samples if sample[0] < report["migrations"][0]["time_ns"]]
    state = [sample[3] for sample in samples]
    pss_before = [sample[1] for sample in before if sample[1] is not None]
    pss_after = [sample[1] for sample in samples if sample[1] is not None and sample[0] > _end_ns(report)]
    return {
        **reports.rate_and_latency(report),
        **reports.last_migration(report),
        "state_mb_before": before[-1][3] / 1e6 if before else None,
        "state_mb_max": max(state) / 1e6,
        "committed_mb_before": before[-1][2] / 1e6 if before else None,
        "pss_mb_before": pss_before[-1] / 1e6 if pss_before else None,
        "pss_mb_after": pss_after[0] / 1e6 if pss_after else None,
    }


def _end_ns(report: Report) -> int:
    """Return when the last migration was over."""
    return max(int(moved["time_ns"] + moved["duration_ns"]) for moved in report["migrations"])


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
        Column("committed_mb", "at the end MB", 1, better="less"),
        Column("pss_mb_before", "PSS before MB", 1, better="less"),
        Column("pss_mb_after", "PSS after MB", 1, better="less"), Column("pss_mb", "PSS at most MB", 1, better="less"),
    ),
    series=reports.memory,
    beside={"copied_gb_s": "copy_256m_gb_s_2"},
    repeat={"smoke": 1, "full": 1},
)  # fmt: skip
