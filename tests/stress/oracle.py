"""What a script must show: recounted with numpy alone from what was sent, and compared with what a run has shown.

Nothing of the engine decides what is expected, except the hashes, which have tests of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.migration.control import decode_into
from tests.stress.records import (
    BACK,
    U64,
    after_loop,
    delays_of,
    idents_of,
    keys_of,
    mix,
    numbers_of,
    numbers_of_keys,
    passes,
    put_off,
    sendings_of,
    stamps_of,
    times_of,
)
from tests.stress.script import SECOND_BINS, SECOND_KEYS, SECOND_SHIFT, Script


class Difference(AssertionError):  # noqa: N818 - what it says is how a run differs, not that something is in error
    """A run has shown something else than what it must."""


@dataclass
class Shown:
    """What one worker's part has shown at the end."""

    seen: dict[str, list[Any]]
    state: list[dict[str, Any]]
    rest: dict[str, Any]
    updates: list[tuple[int, int, Any]]
    facts: dict[str, int] = field(default_factory=dict)


@dataclass
class Expected:
    """Every record that is applied, sorted by key and then in the order in which its key must be shown it."""

    times: U64
    idents: U64
    numbers: U64
    running: U64


def expect(script: Script) -> Expected:
    """Recount: sort by key, time, records that came back first, sender, order of sending; and number each key's."""
    columns: list[list[U64]] = [[], [], [], []]
    for epoch, place, sending in sendings_of(script):
        idents = idents_of(sending)
        kept = np.flatnonzero(passes(idents)) if "filter" in script.front else np.arange(len(idents))
        first = (np.uint64(sending.slot % script.workers) << np.uint64(56)) + (np.uint64(place) << np.uint64(28))
        times_in = times_of(sending, epoch)
        if "loop" in script.front:
            times_in = after_loop(idents, times_in)
        for column, values in zip(
            columns,
            (idents, times_in, first + np.arange(len(idents), dtype=np.uint64), delays_of(sending)),
            strict=True,
        ):
            column.append(values[kept])
    copies = script.workers if "broadcast" in script.front else 1
    joined: list[U64] = [np.concatenate([*column, np.empty(0, np.uint64)]) for column in columns]
    idents, times, order, delays = joined
    back = delays > 0
    is_input = np.concatenate([np.ones(len(idents), np.uint64), np.zeros(int(back.sum()), np.uint64)])
    origin = np.concatenate([times, times[back]])
    order = np.concatenate([order, order[back]])
    times = np.concatenate([times, times[back] + delays[back]])
    idents = np.concatenate([idents, idents[back] + BACK])
    numbers = numbers_of(script, idents)
    sorted_ = np.lexsort((order, origin, is_input, times, numbers))
    sorted_ = np.repeat(sorted_, copies)
    numbers = numbers[sorted_]
    begins = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])) if len(numbers) else np.empty(0, np.int64)
    lengths = np.diff(np.append(begins, len(numbers)))
    running = np.arange(len(numbers)) - np.repeat(begins, lengths) + 1
    return Expected(times[sorted_], idents[sorted_], numbers, running.astype(np.uint64))


def compare(script: Script, parts: list[Shown]) -> dict[str, int]:
    """Return figures about a run that is right; raises Difference for one that is not."""
    expected = expect(script)
    _compare_rest(parts)
    _compare_outputs(script, expected, parts)
    _compare_second(script, expected, parts)
    _compare_side(script, parts)
    histories = [owner_history(script, stage, parts) for stage in range(1 + script.second)]
    _compare_owners(script, histories[0], parts)
    _compare_state(script, expected, histories, parts)
    moves = sum(int((b != a).sum()) for history in histories for (_, a), (_, b) in pairwise(history))
    updates = sum(len(history) - 1 for history in histories)
    return {"records": len(expected.idents), "updates": updates, "moves": moves}


def _refuse(is_wrong: Any, what: str) -> None:
    if is_wrong:
        raise Difference(what)


def _compare_rest(parts: list[Shown]) -> None:
    for slot, part in enumerate(parts):
        _refuse(any(part.rest.values()), f"worker {slot} is not at rest: {part.rest}")
        for stage, state in enumerate(part.state):
            left = (state["updates"], state["stashed"])
            _refuse(any(left), f"worker {slot}, operator {stage}: {left} updates and stashed batches are left")


def _all(parts: list[Shown], what: str) -> list[Any]:
    return [np.concatenate(column) for column in zip(*(part.seen[what] for part in parts), strict=True)]


def _rows(columns: tuple[Any, ...], names: str) -> Any:
    rows = np.empty(len(columns[0]), [(name, "u8") for name in names.split(",")])
    for name, column in zip(names.split(","), columns, strict=True):
        rows[name] = column
    return rows


def _equal(what: str, names: str, shown: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """Compare two multisets of rows."""
    count, wanted = len(shown[0]), len(expected[0])
    rows = [np.sort(_rows(columns, names), order=names.split(",")) for columns in (shown, expected)]
    if count == wanted and all(np.array_equal(rows[0][name], rows[1][name]) for name in names.split(",")):
        return
    first = np.unique(rows[0], return_counts=True), np.unique(rows[1], return_counts=True)
    counts = [dict(zip(map(tuple, values.tolist()), times.tolist(), strict=True)) for values, times in first]
    keys = sorted(counts[0].keys() | counts[1].keys())
    wrong = [(key, counts[0].get(key, 0), counts[1].get(key, 0)) for key in keys]
    wrong = [entry for entry in wrong if entry[1] != entry[2]]
    told = "; ".join(f"({names}) = {key}: {a} times instead of {b}" for key, a, b in wrong[:4])
    message = f"{what}: {count} rows instead of {wanted}, {len(wrong)} differ: {told}"
    raise Difference(message)


def _compare_outputs(script: Script, expected: Expected, parts: list[Shown]) -> None:
    for slot, part in enumerate(parts):
        times = part.seen["seen"][0]
        _refuse(len(times) and (times[1:] < times[:-1]).any(), f"outputs of worker {slot} go back in time")
    if script.kernel:
        times, keys, running = _all(parts, "seen")
        numbers = np.array(numbers_of_keys(script, keys), np.uint64)
        _equal("outputs", "time,key,n", (times, numbers, running), (expected.times, expected.numbers, expected.running))
        return
    times, idents, running = _all(parts, "seen")
    if script.is_ordered:
        _equal("outputs", "time,id,n", (times, idents, running), (expected.times, expected.idents, expected.running))
        return
    _equal("records applied", "time,id", (times, idents), (expected.times, expected.idents))
    shown = (times, numbers_of(script, idents), running)
    _equal("running counts", "time,key,n", shown, (expected.times, expected.numbers, expected.running))


def _compare_second(script: Script, expected: Expected, parts: list[Shown]) -> None:
    if not script.second:
        return
    times, groups, running = _all(parts, "second")
    source = expected.running if script.kernel else expected.idents
    wanted = mix(source) % np.uint64(SECOND_KEYS)
    times_in = put_off(expected.times, wanted) if script.second_kind == "consume" else expected.times
    order = np.lexsort((times_in, wanted))
    wanted, at = wanted[order], times_in[order]
    first = np.searchsorted(wanted, wanted, "left")
    counts = np.arange(len(wanted)) - first + 1
    _equal("second counts", "time,group,n", (times, groups, running), (at, wanted, counts.astype(np.uint64)))


def _compare_side(script: Script, parts: list[Shown]) -> None:
    if "tee" not in script.front:
        return
    idents, times = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    place = script.front.index("tee")
    for epoch, _, sending in sendings_of(script):
        ids = idents_of(sending)
        kept = passes(ids) if "filter" in script.front[:place] else np.ones(len(ids), np.bool_)
        idents.append(ids[kept])
        at = times_of(sending, epoch)
        times.append((after_loop(ids, at) if "loop" in script.front[:place] else at)[kept])
    copies = script.workers if "broadcast" in script.front[:place] else 1
    wanted = (np.repeat(np.concatenate(times), copies), np.repeat(np.concatenate(idents), copies))
    shown = _all(parts, "side")
    _equal("the branch beside", "time,id", (shown[0], shown[1]), wanted)


def owner_history(script: Script, stage: int, parts: list[Shown]) -> list[tuple[int, Any]]:
    """Return (from time, owner of each bin), the first from time 0."""
    history = [(0, script.first_owner(stage))]
    for sent_to, time, words in parts[0].updates:
        if sent_to != stage:
            continue
        owner = history[-1][1].copy()
        decode_into(words, owner)
        if time == history[-1][0]:
            history.pop()
        history.append((time, owner))
    return history


def _compare_owners(script: Script, history: list[tuple[int, Any]], parts: list[Shown]) -> None:
    """Each record was applied by the worker that the configuration of its time names."""
    starts = np.array([time for time, _ in history], np.uint64)
    maps = np.stack([owner for _, owner in history])
    for slot, part in enumerate(parts):
        times, keys, _ = part.seen["seen"]
        numbers = np.array(numbers_of_keys(script, keys), np.uint64) if script.kernel else numbers_of(script, keys)
        if not len(times):
            continue
        bins = bins_of_numbers(script, numbers)
        owners = maps[np.searchsorted(starts, times, "right") - 1, bins]
        if (wrong := np.flatnonzero(owners != slot)).size:
            at = int(wrong[0])
            message = (
                f"worker {slot} applied {wrong.size} records of other workers' bins: at time {int(times[at])} one of "
                f"bin {int(bins[at])}, which is worker {int(owners[at])}'s"
            )
            raise Difference(message)


def bins_of_numbers(script: Script, numbers: U64) -> Any:
    """Return the bin of each key."""
    unique, which = np.unique(numbers, return_inverse=True)
    hashes = hash_keys(keys_of(script, unique), script.hash, script.bin_shift)  # type: ignore[arg-type] # one of three
    return bins_of(hashes, script.bin_shift)[which]


def _compare_state(
    script: Script, expected: Expected, histories: list[list[tuple[int, Any]]], parts: list[Shown]
) -> None:
    numbers, first, counts = np.unique(expected.numbers, return_index=True, return_counts=True)
    sums: list[Any] = [counts.tolist()]
    if script.wide:
        stamps = stamps_of(expected.idents)
        sums.append(np.add.reduceat(stamps, first).tolist() if len(first) else [])
    bins = bins_of_numbers(script, numbers).tolist() if len(numbers) else []
    wanted = [{(b, *row) for b, row in zip(bins, zip(numbers.tolist(), *sums, strict=True), strict=True)}]
    if script.second:
        source = expected.running if script.kernel else expected.idents
        groups, counts = np.unique(mix(source) % np.uint64(SECOND_KEYS), return_counts=True)
        bins = bins_of(hash_keys(groups, "mix", SECOND_SHIFT), SECOND_SHIFT).tolist()
        wanted.append(set(zip(bins, groups.tolist(), counts.tolist(), strict=True)))
    for stage, history in enumerate(histories):
        final = history[-1][1]
        found: list[tuple[int, ...]] = []
        for slot, part in enumerate(parts):
            state = part.state[stage]
            owners = np.frombuffer(state["owners"], np.uint8)
            _refuse(not np.array_equal(owners, final), f"operator {stage}: worker {slot} routes by other owners")
            for bin_id, shown in state["bins"].items():
                owner, resident, _, _, live, pending = shown["look"]
                is_there = owner == slot and resident == 1
                _refuse(not is_there, f"operator {stage}: bin {bin_id} is not resident at its owner {slot}")
                _refuse(pending, f"operator {stage}: bin {bin_id} has {pending} post-dated records left")
                dense = script.store == "dense" and stage == 0  # zero rows are no keys, but count as live
                wrong = live != len(shown["rows"]) and not dense
                _refuse(wrong, f"operator {stage}: bin {bin_id} has {len(shown['rows'])} rows and says {live}")
                found += [(bin_id, *row) for row in shown["rows"]]
        bin_count = SECOND_BINS if stage else script.bins
        held = sum(len(part.state[stage]["bins"]) for part in parts)
        _refuse(held != bin_count, f"operator {stage}: {held} bins of {bin_count} have an owner")
        if len(found) != len(wanted[stage]) or set(found) != wanted[stage]:
            wrong_rows = sorted(set(found) ^ wanted[stage])[:6]
            message = f"operator {stage}: {len(found)} keys instead of {len(wanted[stage])}; e.g. {wrong_rows}"
            raise Difference(message)
