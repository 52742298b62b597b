"""Lists and objects against a dict: bins of two slots, growth in the middle of anything, hand-overs, no memory."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.errors import SharedMemoryError
from megaphone.state.access import Keys, StoreAccess
from megaphone.state.stores import Pickled, Rows, Store
from tests.unit.state.memory import SlotMemory

ID_COUNT = 900
BIN_SHIFT = 2
COLUMNS = {"n": "u8", "flag": "u1", "weight": "f4", "name": "S3"}
IDS = st.lists(st.integers(0, 20) | st.integers(0, ID_COUNT - 1), min_size=1, max_size=12)
BINS = st.integers(0, (1 << BIN_SHIFT) - 1)

RANDOM = np.random.default_rng(11)
INTEGERS = RANDOM.integers(0, 2**64 - 1, ID_COUNT, dtype=np.uint64)
INTEGERS[:4] = [0, 2**64 - 1, 1, 2**63]
STRINGS = [b"%d" % i * (1 + i % 5) + bytes(i % 4) for i in range(ID_COUNT)]
STRINGS[0], STRINGS[5] = b"", b"long" * 3000

Row = tuple[int, int, float, bytes]


def row_of(number: int) -> Row:
    return number, number % 251, float(np.float32(number / 8)), b"%d" % (number % 1000)


def columns_of(numbers: list[int]) -> dict[str, Any]:
    rows = [row_of(number) for number in numbers]
    return {name: np.array([row[i] for row in rows], dtype=COLUMNS[name]) for i, name in enumerate(COLUMNS)}


def rows_of(columns: dict[str, Any]) -> list[Row]:
    return list(zip(*(columns[name].tolist() for name in COLUMNS), strict=True))


def lists_of(access: StoreAccess, keys: Keys) -> list[list[Row]]:
    offsets, columns = access.lists(keys)
    rows = rows_of(columns)
    return [rows[int(begin) : int(end)] for begin, end in zip(offsets, offsets[1:], strict=False)]


class BinsMachine(RuleBasedStateMachine):
    """Keys are numbered; bins of them belong to either slot."""

    store: ClassVar[Store]
    hash_name: ClassVar[str] = "mix"

    def __init__(self) -> None:
        super().__init__()
        self.memory = SlotMemory(slots=2, bin_shift=BIN_SHIFT, memory_mib=16)
        self.accesses = self.memory.access(self.store, self.hash_name)
        self.owner = [0] * (1 << BIN_SHIFT)
        keys = self.keys_of(list(range(ID_COUNT)))
        self.bin_of = bins_of(hash_keys(keys, self.hash_name, BIN_SHIFT), BIN_SHIFT).tolist()  # type: ignore[arg-type]
        self.written = 0

    def keys_of(self, ids: list[int]) -> Keys:
        if self.store.key is None:
            return BytesColumn.of([STRINGS[i] for i in ids])
        if self.store.key.kind == "S":
            return np.array([b"key%d" % i for i in ids], dtype=self.store.key)
        if self.store.key.itemsize == 2:
            return np.array(ids, dtype=np.int64).astype(self.store.key) - 450
        return INTEGERS[ids]

    def by_owner(self, ids: list[int]) -> list[tuple[StoreAccess, list[int]]]:
        parts = [(self.accesses[slot], [i for i in ids if self.owner[self.bin_of[i]] == slot]) for slot in (0, 1)]
        return [part for part in parts if part[1]]

    def fresh(self, count: int) -> list[int]:
        self.written += count
        return list(range(self.written - count, self.written))

    @rule(bin_id=BINS)
    def hand_over(self, bin_id: int) -> None:
        self.owner[bin_id] ^= 1
        self.memory.give(self.accesses, bin_id, self.owner[bin_id])

    @rule(bin_id=BINS, rows=st.integers(1, 300))
    def settle(self, bin_id: int, rows: int) -> None:
        slot = self.owner[bin_id]
        why = ffi.new("mp_outcome *")
        assert lib.mp_store_settle(self.memory.slots[slot], self.accesses[slot].c, bin_id, rows, why) in (0, 1)

    @rule(bin_id=BINS, keys=st.integers(0, 600), rows=st.integers(0, 600))
    def reserve(self, bin_id: int, keys: int, rows: int) -> None:
        self.accesses[self.owner[bin_id]].reserve(bin_id, keys, rows)

    @invariant()
    def every_cell_is_in_one_list_or_free(self) -> None:
        for bin_id, slot in enumerate(self.owner):
            assert lib.mp_rows_check(self.memory.slots[slot], self.accesses[slot].c, bin_id) == 0

    def teardown(self) -> None:
        self.memory.close()


class ListMachine(BinsMachine):
    """A model holds the numbers of the rows of each key's list."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, list[int]] = {}

    def model_rows(self, i: int) -> list[Row]:
        return [row_of(number) for number in self.model.get(i, [])]

    @rule(ids=IDS)
    def append(self, ids: list[int]) -> None:
        for access, part in self.by_owner(ids):
            numbers = self.fresh(len(part))
            access.append(self.keys_of(part), columns_of(numbers))
            for i, number in zip(part, numbers, strict=True):
                self.model.setdefault(i, []).append(number)

    @rule(start=st.integers(0, ID_COUNT - 1), count=st.integers(1, 400))
    def append_many(self, start: int, count: int) -> None:
        self.append(list(range(start, min(start + count, ID_COUNT))))

    @rule(i=st.integers(0, 20), count=st.integers(1, 200))
    def append_to_one(self, i: int, count: int) -> None:
        self.append([i] * count)

    @rule(ids=IDS, lengths=st.lists(st.integers(0, 30), min_size=12, max_size=12))
    def replace(self, ids: list[int], lengths: list[int]) -> None:
        for access, part in self.by_owner(ids):
            numbers = self.fresh(sum(lengths[: len(part)]))
            offsets = np.concatenate(([0], np.cumsum(lengths[: len(part)])))
            access.replace(self.keys_of(part), offsets, columns_of(numbers))
            for i, begin, end in zip(part, offsets, offsets[1:], strict=False):
                self.model[i] = numbers[begin:end]
                if begin == end:
                    del self.model[i]

    @rule(ids=IDS)
    def remove(self, ids: list[int]) -> None:
        for access, part in self.by_owner(ids):
            access.remove(self.keys_of(part))
            for i in part:
                self.model.pop(i, None)

    @rule(start=st.integers(0, ID_COUNT - 1), count=st.integers(1, ID_COUNT))
    def remove_many(self, start: int, count: int) -> None:
        self.remove(list(range(start, min(start + count, ID_COUNT))))

    @rule(ids=IDS, numbers=st.lists(st.integers(0, 9) | st.just(2**40), min_size=12, max_size=12))
    def pop_front(self, ids: list[int], numbers: list[int]) -> None:
        for access, part in self.by_owner(ids):
            access.pop_front(self.keys_of(part), numbers[: len(part)])
            for i, number in zip(part, numbers, strict=False):
                self.model[i] = self.model.get(i, [])[number:]
            self.model = {i: rows for i, rows in self.model.items() if rows}

    @rule(ids=IDS)
    def look(self, ids: list[int]) -> None:
        for access, part in self.by_owner(ids):
            keys = self.keys_of(part)
            found = lists_of(access, keys)
            assert found == [self.model_rows(i) for i in part]
            assert access.counts(keys).tolist() == [len(rows) for rows in found]
            there, first = access.first(keys, ["name", "n"])
            assert there.tolist() == [i in self.model for i in part]
            assert list(first) == ["name", "n"]
            for row, name, number in zip(found, first["name"].tolist(), first["n"].tolist(), strict=True):
                assert (name, number) == ((row[0][3], row[0][0]) if row else (b"", 0))

    @rule(ids=st.lists(st.integers(0, ID_COUNT - 1), min_size=1, max_size=200), spare=st.integers(0, 6))
    def append_without_memory(self, ids: list[int], spare: int) -> None:
        """What was appended before memory ran out stays, whole and in order; the rest left no trace."""
        for access, part in self.by_owner(ids):
            numbers, before = self.fresh(len(part)), access.total()
            with self.memory.without(self.accesses.index(access), spare):
                try:
                    access.append(self.keys_of(part), columns_of(numbers))
                except SharedMemoryError:
                    numbers = numbers[: access.total() - before]
            for i, number in zip(part, numbers, strict=False):
                self.model.setdefault(i, []).append(number)

    @rule(ids=IDS, length=st.integers(1, 1200), spare=st.integers(0, 6))
    def replace_without_memory(self, ids: list[int], length: int, spare: int) -> None:
        """A list that finds no room leaves the one that was there; those before it are the new ones."""
        for access, part in self.by_owner(list(dict.fromkeys(ids))):
            numbers = self.fresh(length * len(part))
            with self.memory.without(self.accesses.index(access), spare):
                try:
                    access.replace(self.keys_of(part), np.arange(len(part) + 1) * length, columns_of(numbers))
                except SharedMemoryError:
                    # By content: a list that stays may have the length of the one that finds no room.
                    found = lists_of(access, self.keys_of(part))
                    wanted = [[row_of(n) for n in numbers[at * length : (at + 1) * length]] for at in range(len(part))]
                    done = next(at for at, found_rows in enumerate(found) if found_rows != wanted[at])
                    assert found[done:] == [self.model_rows(i) for i in part[done:]]
                else:
                    done = len(part)
            for at, i in enumerate(part[:done]):
                self.model[i] = numbers[at * length : (at + 1) * length]

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        got: dict[Any, list[Row]] = {}
        for access in self.accesses:
            for keys, offsets, columns in access.lists_items():
                rows = rows_of(columns)
                for key, begin, end in zip(list(keys), offsets, offsets[1:], strict=False):
                    assert key not in got
                    got[key] = rows[int(begin) : int(end)]
        ids = list(self.model)
        assert got == {key: self.model_rows(i) for key, i in zip(list(self.keys_of(ids)), ids, strict=True)}
        assert sum(access.live() for access in self.accesses) == len(self.model)
        assert sum(access.total() for access in self.accesses) == sum(len(rows) for rows in self.model.values())

    def teardown(self) -> None:
        """The checksum is that of lists in other cells, filled in another order, in another number of bins."""
        checksum = sum(access.checksum() for access in self.accesses) % 2**64
        super().teardown()
        other = SlotMemory(slots=1, bin_shift=5, memory_mib=16)
        access = other.access(Rows(self.store.key or "bytes", COLUMNS, cell_rows=9), "mix")[0]
        for i in sorted(self.model, reverse=True):
            access.append(self.keys_of([i] * len(self.model[i])), columns_of(self.model[i]))
        assert access.checksum() == checksum
        other.close()


class IntegerMachine(ListMachine):
    store = Rows("u8", COLUMNS)


class LongCellMachine(ListMachine):
    store = Rows("u8", COLUMNS, cell_rows=13)
    hash_name = "fnv"


class SingleCellMachine(ListMachine):
    store = Rows("i2", COLUMNS, cell_rows=1)
    hash_name = "dense"


class FixedMachine(ListMachine):
    store = Rows("S11", COLUMNS)


class BytesMachine(ListMachine):
    store = Rows("bytes", COLUMNS)


OBJECTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=400) | st.binary(max_size=400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


class ObjectMachine(BinsMachine):
    """A model holds the object of each key."""

    store = Pickled("u8")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, Any] = {}

    @rule(ids=IDS, objects=st.lists(OBJECTS, min_size=12, max_size=12))
    def put(self, ids: list[int], objects: list[Any]) -> None:
        for access, part in self.by_owner(ids):
            access.put(self.keys_of(part), objects[: len(part)])
            self.model.update(zip(part, objects, strict=False))

    @rule(start=st.integers(0, ID_COUNT - 1), count=st.integers(1, 300), size=st.integers(0, 2000))
    def put_many(self, start: int, count: int, size: int) -> None:
        ids = list(range(start, min(start + count, ID_COUNT)))
        for access, part in self.by_owner(ids):
            objects = [(i, "x" * (size % (i + 1))) for i in part]
            access.put(self.keys_of(part), objects)
            self.model.update(zip(part, objects, strict=True))

    @rule(ids=IDS)
    def get(self, ids: list[int]) -> None:
        for access, part in self.by_owner(ids):
            assert access.get(self.keys_of(part)) == [self.model.get(i) for i in part]

    @rule(ids=IDS)
    def remove(self, ids: list[int]) -> None:
        for access, part in self.by_owner(ids):
            access.remove(self.keys_of(part))
            for i in part:
                self.model.pop(i, None)

    @rule(ids=IDS, size=st.integers(0, 20_000), spare=st.integers(0, 6))
    def put_without_memory(self, ids: list[int], size: int, spare: int) -> None:
        for access, part in self.by_owner(list(dict.fromkeys(ids))):
            objects = [("filler", i, self.fresh(1), "x" * size) for i in part]
            with self.memory.without(self.accesses.index(access), spare):
                try:
                    access.put(self.keys_of(part), objects)
                except SharedMemoryError:
                    found = access.get(self.keys_of(part))
                    done = next(at for at, value in enumerate(found) if value != objects[at])
                    assert found[done:] == [self.model.get(i) for i in part[done:]]
                else:
                    done = len(part)
            self.model.update(zip(part[:done], objects, strict=False))

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        got: dict[Any, Any] = {}
        for access in self.accesses:
            for keys, objects in access.objects():
                got.update(zip(list(keys), objects, strict=True))
        ids = list(self.model)
        assert got == dict(zip(list(self.keys_of(ids)), self.model.values(), strict=True))
        assert sum(access.live() for access in self.accesses) == len(self.model)


class BytesObjectMachine(ObjectMachine):
    store = Pickled("bytes")


TestInteger = IntegerMachine.TestCase
TestLongCell = LongCellMachine.TestCase
TestSingleCell = SingleCellMachine.TestCase
TestFixed = FixedMachine.TestCase
TestBytes = BytesMachine.TestCase
TestObject = ObjectMachine.TestCase
TestBytesObject = BytesObjectMachine.TestCase
