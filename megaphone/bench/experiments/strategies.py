"""How long a migration takes and how high latency gets in it, by strategy, number of bins, and amount of state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Point, Size
from megaphone.bench.experiments.reports import LATENCY, last_migration, rate_and_latency, word_count

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_STRATEGIES: Final = ("sudden", "fluid", "batched")
_TRANSFERS: Final = ("handover", "copy")
_SECONDS: Final[dict[Size, float]] = {"smoke": 1.5, "full": 6.0}
_RATE: Final[dict[Size, int]] = {"smoke": 100_000, "full": 2_000_000}
_DOMAIN_SHIFT: Final[dict[Size, int]] = {"smoke": 16, "full": 24}

Variant = tuple[str, int, int]


def _variants(size: Size) -> list[Variant]:
    """Return (what varies, log2 of the bins, log2 of the keys)."""
    middle = _DOMAIN_SHIFT[size]
    if size == "smoke":
        return [("bins", 6, middle)]
    by_bins = [("bins", shift, middle) for shift in (4, 6, 8, 10, 12, 14)]
    by_domain = [("keys", 10, shift) for shift in (20, 22, 24, 26)]
    # 2^16 keys in each bin.
    both = [("both", shift - 16, shift) for shift in (20, 22, 24, 26)]
    return by_bins + by_domain + both


def _points(size: Size) -> list[Point]:
    return [
        word_count(
            {"varies": varies, "bins": f"2^{bins}", "keys": f"2^{keys}", "strategy": strategy, "transfer": transfer},
            _SECONDS[size],
            "--migration", strategy, "--transfer", transfer, "--bin-shift", str(bins),
            domain=1 << keys, rate=_RATE[size],
        )
        for varies, bins, keys in _variants(size)
        for transfer in _TRANSFERS
        for strategy in _STRATEGIES
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    return {**rate_and_latency(report), **last_migration(report)}


STRATEGIES: Final = Experiment(
    name="strategies",
    shows="duration of a migration against the latency in it: all at once, fluid, batched; by hand-over and by copying",
    after="Figures 16 to 18",
    points=_points,
    figures=_figures,
    columns=(
        Column("migration_ms", "took ms", better="less"), Column("migration_max_ms", "max in it ms", 3, better="less"),
        Column("moved_m_keys", "M keys moved", 3), Column("copied_mb", "MB copied", better="less"), *LATENCY[:2],
    ),
    beside={"copied_gb_s": "copy_256m_gb_s_2"},
    repeat={"smoke": 1, "full": 1},
)  # fmt: skip
