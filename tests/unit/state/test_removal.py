"""Removal from a hash table: whatever is taken out, everything else is found where it was, also while it grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.batch import BytesColumn
from megaphone.state.access import NO_ROW
from megaphone.state.stores import HashTable
from tests.unit.state.memory import SlotMemory


def column(kind: str, numbers: list[int]) -> Any:
    """Return keys of a kind."""
    words = [b"key %d" % number * (1 + number % 4) for number in numbers]
    if kind == "bytes":
        return BytesColumn.of(words)
    return np.array(words, "S48") if kind == "S48" else np.array(numbers, kind)


@pytest.mark.parametrize("kind", ["u8", "i2", "S48", "bytes"])
@pytest.mark.parametrize("hash_name", ["fnv", "mix"])
@pytest.mark.parametrize("keys", [5, 50, 300, 1500])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_not_removed_is_found_with_its_values(kind: str, hash_name: str, keys: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable(kind, {"n": "u8"}), hash_name)[0]
    there: dict[int, int] = {}
    numbers = [int(number) for number in random.permutation(10 * keys)[:keys]]
    # In several parts, so that some are removed in the middle of a table's growth.
    for part in np.array_split(np.array(numbers), 4):
        fresh = [int(number) for number in part]
        access.add_emit(column(kind, fresh), np.array(fresh, np.uint64))
        there.update((number, number) for number in fresh)
        gone = [number for number in there if random.random() < 0.4]
        rows = access.rows(column(kind, gone), insert=False)
        assert (rows != NO_ROW).all()
        access.remove(rows)
        for number in gone:
            del there[number]
        left = list(there)
        rows = access.rows(column(kind, left), insert=False)
        assert [number for number, row in zip(left, rows, strict=True) if row == NO_ROW] == []
        assert access.gather(rows, "n").tolist() == left
        assert (access.rows(column(kind, gone), insert=False) == NO_ROW).all()
        assert access.live() == len(there)
    memory.close()
