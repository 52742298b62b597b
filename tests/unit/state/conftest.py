from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.state.memory import SlotMemory


@pytest.fixture
def memory() -> Iterator[SlotMemory]:
    """Two slots, four bins, 64 MiB."""
    made = SlotMemory()
    yield made
    made.close()
