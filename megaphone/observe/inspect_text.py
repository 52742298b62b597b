"""A look at a run for people: sections with aligned columns, every number with its unit, as wide as the terminal is.

What is wrong comes first, what is only half done next, figures after that.  Where the columns of a table do not fit,
those that matter least are left out; ``--json`` has everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from megaphone.observe.inspect_model import plural
from megaphone.observe.inspect_operator import bin_lines, operator_lines
from megaphone.observe.inspect_table import INDENT, Column, number_runs, table, time_text, wrapped
from megaphone.observe.units import format_bytes, format_count

WIDTH_MIN: Final = 60
WIDTH_MAX: Final = 160
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
        _heading(model, width),
        _told("VIOLATIONS: these cannot be, wherever a run is stopped", model["violations"], width),
        _told("Differences, as is usual between words of different moments", model["differences"], width),
        _told("In between: half done at this moment, and in order", model["torn"], width),
        _balance(model, width),
        _workers(slots, width),
    ]
    for operator in model["stateful"]:
        sections += [operator_lines(operator, width, slot), bin_lines(operator, width, slot, every_bin=every_bin)]
    sections += [
        _queues(slots, width),
        _rings(model["rings"], width, slot),
        _progress(slots, width),
        _capabilities(slots, width),
        _memory(slots, width),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def render_runs(runs: Sequence[dict[str, Any]], width: int) -> str:
    """Return the list of the runs that can be seen; empty where there are none."""
    if not runs:
        return ""
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


def _heading(model: dict[str, Any], width: int) -> list[str]:
    run = model["run"]
    if not run["still"]:
        moment = "running: figures of different moments; stop the workers (kill -STOP) for exact ones"
    elif run["odd_workers"]:
        odd = ", ".join(map(str, run["odd_workers"]))
        one = "" if len(run["odd_workers"]) == 1 else "s"
        moment = f"stopped, worker{one} {odd} in the middle of an activation: exact but for its fixed inputs"
    else:
        moment = "stopped between activations: the figures are exact"
    if model["violations"]:
        moment += ", and they CONTRADICT each other"
    memory = f"{format_bytes(run['committed_bytes'])} committed of {format_bytes(run['data_bytes'])}"
    workers = plural(run["workers"], "worker")
    return [
        *wrapped(f"megaphone run of process {run['pid']}: {workers}, up {_age(run['age_s'])}, {memory}", width, ""),
        *wrapped(" ".join(run["command"]), width),
        *wrapped(moment, width),
    ]


def _told(title: str, lines: Sequence[str], width: int) -> list[str]:
    return [title, *(part for line in lines for part in wrapped(line, width, "  * ", "    "))] if lines else []


PLACES: Final = (
    ("inbox of F", "inbox_f"), ("waiting", "waiting"), ("staged", "staged"), ("rings", "ring"), ("outboxes", "outbox"),
    ("inbox of S", "inbox_s"), ("stash", "stash"),
)  # fmt: skip
"""Where records on their way to be applied can be, in the order of that way."""


def _balance(model: dict[str, Any], width: int) -> list[str]:
    every = [operator["records"] for operator in model["stateful"]]
    if not every:
        return []
    balance = model["balance"]
    used = [(title, key) for title, key in PLACES if any(records[key] for records in every)]
    pending = any(records["pending"] for records in every)
    columns = [
        Column("operator", text=True), Column("applied"), Column("on the way"),
        *(Column(title, rank=1) for title, _ in used),
        *[Column("post-dated", rank=2)] * pending, *[Column("sent"), Column("", text=True)] * (balance is not None),
    ]  # fmt: skip
    rows = []
    for operator, records in zip(model["stateful"], every, strict=True):
        row = [operator["name"], format_count(records["shown"]), format_count(records["on_the_way"])]
        row += [format_count(records[key]) for _, key in used]
        row += [format_count(records["pending"])] * pending
        if balance is not None:
            row += [format_count(balance["sent"]), _verdict(model)]
        rows.append(row)
    return ["Records", *table(columns, rows, width)]


def _verdict(model: dict[str, Any]) -> str:
    balance = model["balance"]
    if balance["off"] == 0:
        return "adds up"
    if 0 < balance["off"] <= balance["may_be"]:
        return f"{balance['off']:+,} of {balance['may_be']:,} fixed"
    return f"{balance['off']:+,}" + (", WRONG" if model["run"]["still"] else "")


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
                str(slot["slot"]), str(slot["pid"] or "-"), process, activation, time_text(slot["time_now"]),
                format_count(counters["input_records"]), format_count(counters["records_in"]),
                format_count(counters["records_out"]), format_count(counters["steps"]),
                format_count(counters["parks"]), format_count(counters["wakes"]), str(slot["inputs_open"]),
            ]
        )  # fmt: skip
    return ["Workers  (records sent by inputs; in and out of operators)", *table(columns, rows, width)]


def _queues(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    columns = [
        Column("worker"), Column("queue", text=True), Column("messages"), Column("records"), Column("bytes", rank=1),
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
        time_text(entry["least_time"]),
    ]  # fmt: skip


def _rings(rings: Sequence[dict[str, Any]], width: int, slot: int | None) -> list[str]:
    columns = [
        Column("ring", text=True), Column("cells"), Column("messages"), Column("records"), Column("bytes"),
        Column("least time"), Column("taken, not let go", rank=1), Column("progress", rank=2), Column("blocks", rank=3),
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
    empty = f"  ({idle} more {'is' if idle == 1 else 'are'} empty)" if idle else ""
    return ["Rings" + empty, *table(columns, rows, width), *more]


def _progress(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    if not slots:
        return []
    rows = []
    for port in slots[0]["frontiers"]:
        times = [slot["frontiers"][port] for slot in slots]
        known = {time_text(time, "closed") for time in times}
        if len(known) == 1:
            rows.append([port, *known, ""])
        else:
            least = min((time for time in times if time is not None), default=None)
            ahead: dict[str, list[int]] = defaultdict(list)
            for slot, time in zip(slots, times, strict=True):
                if time != least:
                    ahead[time_text(time, "closed")].append(slot["slot"])
            said = [f"{time} at {number_runs(workers, 24)}" for time, workers in ahead.items()]
            rows.append([port, time_text(least, "closed"), ", ".join(said)])
    columns = [Column("port", text=True), Column("frontier"), Column("ahead of it, at worker", text=True)]
    return ["Frontiers of inputs: no earlier time can appear there", *table(columns, rows, width)]


def _capabilities(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    rows = []
    for slot in slots:
        held: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in slot["capabilities"]:
            held[entry["port"]].append(entry)
        for port, entries in held.items():
            times = [entry["time"] for entry in entries]
            until = time_text(max(times)) if len(times) > 1 else "-"
            count = sum(entry["count"] for entry in entries)
            rows.append([str(slot["slot"]), port, time_text(min(times)), until, format_count(count)])
    if not rows:
        return ["Capabilities", f"{INDENT}none are held"]
    shown, more = _most(rows, "outputs")
    columns = [
        Column("worker"), Column("held at", text=True), Column("time"), Column("until", rank=1), Column("count"),
    ]  # fmt: skip
    return ["Capabilities: what keeps frontiers back", *table(columns, shown, width), *more]


def _memory(slots: Sequence[dict[str, Any]], width: int) -> list[str]:
    columns = [
        Column("worker"), Column("batch chunks"), Column("state chunks"), Column("leased", rank=2), Column("committed"),
        Column("slabs", rank=1), Column("pinned", rank=1), Column("in blocks"),
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
