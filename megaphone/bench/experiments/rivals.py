"""The same keyed count and the same transport by what else there is, in turns with this engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import NOT_INSTALLED, START_SECONDS, Column, Experiment, Point, Size

if TYPE_CHECKING:
    from megaphone.bench.experiment import Figure, Report

_RIVALS: Final = ("engine", "numpy_ring", "queue", "iceoryx2", "mpi4py", "bytewax", "plain")
_SECONDS: Final[dict[Size, float]] = {"smoke": 0.5, "full": 3.0}
_DOMAINS: Final[dict[Size, tuple[int, ...]]] = {"smoke": (100_000,), "full": (1_000_000, 10_000_000)}
_BATCHES: Final[dict[Size, tuple[int, ...]]] = {"smoke": (256 << 10,), "full": (64 << 10, 256 << 10)}
_MESSAGES: Final[dict[Size, tuple[int, ...]]] = {"smoke": (64 << 10,), "full": (64 << 10, 1 << 20)}


def _points(size: Size) -> list[Point]:
    seconds = _SECONDS[size]

    def point(job: str, rival: str, batch: int, domain: int) -> Point:
        of: dict[str, str | int] = {"job": job, "keys": domain, "batch_kib": batch >> 10, "rival": rival}
        flags = ("--job", job, "--domain", str(domain), "--batch-bytes", str(batch), "--seconds", f"{seconds:g}")
        return Point(of, f"megaphone.bench.rivals.{rival}", flags, seconds + 2 * START_SECONDS)

    counts = [("count", batch, domain) for domain in _DOMAINS[size] for batch in _BATCHES[size]]
    transports = [("transport", batch, 1_000_000) for batch in _MESSAGES[size]]
    return [point(job, rival, batch, domain) for job, batch, domain in [*counts, *transports] for rival in _RIVALS]


def _figures(report: Report) -> dict[str, Figure]:
    rate, gb = report.get("records_per_s"), report.get("gb_per_s")
    return {
        "rate_m_s": None if rate is None else rate / 1e6,
        "sent_gb_s": gb,
        "one_way_us_p50": report.get("one_way_us_p50"),
        "one_way_us_p99": report.get("one_way_us_p99"),
        "installed": "yes" if report["installed"] else NOT_INSTALLED,
    }


RIVALS: Final = Experiment(
    name="rivals",
    shows="the same keyed count and transport by hand and by others: a rival that is missing counts as not installed",
    after="what a user of Python has instead",
    points=_points,
    figures=_figures,
    columns=(
        Column("rate_m_s", "M records/s", 1, better="more"), Column("sent_gb_s", "GB/s", better="more"),
        Column("one_way_us_p50", "p50 us", 1, better="less"),
        Column("one_way_us_p99", "p99 us", 1, better="less"), Column("installed", "installed"),
    ),
    beside={"rate_m_s": "increments_80mb_prefetch_m_s_2", "sent_gb_s": "copy_256m_gb_s_2"},
    repeat={"smoke": 1, "full": 5},
)  # fmt: skip
