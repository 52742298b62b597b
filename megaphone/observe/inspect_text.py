"""A look at a run for people: sections with aligned columns, every number with its unit, as wide as the terminal is.

What is wrong comes first, what is only half done next, figures after that.  Where the columns of a table do not fit,
those that matter least are left out; ``--json`` has everything.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from megaphone.observe.inspect_table import INDENT, Column, number_runs, table
from megaphone.observe.units import format_bytes, format_count

WIDTH_MIN: Final = 80
WIDTH_MAX: Final = 160
BINS_SHOWN: Final = 16
"""So many bins are listed one by one without being asked for."""
MOVING_SHOWN: Final = 16
ROWS_SHOWN: Final = 24
"""Queues, rings and capabilities: the fullest; the rest is summed up in a line."""


def render(model: dict[str, Any], *, width: int, every_bin: bool = False, slot: int | None = None) -> str:
    """Return the text of a model, ending in a newline.

    Args:
        model: of ``inspect_model``.
        width: of the terminal, in characters.
        every_bin: list each bin, however many there are.
        slot: show only what concerns this worker.
    """
    width = min(max(width, WIDTH_MIN), WIDTH_MAX)
    slots = [entry for entry in model["slots"] if slot is None or entry["slot"] == slot]
    sections = [
        _heading(model["run"], width),
        _told("VIOLATIONS: these cannot be, wherever a run is stopped", model["violations"], width),
        _told("Differences, as is usual between words of different moments", model["differences"], width),
        _told("In between: half done at this moment, and in order", model["torn"], width),
        _balance(model, width),
        _workers(slots, width),
    ]
    for operator in model["stateful"]:
        sections += [_operator(operator, width, slot), _bins(operator, width, slot, every_bin=every_bin)]
    sections += [
        _queues(slots, width),
        _rings(model["rings"], width, slot),
        _progress(slots, width),
        _capabilities(slots, width),
        _memory(slots, width),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def render_runs(runs: Sequence[dict[str, Any]], width: int) -> str:
    """Return the list of the runs that can be seen."""
    if not runs:
        return "no run of megaphone can be seen from here\n"
    columns = [
        Column("pid"), Column("workers"), Column("up"), Column("committed"), Column("of", rank=1),
        Column("workers' pids", text=True, rank=2), Column("command", text=True),
    ]  # fmt: skip
    rows = [_run_row(run) for run in runs]
    return "\n".join(table(columns, rows, min(max(width, WIDTH_MIN), WIDTH_MAX), indent="")) + "\n"


def _run_row(run: dict[str, Any]) -> list[str]:
    if run["error"]:
        return [str(run["pid"]), "-", "-", "-", "-", "", f"(made by another megaphone) {run['command']}"]
    return [
        str(run["pid"]), format_count(run["workers"]), _age(run["age_s"]), format_bytes(run["committed_bytes"]),
        format_bytes(run["data_bytes"]), " ".join(map(str, run["worker_pids"])), run["command"],
    ]  # fmt: skip


# -- words -------------------------------------------------------------------------------------------------------------


def _wrapped(text: str, width: int, first: str = INDENT, following: str = INDENT) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=following, break_on_hyphens=False)


def _time(value: int | None, never: str = "-") -> str:
    return never if value is None else format_count(value)


def _age(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"


def _most(rows: list[list[str]], what: str) -> tuple[list[list[str]], list[str]]:
    """Return the first rows, and a line for those that are left out."""
    left = len(rows) - ROWS_SHOWN
    return rows[:ROWS_SHOWN], [f"{INDENT}and {left} more {what}: see --json"] if left > 0 else []


# -- sections ----------------------------------------------------------------------------------------------------------


def _heading(run: dict[str, Any], width: int) -> list[str]:
    workers = f"{run['workers']} worker{'s' if run['workers'] != 1 else ''}"
    if not run["still"]:
        moment = "running: figures of different moments; stop the workers (kill -STOP) for exact ones"
    elif run["odd_workers"]:
        odd = ", ".join(map(str, run["odd_workers"]))
        moment = f"stopped, worker {odd} in the middle of an activation: exact but for what it has fixed"
    else:
        moment = "stopped between activations: everything adds up exactly"
    memory = f"{format_bytes(run['committed_bytes'])} committed of {format_bytes(run['data_bytes'])}"
    return [
        *_wrapped(f"megaphone run of process {run['pid']}: {workers}, up {_age(run['age_s'])}, {memory}", width, ""),
        *_wrapped(" ".join(run["command"]), width),
        *_wrapped(moment, width),
    ]


def _told(title: str, lines: Sequence[str], width: int) -> list[str]:
    return [title, *(part for line in lines for part in _wrapped(line, width, "  * ", "    "))] if lines else []


def _balance(model: dict[str, Any], width: int) -> list[str]:
    lines = []
    balance = model["balance"]
    for operator in model["stateful"]:
        records = operator["records"]
        places = [
            ("inbox of F", "inbox_f"), ("waiting", "waiting"), ("staged", "staged"), ("rings", "ring"),
            ("outboxes", "outbox"), ("inbox of S", "inbox_s"), ("stash", "stash"),
        ]  # fmt: skip
        parts = ", ".join(f"{name} {format_count(records[key])}" for name, key in places if records[key])
        way = f"{format_count(records['on_the_way'])} on the way" + (f" ({parts})" if parts else "")
        text = f"{operator['name']}: {format_count(records['shown'])} applied, {way}"
        if records["pending"]:
            text += f"; {format_count(records['pending'])} post-dated"
        if balance is not None:
            sign = "=" if balance["off"] == 0 else f"{balance['off']:+,} against"
            text += f"  {sign} {format_count(balance['sent'])} sent"
            if balance["off"]:
                text += f" (activations in progress explain up to {balance['may_be']:,})"
        lines += _wrapped(text, width, INDENT, INDENT * 2)
    return ["Records", *lines] if lines else []


def _workers(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    columns = [
        Column("worker"), Column("pid"), Column("process", text=True), Column("activation", text=True),
        Column("time now", rank=2), Column("sent"), Column("in", rank=3), Column("out", rank=3),
        Column("steps", rank=2), Column("parks", rank=4), Column("wakes", rank=5), Column("inputs open", rank=1),
    ]  # fmt: skip
    rows = []
    for slot in slots:
        counters = slot["counters"]
        activation = f"in {slot['activation']['of']}" if slot["activation"]["odd"] else "none"
        process = slot["process"] or "here"
        if slot["state"] != "running":
            process = f"{process}, {slot['state']}"
        elif slot["parked"]:
            process = f"{process}, parked"
        rows.append(
            [
                str(slot["slot"]), str(slot["pid"] or "-"), process, activation, _time(slot["time_now"]),
                format_count(counters["input_records"]), format_count(counters["records_in"]),
                format_count(counters["records_out"]), format_count(counters["steps"]),
                format_count(counters["parks"]), format_count(counters["wakes"]), str(slot["inputs_open"]),
            ]
        )  # fmt: skip
    return ["Workers  (records sent by inputs, taken in and sent out by operators)", *table(columns, rows, width)]


def _store(operator: dict[str, Any]) -> str:
    store = operator["store"]
    values = ", ".join(f"{column['name']} {column['dtype']}" for column in store["columns"])
    kind = "array" if store["kind"] == "dense" else "hash table"
    if store["kind"] == "pickled":
        return f"objects of {store['key']}, pickled"
    if "list" in store:
        values = ", ".join(f"{column['name']} {column['dtype']}" for column in store["list"])
        return f"lists of {store['key']} -> {values} of each row"
    return f"{kind} of {store['key']} -> {values}"


def _operator(operator: dict[str, Any], width: int, slot: int | None) -> list[str]:
    low, high = operator["configurations_installed"]
    installed = f"{low}" if low == high else f"{low} to {high}"
    to_come = max(len(half["updates"]) for half in operator["slots"])
    state = (
        f"MIGRATING: {operator['bins_moving']} of {operator['bins_count']} bins on their way, "
        f"{to_come} configuration{'s' if to_come != 1 else ''} to come"
        if operator["migrating"]
        else "not migrating"
    )
    title = f"{operator['name']}: {format_count(operator['bins_count'])} bins, {_store(operator)}"
    lines = [
        *_wrapped(title, width, "", INDENT),
        *_wrapped(
            f"hash {operator['hash']} of {operator['key']}, bins move by {operator['transfer']}; "
            f"{installed} configurations installed; {state}",
            width,
        ),
    ]
    columns = [
        Column("worker"), Column("bins"), Column("keys"), Column("state"), Column("config"), Column("from time"),
        Column("to come", rank=1), Column("control", rank=3), Column("waiting"), Column("stash"),
        Column("stash from", rank=2), Column("applied"), Column("until", rank=2), Column("due", rank=4),
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
                format_bytes(sum(entry["bytes"] for entry in mine)), str(half["configuration"]),
                _time(half["configuration_time"]), _updates(half["updates"]), format_count(half["control"]["messages"]),
                format_count(waiting["records"] + half["waiting_taken"]["records"]),
                format_count(stash["records"] + half["stash_taken"]["records"]),
                _time(stash["least_time"]), format_count(half["applied_records"]), _time(half["applied_last"]),
                _time(half["due_time"]),
            ]
        )  # fmt: skip
    lines += table(columns, rows, width)
    for difference in operator["map_differences"]:
        if slot is None or difference["slot"] == slot:
            bins = number_runs(difference["bins"], width - 50)
            lines.append(f"{INDENT}worker {difference['slot']} routes these otherwise than the directory: bins {bins}")
    return lines


def _updates(updates: Sequence[dict[str, Any]]) -> str:
    return f"{len(updates)} at {format_count(updates[0]['time'])}" if updates else "-"


def _bins(operator: dict[str, Any], width: int, slot: int | None, *, every_bin: bool) -> list[str]:
    names = [column["name"] for column in operator["store"]["columns"]]
    bins = [entry for entry in operator["bins"] if slot is None or entry["owner"] == slot]
    summed = [name for name in names if any(entry["sums"] and name in entry["sums"] for entry in bins)]
    figures = [
        Column("keys"), Column("bytes"), Column("records"), *(Column(f"sum of {name}") for name in summed),
        Column("post-dated", rank=2), Column("from time", rank=3),
    ]  # fmt: skip
    if every_bin or len(bins) <= BINS_SHOWN:
        columns = [Column("bin"), Column("owner"), Column("where", text=True), Column("generation", rank=1), *figures]
        rows = [[str(e["bin"]), str(e["owner"]), _where(e), str(e["generation"]), *_figures([e], summed)] for e in bins]
        return ["Bins of " + operator["name"], *table(columns, rows, width)] if rows else []
    groups: dict[tuple[int, bool], list[dict[str, Any]]] = defaultdict(list)
    for entry in bins:
        groups[entry["owner"], entry["resident"]].append(entry)
    which = Column("which", text=True, rank=1)
    columns = [Column("owner"), Column("where", text=True), Column("bins"), *figures, which]
    rows = [
        [
            str(owner), "resident" if resident else "on its way", format_count(len(group)), *_figures(group, summed),
            number_runs([entry["bin"] for entry in group], 40),
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
    pending = sum(entry["pending"] for entry in group)
    times = [entry["pending_time"] for entry in group if entry["pending_time"] is not None]
    return [
        format_count(sum(entry["keys"] for entry in group)), format_bytes(sum(entry["bytes"] for entry in group)),
        format_count(sum(entry["updates"] for entry in group)), *sums, format_count(pending),
        _time(min(times, default=None)),
    ]  # fmt: skip


def format_whole(number: int) -> str:
    """Return a whole number of any size, with thousands marked."""
    return f"{number:,}"


def _queues(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    columns = [
        Column("worker"), Column("queue", text=True), Column("messages"), Column("records"), Column("bytes"),
        Column("least time"),
    ]  # fmt: skip
    found = [
        (entry["bytes"], [str(slot["slot"]), name, *_amount(entry)])
        for slot in slots
        for kind in ("inboxes", "outboxes")
        for entry in slot[kind]
        for name in [f"inbox {entry['port']}" if kind == "inboxes" else f"outbox to worker {entry['to']}"]
    ]
    backlogs = [
        f"{INDENT}worker {slot['slot']}: {slot['backlog_changes']} changes of progress wait for room, "
        f"{slot['frees_waiting']} blocks to be sent home"
        for slot in slots
        if slot["backlog_changes"] or slot["frees_waiting"]
    ]
    if not found:
        return ["Queues", f"{INDENT}all inboxes and outboxes are empty", *backlogs]
    rows, more = _most([row for _, row in sorted(found, key=lambda pair: -pair[0])], "queues")
    return ["Queues", *table(columns, rows, width), *more, *backlogs]


def _amount(entry: dict[str, Any]) -> list[str]:
    return [
        format_count(entry["messages"]), format_count(entry["records"]), format_bytes(entry["bytes"]),
        _time(entry["least_time"]),
    ]  # fmt: skip


def _rings(rings: Sequence[dict[str, Any]], width: int, slot: int | None) -> list[str]:
    columns = [
        Column("ring", text=True), Column("cells"), Column("messages"), Column("records"), Column("bytes"),
        Column("least time"), Column("taken, not let go"), Column("progress", rank=1), Column("blocks", rank=2),
    ]  # fmt: skip
    mine = [ring for ring in rings if slot is None or slot in (ring["from"], ring["to"])]
    if not mine:
        return []
    used = [ring for ring in mine if ring["cells"]]
    if not used:
        return ["Rings", f"{INDENT}all {len(mine)} rings are empty"]
    rows, more = _most(
        [
            [
                f"{ring['from']} -> {ring['to']}", format_count(ring["cells"]), *_amount(ring),
                format_count(ring["taken_not_reaped"]), format_count(ring["progress_cells"]),
                format_count(ring["free_cells"]),
            ]
            for ring in sorted(used, key=lambda ring: -ring["cells"])
        ],
        "rings",
    )  # fmt: skip
    idle = len(mine) - len(used)
    return ["Rings" + (f"  ({idle} more are empty)" if idle else ""), *table(columns, rows, width), *more]


def _progress(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    if not slots:
        return []
    rows = []
    for port in slots[0]["frontiers"]:
        times = [slot["frontiers"][port] for slot in slots]
        known = {_time(time, "closed") for time in times}
        if len(known) == 1:
            rows.append([port, *known, ""])
        else:
            least = min((time for time in times if time is not None), default=None)
            ahead = [
                f"{_time(time, 'closed')} at {slot['slot']}"
                for slot, time in zip(slots, times, strict=True)
                if time != least
            ]
            rows.append([port, _time(least, "closed"), ", ".join(ahead)])
    columns = [Column("port", text=True), Column("frontier"), Column("ahead of it, at worker", text=True)]
    return ["Frontiers of inputs: no earlier time can appear there", *table(columns, rows, width)]


def _capabilities(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    rows = [
        [str(slot["slot"]), entry["port"], _time(entry["time"]), format_count(entry["count"])]
        for slot in slots
        for entry in slot["capabilities"]
    ]
    if not rows:
        return ["Capabilities", f"{INDENT}none are held"]
    shown, more = _most(rows, "capabilities")
    columns = [Column("worker"), Column("held at", text=True), Column("time"), Column("count")]
    return ["Capabilities: what keeps frontiers back", *table(columns, shown, width), *more]


def _memory(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    columns = [
        Column("worker"), Column("chunks of batches"), Column("of state"), Column("leased"), Column("committed"),
        Column("slabs", rank=1), Column("pinned"), Column("in blocks"),
    ]  # fmt: skip
    rows = []
    for slot in slots:
        memory = slot["memory"]
        rows.append(
            [
                str(slot["slot"]), format_count(memory["batch_chunks"]), format_count(memory["store_chunks"]),
                format_bytes(memory["leased_bytes"]), format_bytes(memory["committed_bytes"]),
                format_count(memory["slabs"]), format_count(memory["slabs_pinned"]),
                format_bytes(memory["block_bytes"]),
            ]
        )  # fmt: skip
    return ["Memory", *table(columns, rows, width)]
