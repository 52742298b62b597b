"""What a fold may rely on: addresses right or refused, growth a little at a time, nothing lost without memory."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.errors import InternalError, SharedMemoryError, StaleRowError, UsageError
from megaphone.state.access import NO_ROW, Keys
from megaphone.state.stores import DenseArray, HashTable, Store
from tests.unit.state.memory import SlotMemory

ALL_ONES = 2**64 - 1
BATCH = 64
ROWS_PER_RECORD_MAX = 16
SWEEP_ROWS_MAX = 128 + 256
"""A sweep that is due, and the cluster that a table completes after it."""


def integers(start: int, stop: int) -> Keys:
    return np.arange(start, stop, dtype=np.uint64)


def strings(start: int, stop: int) -> Keys:
    return BytesColumn.of([b"w%d" % i * (1 + i % 5) for i in range(start, stop)])


STORES = [
    (DenseArray({"count": "u8"}), "dense", integers),
    (HashTable("u8", {"count": "u8"}), "mix", integers),
    (HashTable("u8", {"count": "u8"}), "fnv", integers),
    (HashTable("bytes", {"count": "u8"}), "mix", strings),
]
STORE_IDS = ["dense", "mix", "fnv", "bytes"]
every_store = pytest.mark.parametrize(("store", "hash_name", "keys"), STORES, ids=STORE_IDS)


@every_store
@pytest.mark.parametrize("method", ["add_emit", "rows"])
def test_growth_moves_a_few_rows_for_each_record_of_a_call(
    memory: SlotMemory, store: Store, hash_name: str, keys: Callable[[int, int], Keys], method: str
) -> None:
    access = memory.access(store, hash_name)[0]
    total = 40_000
    for start in range(0, total, BATCH):
        getattr(access, method)(keys(start, start + BATCH))
    seen = access.statistics()
    bins = 1 << memory.bin_shift
    assert seen.rows_moved > total / 2  # tables of ten thousand rows have grown, more than once
    assert seen.rows_moved_call_max <= ROWS_PER_RECORD_MAX * BATCH + SWEEP_ROWS_MAX * bins


@every_store
def test_growth_initialises_a_few_rows_for_each_record_of_a_call(
    memory: SlotMemory, store: Store, hash_name: str, keys: Callable[[int, int], Keys]
) -> None:
    access = memory.access(store, hash_name)[0]
    access.add_emit(keys(0, 30_000))
    made_max = 0
    for start in range(30_000, 50_000, BATCH):
        before = access.statistics().rows_made
        access.add_emit(keys(start, start + BATCH))
        made_max = max(made_max, access.statistics().rows_made - before)
    # Twice the rows that are swept, and what a row at the edge of a table needs around it.
    assert 0 < made_max <= 2 * (ROWS_PER_RECORD_MAX * BATCH + 4 * SWEEP_ROWS_MAX) + 64 * BATCH


def test_a_far_index_does_not_initialise_what_is_before_it(memory: SlotMemory) -> None:
    access = memory.access(DenseArray("u8"), "dense")[0]
    access.add_emit(np.array([4_000_000], dtype=np.uint64))
    assert access.statistics().rows_made == 64  # the chunk of 512 bytes that it is in
    assert access.live() == 1


def test_updates_alone_finish_a_growth(memory: SlotMemory) -> None:
    for store, hash_name, keys in STORES:
        access = memory.access(store, hash_name)[0]
        grown = keys(0, 5000)
        access.add_emit(grown)
        for _ in range(20):
            access.add_emit(grown)
        why = ffi.new("mp_outcome *")
        for bin_id in range(4):
            assert lib.mp_store_settle(memory.slots[0], access.c, bin_id, 1, why) == 0
            lib.mp_store_clear(memory.slots[0], access.c, bin_id)


@every_store
def test_an_empty_table_costs_no_block_and_a_cleared_one_gives_all_back(
    memory: SlotMemory, store: Store, hash_name: str, keys: Callable[[int, int], Keys]
) -> None:
    access = memory.access(store, hash_name)[0]
    assert access.live() == 0
    assert access.checksum() == 0
    assert memory.counter("block_allocs") == 0
    access.add_emit(keys(0, 3000))
    for bin_id in range(4):
        assert lib.mp_store_bytes(memory.slots[0], access.c, bin_id) > 0
        assert lib.mp_store_clear(memory.slots[0], access.c, bin_id) == 0
    assert memory.counter("block_live_bytes") == 0
    assert access.live() == 0
    assert list(access.items()) == []


@every_store
def test_a_bin_that_is_not_resident_stops_the_call_before_its_record(
    memory: SlotMemory, store: Store, hash_name: str, keys: Callable[[int, int], Keys]
) -> None:
    accesses = memory.access(store, hash_name)
    some = keys(0, 100)
    memory.give(accesses, 2, 1)
    first = int(np.flatnonzero(bins_of(hash_keys(some, hash_name, 2), 2) == 2)[0])  # type: ignore[arg-type]
    for method in (accesses[0].add_emit, accesses[0].rows):
        with pytest.raises(InternalError, match="bin 2 is not resident"):
            method(some)
    assert accesses[0].live() <= first
    assert accesses[1].live() == 0


def test_a_call_without_memory_has_done_the_records_before_and_goes_on_when_there_is_room() -> None:
    memory = SlotMemory(slots=1, memory_mib=8)
    in_the_way: list[int] = []
    asked: list[int] = []

    def make_room(size_bytes: int) -> bool:
        asked.append(size_bytes)
        while in_the_way:
            lib.mp_block_free(memory.slots[0], in_the_way.pop())
        return len(asked) < 10

    access = memory.access(HashTable("u8", {"count": "u8"}), "mix", make_room=make_room)[0]
    while block := lib.mp_block_alloc(memory.slots[0], 60_000):
        in_the_way.append(block)
    keys = integers(0, 20_000)
    assert isinstance(keys, np.ndarray)
    doubled = np.concatenate([keys, keys])
    assert access.add_emit(doubled).tolist() == [1] * 20_000 + [2] * 20_000
    assert asked
    assert access.live() == 20_000
    memory.close()


def test_no_memory_at_all_is_a_clear_error_and_loses_nothing() -> None:
    memory = SlotMemory(slots=1, memory_mib=8)
    for store, hash_name, keys in STORES:
        access = memory.access(store, hash_name)[0]
        access.rows(keys(0, 5_000))
        with pytest.raises(SharedMemoryError, match="raise --memory"):
            access.rows(keys(5_000, 3_000_000))
        before = access.live()
        if hash_name != "dense":  # rows that are only looked up are zero, and a zero row of an array is absent
            assert before >= 5_000
            assert (access.rows(keys(0, before), insert=False) != NO_ROW).all()
        for bin_id in range(4):
            lib.mp_store_clear(memory.slots[0], access.c, bin_id)
    memory.close()


def test_an_index_beyond_any_array_is_refused(memory: SlotMemory) -> None:
    access = memory.access(DenseArray("u8"), "dense")[0]
    for key in (2**40, ALL_ONES):
        with pytest.raises(UsageError, match="use a HashTable if the keys are sparse"):
            access.add_emit(np.array([key], dtype=np.uint64))


def test_equal_keys_of_one_call_have_one_row_even_when_the_table_grows_under_them(memory: SlotMemory) -> None:
    access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
    keys = np.concatenate([np.arange(3000), np.arange(3000)[::-1]]).astype(np.uint64)
    rows = access.rows(keys)
    assert (rows[:3000] == rows[3000:][::-1]).all()
    assert len(np.unique(rows)) == 3000
    access.put(rows, "count", keys)
    assert (access.gather(rows, "count") == keys).all()


def test_a_growth_that_ends_without_moving_a_row_keeps_addresses(memory: SlotMemory) -> None:
    access = memory.access(HashTable("u8", {"count": "u8"}), "dense")[0]
    keys = np.arange(0, 4 * 20, 4, dtype=np.uint64)  # all of bin 0
    access.rows(keys[:4])
    access.reserve(0, 1000)
    why = ffi.new("mp_outcome *")
    while lib.mp_store_settle(memory.slots[0], access.c, 0, 1, why) and why.rows_moved < 4:
        pass
    for _ in range(60):
        rows = access.rows(keys[:4])
        assert access.gather(rows, "count").tolist() == [0] * 4


def test_tables_that_fill_evenly_do_not_grow_at_the_same_time() -> None:
    """If they did, half of the state would ask for memory and be swept at once, and records would wait for it."""
    memory = SlotMemory(slots=1, bin_shift=8)
    try:
        access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
        bounds = np.round(50_000 * 2 ** (np.arange(33) / 16)).astype(int)  # two doublings
        sizes, grown = np.zeros(256), []
        for begin, end in zip([0, *bounds], bounds, strict=False):
            access.add_emit(np.arange(begin, end, dtype=np.uint64))
            now = np.array([lib.mp_store_bytes(memory.slots[0], access.c, bin_id) for bin_id in range(256)])
            grown.append(int((now > sizes).sum()))
            sizes = now
        assert sum(grown[1:]) > 256  # each bin did grow
        assert max(grown[1:]) < 256 / 4, grown
    finally:
        memory.close()


def test_a_table_that_was_reserved_grows_to_no_more_than_twice_its_size() -> None:
    memory = SlotMemory(slots=1, bin_shift=4)
    try:
        access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
        for bin_id in range(16):
            access.reserve(bin_id, 700)

        def sizes() -> Any:
            return np.array([lib.mp_store_bytes(memory.slots[0], access.c, bin_id) for bin_id in range(16)])

        reserved = sizes()
        for _ in range(3):  # then all is swept
            access.add_emit(integers(0, 16 * 850))
        grown = sizes() / reserved
        assert grown.min() > 1.4
        assert grown.max() < 2.1  # bytes of the older table are not among them; those of spill rows are
        assert len(set(sizes().tolist())) > 8  # and not all at once the next time
    finally:
        memory.close()


def size_after(store: Store, bin_id: int, capacity: int, least: int, *, size_bytes: int = 0, keyed: int = 0) -> int:
    return int(lib.mp_table_size(store.struct(keyed, 8, "mix"), bin_id, capacity, least, size_bytes))


def test_a_table_grows_into_less_than_its_own_size_where_only_that_fits_a_block() -> None:
    store = HashTable("u8", {"count": "u8"})
    rows_max = (2**31 - 64 * 16 - 40) // 16  # beside 64 spill rows and the tail
    for capacity in (rows_max // 2 - 64, rows_max * 3 // 5, rows_max * 2 // 3 - 128):
        least = capacity * 3 // 2
        for bin_id in range(256):
            assert least <= size_after(store, bin_id, capacity, least) <= rows_max
    # A row of this one has 24 bytes, its room for bytes to come 8, and keys of half a GiB need one of them.
    table, capacity = HashTable("bytes", {"count": "u8"}), 2**30 // 32 // 8 * 5
    most = max(size_after(table, bin_id, capacity, capacity, size_bytes=2**29) for bin_id in range(64))
    assert capacity < most < 2**30 // 32 - 64
    # What is too large in any case is refused by the size that it has.
    assert size_after(store, 0, rows_max, rows_max * 3 // 2) == rows_max * 3 // 2


def test_bins_of_one_number_of_several_operators_do_not_grow_together() -> None:
    store = HashTable("u8", {"count": "u8"})
    for bin_id in range(64):
        sizes = sorted(size_after(store, bin_id, 0, 1000, keyed=keyed) for keyed in range(4))
        assert all(larger > smaller * 1.02 for smaller, larger in itertools.pairwise(sizes)), sizes


def test_tables_grow_right_in_memory_that_others_have_used(memory: SlotMemory) -> None:
    """A row that looks in use must never be seen before it is initialised."""
    access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
    rng = np.random.default_rng(11)
    keys = rng.integers(0, 2**64, 4000, dtype=np.uint64)
    for _ in range(25):
        # The same keys in another order find their own rows of the round before in the garbage.
        rng.shuffle(keys)
        for part in np.array_split(keys, 40):
            assert access.add_emit(part).tolist() == [1] * len(part)
        assert access.add_emit(keys).tolist() == [2] * len(keys)
        assert access.live() == len(keys)
        for bin_id in range(4):
            lib.mp_store_clear(memory.slots[0], access.c, bin_id)


def test_arrays_grow_right_in_memory_that_others_have_used(memory: SlotMemory) -> None:
    """A chunk that nobody has touched has no content: it is neither read nor moved before it is zeroed."""
    access = memory.access(DenseArray({"count": "u8"}), "dense")[0]
    rng = np.random.default_rng(12)
    for _ in range(10):
        ceiling = 100
        seen: dict[int, int] = {}
        while ceiling < 60_000:
            keys = rng.integers(0, ceiling, 150).astype(np.uint64)
            for key, running in zip(keys.tolist(), access.add_emit(keys).tolist(), strict=True):
                seen[key] = seen.get(key, 0) + 1
                assert running == seen[key]
            ceiling += ceiling // 3
        found = {
            int(key): int(n) for ks, columns in access.items() for key, n in zip(ks, columns["count"], strict=True)
        }
        assert found == seen
        access.add_emit(integers(0, 60_000))  # garbage for the next round
        for bin_id in range(4):
            lib.mp_store_clear(memory.slots[0], access.c, bin_id)


def key_with_mix(mixed: int) -> int:
    """Return the integer key whose mix hash is this: the finaliser, backwards."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        plain = mixed
        for _ in range(64 // shift):
            plain = mixed ^ plain >> shift
        mixed = plain * pow(factor, -1, 2**64) % 2**64
    return (mixed - 0x9E3779B97F4A7C15) % 2**64


def test_a_cluster_at_the_edge_of_what_is_initialised_stays_whole(memory: SlotMemory) -> None:
    """Keys are made for their places: those of bin 0, evenly spread, then several at the place that was moved last."""
    access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
    count = 500
    mixes = [(2 * i + 1) * 2**61 // count for i in range(count)]
    keys = np.array([key_with_mix(mixed) for mixed in mixes], dtype=np.uint64)
    assert hash_keys(keys).tolist() == mixes
    access.add_emit(keys)
    access.reserve(0, 2000)
    expected = dict.fromkeys(keys.tolist(), 1)
    why = ffi.new("mp_outcome *")
    while lib.mp_store_settle(memory.slots[0], access.c, 0, 3, why) == 1:
        moved = (access.rows(keys, insert=False) >> np.uint64(31) & np.uint64(1)) == 0
        if not moved.any():
            continue
        last = mixes[int(np.flatnonzero(moved)[-1])]
        crowd = np.array([key_with_mix(last + more) for more in range(1, 9)], dtype=np.uint64)
        access.add_emit(crowd)
        for key in crowd.tolist():
            expected[key] = expected.get(key, 0) + 1
    found = {int(key): int(n) for ks, columns in access.items() for key, n in zip(ks, columns["count"], strict=True)}
    assert found == expected
    every = np.array(list(expected), dtype=np.uint64)
    assert (access.gather(access.rows(every, insert=False), "count") == list(expected.values())).all()


@pytest.mark.parametrize("size_bytes", range(20_000, 400_000, 20_000))
def test_a_long_key_that_comes_while_a_table_grows_leaves_room_for_those_that_still_move(
    memory: SlotMemory, size_bytes: int
) -> None:
    access = memory.access(HashTable("bytes", {"count": "u8"}), "mix")[0]
    words = [b"%d" % i + b"-" * 60 for i in range(2000)]
    access.add_emit(BytesColumn.of(words))
    for bin_id in range(4):
        access.reserve(bin_id, 4000)
    longer = [b"%d" % i + b"+" * size_bytes for i in range(8)]
    access.add_emit(BytesColumn.of(longer))
    assert (access.add_emit(BytesColumn.of(words + longer)) == 2).all()
    assert sorted(word for keys, _ in access.items() for word in keys) == sorted(words + longer)


@pytest.mark.parametrize("change", ["growth", "removal", "hand-over and back"])
def test_an_address_is_refused_after(memory: SlotMemory, change: str) -> None:
    accesses = memory.access(HashTable("u8", {"count": "u8"}), "mix")
    access = accesses[0]
    rows = access.rows(integers(0, 100))
    if change == "growth":
        access.add_emit(integers(100, 5000))
    elif change == "removal":
        access.remove(access.rows(integers(50, 60)))
    else:
        for bin_id in range(4):
            memory.give(accesses, bin_id, 1)
            memory.give(accesses, bin_id, 0)
    for use in (
        lambda: access.gather(rows, "count"),
        lambda: access.put(rows, "count", 1),
        lambda: access.remove(rows),
    ):
        with pytest.raises(StaleRowError, match=r"call rows\(\) again"):
            use()


def test_the_absent_row_and_addresses_that_never_were_are_refused(memory: SlotMemory) -> None:
    access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
    rows = access.rows(integers(0, 10))
    for wrong in (int(NO_ROW), int(rows[0]) ^ 0x7FF, int(rows[0]) | 1 << 31, int(rows[0]) | 0x7FFFFFFF):
        with pytest.raises(StaleRowError):
            access.gather(np.array([wrong], dtype=np.uint64), "count")


def test_addresses_survive_calls_that_only_look_or_write(memory: SlotMemory) -> None:
    access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
    access.add_emit(integers(0, 3000))
    rows = access.rows(integers(0, 3000))
    access.rows(integers(0, 9000), insert=False)
    access.put(rows, "count", 5)
    list(access.items())
    access.checksum()
    assert access.gather(rows, "count").tolist() == [5] * 3000


def test_a_removed_key_begins_again_with_the_default(memory: SlotMemory) -> None:
    store = HashTable("u8", {"count": "u8", "low": "f8", "name": "S3"}, default={"low": np.inf, "name": b"new"})
    access = memory.access(store, "fnv")[0]
    keys = np.array([0, ALL_ONES, 17], dtype=np.uint64)
    access.put(access.rows(keys), "low", [1.0, 2.0, 3.0])
    access.remove(access.rows(keys[1:]))
    rows = access.rows(keys)
    assert access.gather(rows, "low").tolist() == [1.0, np.inf, np.inf]
    assert access.gather(rows, "name").tolist() == [b"new"] * 3


def test_a_table_that_is_churned_does_not_grow(memory: SlotMemory) -> None:
    access = memory.access(HashTable("bytes", {"count": "u8"}), "mix")[0]
    access.add_emit(strings(0, 1000))
    sizes = set()
    for start in range(0, 60_000, 1000):
        access.remove(access.rows(strings(start, start + 1000)))
        access.add_emit(strings(start + 1000, start + 2000))
        sizes.add(sum(lib.mp_store_bytes(memory.slots[0], access.c, bin_id) for bin_id in range(4)))
    assert access.live() == 1000
    assert max(sizes) <= 1000 * 400


@pytest.mark.parametrize("store", [DenseArray({"sum": "f8"}), HashTable("u8", {"sum": "f8"})], ids=["dense", "table"])
def test_add_emit_adds_floats(memory: SlotMemory, store: Store) -> None:
    access = memory.access(store, "dense")[0]
    keys = np.array([3, 4, 3, 3], dtype=np.uint64)
    assert access.add_emit(keys, np.array([0.5, 1.0, 0.25, -1.0])).tolist() == [0.5, 1.0, 0.75, -0.25]
    assert access.add_emit(keys[:1]).tolist() == [0.75]


@pytest.mark.parametrize("store", [DenseArray("i8"), HashTable("u8", "i8")], ids=["dense", "table"])
def test_add_emit_takes_negative_values_and_wraps_around(memory: SlotMemory, store: Store) -> None:
    access = memory.access(store, "dense")[0]
    keys = np.array([1, 1, 1], dtype=np.uint64)
    assert access.add_emit(keys, [-5, 3, 2]).tolist() == [-5, -2, 0]
    top = np.array([2**63 - 1, 1], dtype=np.int64)
    assert access.add_emit(keys[:2], top).tolist() == [2**63 - 1, -(2**63)]


@pytest.mark.parametrize("bin_shift", [1, 8, 12])
def test_results_do_not_depend_on_the_number_of_bins(bin_shift: int) -> None:
    memory = SlotMemory(slots=1, bin_shift=bin_shift)
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 5000, 20_000).astype(np.uint64)
    checksums = set()
    for store, hash_name in ((DenseArray("u8"), "dense"), (HashTable("u8"), "mix"), (HashTable("u8"), "fnv")):
        access = memory.access(store, hash_name)[0]
        sums = access.add_emit(keys)
        assert int(sums.sum()) == sum(int(n) * (int(n) + 1) // 2 for n in np.unique(keys, return_counts=True)[1])
        checksums.add(access.checksum())
        for bin_id in range(1 << bin_shift):
            lib.mp_store_clear(memory.slots[0], access.c, bin_id)
    reference = SlotMemory(slots=1, bin_shift=3)
    access = reference.access(HashTable("u8"), "mix")[0]
    access.add_emit(keys[::-1])
    assert checksums == {access.checksum()}
    memory.close()
    reference.close()


def test_the_kernel_writes_keys_of_their_own_width(memory: SlotMemory) -> None:
    for dtype in ("u1", "u2", "u4", "u8"):
        for store, hash_name, kernel in (
            (DenseArray("u8", key=dtype), "dense", lib.mp_dense_add_emit),
            (HashTable(dtype, "u8"), "mix", lib.mp_table_add_emit),
        ):
            access = memory.access(store, hash_name)[0]
            keys = np.array([200, 7, 200], dtype=dtype)
            out = np.zeros(3, dtype=dtype)
            sums = np.zeros(3, dtype=np.uint64)
            why = ffi.new("mp_outcome *")
            done = kernel(
                memory.slots[0], access.c, ffi.from_buffer(keys), keys.itemsize, ffi.NULL, 3,
                ffi.from_buffer(out), ffi.from_buffer(sums), why,
            )  # fmt: skip
            assert (done, out.tolist(), sums.tolist()) == (3, [200, 7, 200], [1, 1, 2])
            for bin_id in range(4):
                lib.mp_store_clear(memory.slots[0], access.c, bin_id)


def test_gathered_bytes_are_counted(memory: SlotMemory) -> None:
    access = memory.access(HashTable("u8", {"count": "u8", "flag": "u1"}), "mix")[0]
    rows = access.rows(integers(0, 100))
    access.gather(rows, "count")
    access.gather(rows, "flag")
    assert memory.counter("copied_gather") == 900


def test_a_long_key_is_scanned_and_found(memory: SlotMemory) -> None:
    access = memory.access(HashTable("bytes", "u8"), "mix")[0]
    words = [b"x" * 3_000_000, b"", b"y" * 70_000, b"x" * 2_999_999]
    access.add_emit(BytesColumn.of(words))
    assert access.add_emit(BytesColumn.of(words)).tolist() == [2, 2, 2, 2]
    found = [word for keys, _ in access.items() for word in keys]
    assert sorted(found) == sorted(words)


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda a: a.rows(np.zeros(3, dtype=np.int32)), "keys are int32"),
        (lambda a: a.rows(BytesColumn.of([b"x"])), "keys are a bytes column"),
        (lambda a: a.gather(a.rows(integers(0, 2)), "total"), "no column 'total': it has count"),
        (lambda a: a.put(a.rows(integers(0, 2)), "count", [1, 2, 3]), "give one, or one each"),
        (lambda a: a.put(a.rows(integers(0, 2)), "count", np.array([1.5, 2])), "convert them"),
        (lambda a: a.rows(integers(0, 2), np.zeros(3, dtype=np.uint64)), "2 keys and 3 hashes"),
        (lambda a: a.add_emit(integers(0, 2), out=np.zeros(2)), "out is float64"),
    ],
)  # fmt: skip
def test_misuse_is_told_with_its_cure(memory: SlotMemory, use: Callable[[object], object], told: str) -> None:
    access = memory.access(HashTable("u8", {"count": "u8"}), "mix")[0]
    with pytest.raises(UsageError, match=told):
        use(access)


def test_rows_of_an_array_are_not_removed(memory: SlotMemory) -> None:
    access = memory.access(DenseArray("u8"), "dense")[0]
    with pytest.raises(UsageError, match="put zeros"):
        access.remove(access.rows(integers(0, 2)))


def test_nothing_is_done_for_no_keys(memory: SlotMemory) -> None:
    for store, hash_name, keys in STORES:
        access = memory.access(store, hash_name)[0]
        assert len(access.rows(keys(0, 0))) == 0
        assert len(access.add_emit(keys(0, 0))) == 0
        assert len(access.gather(np.zeros(0, dtype=np.uint64), "count")) == 0


@pytest.mark.parametrize("dtype", ["u8", "i8", "f8"])
@pytest.mark.parametrize("hash_name", ["mix", "fnv"])
@pytest.mark.parametrize("seed", range(4))
def test_reached_is_what_look_up_gather_and_compare_give_while_a_table_grows(
    dtype: str, hash_name: str, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable("u8", {"other": "u4", "least": dtype}), hash_name)[0]
    for step in range(60):
        fresh = draw.integers(0, 40 * (step + 1), 60, dtype=np.uint64)
        fresh[draw.integers(60)] = ALL_ONES  # the key that marks empty rows
        rows = access.rows(fresh)
        access.put(rows, "least", draw.integers(-5 if dtype != "u8" else 0, 6, 60).astype(dtype))
        keys = draw.integers(0, 60 * (step + 1), 200, dtype=np.uint64)
        keys[draw.integers(200)] = ALL_ONES
        values = draw.integers(-5 if dtype != "u8" else 0, 6, 200).astype(dtype)
        rows = access.rows(keys, insert=False)
        there = np.flatnonzero(rows != NO_ROW)
        expected = there[values[there] >= access.gather(rows[there], "least")]
        at, found = access.reached(keys, "least", values)
        assert at.dtype == np.intp
        assert at.tolist() == expected.tolist()
        assert found.tolist() == rows[expected].tolist()
    assert access.statistics().rows_moved > 300


def test_reached_of_an_array_sees_rows_that_were_never_written_as_zeros() -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(DenseArray({"n": "i8"}), "dense")[0]
    access.add_emit(np.array([2, 40], np.uint64), np.array([5, -1]))
    at, rows = access.reached(np.array([40, 2, 1 << 30, 2], np.uint64), "n", np.array([-1, 4, 9, 5]))
    assert at.tolist() == [0, 3]
    assert access.gather(rows, "n").tolist() == [-1, 5]


def test_reached_of_no_keys_is_none_and_values_may_be_one_for_all() -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable("u8", {"n": "u8"}), "mix")[0]
    assert len(access.reached(integers(0, 0), "n", 0)[0]) == 0
    access.add_emit(integers(0, 9), np.arange(9))
    assert access.reached(integers(0, 20), "n", 6)[0].tolist() == list(range(7))


@pytest.mark.parametrize(
    ("store", "keys"), [(HashTable("u8", {"n": "u4"}), integers), (HashTable("bytes", {"n": "u8"}), strings)]
)
def test_reached_of_what_it_cannot_compare_is_refused(store: Store, keys: Callable[[int, int], Keys]) -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(store, "mix")[0]
    with pytest.raises(UsageError, match="reached compares 8 bytes"):
        access.reached(keys(0, 3), "n", 1)


@pytest.mark.parametrize(
    ("dtype", "values", "told"),
    [
        ("u8", np.array([-1] * 4), "values are int64, the column 'n' is uint64: convert them"),
        ("u8", -1, "no value of column 'n' is -1: it is uint64"),
        ("u8", np.int64(-1), "values are int64"),
        ("u8", -0.5, "values are float64"),
        ("i8", np.array([2**64 - 1] * 4, np.uint64), "values are uint64, the column 'n' is int64: convert them"),
        ("i8", 2**63, "no value of column 'n' is 9223372036854775808: it is int64"),
        ("f8", np.array([2**53 + 1] * 4), "values are int64, the column 'n' is float64: convert them"),
    ],
)  # fmt: skip
def test_reached_of_values_that_a_cast_would_change_is_refused(dtype: str, values: Any, told: str) -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable("u8", {"n": dtype}), "mix")[0]
    access.add_emit(integers(0, 4))
    with pytest.raises(UsageError, match=told):
        access.reached(integers(0, 4), "n", values)


def test_reached_takes_one_number_that_the_column_has() -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable("u8", {"n": "f8"}), "mix")[0]
    access.add_emit(integers(0, 4), np.arange(4.0))
    assert [len(access.reached(integers(0, 4), "n", value)[0]) for value in (-1, 1, 1.5, np.float64(2))] == [0, 2, 2, 3]


def test_reached_of_a_bin_that_is_not_here_is_refused() -> None:
    memory = SlotMemory(slots=2, bin_shift=1)
    _, elsewhere = memory.access(HashTable("u8", {"n": "u8"}), "mix")
    with pytest.raises(InternalError, match="not resident"):
        elsewhere.reached(integers(0, 100), "n", 1)


def test_rows_are_removed_in_any_order_and_with_repetitions() -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable("u8", {"n": "u8"}), "mix")[0]
    access.add_emit(integers(0, 500), np.arange(500))
    rows = access.rows(integers(0, 300))
    twice = np.random.default_rng(1).permutation(np.concatenate([rows, rows[:150], rows[:20], rows[:1]]))
    access.remove(twice)
    assert access.live() == 200
    kept = access.rows(integers(300, 500), insert=False)
    assert access.gather(kept, "n").tolist() == list(range(300, 500))
    assert (access.rows(integers(0, 300), insert=False) == NO_ROW).all()
    with pytest.raises(StaleRowError):
        access.gather(rows[:1], "n")


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (0, 2)])
def test_rows_are_removed_whatever_the_shape_of_the_array_that_names_them(shape: tuple[int, ...]) -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable("u8", {"n": "u8"}), "mix")[0]
    rows = access.rows(integers(0, 9))[: int(np.prod(shape))].reshape(shape)
    access.remove(rows if shape else rows[()])
    assert access.live() == 9 - rows.size


def test_the_core_refuses_to_remove_rows_that_rise_and_addresses_are_stale_after_a_repeated_one() -> None:
    memory = SlotMemory(slots=1, bin_shift=1)
    access = memory.access(HashTable("u8", {"n": "u8"}), "mix")[0]
    rows = np.sort(access.rows(integers(0, 60)))[::-1]
    of_one_bin = np.ascontiguousarray(rows[rows >> np.uint64(44) == 0])
    repeated = np.ascontiguousarray(np.repeat(of_one_bin[:2], 2))
    why = ffi.new("mp_outcome *")
    call = lib.mp_store_remove, access._slot, access.c
    assert call[0](*call[1:], ffi.from_buffer("uint64_t[]", repeated), 4, why) == 4
    with pytest.raises(StaleRowError):
        access.gather(of_one_bin[2:3], "n")
    again = np.ascontiguousarray(np.sort(access.rows(integers(0, 60), insert=False))[:2])
    assert call[0](*call[1:], ffi.from_buffer("uint64_t[]", again), 2, why) == 1
    assert why.error == -errno.EINVAL
