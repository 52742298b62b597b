"""Hashes are stable, the same for every width of an integer, and good where the bin is: in their high bits."""

from __future__ import annotations

import numpy as np
import pytest

from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.errors import UsageError

FNV_OF_INTEGERS = {
    0: 0xA8C7F832281A39C5,
    1: 0x89CD31291D2AEFA4,
    2: 0xE6BD86443DF8CE07,
    1000: 0xAD6323825FA766DC,
    1001: 0x2E5741B73FAF0DDD,
    123456789: 0xDF604AC5D726CE19,
}
FNV_BINS = [168, 137, 230, 173, 46, 223]


def fnv_by_definition(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def test_fnv_of_integers_is_the_originals() -> None:
    keys = np.array(list(FNV_OF_INTEGERS), dtype=np.uint64)
    hashes = hash_keys(keys, "fnv")
    assert hashes.tolist() == list(FNV_OF_INTEGERS.values())
    assert bins_of(hashes, 8).tolist() == FNV_BINS


@pytest.mark.parametrize("kind", ["fnv", "mix", "dense"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "?", "i8", "M8[s]"])
def test_an_integer_has_the_hash_of_its_bits_widened_with_zeros(kind: str, dtype: str) -> None:
    keys = np.array([0, 1, 1, 0, 1], dtype="u1").astype(dtype)
    if np.dtype(dtype).kind == "i":
        keys = keys - np.array(2, dtype=dtype)
    wide = keys.view(f"u{keys.dtype.itemsize}").astype(np.uint64)
    assert (hash_keys(keys, kind, 5) == hash_keys(wide, kind, 5)).all()  # type: ignore[arg-type]


def test_fnv_of_bytes_is_that_of_the_definition() -> None:
    words = [b"", b"a", b"megaphone", bytes(range(256)), "äöü".encode()]
    assert hash_keys(BytesColumn.of(words), "fnv").tolist() == [fnv_by_definition(word) for word in words]


@pytest.mark.parametrize("kind", ["fnv", "mix"])
def test_a_bytes_column_and_a_fixed_width_have_the_same_hash(kind: str) -> None:
    words = [b"four", b"five", b"nine"]
    fixed = hash_keys(np.array(words, dtype="S4"), kind)  # type: ignore[arg-type]
    assert (fixed == hash_keys(BytesColumn.of(words), kind)).all()  # type: ignore[arg-type]


def test_a_bytes_column_may_begin_in_the_middle_of_its_bytes() -> None:
    whole = BytesColumn.of([b"drop", b"keep", b"", b"this one as well"])
    part = BytesColumn(whole.offsets[1:], whole.data)
    assert (hash_keys(part) == hash_keys(whole)[1:]).all()


def test_mix_of_bytes_depends_on_every_byte_and_on_the_length() -> None:
    base = bytes(range(40))
    words = [base[:length] for length in range(41)]
    for length in (3, 4, 7, 8, 15, 16, 40):
        for at in range(length):
            changed = bytearray(base[:length])
            changed[at] ^= 1
            words.append(bytes(changed))
    words += [b"\0" * length for length in range(1, 20)]
    hashes = hash_keys(BytesColumn.of(words)).tolist()
    assert len(set(hashes)) == len(set(words))


@pytest.mark.parametrize("kind", ["mix", "fnv"])
@pytest.mark.parametrize("stride", [1, 8, 4096, 1 << 32])
def test_high_bits_spread_keys_of_any_stride_over_the_bins(kind: str, stride: int) -> None:
    keys = np.arange(1 << 14, dtype=np.uint64) * np.uint64(stride)
    bins = bins_of(hash_keys(keys, kind), 6)  # type: ignore[arg-type]
    counts = np.bincount(bins, minlength=64)
    assert counts.min() > 128  # 256 expected
    assert counts.max() < 512


def test_dense_makes_the_low_bits_the_bin() -> None:
    keys = np.array([0, 1, 5, 12, 2**64 - 1], dtype=np.uint64)
    assert bins_of(hash_keys(keys, "dense", 3), 3).tolist() == [0, 1, 5, 4, 7]


def test_no_keys_have_no_hashes() -> None:
    assert len(hash_keys(np.zeros(0, dtype=np.uint64))) == 0
    assert len(hash_keys(BytesColumn.of([]))) == 0


@pytest.mark.parametrize(
    ("keys", "kind", "bin_shift", "told"),
    [
        (np.zeros(1), "mix", 8, "convert them to integers"),
        (np.array([b"word"]), "dense", 8, "choose 'mix' or 'fnv'"),
        (BytesColumn.of([b"word"]), "dense", 8, "choose 'mix' or 'fnv'"),
        (np.zeros(1, dtype=np.uint64), "crc", 8, "no hash is called 'crc'"),
        (np.zeros(1, dtype=np.uint64), "mix", 21, "bin_shift 21"),
        (np.zeros(1, dtype=np.uint64), "mix", 0, "bin_shift 0"),
    ],
)
def test_what_cannot_be_hashed_is_refused(keys: np.ndarray, kind: str, bin_shift: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        hash_keys(keys, kind, bin_shift)  # type: ignore[arg-type]
