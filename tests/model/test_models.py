"""Every interleaving, and every crash, of a few processes that run the C core that ships: see engine.h.

A model's name is its rule; the file of that name says how it is checked and what would break it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FILES = ("parking", "references", "rings")
# States are counted, so that a model whose processes are stuck from the start does not pass for one that holds.
SMALL = {
    "parking": 1000,
    "parking_backlog": 10_000,
    "parking_backlog_slab": 200_000,
    "parking_crash": 2000,
    "parking_room": 2000,
    "parking_stop": 20_000,
    "references_back": 500,
    "references_broadcast": 5000,
    "references_chain_012": 4000,
    "references_chain_021": 4000,
    "references_chain_102": 4000,
    "references_chain_120": 4000,
    "references_chain_201": 4000,
    "references_chain_210": 4000,
    "references_chain_crash": 15_000,
    "references_open": 5000,
    "references_outbox": 1000,
    "references_tee": 300,
    "references_undo": 500,
    "references_view": 5000,
    "references_view_crash": 20_000,
    "ring": 1000,
    "ring_crash": 1500,
    "ring_full": 20_000,
    "ring_late": 2000,
    "ring_full_crash": 1500,
}
LARGE = {
    "parking_large": 8000,
    "parking_room_large": 500_000,
    "references_broadcast_large": 300_000,
    "references_chain_large": 300_000,
    "references_open_large": 100_000,
    "references_view_large": 400_000,
    "ring_full_large": 400_000,
    "ring_large": 500_000,
}


@pytest.mark.parametrize("name", SMALL)
def test_every_interleaving_keeps_the_rules_of(name: str, check: Callable[..., int]) -> None:
    assert check(name) >= SMALL[name]


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LARGE)
def test_every_interleaving_of_a_larger_world_keeps_the_rules_of(name: str, check: Callable[..., int]) -> None:
    assert check(name, seconds_max=3500.0) >= LARGE[name]


def test_every_model_has_its_line_here(programs: dict[str, Path]) -> None:
    known = {name for name, program in programs.items() if program.name in FILES}
    assert known == SMALL.keys() | LARGE.keys()
