"""The records of a script, made from it alone, and how a record shows whether it is still what was sent.

Each record carries a stamp, a hash of its id, and with a payload as many bytes as the stamp says, each of a value that
the stamp says.  Whoever has kept a view can tell at any later time whether the memory behind it has been used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from megaphone.dataflow.batch import BytesColumn
from tests.stress.script import Script, Sending

U64 = npt.NDArray[np.uint64]

NUMBER_SHIFT: Final = 24
BACK: Final = np.uint64(1 << 62)
"""Added to the id of a record that comes back."""
PAYLOAD_MAX: Final = 24
DTYPES: Final = {"dense": "u8", "u8": "u8", "u4": "u4", "fixed": "S12", "bytes": "bytes"}


def mix(values: U64, salt: int = 0) -> U64:
    """Return a hash of each value (splitmix64)."""
    with np.errstate(over="ignore"):
        z = values + np.uint64((0x9E3779B97F4A7C15 * (salt + 1)) & (2**64 - 1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def stamps_of(idents: U64) -> U64:
    """Return the stamp of each record; one that comes back keeps its own."""
    return mix(idents & ~BACK)


def numbers_of(script: Script, idents: U64) -> U64:
    """Return the number that stands behind the key of each record: some keys are frequent, most are not."""
    hashed = mix(idents & ~BACK, script.seed % 1000 + 1)
    keys = np.uint64(script.keys)
    return np.where(hashed & np.uint64(3) == 0, (hashed >> np.uint64(9)) % np.uint64(3), hashed >> np.uint64(9)) % keys


def keys_of(script: Script, numbers: U64) -> Any:
    """Return numbers as a column of keys of the script's store."""
    if script.store == "bytes":
        return BytesColumn.of([b"key %d" % number * (1 + number % 3) for number in numbers.tolist()])
    if script.store == "fixed":
        return np.char.mod(b"k%d", numbers.astype(np.int64)).astype("S12") if len(numbers) else np.empty(0, "S12")
    return numbers.astype(DTYPES[script.store])


def numbers_of_keys(script: Script, keys: Any) -> list[int]:
    """Return the numbers behind keys of a store."""
    if script.store == "bytes":
        return [int(key.split()[1].removesuffix(b"key")) for key in keys]
    if script.store == "fixed":
        return [int(key[1:]) for key in keys.tolist()]
    return [int(key) for key in keys.tolist()]


def payload_of(idents: U64) -> BytesColumn:
    """Return the bytes of each record."""
    stamps = stamps_of(idents)
    lengths = stamps % np.uint64(PAYLOAD_MAX + 1)
    offsets = np.zeros(len(idents) + 1, np.uint32)
    np.cumsum(lengths, out=offsets[1:])
    return BytesColumn(offsets, np.repeat((stamps >> np.uint64(8)).astype(np.uint8), lengths.astype(np.int64)))


def idents_of(sending: Sending) -> U64:
    """Return the ids of a batch."""
    return np.arange(sending.records, dtype=np.uint64) + np.uint64(sending.number << NUMBER_SHIFT)


def times_of(sending: Sending, epoch: int) -> U64:
    """Return the time of each record of a batch."""
    return np.uint64(epoch) + mix(idents_of(sending), 7) % np.uint64(sending.spread + 1)


def delays_of(sending: Sending) -> U64:
    """Return how much later each record comes back, 0: not at all."""
    hashed = mix(idents_of(sending), 8)
    some = np.uint64(1) + (hashed >> np.uint64(8)) % np.uint64(max(1, sending.delay))
    return np.where((hashed & np.uint64(3) == 0) & (sending.delay > 0), some, np.uint64(0))


def schema_of(script: Script) -> dict[str, str]:
    """Return the columns of the input, and of records that come back."""
    columns = {"k": DTYPES[script.store], "id": "u8", "stamp": "u8"}
    if script.has_pending:
        columns["delay"] = "u8"
    if script.payload:
        columns["b"] = "bytes"
    return columns


def columns_of(script: Script, sending: Sending) -> dict[str, Any]:
    """Return the columns of a batch."""
    idents = idents_of(sending)
    columns: dict[str, Any] = {
        "k": keys_of(script, numbers_of(script, idents)), "id": idents, "stamp": stamps_of(idents),
    }  # fmt: skip
    if script.has_pending:
        columns["delay"] = delays_of(sending)
    if script.payload:
        columns["b"] = payload_of(idents)
    return columns


def passes(idents: U64) -> npt.NDArray[np.bool_]:
    """Return which records the filter lets through."""
    passing: npt.NDArray[np.bool_] = stamps_of(idents) % np.uint64(5) != 0
    return passing


def goes_round(idents: U64, times: U64) -> npt.NDArray[np.bool_]:
    """Return which records a loop sends round once more at their time."""
    going: npt.NDArray[np.bool_] = mix(idents ^ mix(times), 9) % np.uint64(3) == 0
    return going


def after_loop(idents: U64, times: U64) -> U64:
    """Return the time at which each record leaves a loop that adds 1 to it."""
    times = times.copy()
    going = np.arange(len(idents))
    while len(going := going[goes_round(idents[going], times[going])]):
        times[going] += np.uint64(1)
    return times


def put_off(times: U64, groups: U64) -> U64:
    """Return the time to which a record is post-dated before it is counted by group."""
    return times + mix(groups ^ mix(times), 10) % np.uint64(3)


def wrong_in(idents: U64, stamps: U64 | None, payload: BytesColumn | None) -> str:
    """Return what of a batch is not as it was sent; empty when all is."""
    right = stamps_of(idents)
    if stamps is not None and not np.array_equal(stamps, right):
        where = int(np.flatnonzero(stamps != right)[0])
        return f"record {where} of {len(idents)}, id {int(idents[where]):#x}: stamp {int(stamps[where]):#x}"
    if payload is not None:
        expected = payload_of(idents)
        if not np.array_equal(payload.offsets, expected.offsets):
            return f"{len(idents)} records from id {int(idents[0]):#x}: payload of other lengths"
        if not np.array_equal(payload.data, expected.data):
            where = int(np.flatnonzero(payload.data != expected.data)[0])
            return f"{len(idents)} records from id {int(idents[0]):#x}: byte {where} of the payload is another"
    return ""


def sendings_of(script: Script) -> Iterator[tuple[int, int, Sending]]:
    """Yield (epoch, place among its worker's batches, batch)."""
    places = [0] * script.workers
    for epoch, what in enumerate(script.epochs):
        for sending in what.sendings:
            slot = sending.slot % script.workers
            yield epoch, places[slot], sending
            places[slot] += 1
