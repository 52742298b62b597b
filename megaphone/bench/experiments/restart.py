"""Time without output over the size of the state: stop and start again, against moving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import START_SECONDS, Column, Experiment, Point, Size

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_KEYS: Final[dict[Size, tuple[int, ...]]] = {"smoke": (100_000,), "full": (100_000, 1_000_000, 10_000_000, 100_000_000)}
_SECONDS: Final[dict[Size, float]] = {"smoke": 1.0, "full": 3.0}


def _points(size: Size) -> list[Point]:
    return [
        Point(
            {"keys": keys, "how": how}, "megaphone.bench.restart",
            ("--how", how, "--keys", str(keys), "--seconds", f"{_SECONDS[size]:g}"),
            _SECONDS[size] + 2 * START_SECONDS + keys / 5e6, keys * 60, paced=True,
        )
        for keys in _KEYS[size]
        for how in ("migrate", "restart")
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    return {"without_output_ms": report["without_output_ms"]}


RESTART: Final = Experiment(
    name="restart",
    shows="time without output over the size of the state: stop and start again, against moving",
    after="what users do today",
    points=_points,
    figures=_figures,
    columns=(Column("without_output_ms", "ms without output", better="less"),),
    recorded=("copy_256m_gb_s_2",),
)
