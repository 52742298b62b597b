"""Cut a script that fails down to one that still fails, greedily: what a person can read and a test can take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, Final

from tests.stress.script import Epoch, Script, Sending, Update

SIMPLER: Final[dict[str, tuple[Any, ...]]] = {
    "front": ((),), "keep": (0,), "payload": (False,), "wide": (False,), "second": (False,), "paced": ((),),
    "second_kind": ("unary",), "eager": (False,), "workers": (1, 2, 3),
    "transfer": ("handover",), "store": ("u8",), "bin_shift": (1, 2, 4),
    "keys": (1, 2, 7, 100), "window": (0, 1, 2), "lead": (1,), "per_time": (True,), "kernel": (False,),
    "ring_cells": (1024, 64), "memory": ("64M",), "recount": ("",),
}  # fmt: skip


def size_of(script: Script) -> tuple[int, ...]:
    """Return what a smaller script has less of, the most important first."""
    sendings = [sending for epoch in script.epochs for sending in epoch.sendings]
    updates = [update for epoch in script.epochs for update in epoch.updates]
    differing = sum(getattr(script, entry.name) != entry.default for entry in fields(Script) if entry.name != "seed")
    return (
        len(sendings) + len(updates), sum(sending.records for sending in sendings), len(script.epochs),
        differing + len(script.front), script.workers, sum(update.count for update in updates), script.bin_shift,
        script.keys, script.window,
    )  # fmt: skip


def smaller(script: Script) -> Iterator[Script]:
    """Yield scripts that are a little simpler, those that take most away first."""
    epochs = script.epochs
    full = tuple(replace(epoch, sendings=tuple(s for s in epoch.sendings if s.records)) for epoch in epochs)
    yield replace(script, epochs=tuple(epoch for epoch in full if epoch != Epoch()))
    yield replace(script, epochs=full)
    yield replace(script, epochs=tuple(replace(epoch, hogs=()) for epoch in epochs))
    yield replace(script, epochs=tuple(replace(epoch, updates=()) for epoch in epochs))
    yield replace(script, epochs=tuple(replace(epoch, updates=epoch.updates[:1]) for epoch in epochs))
    yield replace(script, epochs=tuple(replace(epoch, sendings=epoch.sendings[:1]) for epoch in epochs))
    step = len(epochs)
    while step:
        for start in range(0, len(epochs), step):
            yield replace(script, epochs=epochs[:start] + epochs[start + step :])
            yield replace(script, epochs=(*epochs[:start], *(Epoch() for _ in epochs[start : start + step]),
                                          *epochs[start + step :]))  # fmt: skip
        step //= 2
    for name, values in SIMPLER.items():
        yield from (replace(script, **{name: value}) for value in values if value != getattr(script, name))
    if script.store != "dense":
        yield replace(script, hash="mix", store="u8")
    else:
        yield replace(script, hash="mix", store="u8")
    for place in range(len(script.front)):
        yield replace(script, front=script.front[:place] + script.front[place + 1 :])
    for at, epoch in enumerate(epochs):
        for epoch_ in _smaller_epochs(epoch):
            yield replace(script, epochs=(*epochs[:at], epoch_, *epochs[at + 1 :]))


def _smaller_epochs(epoch: Epoch) -> Iterator[Epoch]:
    sendings, updates = epoch.sendings, epoch.updates
    if epoch.hogs:
        yield replace(epoch, hogs=())
    for at in range(len(sendings)):
        yield replace(epoch, sendings=sendings[:at] + sendings[at + 1 :])
    for at in range(len(updates)):
        yield replace(epoch, updates=updates[:at] + updates[at + 1 :])
    for at, sending in enumerate(sendings):
        for simpler in _smaller_sendings(sending):
            yield replace(epoch, sendings=(*sendings[:at], simpler, *sendings[at + 1 :]))
    for at, update in enumerate(updates):
        for lighter in _smaller_updates(update):
            yield replace(epoch, updates=(*updates[:at], lighter, *updates[at + 1 :]))


def _smaller_sendings(sending: Sending) -> Iterator[Sending]:
    for records in (1, sending.records // 2, sending.records - 1):
        if 0 < records < sending.records:
            yield replace(sending, records=records)
    if sending.spread:
        yield replace(sending, spread=0)
    if sending.delay:
        yield replace(sending, delay=0)
        yield replace(sending, delay=1)
    if sending.loan:
        yield replace(sending, loan=False)
    if sending.slot:
        yield replace(sending, slot=0)


def _smaller_updates(update: Update) -> Iterator[Update]:
    if update.count > 1:
        yield replace(update, count=1)
        yield replace(update, count=update.count // 2)
    if update.ahead:
        yield replace(update, ahead=0)


def shrink(script: Script, fails: Callable[[Script], bool], seconds: float) -> Script:
    """Return the smallest script that was found to fail within a time; the first one is known to.

    Args:
        script: fails.
        fails: whether another one does.
        seconds: after which the search ends.
    """
    deadline = time.monotonic() + seconds
    best = script
    progress = True
    while progress and time.monotonic() < deadline:
        progress = False
        for candidate in smaller(best):
            if time.monotonic() > deadline:
                break
            if not _is_lawful(candidate) or _weight(candidate) >= _weight(best):
                continue
            if fails(candidate):
                best, progress = candidate, True
                break
    return best


def _weight(script: Script) -> tuple[tuple[int, ...], int, int, int]:
    sendings = [sending for epoch in script.epochs for sending in epoch.sendings]
    extras = sum(bool(s.spread) + bool(s.delay) + s.delay + s.loan for s in sendings)
    ahead = sum(update.ahead for epoch in script.epochs for update in epoch.updates)
    hogs = sum(len(epoch.hogs) for epoch in script.epochs)
    return size_of(script), extras + hogs, ahead, sum(sending.slot for sending in sendings)


def _is_lawful(script: Script) -> bool:
    """Return whether a script is one that the generator could have made, as far as the engine cares."""
    if (script.store == "dense") != (script.hash == "dense"):
        return False
    return not (script.has_pending and (script.kernel or not script.per_time))
