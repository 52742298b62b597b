"""What a look has found, as plain data: one object, which ``--json`` prints as it is and the text is made of.

Times are whole numbers, None where there is none (an empty frontier, an empty heap).  ``torn`` says what is only half
done because somebody was stopped in the middle of it; ``violations`` says what cannot be, wherever one stops;
``differences`` is the same of a run that goes on, where it means nothing yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone._core import lib
from megaphone.observe.inspect_look import (
    MESSAGE,
    NEVER,
    Audit,
    Finding,
    InspectError,
    Look,
    Stateful,
    dtype_of,
    sum_of,
)
from megaphone.shm.counters import COUNTER_NAMES

if TYPE_CHECKING:
    from megaphone.observe.inspect_attach import Moment
    from megaphone.observe.inspect_look import Records

STATES: Final = {0: "starting", 1: "running", 2: "done"}
HEAPS: Final = {"control": lib.MP_ROOT_CONTROL, "waiting": lib.MP_ROOT_WAITING, "stash": lib.MP_ROOT_STASH}
_TAKEN: Final = lib.MP_ROOT_CONTROL_TAKEN - lib.MP_ROOT_CONTROL
"""From a heap's place to that of what the activation in progress has taken out of it."""


def model_of(look: Look, moment: Moment | None, *, content: bool = True) -> dict[str, Any]:
    """Return everything that a look says.

    Args:
        look: at the run.
        moment: what its processes were doing; None where they are this process, as in a Simulation.
        content: read the rows of the bins too.
    """
    torn: list[str] = []
    violations: list[str] = []
    roots = [_roots(look, slot, violations) for slot in range(look.slots)]
    audits = [look.audit(stateful) for stateful in look.stateful]
    slots = [_slot(look, slot, roots[slot], moment, torn) for slot in range(look.slots)]
    model: dict[str, Any] = {
        "run": _run(look, moment, slots),
        "stateful": [
            _stateful(look, stateful, audit, roots, content=content, torn=torn)
            for stateful, audit in zip(look.stateful, audits, strict=True)
        ],
        "slots": slots,
        "rings": _rings(look, roots, violations),
    }
    for stateful, audit in zip(look.stateful, audits, strict=True):
        violations += [describe(stateful, found) for found in audit.findings]
        if audit["findings"] > len(audit.findings):
            violations.append(f"{stateful.name}: and {audit['findings'] - len(audit.findings)} more")
        if audit["bins_between"]:
            torn.append(
                f"{stateful.name}: {plural(audit['bins_between'], 'bin')} on the point of changing hands, in an "
                "activation that has not published"
            )
    balance = _balance(look, slots, audits)
    if balance is not None and balance["wrong"]:
        violations.append(balance["wrong"])
    # What is read at different moments need not agree: only where nobody could move is that a violation.
    still = model["run"]["still"]
    return {
        **model,
        "balance": balance,
        "torn": torn,
        "violations": violations if still else [],
        "differences": [] if still else violations,
    }


def time_of(value: int) -> int | None:
    """Return a time, None for the one that means never."""
    return None if int(value) == NEVER else int(value)


def _roots(look: Look, slot: int, violations: list[str]) -> Records:
    try:
        return look.roots(slot)
    except InspectError as error:
        violations.append(str(error))
        return np.empty(0, dtype_of("mp_root"))


# -- the run and its slots ---------------------------------------------------------------------------------------------


def _run(look: Look, moment: Moment | None, slots: list[dict[str, Any]]) -> dict[str, Any]:
    about = look.about
    at = time.time() if moment is None else moment.at
    return {
        "pid": about["pid"],
        "command": about["command"],
        "started_s": about["started"],
        "age_s": max(0.0, at - about["started"]),
        "workers": look.slots,
        "still": True if moment is None else moment.still,
        "odd_workers": [slot["slot"] for slot in slots if slot["activation"]["odd"]],
        "data_bytes": int(lib.mp_data_bytes(look.control)),
        "committed_bytes": int(lib.mp_committed_bytes(look.control)),
    }


def _slot(look: Look, slot: int, roots: Records, moment: Moment | None, torn: list[str]) -> dict[str, Any]:
    page = look.slot(slot)
    odd = bool(page.activation_seq & 1)
    main = page.ports_now == 0
    doing = "the main program" if main else look.port(int(page.operator_now)).rpartition(".")[0]
    if odd:
        torn.append(
            f"worker {slot} is in an activation of {doing}: inputs that it has fixed are still in its queues, and part "
            "of what follows from them may be in the state already"
        )
    frontiers = look.frontiers(slot)
    return {
        "slot": slot,
        "pid": int(page.pid),
        "state": STATES.get(int(page.state), str(page.state)),
        "process": None if moment is None else moment.states[slot] or "gone",
        "parked": bool(page.parked),
        "inputs_open": int(page.inputs_open),
        "activation": {"sequence": int(page.activation_seq), "odd": odd, "of": doing},
        "time_now": None if main else time_of(page.time_now),
        "inboxes": _queues(look, roots, lib.MP_ROOT_INBOX, "port"),
        "outboxes": _queues(look, roots, lib.MP_ROOT_OUTBOX, "peer"),
        "backlog_changes": int(page.backlog_changes),
        "frees_waiting": int(page.frees_waiting),
        "capabilities": _capabilities(look, slot),
        "frontiers": {
            look.port(location): time_of(frontiers[location])
            for operator in look.about["operators"]
            for location in operator["inputs"]
        },
        "memory": {
            "batch_chunks": int(page.chunks_batch), "store_chunks": int(page.chunks_store),
            "leased_bytes": int(page.leased_bytes), "committed_bytes": int(page.committed_bytes),
            "slabs": int(page.slabs), "slabs_pinned": int(page.slabs_pinned),
            "block_bytes": int(page.counters[COUNTER_NAMES.index("block_live_bytes")]),
        },
        "counters": {name: int(page.counters[index]) for index, name in enumerate(COUNTER_NAMES)},
    }  # fmt: skip


def _capabilities(look: Look, slot: int) -> list[dict[str, Any]]:
    held = []
    for operator in look.about["operators"]:
        for location in operator["outputs"]:
            held += [
                {"port": look.port(location), "time": time_of(at), "count": count}
                for at, count in look.times(slot, location, held=True)
            ]
    return held


def _queues(look: Look, roots: Records, place: int, by: str) -> list[dict[str, Any]]:
    """Return what lies in one kind of place, summed by port or by peer."""
    mine = roots[roots["place"] == place]
    sums = []
    for value in np.unique(mine[by]):
        found = queue_sum(mine[mine[by] == value])
        name = {"port": look.port(int(value))} if by == "port" else {"to": int(value)}
        sums.append({**name, **found})
    return sums


def queue_sum(roots: Records) -> dict[str, Any]:
    """Return how much some messages are together."""
    cells = roots["cell"]
    return {
        "messages": len(cells),
        "records": int(cells["records"].sum()),
        "bytes": int((cells["records"].astype(np.uint64) * cells["row_bytes"] + cells["aux"]).sum()),
        "least_time": int(cells["time"].min()) if len(cells) else None,
    }


def _rings(look: Look, roots: list[Records], violations: list[str]) -> list[dict[str, Any]]:
    rings = []
    for sender in range(look.slots):
        for receiver in range(look.slots):
            if sender == receiver:
                continue
            try:
                ring = look.ring(sender, receiver)
            except InspectError as error:
                violations.append(f"ring {sender} -> {receiver}: {error}")
                continue
            mine = roots[sender]
            here = mine[(mine["peer"] == receiver) & (mine["cell"]["kind"] == MESSAGE)]
            sums = {
                name: queue_sum(here[here["place"] == place])
                for name, place in (("waiting", lib.MP_ROOT_RING), ("taken", lib.MP_ROOT_RING_TAKEN))
            }
            rings.append(
                {
                    "from": sender, "to": receiver, "cells": int(ring.tail - ring.reaped),
                    **sums["waiting"],
                    "taken_not_reaped": sums["taken"]["messages"],
                    "progress_cells": int(ring.progress_cells), "free_cells": int(ring.free_cells),
                }
            )  # fmt: skip
    return rings


# -- stateful operators ------------------------------------------------------------------------------------------------


def _stateful(
    look: Look, stateful: Stateful, audit: Audit, roots: list[Records], *, content: bool, torn: list[str]
) -> dict[str, Any]:
    about = stateful.about
    halves = [_half(look, stateful, slot, roots[slot]) for slot in range(look.slots)]
    bins = _bins(look, stateful, content=content)
    growing = [entry["bin"] for entry in bins if "growth" in entry["torn"]]
    unread = [entry["bin"] for entry in bins if "unreadable" in entry["torn"]]
    if growing:
        torn.append(f"{stateful.name}: {_listed(growing)}: a larger table was just begun; the old one was read")
    if unread:
        torn.append(f"{stateful.name}: {_listed(unread)}: a block could not be read, as it was changing")
    return {
        "name": stateful.name,
        "bins_count": stateful.bin_count,
        "bin_shift": about["bin_shift"],
        "key": about["key"],
        "hash": about["hash"],
        "transfer": about["transfer"],
        "store": about["store"],
        "pending_columns": about["pending"],
        "migrating": bool(audit["migrating"]),
        "bins_moving": audit["bins_moving"],
        "configurations_installed": [audit["number_min"], audit["number_max"]],
        "records": {
            "applied": audit["applied"], "shown": audit["shown"], "pending": audit["pending"],
            "inbox_f": audit["inbox_f"], "waiting": audit["waiting"], "ring": audit["ring"],
            "outbox": audit["outbox"], "inbox_s": audit["inbox_s"], "stash": audit["stash"],
            "staged": audit["staged"], "on_the_way": audit.on_the_way, "in_two_places": audit["twice"],
            "fixed_by_odd": audit["fixed"],
        },
        "slots": halves,
        "map_differences": _map_differences(look, stateful, bins),
        "bins": bins,
    }  # fmt: skip


def _half(look: Look, stateful: Stateful, slot: int, roots: Records) -> dict[str, Any]:
    half = look.half(stateful, slot)
    heaps: dict[str, Any] = {}
    for name, place in HEAPS.items():
        for suffix, where in (("", place), ("_taken", place + _TAKEN)):
            mine = (roots["place"] == where) & (roots["port"] == int(stateful.op.keyed))
            heaps[name + suffix] = queue_sum(roots[mine])
    return {
        "slot": slot,
        "is_started": bool(half.started),
        "configuration": int(half.active_number),
        "configuration_time": int(half.active_time),
        "configurations_to_come": [{"time": at, "complete": built} for at, built in look.updates(stateful, slot)],
        "copying": bool(half.copying),
        "applied_records": int(half.applied_records),
        "applied_last": int(half.applied_last),
        "capability_f": time_of(half.waiting_time),
        "capability_s": time_of(half.applied_time),
        "due_entries": int(half.due_entries),
        "due_time": time_of(half.due_time),
        **heaps,
    }


def _bins(look: Look, stateful: Stateful, *, content: bool) -> list[dict[str, Any]]:
    bins = []
    for first, records, sums in look.bins(stateful, content):
        for index, record in enumerate(records):
            totals = {
                name: sum_of(sums[index, column], stateful.kinds[column])
                for column, name in enumerate(stateful.columns)
                if stateful.kinds[column]
            }
            torn = [
                name
                for bit, name in ((lib.MP_TORN_GROWTH, "growth"), (lib.MP_TORN_UNREADABLE, "unreadable"))
                if record["torn"] & bit
            ]
            bins.append(
                {
                    "bin": first + index, "owner": int(record["owner"]), "resident": bool(record["resident"]),
                    "generation": int(record["generation"]),
                    "keys": int(record["keys"] if content else record["live"]), "bytes": int(record["bytes"]),
                    "applied_records": int(record["updates"]), "sums": totals if content else None,
                    "pending_records": int(record["pending"]),
                    "pending_time": time_of(record["pending_time"]) if record["pending"] else None,
                    "time_last_before_move": int(record["time_last"]), "torn": torn,
                }
            )  # fmt: skip
    return bins


def _map_differences(look: Look, stateful: Stateful, bins: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return where a slot's active map and the directory differ: (slot, bins that it routes elsewhere)."""
    owner = np.array([entry["owner"] for entry in bins])
    differences = []
    for slot in range(look.slots):
        try:
            mapped = look.owners(stateful, slot)
        except InspectError:
            continue  # among the audit's findings
        if mapped is None:
            continue
        other = np.flatnonzero(mapped != owner)
        if len(other):
            differences.append({"slot": slot, "bins": other.tolist()})
    return differences


def _balance(look: Look, slots: list[dict[str, Any]], audits: list[Audit]) -> dict[str, Any] | None:
    """Return whether what was sent and what is there add up, where the graph lets one know: input straight into F."""
    operators, ports = look.about["operators"], look.about["ports"]
    inputs = [operator for operator in operators if operator["kind"] == "InputOperator"]
    if len(look.stateful) != 1:
        return None
    sources = {out for operator in inputs for out in operator["outputs"]}
    fed = sorted(location for location, port in enumerate(ports) if port["source"] in sources)
    entered = (int(look.stateful[0].op.f_data), int(look.stateful[0].op.f_data2))
    if not fed or fed != sorted(location for location in entered if location < look.locations):
        return None
    audit = audits[0]
    sent = sum(slot["counters"]["input_records"] for slot in slots)
    there = audit["shown"] + audit.on_the_way
    off, slack = there - sent, audit["fixed"]
    wrong = ""
    if not 0 <= off <= slack:
        wrong = f"{sent:,} records were sent, {there:,} are there, {off:+,}; activations in progress explain {slack:,}"
    return {"sent": sent, "shown": audit["shown"], "on_the_way": audit.on_the_way, "off": off, "may_be": slack,
            "wrong": wrong}  # fmt: skip


# -- words -------------------------------------------------------------------------------------------------------------


def plural(count: int, word: str) -> str:
    """Return a count with what is counted, in one or in many.

    >>> plural(1, "bin"), plural(1200, "bin")
    ('1 bin', '1,200 bins')
    """
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def describe(stateful: Stateful, found: Finding) -> str:
    """Return a finding as a sentence."""
    texts: Mapping[int, str] = {
        lib.MP_FOUND_UNREADABLE: f"a queue, a map or a message of worker {found.slot} has words that cannot be true",
        lib.MP_FOUND_OWNER_UNKNOWN: f"bin {found.bin_id} belongs to worker {found.a}, and by the maps to {found.b}",
        lib.MP_FOUND_NOT_CARRIED: f"bin {found.bin_id} is on its way to worker {found.a}, and no message carries it",
        lib.MP_FOUND_CARRIED_TWICE: f"bin {found.bin_id} is carried by {found.a} messages",
        lib.MP_FOUND_CARRIED_RESIDENT: f"bin {found.bin_id} is resident at worker {found.a}, and a message carries it",
        lib.MP_FOUND_CARRIED_ELSEWHERE: (
            f"bin {found.bin_id} belongs to worker {found.a}, and the message that carries it is for {found.b}"
        ),
        lib.MP_FOUND_MAPS_DIFFER: f"workers {found.a} and {found.b} have different maps of the same configuration",
        lib.MP_FOUND_NUMBERS_APART: (
            f"a worker has installed {found.b} configurations where another has {found.a}: more than one apart"
        ),
        lib.MP_FOUND_NO_SLOT: f"bin {found.bin_id} belongs to worker {found.a}, which does not exist",
    }
    return f"{stateful.name}: {texts.get(found.kind, f'finding {found.kind}')}"


def _listed(numbers: Iterable[int], most: int = 8) -> str:
    known = list(numbers)
    word = "bin " if len(known) == 1 else "bins "
    return word + ", ".join(map(str, known[:most])) + (f" and {len(known) - most} more" if len(known) > most else "")


__all__ = ["describe", "model_of", "plural", "queue_sum", "time_of"]
