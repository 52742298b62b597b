"""Lists and objects of one slot: what is refused, counted, moved by growth, and given back."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.errors import InternalError, SharedMemoryError, UsageError
from megaphone.state.access import NO_ROW, StoreAccess
from megaphone.state.stores import DenseArray, HashTable, Pickled, Rows, about_store, store_layout
from tests.unit.state.memory import SlotMemory

COLUMNS = {"n": "u8", "flag": "u1"}


def integers(start: int, stop: int) -> Any:
    return np.arange(start, stop, dtype=np.uint64)


def store_bytes(memory: SlotMemory, access: StoreAccess) -> int:
    return sum(lib.mp_store_bytes(memory.slots[0], access.c, bin_id) for bin_id in range(1 << memory.bin_shift))


def checked(memory: SlotMemory, access: StoreAccess, slot: int = 0) -> bool:
    return all(lib.mp_rows_check(memory.slots[slot], access.c, b) == 0 for b in range(1 << memory.bin_shift))


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Rows("u8", {}), "Rows with 0 columns"),
        (lambda: Rows("f8", "u8"), "convert them to integers or 'S16'"),
        (lambda: Rows("u8", "u8", cell_rows=-1), "cell_rows -1: give 1 to 1024"),
        (lambda: Rows("u8", "u8", cell_rows=2000), "cell_rows 2000: give 1 to 1024"),
        (lambda: Rows("u8", "u8", cell_rows="many"), "cell_rows 'many'"),
        (lambda: Pickled("f4"), "convert them to integers or 'S16'"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(make: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make()


def test_cells_that_are_too_long_are_refused() -> None:
    with pytest.raises(UsageError, match="1024 rows side by side have more than 32768 bytes: use a smaller cell_rows"):
        Rows("u8", {"a": "S40"}, cell_rows=1024).struct(0, 8, "mix")


@pytest.mark.parametrize(
    ("store", "rows", "size_bytes", "at"),
    [
        (Rows("u8", {"n": "u8"}), 7, 64, [8]),
        (Rows("u8", {"a": "u8", "b": "u8", "c": "u8"}), 2, 56, [8, 24, 40]),
        (Rows("u8", {"a": "u1", "b": "u4"}), 12, 64, [4, 16]),
        (Rows("u8", {"wide": "S300"}), 1, 304, [4]),
        (Rows("u8", {"n": "u8"}, cell_rows=100), 100, 808, [8]),
        (Pickled("u8"), 124, 128, [4]),
    ],
)
def test_a_cell_is_about_a_cache_line_of_columns(store: Any, rows: int, size_bytes: int, at: list[int]) -> None:
    struct = store.struct(0, 8, "mix")
    assert (struct.cell_rows, struct.cell_bytes, struct.row_bytes) == (rows, size_bytes, 24)
    assert list(struct.column_at)[: len(at)] == at


def test_stores_that_differ_in_their_cells_alone_are_not_equal() -> None:
    """The digest of a graph compares what is printed."""
    assert Rows("u8", "u8") != Rows("u8", "u8", cell_rows=3)
    assert repr(Rows("u8", "u8")) != repr(Rows("u8", "u8", cell_rows=3))
    assert repr(Pickled("u8")) != repr(Rows("u8", {"pickle": "u1"}))


@pytest.mark.parametrize(("store", "counted"), [(Rows("S9", COLUMNS), "rows"), (Pickled("bytes"), "pickled bytes")])
def test_tools_are_told_where_the_length_of_a_list_is(store: Any, counted: str) -> None:
    about = about_store(store)
    layout, struct = store_layout(about, 0, 8, "mix"), store.struct(0, 8, "mix")
    assert [column["name"] for column in about["columns"]] == [counted]
    assert [column["name"] for column in about["list"]] == list(store.columns)
    assert (layout.row_bytes, layout.value_at, layout.column_at[0]) == (
        struct.row_bytes,
        struct.value_at,
        struct.value_at,
    )


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda a: a.append([1], {}), "has no attribute|keys are"),
        (
            lambda a: a.append(np.array([1], np.int32), {"n": 1, "flag": 1}),
            r"keys are int32\[1\]: the store's are uint64",
        ),
        (lambda a: a.append(integers(0, 2), {"n": 1}), "there is nothing for column 'flag': a row of Rows has n, flag"),
        (
            lambda a: a.append(integers(0, 2), {"n": 1, "flag": 1, "x": 1}),
            "there is no column 'x': a row of Rows has n",
        ),
        (lambda a: a.append(integers(0, 2), {"n": [1, 2, 3], "flag": 1}), r"values of shape \[3\] for 2 rows"),
        (lambda a: a.append(integers(0, 2), {"n": np.array([0.5, 1]), "flag": 1}), "convert them"),
        (lambda a: a.append(integers(0, 2), {"n": 1, "flag": 1}, integers(0, 3)), "2 keys and 3 hashes"),
        (lambda a: a.replace(integers(0, 2), [0, 1], {"n": 1, "flag": 1}), "give 3 whole numbers that do not fall"),
        (lambda a: a.replace(integers(0, 2), [0, 2, 1], {"n": 1, "flag": 1}), "give 3 whole numbers that do not fall"),
        (lambda a: a.replace(integers(0, 2), [-1, 0, 1], {"n": 1, "flag": 1}), "offsets begin at -1"),
        (lambda a: a.replace(integers(0, 2), [0.0, 1, 1], {"n": 1, "flag": 1}), "give 3 whole numbers"),
        (lambda a: a.lists(integers(0, 2), ["m"]), "Rows has no column 'm': it has n, flag"),
        (lambda a: a.pop_front(integers(0, 2), -1), "some negative"),
        (lambda a: a.pop_front(integers(0, 2), 0.5), "pop_front of float64"),
        (lambda a: a.pop_front(integers(0, 2), [1, 2, 3]), r"int64\[3\]"),
        (lambda a: a.rows(integers(0, 2)), "rows is a call for a DenseArray or a HashTable: the state is Rows"),
        (lambda a: a.gather(integers(0, 2), "n"), "gather is a call for a DenseArray or a HashTable"),
        (lambda a: a.put(integers(0, 2), "n", 1), "put is a call for a DenseArray or a HashTable or Pickled"),
        (lambda a: a.put(integers(0, 2), [1, 2]), "put is a call for a DenseArray or a HashTable or Pickled"),
        (lambda a: a.add_emit(integers(0, 2)), "add_emit is a call for a DenseArray or a HashTable"),
        (lambda a: list(a.items()), "items is a call for a DenseArray or a HashTable"),
        (lambda a: a.get(integers(0, 2)), "get is a call for Pickled: the state is Rows"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_and_changes_nothing(memory: SlotMemory, call: Any, told: str) -> None:
    access = memory.access(Rows("u8", COLUMNS), "mix")[0]
    access.append(integers(0, 2), {"n": [5, 6], "flag": 1})
    checksum = access.checksum()
    with pytest.raises((UsageError, AttributeError), match=told):
        call(access)
    assert (access.checksum(), access.total(), checked(memory, access)) == (checksum, 2, True)


def test_tables_and_arrays_have_no_lists(memory: SlotMemory) -> None:
    for store, hash_name in ((HashTable("u8"), "mix"), (DenseArray("u8"), "dense")):
        access = memory.access(store, hash_name)[0]
        for call in (access.counts, access.lists, access.first, access.pop_front, access.get):
            with pytest.raises(UsageError, match=f"is a call for (Rows|Pickled): the state is {store.noun}"):
                call(integers(0, 3))
        with pytest.raises(UsageError, match="takes rows, the name of a column, and values"):
            access.put(integers(0, 3), [1, 2, 3])


def test_a_key_of_another_slots_bin_is_refused(memory: SlotMemory) -> None:
    accesses = memory.access(Rows("u8", COLUMNS), "mix")
    with pytest.raises(InternalError, match="not resident"):
        accesses[1].append(integers(0, 9), {"n": 1, "flag": 1})
    with pytest.raises(InternalError, match="not resident"):
        accesses[1].counts(integers(0, 9))
    accesses[0].append(integers(0, 9), {"n": 1, "flag": 1})
    assert accesses[1].live() == accesses[1].total() == accesses[1].checksum() == 0


def test_an_address_is_refused_once_rows_have_moved_or_the_bin_has_left(memory: SlotMemory) -> None:
    """The kernels take addresses, which Python looks up and uses within one call: as for tables."""
    accesses = memory.access(Rows("u8", COLUMNS), "mix")
    access, why = accesses[0], ffi.new("mp_outcome *")
    access.append(integers(0, 50), {"n": integers(0, 50), "flag": 0})

    def refused(rows: Any, index: int) -> set[int]:
        """Return the errors of all kernels, which stop at one address and have done those before."""
        codes = set()
        addresses, out = ffi.from_buffer("uint64_t[]", rows), ffi.new("uint64_t[]", len(rows) + 1)
        bounds, none = ffi.new("uint64_t[]", list(range(len(rows) + 1))), ffi.new("void *[2]")
        drop, mask = ffi.new("uint64_t[]", len(rows)), ffi.new("uint8_t[]", len(rows))
        calls: list[Callable[[], int]] = [
            lambda: lib.mp_rows_counts(accesses[index]._slot, access.c, addresses, len(rows), out, why),
            lambda: lib.mp_rows_lists(accesses[index]._slot, access.c, addresses, len(rows), bounds, none, why),
            lambda: lib.mp_rows_first(accesses[index]._slot, access.c, addresses, len(rows), mask, none, why),
            lambda: lib.mp_rows_drop(accesses[index]._slot, access.c, addresses, len(rows), drop, why),
        ]
        for call in calls:
            done = int(call())
            codes.add(int(why.error))
            assert (done < len(rows)) == (why.error != 0)
        return codes

    for bin_id in range(4):  # let growth come to its end, or what follows would go on with it
        while lib.mp_store_settle(memory.slots[0], access.c, bin_id, 64, why) == 1:
            pass
    rows = access._look(integers(0, 50))
    assert refused(rows, 0) == {0}
    access.append(integers(0, 50), {"n": 1, "flag": 0})  # no key is new: what was looked up holds
    access.pop_front(integers(0, 50), 1)
    assert refused(rows, 0) == {0}
    access.remove(integers(7, 8))
    assert refused(rows, 0) == {-116}
    rows = access._look(integers(8, 50))
    access.append(integers(1000, 3000), {"n": 1, "flag": 0})
    assert refused(rows, 0) == {-116}
    rows = access._look(integers(8, 50))
    for bin_id in range(4):
        memory.give(accesses, bin_id, 1)
    assert refused(rows, 0) == {-1}
    assert refused(rows, 1) == {-116}
    assert refused(np.full(3, NO_ROW - 1), 1) == {-116}
    assert checked(memory, accesses[1], 1)


# -- growth, counters, memory ------------------------------------------------------------------------------------------


def test_appends_never_move_a_row_of_a_list_and_the_table_a_few_at_a_time(memory: SlotMemory) -> None:
    access = memory.access(Rows("u8", COLUMNS), "mix")[0]
    for start in range(0, 40_000, 100):
        access.append(integers(start, start + 100), {"n": 1, "flag": 1})
        access.append(integers(0, 100), {"n": 2, "flag": 2})
    statistics = access.statistics()
    assert 40_000 < statistics.rows_moved < 120_000
    assert statistics.rows_moved_call_max <= 100 * 16 + 4 * 128
    # A row of the table is 24 bytes: nothing else has been moved, though lists have 640,000 bytes and more.
    assert memory.counter("copied_grow") == 24 * statistics.rows_moved
    assert checked(memory, access)


def test_what_is_read_is_counted_and_what_is_written_is_not(memory: SlotMemory) -> None:
    access = memory.access(Rows("u8", COLUMNS), "mix")[0]
    access.append(np.repeat(integers(0, 10), 5), {"n": 1, "flag": 1})
    assert memory.counter("copied_gather") == 0
    access.lists(integers(0, 20))
    assert memory.counter("copied_gather") == 50 * 9
    access.lists(integers(0, 5), ["flag"])
    assert memory.counter("copied_gather") == 50 * 9 + 25
    access.first(integers(0, 20), ["n"])
    assert memory.counter("copied_gather") == 50 * 9 + 25 + 10 * 8
    access.counts(integers(0, 20))
    access.pop_front(integers(0, 20), 2)
    assert memory.counter("copied_gather") == 50 * 9 + 25 + 10 * 8


@pytest.mark.parametrize("cell_rows", [0, 1, 50])
@pytest.mark.parametrize("key", ["u8", "bytes"])
def test_memory_is_flat_while_lists_come_and_go(memory: SlotMemory, key: str, cell_rows: int) -> None:
    """A window of keys moves on, their lists of ever changing length, some losing their front, some replaced."""
    access = memory.access(Rows(key, COLUMNS, cell_rows), "mix")[0]
    random = np.random.default_rng(1)

    def keys_of(numbers: Any) -> Any:
        return BytesColumn.of([b"key %06d" % number for number in numbers]) if key == "bytes" else numbers

    sizes = []
    for at in range(0, 60_000, 300):
        new = random.integers(at, at + 300, 1500).astype(np.uint64)
        access.append(keys_of(new), {"n": new, "flag": 1})
        access.pop_front(keys_of(integers(at, at + 300)), 1)
        bounds = np.concatenate(([0], np.cumsum(random.integers(0, 12, 50))))
        access.replace(keys_of(integers(at, at + 50)), bounds, {"n": 5, "flag": 1})
        access.remove(keys_of(integers(max(at - 900, 0), max(at - 600, 0))))
        sizes.append(store_bytes(memory, access))
    assert checked(memory, access)
    assert access.live() <= 900
    # A table that begins anew for the bytes of its keys is there twice for a while: not always as large.
    assert max(sizes[100:]) <= max(sizes[:100]) * (1.25 if key == "bytes" else 1), "it has grown"
    # Doubling pages, tables at most as empty as a sixth, and rows that are not there any more: within six times.
    assert max(sizes) <= 6 * (900 * 24 + 4500 * 9 * (1 if cell_rows != 50 else 6) + 900 * 60)
    access.remove(keys_of(integers(0, 60_000)))
    assert (access.live(), access.total(), access.checksum()) == (0, 0, 0)
    if key == "u8":
        assert store_bytes(memory, access) <= sizes[-1] / 2, "an arena that holds nothing gives its pages back"


def test_clearing_a_bin_frees_its_pages(memory: SlotMemory) -> None:
    access = memory.access(Rows("u8", COLUMNS), "mix")[0]
    access.append(integers(0, 5000), {"n": 1, "flag": 1})
    for bin_id in range(4):
        assert lib.mp_store_clear(memory.slots[0], access.c, bin_id) == 0
        assert lib.mp_store_bytes(memory.slots[0], access.c, bin_id) == 0
    assert memory.counter("block_live_bytes") == 0
    access.append(integers(0, 10), {"n": 1, "flag": 1})
    assert access.total() == 10


def test_reserving_makes_room_for_rows(memory: SlotMemory) -> None:
    access = memory.access(Rows("u8", COLUMNS, cell_rows=1), "mix")[0]
    access.reserve(1, 1000, 4000)
    with memory.without(0):
        keys = integers(0, 4000)
        mine = keys[access_bins(keys) == 1][:600]
        for _ in range(6):
            access.append(mine, {"n": 1, "flag": 1})
    assert access.total() == 6 * len(mine)


def access_bins(keys: Any) -> Any:
    return bins_of(hash_keys(keys, "mix", 2), 2)


@pytest.mark.parametrize("spare", range(8))
def test_a_call_that_finds_no_memory_has_done_what_was_before_whole(memory: SlotMemory, spare: int) -> None:
    access = memory.access(Rows("u8", COLUMNS, cell_rows=1), "mix")[0]
    keys = integers(0, 2000)
    with memory.without(0, spare), pytest.raises(SharedMemoryError, match="raise --memory"):
        access.append(keys, {"n": keys, "flag": 1})
    done = access.total()
    assert access.counts(keys).tolist() == [1] * done + [0] * (2000 - done)
    assert access.live() == done
    assert checked(memory, access)
    if spare not in (1, 2):  # a table, a directory and a page: three blocks
        assert (done > 0) == (spare > 2)
    access.append(keys[done:], {"n": keys[done:], "flag": 1})
    assert access.lists(keys)[1]["n"].tolist() == keys.tolist()


def test_an_append_goes_on_where_it_stopped_when_room_is_made(memory: SlotMemory) -> None:
    made = []

    def make_room(size_bytes: int) -> bool:
        made.append(size_bytes)
        lib.mp_block_free(memory.slots[0], hogs.pop(0))
        return True

    access = memory.access(Rows("bytes", COLUMNS), "mix", make_room=make_room)[0]
    keys = BytesColumn.of([b"key %d" % (i % 700) for i in range(3000)])
    hogs: list[int] = []
    for hog_bytes in (1 << 16, 1 << 12, 64):
        while block := int(lib.mp_block_alloc(memory.slots[0], hog_bytes)):
            hogs.append(block)
    access.append(keys, {"n": integers(0, 3000), "flag": 1})
    offsets, columns = access.lists(BytesColumn.of([b"key %d" % i for i in range(700)]))
    assert made
    assert offsets[-1] == 3000
    assert columns["n"].tolist() == [n for i in range(700) for n in range(i, 3000, 700)]
    while hogs:
        lib.mp_block_free(memory.slots[0], hogs.pop())


# -- objects -----------------------------------------------------------------------------------------------------------


def test_objects_are_made_anew_by_each_get(memory: SlotMemory) -> None:
    access = memory.access(Pickled("u8"), "mix")[0]
    access.put(integers(0, 2), [{"a": [1]}, None])
    first, second = access.get(integers(0, 1)) + access.get(integers(0, 1))
    first["a"].append(2)
    assert second == {"a": [1]} == access.get(integers(0, 1))[0]
    assert access.get(integers(0, 3)) == [{"a": [1]}, None, None]
    assert access.live() == 2


class Refusing:
    """Cannot be pickled, and says so in its own way."""

    def __reduce__(self) -> Any:
        message = "not I\nnor anybody"
        raise ValueError(message)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda: 0, r"an object of type function cannot be pickled \("),
        (
            Refusing(),
            r"an object of type tests.unit.state.test_lists.Refusing cannot be pickled \(not I\): keep plain data",
        ),
        (sys, "an object of type module cannot be pickled"),
    ],
)
def test_an_object_that_cannot_be_pickled_is_refused_before_any_is_put(
    memory: SlotMemory, value: Any, told: str
) -> None:
    access = memory.access(Pickled("bytes"), "mix")[0]
    with pytest.raises(UsageError, match=f"put of key b'bad': {told}"):
        access.put(BytesColumn.of([b"good", b"bad"]), [1, value])
    assert access.live() == 0
    with pytest.raises(UsageError, match="put of 1 objects for 2 keys: give one for each"):
        access.put(BytesColumn.of([b"good", b"bad"]), [1])


def test_bytes_that_make_no_object_here_name_the_class_and_the_cure(memory: SlotMemory) -> None:
    access = memory.access(Pickled("u8"), "mix")[0]
    module = types.ModuleType("gone_tomorrow")
    kind = type("Thing", (), {"__module__": "gone_tomorrow"})
    module.Thing = kind  # type: ignore[attr-defined]
    sys.modules["gone_tomorrow"] = module
    access.put(integers(3, 4), [kind()])
    assert type(access.get(integers(3, 4))[0]) is kind
    del sys.modules["gone_tomorrow"]
    told = "get of key 3: its .* bytes, put as gone_tomorrow.Thing, cannot be unpickled .*every worker must be able to"
    with pytest.raises(UsageError, match=told):
        access.get(integers(3, 4))


def test_an_object_has_the_bytes_of_its_pickle(memory: SlotMemory) -> None:
    access = memory.access(Pickled("u8"), "mix")[0]
    value = list(range(5000))
    access.put(integers(0, 3), [value, 1, "x"])
    assert access.total() == sum(len(pickle.dumps(v, pickle.HIGHEST_PROTOCOL)) for v in (value, 1, "x"))
    before = memory.counter("copied_gather")
    access.get(integers(0, 3))
    assert memory.counter("copied_gather") - before == access.total()


def test_memory_is_flat_while_objects_change(memory: SlotMemory) -> None:
    access = memory.access(Pickled("bytes"), "mix")[0]
    sizes = []
    for turn in range(300):
        keys = BytesColumn.of([b"key %06d" % (turn * 7 + i) for i in range(60)])
        access.put(keys, ["x" * (turn * 131 % 977)] * 60)
        access.remove(BytesColumn.of([b"key %06d" % (turn * 7 + i) for i in range(7)]))
        sizes.append(store_bytes(memory, access))
    assert access.live() == 60 - 7
    assert max(sizes[150:]) <= 1.25 * max(sizes[:150]), "it has grown"
    assert checked(memory, access)
