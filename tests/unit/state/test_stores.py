"""Declarations are checked when they are made, and lay rows out at natural alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone._core import lib
from megaphone.errors import UsageError
from megaphone.state.stores import DenseArray, HashTable


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DenseArray("O"), "has no fixed width"),
        (lambda: DenseArray("nonsense"), "has no dtype that numpy knows"),
        (lambda: DenseArray(">u8"), "of the other byte order: use"),
        (lambda: DenseArray({}), "with 0 columns"),
        (lambda: DenseArray({f"c{i}": "u1" for i in range(17)}), "with 17 columns"),
        (lambda: DenseArray("u8", key="S4"), "use a HashTable"),
        (lambda: DenseArray("u8", key="bytes"), "use a HashTable"),
        (lambda: HashTable("f8"), "convert them to integers or 'S16'"),
        (lambda: HashTable(np.dtype([("a", "u1"), ("b", "u8")], align=True)), "equal keys must have equal bits"),
        (lambda: HashTable("U"), "has no fixed width"),
        (lambda: HashTable("u8", {"wide": "V600"}), "at most 512"),
        (lambda: HashTable("u8", {"count": "u8"}, default={"total": 1}), "a default for total"),
        (lambda: HashTable("u8", {"count": "u8"}, default={"count": "many"}), "'many' of column 'count' is no uint64"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(make: Any, told: str) -> None:  # noqa: ANN401 - a lambda
    with pytest.raises(UsageError, match=told):
        make()


@pytest.mark.parametrize(
    ("store", "hash_name", "told"),
    [
        (DenseArray("u8"), "mix", "use 'dense'"),
        (HashTable("bytes"), "dense", "use 'mix' or 'fnv'"),
        (HashTable("S12"), "dense", "use 'mix' or 'fnv'"),
        (HashTable("V500", {"count": "u8", "more": "u8"}), "mix", "a row has more than 512 bytes"),
        (HashTable("u8"), "sip", "no hash is called 'sip'"),
    ],
)
def test_a_hash_that_does_not_fit_the_store_is_refused(store: Any, hash_name: str, told: str) -> None:  # noqa: ANN401
    with pytest.raises(UsageError, match=told):
        store.struct(0, 8, hash_name)


@pytest.mark.parametrize(
    ("store", "hash_name", "row_bytes", "at"),
    [
        (DenseArray("u8"), "dense", 8, [0]),
        (DenseArray({"a": "u1", "b": "u4", "c": "u2", "d": "f8"}), "dense", 24, [0, 4, 8, 16]),
        (HashTable("u8", {"count": "u8"}), "mix", 16, [8]),
        (HashTable("u2", {"flag": "?", "count": "u8"}), "mix", 24, [8, 16]),
        (HashTable("S5", {"count": "u4"}), "mix", 24, [16]),
        (HashTable("bytes", {"count": "u8"}), "mix", 24, [16]),
        (HashTable("M8[ms]", {"name": "S3", "z": "c16"}), "fnv", 32, [8, 16]),
    ],
)
def test_a_row_is_the_key_and_the_columns_at_natural_alignment(
    store: Any,  # noqa: ANN401 - either kind
    hash_name: str,
    row_bytes: int,
    at: list[int],
) -> None:
    struct = store.struct(3, 8, hash_name)
    assert (struct.keyed, struct.row_bytes) == (3, row_bytes)
    assert list(struct.column_at)[: len(at)] == at


def test_times_are_keys_like_integers_and_strings_like_bytes() -> None:
    assert HashTable("M8[s]").key_kind == lib.MP_KEY_U64
    assert HashTable("S8").key_kind == lib.MP_KEY_FIXED
    assert HashTable(bytes).key_kind == lib.MP_KEY_BYTES


def test_equal_declarations_are_equal_and_none_can_be_changed() -> None:
    assert HashTable("u8", {"count": "u8"}) == HashTable(np.uint64, {"count": np.uint64})
    assert HashTable("u8", {"count": "u8"}) != HashTable("u8", {"total": "u8"})
    with pytest.raises(AttributeError):
        DenseArray("u8").key = None  # type: ignore[misc]
