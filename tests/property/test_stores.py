"""Every store against a dict: bins of two slots, growth in the middle of anything, hand-overs, removals."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.errors import InternalError, StaleRowError
from megaphone.state.access import NO_ROW, Keys, StoreAccess
from megaphone.state.stores import DenseArray, HashTable, Store
from tests.unit.state.memory import SlotMemory

ID_COUNT = 3000
BIN_SHIFT = 2
COLUMNS = {"count": "u8", "weight": "f4"}
IDS = st.lists(st.integers(0, 40) | st.integers(0, ID_COUNT - 1), min_size=1, max_size=12)

RANDOM = np.random.default_rng(7)
INTEGERS = RANDOM.integers(0, 2**64 - 1, ID_COUNT, dtype=np.uint64)
INTEGERS[:4] = [0, 2**64 - 1, 1, 2**63]
STRINGS = [bytes([65 + i % 26]) * (i % 23) + struct.pack("<H", i) * (i % 7 != 0) for i in range(ID_COUNT)]
STRINGS = [word if STRINGS.index(word) == i else word + b"/%d" % i for i, word in enumerate(STRINGS)]
STRINGS[5] = b"long" * 3000


class StoreMachine(RuleBasedStateMachine):
    """Keys are numbered; a model holds (count, weight) of each number that has a row."""

    store: ClassVar[Store]
    hash_name: ClassVar[str]
    zero_is_absent: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.memory = SlotMemory(slots=2, bin_shift=BIN_SHIFT)
        self.accesses = self.memory.access(self.store, self.hash_name)
        self.owner = [0] * (1 << BIN_SHIFT)
        self.model: dict[int, list[float]] = {}
        bins = bins_of(hash_keys(self.keys_of(list(range(ID_COUNT))), self.hash_name, BIN_SHIFT), BIN_SHIFT)  # type: ignore[arg-type]
        self.bin_of = bins.tolist()
        self.held: tuple[StoreAccess, Any, list[int]] | None = None

    def keys_of(self, ids: list[int]) -> Keys:
        raise NotImplementedError

    def ids_of(self, keys: Keys) -> list[int]:
        raise NotImplementedError

    def by_owner(self, ids: list[int]) -> list[tuple[StoreAccess, list[int]]]:
        parts = [(self.accesses[slot], [i for i in ids if self.owner[self.bin_of[i]] == slot]) for slot in (0, 1)]
        return [part for part in parts if part[1]]

    @rule(ids=IDS, value=st.integers(0, 2**64 - 1))
    def add(self, ids: list[int], value: int) -> None:
        for access, part in self.by_owner(ids):
            added = [(value + i) % 2**64 for i in part]
            got = access.add_emit(self.keys_of(part), np.array(added, dtype=np.uint64))
            expected = []
            for i, more in zip(part, added, strict=True):
                row = self.model.setdefault(i, [0, 0.0])
                row[0] = (int(row[0]) + more) % 2**64
                expected.append(row[0])
            assert got.tolist() == expected

    @rule(start=st.integers(0, ID_COUNT), count=st.integers(1, 900))
    def add_many(self, start: int, count: int) -> None:
        self.add(list(range(start, min(start + count, ID_COUNT))) or [0], 1)

    @rule(ids=IDS, weight=st.floats(0, 100, width=32))
    def insert_and_put(self, ids: list[int], weight: float) -> None:
        for access, part in self.by_owner(ids):
            rows = access.rows(self.keys_of(part))
            before = access.gather(rows, "weight").tolist()
            assert before == [self.model.get(i, [0, 0.0])[1] for i in part]
            access.put(rows, "weight", np.array([weight + i for i in part], dtype=np.float32))
            for i in part:
                self.model.setdefault(i, [0, 0.0])[1] = float(np.float32(weight + i))
            assert access.gather(rows, "count").tolist() == [self.model[i][0] for i in part]

    @rule(ids=IDS)
    def look(self, ids: list[int]) -> None:
        for access, part in self.by_owner(ids):
            keys = self.keys_of(part)
            hashes = hash_keys(keys, self.hash_name, BIN_SHIFT)  # type: ignore[arg-type]
            rows = access.rows(keys, hashes, insert=False)
            there = [i for i, row in zip(part, rows, strict=True) if row != NO_ROW]
            if not self.zero_is_absent:
                assert there == [i for i in part if i in self.model]
            found = rows[rows != NO_ROW]
            assert access.gather(found, "count").tolist() == [self.model.get(i, [0, 0.0])[0] for i in there]
            self.held = (access, found, there)

    @rule()
    @precondition(lambda self: self.held is not None)
    def use_held_rows(self) -> None:
        """What was looked up some time ago is right or refused, never wrong."""
        assert self.held is not None
        access, rows, ids = self.held
        try:
            got = access.gather(rows, "count").tolist()
        except (StaleRowError, InternalError):  # its table has changed, or its bin was handed over
            self.held = None
        else:
            assert got == [self.model.get(i, [0, 0.0])[0] for i in ids]

    @rule(ids=IDS)
    @precondition(lambda self: not self.zero_is_absent)
    def remove(self, ids: list[int]) -> None:
        for access, part in self.by_owner(ids):
            rows = access.rows(self.keys_of(part), insert=False)
            access.remove(rows[rows != NO_ROW])
            for i in part:
                self.model.pop(i, None)
            assert (access.rows(self.keys_of(part), insert=False) == NO_ROW).all()

    @rule(bin_id=st.integers(0, (1 << BIN_SHIFT) - 1))
    def hand_over(self, bin_id: int) -> None:
        self.owner[bin_id] ^= 1
        self.memory.give(self.accesses, bin_id, self.owner[bin_id])

    @rule(bin_id=st.integers(0, (1 << BIN_SHIFT) - 1), rows=st.integers(1, 300))
    def settle(self, bin_id: int, rows: int) -> None:
        access = self.accesses[self.owner[bin_id]]
        why = ffi.new("mp_outcome *")
        assert lib.mp_store_settle(self.memory.slots[self.owner[bin_id]], access.c, bin_id, rows, why) in (0, 1)

    @rule(bin_id=st.integers(0, (1 << BIN_SHIFT) - 1), keys=st.integers(0, 2000))
    def reserve(self, bin_id: int, keys: int) -> None:
        self.accesses[self.owner[bin_id]].reserve(bin_id, keys)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        got: dict[int, list[float]] = {}
        for access in self.accesses:
            for keys, columns in access.items():
                for i, count, weight in zip(self.ids_of(keys), columns["count"], columns["weight"], strict=True):
                    assert i not in got
                    got[i] = [int(count), float(weight)]
        expected = self.model
        if self.zero_is_absent:
            expected = {i: row for i, row in self.model.items() if row != [0, 0.0]}
        assert got == expected
        assert sum(access.live() for access in self.accesses) == len(expected)

    def teardown(self) -> None:
        """The checksum is that of a table that was filled in another order, with another number of bins."""
        checksum = sum(access.checksum() for access in self.accesses) % 2**64
        self.memory.close()
        other = SlotMemory(slots=1, bin_shift=5)
        hash_name = "dense" if self.hash_name == "dense" else "mix"
        access = other.access(HashTable(self.store.key or "bytes", COLUMNS), hash_name)[0]
        ids = sorted(self.model, reverse=True)
        if ids:
            rows = access.rows(self.keys_of(ids))
            access.put(rows, "count", np.array([self.model[i][0] for i in ids], dtype=np.uint64))
            access.put(rows, "weight", np.array([self.model[i][1] for i in ids], dtype=np.float32))
        assert access.checksum() == checksum
        other.close()


class DenseMachine(StoreMachine):
    store = DenseArray(COLUMNS)
    hash_name = "dense"
    zero_is_absent = True

    def keys_of(self, ids: list[int]) -> Keys:
        return np.array(ids, dtype=np.uint64)

    def ids_of(self, keys: Keys) -> list[int]:
        assert isinstance(keys, np.ndarray)
        return keys.tolist()  # type: ignore[no-any-return]


class IntegerMachine(StoreMachine):
    store = HashTable("u8", COLUMNS)
    hash_name = "mix"
    ids_of_integers: ClassVar[dict[int, int]] = {int(key): i for i, key in enumerate(INTEGERS)}

    def keys_of(self, ids: list[int]) -> Keys:
        return INTEGERS[ids]

    def ids_of(self, keys: Keys) -> list[int]:
        assert isinstance(keys, np.ndarray)
        return [self.ids_of_integers[key] for key in keys.tolist()]


class IntegerFnvMachine(IntegerMachine):
    hash_name = "fnv"


class IntegerDenseHashMachine(IntegerMachine):
    hash_name = "dense"


class ShortIntegerMachine(StoreMachine):
    store = HashTable("i2", COLUMNS)
    hash_name = "mix"

    def keys_of(self, ids: list[int]) -> Keys:
        return np.array(ids, dtype=np.int16) - np.int16(1500)

    def ids_of(self, keys: Keys) -> list[int]:
        assert isinstance(keys, np.ndarray)
        return (keys + np.int16(1500)).tolist()  # type: ignore[no-any-return]


class FixedMachine(StoreMachine):
    store = HashTable("S11", COLUMNS)
    hash_name = "mix"

    def keys_of(self, ids: list[int]) -> Keys:
        return np.array([b"key%d" % i for i in ids], dtype="S11")

    def ids_of(self, keys: Keys) -> list[int]:
        return [int(key[3:]) for key in keys]


class BytesMachine(StoreMachine):
    store = HashTable("bytes", COLUMNS)
    hash_name = "mix"
    ids_of_strings: ClassVar[dict[bytes, int]] = {word: i for i, word in enumerate(STRINGS)}

    def keys_of(self, ids: list[int]) -> Keys:
        return BytesColumn.of([STRINGS[i] for i in ids])

    def ids_of(self, keys: Keys) -> list[int]:
        return [self.ids_of_strings[word] for word in keys]


class BytesFnvMachine(BytesMachine):
    hash_name = "fnv"


TestDense = DenseMachine.TestCase
TestInteger = IntegerMachine.TestCase
TestIntegerFnv = IntegerFnvMachine.TestCase
TestIntegerDenseHash = IntegerDenseHashMachine.TestCase
TestShortInteger = ShortIntegerMachine.TestCase
TestFixed = FixedMachine.TestCase
TestBytes = BytesMachine.TestCase
TestBytesFnv = BytesFnvMachine.TestCase
