"""A stateful operator for people: what each worker holds of it, and its bins, one by one or summed up by owner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from megaphone.observe.inspect_model import plural
from megaphone.observe.inspect_table import INDENT, Column, number_runs, table, time_text, wrapped
from megaphone.observe.units import format_bytes, format_count

BINS_SHOWN: Final = 16
"""So many bins are listed one by one without being asked for."""
WHICH_WIDTH: Final = 40


def _store(operator: dict[str, Any]) -> str:
    store = operator["store"]
    if store is None:
        return "without state"
    values = ", ".join(f"{column['name']} {column['dtype']}" for column in store["columns"])
    kind = "array" if store["kind"] == "dense" else "hash table"
    if store["kind"] == "pickled":
        return f"objects of {store['key']}, pickled"
    if "list" in store:
        values = ", ".join(f"{column['name']} {column['dtype']}" for column in store["list"])
        return f"lists of {store['key']} -> {values} of each row"
    return f"{kind} of {store['key']} -> {values}"


def operator_lines(operator: dict[str, Any], width: int, slot: int | None) -> list[str]:
    """Return what it is, then a line for each worker's part of it.

    Args:
        operator: of the model's ``stateful``.
        width: of a line, in characters.
        slot: only this worker's part.
    """
    low, high = operator["configurations_installed"]
    installed = plural(low, "configuration") if low == high else f"{low:,} to {high:,} configurations"
    to_come = max(len(half["configurations_to_come"]) for half in operator["slots"])
    state = (
        f"MIGRATING: {operator['bins_moving']:,} of {plural(operator['bins_count'], 'bin')} on their way, "
        f"{plural(to_come, 'configuration')} to come"
        if operator["migrating"]
        else "not migrating"
    )
    title = f"{operator['name']}: {plural(operator['bins_count'], 'bin')}, {_store(operator)}"
    lines = [
        *wrapped(title, width, "", INDENT),
        *wrapped(
            f"hash {operator['hash']} of {operator['key']}, bins move by {operator['transfer']}; "
            f"{installed} installed; {state}",
            width,
        ),
    ]
    columns = [
        Column("worker"), Column("bins"), Column("keys"), Column("state"), Column("config", rank=2),
        Column("from time", rank=3), Column("to come", rank=1), Column("control", rank=5), Column("waiting"),
        Column("stash"), Column("stash from", rank=4), Column("applied"), Column("until", rank=4),
        Column("due", rank=6),
    ]  # fmt: skip
    rows = []
    for half in operator["slots"]:
        if slot is not None and half["slot"] != slot:
            continue
        mine = [entry for entry in operator["bins"] if entry["owner"] == half["slot"]]
        waiting, stash = half["waiting"], half["stash"]
        rows.append(
            [
                str(half["slot"]), format_count(len(mine)), format_count(sum(entry["keys"] for entry in mine)),
                format_bytes(sum(entry["bytes"] for entry in mine)), format_count(half["configuration"]),
                time_text(half["configuration_time"]), _to_come(half["configurations_to_come"]),
                format_count(half["control"]["messages"]),
                format_count(waiting["records"] + half["waiting_taken"]["records"]),
                format_count(stash["records"] + half["stash_taken"]["records"]),
                time_text(stash["least_time"]), format_count(half["applied_records"]), time_text(half["applied_last"]),
                time_text(half["due_time"]),
            ]
        )  # fmt: skip
    lines += table(columns, rows, width)
    for difference in operator["map_differences"]:
        if slot is None or difference["slot"] == slot:
            bins = difference["bins"]
            said = f"{INDENT}worker {difference['slot']} routes by an older or newer map: bin{'s' * (len(bins) > 1)} "
            lines.append(said + number_runs(bins, width - len(said)))
    return lines


def _to_come(configurations: Sequence[dict[str, Any]]) -> str:
    return f"{len(configurations)} at {format_count(configurations[0]['time'])}" if configurations else "-"


def bin_lines(operator: dict[str, Any], width: int, slot: int | None, *, every_bin: bool) -> list[str]:
    """Return the bins one by one where they are few or asked for, else summed up by owner.

    Args:
        operator: of the model's ``stateful``.
        width: of a line, in characters.
        slot: only the bins that this worker owns.
        every_bin: however many there are.
    """
    names = [column["name"] for column in (operator["store"] or {"columns": ()})["columns"]]
    bins = [entry for entry in operator["bins"] if slot is None or entry["owner"] == slot]
    summed = [name for name in names if any(entry["sums"] and name in entry["sums"] for entry in bins)]
    figures = [
        Column("keys"), Column("state"), Column("applied"), *(Column(f"sum of {name}", rank=1) for name in summed),
        Column("post-dated", rank=3), Column("due", rank=4),
    ]  # fmt: skip
    if every_bin or len(bins) <= BINS_SHOWN:
        columns = [Column("bin"), Column("owner"), Column("where", text=True), Column("generation", rank=2), *figures]
        rows = [[str(e["bin"]), str(e["owner"]), _where(e), str(e["generation"]), *_figures([e], summed)] for e in bins]
        return ["Bins of " + operator["name"], *table(columns, rows, width)] if rows else []
    groups: dict[tuple[int, bool], list[dict[str, Any]]] = defaultdict(list)
    for entry in bins:
        groups[entry["owner"], entry["resident"]].append(entry)
    which = Column("which", text=True, rank=2)
    columns = [Column("owner"), Column("where", text=True), Column("bins"), *figures, which]
    rows = [
        [
            str(owner), "resident" if resident else "on its way", format_count(len(group)), *_figures(group, summed),
            number_runs([entry["bin"] for entry in group], WHICH_WIDTH),
        ]
        for (owner, resident), group in sorted(groups.items())
    ]  # fmt: skip
    lines = [f"Bins of {operator['name']} by owner  (--bins lists each)", *table(columns, rows, width)]
    moving = [entry["bin"] for entry in bins if not entry["resident"]]
    if moving:
        lines.append(f"{INDENT}on their way: {number_runs(moving, width - 20)}")
    return lines


def _where(entry: dict[str, Any]) -> str:
    return ("resident" if entry["resident"] else "on its way") + "".join(f", {name}" for name in entry["torn"])


def _figures(group: Sequence[dict[str, Any]], summed: Sequence[str]) -> list[str]:
    sums = []
    for name in summed:
        total = sum(entry["sums"].get(name, 0) for entry in group)
        sums.append(f"{total:,.6g}" if isinstance(total, float) else format_whole(total))
    pending = sum(entry["pending_records"] for entry in group)
    times = [entry["pending_time"] for entry in group if entry["pending_time"] is not None]
    return [
        format_count(sum(entry["keys"] for entry in group)), format_bytes(sum(entry["bytes"] for entry in group)),
        format_count(sum(entry["applied_records"] for entry in group)), *sums, format_count(pending),
        time_text(min(times, default=None)),
    ]  # fmt: skip


def format_whole(number: int) -> str:
    """Return a whole number of any size, with thousands marked."""
    return f"{number:,}"
