"""Looks that several charts share, so that a strategy has one colour everywhere."""

from __future__ import annotations

from typing import Final

from megaphone.bench.charts.sheet import BLACK, BLUE, GREEN, VERMILLION, Look

STRATEGY: Final = {
    "none": Look(BLACK, "o"), "sudden": Look(VERMILLION, "D"), "fluid": Look(BLUE, "s"), "batched": Look(GREEN, "^"),
}  # fmt: skip
