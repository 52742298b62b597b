"""What bins cost while nothing moves: latency over their number, and without any (native)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Experiment, Pair, Point, Size
from megaphone.bench.experiments.reports import LATENCY, RATE, rate_and_latency, word_count

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHIFTS: Final[dict[Size, Sequence[int]]] = {"smoke": (4, 12), "full": (4, 6, 8, 10, 12, 14, 16, 18, 20)}
_SECONDS: Final[dict[Size, float]] = {"smoke": 1.0, "full": 5.0}
_DOMAIN: Final[dict[Size, int]] = {"smoke": 100_000, "full": 10_000_000}
_RATE: Final[dict[Size, int]] = {"smoke": 200_000, "full": 4_000_000}
MANY_OVER_FEW: Final = Pair("p99_ms", {"bins": "2^16"}, {"bins": "2^8"})


def _points(size: Size) -> list[Point]:
    seconds, domain, rate = _SECONDS[size], _DOMAIN[size], _RATE[size]
    points = []
    for backend in ("vec", "hashmap"):
        for shift in _SHIFTS[size]:
            flags = ("--bin-shift", str(shift))
            of = {"backend": backend, "bins": f"2^{shift}"}
            points.append(word_count(of, seconds, *flags, backend=backend, domain=domain, rate=rate))
        of = {"backend": backend, "bins": "native"}
        points.append(word_count(of, seconds, backend=f"{backend}native", domain=domain, rate=rate))
    return points


BINS: Final = Experiment(
    name="bins",
    shows="latency by the number of bins, from 2^4 to 2^20, and without bins; arrays and tables",
    after="Figures 13 to 15",
    points=_points,
    figures=rate_and_latency,
    columns=(RATE, *LATENCY),
    recorded=("futex_wake_us_p50",),
    pairs=(MANY_OVER_FEW,),
)
