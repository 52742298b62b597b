"""What one round of stress does, as plain data: made from a seed, written as JSON, cut down when it fails.

A script names everything that decides results: which batches each worker sends when, which bins move when, and the
shape of the dataflow.  The records themselves are a pure function of it (``records.py``), so that a worker, the oracle
and a replay in the Simulation make the same ones, each by itself, and dropping one batch changes no other.
``Trouble`` is what is done to the processes from outside; it decides no result, and the Simulation leaves it out.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np

from megaphone.migration.control import Instruction, Map, Move, Noop

ROW_BYTES: Final = {False: 64, True: 136}
"""What a record takes in a batch, about, without and with a payload; for sizing."""
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Sending:
    """One batch of one worker; ``number`` names its records, whatever else the script has.

    Attributes:
        slot: who sends it.
        number: its records' ids begin at ``number << 24``.
        records: how many, 0 too.
        spread: 0: all at the epoch's time; else a times column, each record up to so much later.
        delay: a quarter of the records come back up to so much later; 0: none.
        loan: filled in place instead of copied.
    """

    slot: int
    number: int
    records: int
    spread: int = 0
    delay: int = 0
    loan: bool = False


@dataclass(frozen=True)
class Update:
    """Instructions for the control's time, or ``ahead`` of it.

    Attributes:
        kind: map (every bin anywhere), one (all bins to one worker), moves (``count`` bins), fluid (the same, each at
            a time of its own), noop.
        seed: of what moves where.
        count: moves.
        ahead: how far ahead of the control's time.
        stage: which of the stateful operators, 0 or 1.
    """

    kind: str
    seed: int
    count: int = 1
    ahead: int = 0
    stage: int = 0

    def instructions(self, bins: int, workers: int) -> list[list[Instruction]]:
        """Return one list of instructions for each time that this update takes."""
        random_ = np.random.default_rng(self.seed)
        if self.kind == "map":
            return [[Map(random_.integers(0, workers, bins))]]
        if self.kind == "one":
            return [[Map(np.full(bins, random_.integers(0, workers)))]]
        if self.kind == "noop":
            return [[Noop()]]
        where, to = random_.integers(0, bins, self.count).tolist(), random_.integers(0, workers, self.count).tolist()
        moves: list[Instruction] = [Move(bin_id, worker) for bin_id, worker in zip(where, to, strict=True)]
        return [[move] for move in moves] if self.kind == "fluid" else [moves]


@dataclass(frozen=True)
class Hog:
    """Loans that a worker's main program takes and holds for a while, so that everybody else is short of memory.

    Attributes:
        slot: who takes them.
        chunks: how many, each as large as a chunk; fewer when there are no more.
        ms: how long they are held.
    """

    slot: int
    chunks: int
    ms: int


@dataclass(frozen=True)
class Epoch:
    """What happens at one time."""

    sendings: tuple[Sending, ...] = ()
    updates: tuple[Update, ...] = ()
    hogs: tuple[Hog, ...] = ()


@dataclass(frozen=True)
class Script:
    """A whole round.

    Attributes:
        seed: of the keys, of what is kept for how long, and of the first owners.
        epochs: what is sent, one time each.
        workers: slots.
        memory: of the data region.
        ring_cells: of each ring.
        bin_shift: log2 of the bins of the first stateful operator.
        store: dense, u8, u4, fixed or bytes: the state and its keys.
        hash: fnv or mix; dense arrays have their own.
        keys: how many different ones at most.
        transfer: handover or copy.
        front: what records pass before they are counted, in order; see ``front.py``.
        window: how many times an input may be ahead of what is complete.
        lead: of the control.
        eager: apply a time while more of it may come.
        per_time: one call of the fold for each time.
        kernel: the fold is ``add_emit``, without Python per batch.
        wide: rows have a second column, written through rows, gather and put.
        payload: a bytes column.
        second: a second stateful operator behind, which moves by itself.
        second_kind: unary, machine (a state machine) or consume (input is looked at and post-dated first).
        paced: strategies of plans between random maps, one after the other without pause.
        keep: views that a worker's functions keep at a time, at most.
        keep_ms: how long, at most.
        recount: seconds between two recounts of what each worker keeps, 0: after every step; empty: none.
    """

    seed: int
    epochs: tuple[Epoch, ...]
    workers: int = 4
    memory: str = "64M"
    ring_cells: int = 1024
    bin_shift: int = 4
    store: str = "u8"
    hash: str = "mix"
    keys: int = 1000
    transfer: str = "handover"
    front: tuple[str, ...] = ()
    window: int = 2
    lead: int = 1
    eager: bool = False
    per_time: bool = True
    kernel: bool = False
    wide: bool = False
    payload: bool = False
    second: bool = False
    second_kind: str = "unary"
    paced: tuple[str, ...] = ()
    keep: int = 0
    keep_ms: int = 200
    recount: str = ""

    @property
    def bins(self) -> int:
        """Of the first stateful operator."""
        return 1 << self.bin_shift

    @property
    def has_pending(self) -> bool:
        """Whether any record comes back."""
        return any(sending.delay for epoch in self.epochs for sending in epoch.sendings)

    @property
    def is_ordered(self) -> bool:
        """Whether what a fold sees, and so each running count, is decided by the script alone.

        What reaches the counting from several workers or along two ways is in the order of arrival.
        """
        return not (self.eager or self.kernel or {"exchange", "broadcast", "split", "hold", "loop"} & set(self.front))

    def first_owner(self, stage: int = 0) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """Return uint32[bins], the owners at time 0."""
        bins = self.bins if stage == 0 else SECOND_BINS
        return np.random.default_rng((self.seed, stage)).integers(0, self.workers, bins).astype(np.uint32)

    def to_json(self) -> str:
        """Return the script as one line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Script:
        """Return what ``to_json`` has written."""
        data: dict[str, Any] = json.loads(text)
        data["epochs"] = tuple(
            Epoch(
                tuple(Sending(**sending) for sending in epoch["sendings"]),
                tuple(Update(**update) for update in epoch["updates"]),
                tuple(Hog(**hog) for hog in epoch["hogs"]),
            )
            for epoch in data["epochs"]
        )
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in data.items()}
        return Script(**plain)


SECOND_SHIFT: Final = 3
SECOND_BINS: Final = 1 << SECOND_SHIFT
SECOND_KEYS: Final = 61


@dataclass(frozen=True)
class Trouble:
    """Something that is done to a process of the run.

    Attributes:
        kind: worker, or parent.
        at_ms: after the round has begun; 0 is while the workers start.
        for_ms: how long it is stopped.
        worker: which one.
    """

    kind: str
    at_ms: int
    for_ms: int
    worker: int = 0


@dataclass(frozen=True)
class Round:
    """A script and the trouble that goes with it."""

    number: int
    seed: int
    script: Script
    troubles: tuple[Trouble, ...]


def round_of(seed: int, number: int) -> Round:
    """Return one round of a run: a pure function of the run's seed and the round's number."""
    mine = random.Random(f"{seed}/{number}").randrange(1 << 31)
    return Round(number, mine, script_of(mine), troubles_of(mine))


def troubles_of(seed: int) -> tuple[Trouble, ...]:
    """Return what is stopped when; in a third of the rounds nothing is."""
    random_ = random.Random(seed ^ 0x5709)
    troubles = []
    for _ in range(random_.choice((0, 0, 2, 4, 8, 16))):
        parent = random_.random() < 0.15
        begin = random_.choice((0, random_.randrange(300), random_.randrange(3000)))
        length = random_.choice((1, 5, 20, 100, 400, 800))
        troubles.append(Trouble("parent" if parent else "worker", begin, length, random_.randrange(4)))
    return tuple(sorted(troubles, key=lambda trouble: trouble.at_ms))


def script_of(seed: int, *, workers: int = 4) -> Script:
    """Return the script of a seed."""
    random_ = random.Random(seed)
    choice, chance = random_.choice, random_.random
    memory = choice(("16M", "16M", "20M", "32M", "64M"))
    payload = chance() < 0.4
    eager = chance() < 0.15
    kernel = chance() < 0.2
    pending = not kernel and chance() < 0.5
    window = choice((0, 1, 2, 4))
    store = choice(("dense", "u8", "u8", "u4", "fixed", "bytes"))
    bin_shift = choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
    second = chance() < 0.3
    front = []
    for name, odds in (("map", 0.3), ("filter", 0.3), ("hold", 0.15), ("exchange", 0.3), ("split", 0.2), ("tee", 0.4)):
        if chance() < odds:
            front.append(name)
    if chance() < 0.15:
        front.append("broadcast")
    random_.shuffle(front)
    keep = choice((0, 0, 4, 12, 24))
    # What waits for a frontier may take this much, all workers together: about an eighth of the memory, because a slab
    # serves again only when nothing of it waits any more.
    budget = int(memory[:-1]) * MIB // 8 // (window + 2) // ROW_BYTES[payload] // (4 if "broadcast" in front else 1)
    epochs = []
    total = choice((3_000, 30_000, 120_000)) // (4 if "broadcast" in front else 1)
    number = 0
    hungry = chance() < 0.4
    plans = choice(("calm", "random", "random", "storm", "storm", "paced"))
    for _ in range(choice((6, 12, 25, 50))):
        sendings, left = [], min(budget, total // 5)
        for slot in range(workers):
            for _ in range(choice((0, 1, 1, 1, 2, 5))):
                records = min(left, total, choice((0, 1, 3, 17, 100, 700, 700, 3000, 12000)))
                left -= records
                total -= records
                spread = choice((0, 0, 0, 1, 3)) if records < 3000 else 0
                delay = choice((0, 1, 2, 7)) if pending and records <= 3000 else 0
                sendings.append(Sending(slot, number, records, spread, delay, loan=chance() < 0.3))
                number += 1
        updates = _updates(random_, plans, bin_shift, second=second)
        hogs: tuple[Hog, ...] = ()
        if hungry and chance() < 0.25:
            hogs = (Hog(random_.randrange(workers), choice((4, 8, 16, 64)), choice((5, 50, 300))),)
        epochs.append(Epoch(tuple(sendings), updates, hogs))
    if chance() < 0.25:
        front.insert(random_.randrange(len(front) + 1), "loop")
    return Script(
        seed=seed,
        epochs=tuple(epochs),
        workers=workers,
        memory=memory,
        ring_cells=choice((64, 64, 256, 1024)),
        bin_shift=bin_shift,
        store=store,
        hash="dense" if store == "dense" else choice(("mix", "fnv")),
        keys=choice((1, 7, 300, 3000, 20000)),
        transfer=choice(("handover", "copy")),
        front=tuple(front),
        window=window,
        lead=choice((1, 1, 2, 3)),
        eager=eager,
        per_time=pending or chance() < 0.5,
        kernel=kernel,
        wide=not kernel and chance() < 0.4,
        payload=payload,
        second=second,
        second_kind=choice(("unary", "machine", "consume")) if second else "unary",
        paced=tuple(choice(("sudden", "fluid", "batched")) for _ in range(3)) if plans == "paced" else (),
        keep=keep,
        keep_ms=choice((30, 150, 400)),
        recount=choice(("", "", "0.05", "0")),
    )


def _updates(random_: random.Random, plans: str, bin_shift: int, *, second: bool) -> tuple[Update, ...]:
    odds = {"calm": 0.1, "random": 0.5, "storm": 1.0, "paced": 0.0}[plans]
    updates = []
    for _ in range(random_.choice((1, 1, 3)) if random_.random() < odds else 0):
        kind = random_.choice(("map", "map", "moves", "moves", "fluid", "one", "noop"))
        stage = int(second and random_.random() < 0.4)
        bins = SECOND_BINS if stage else 1 << bin_shift
        count = random_.randrange(1, 1 + min(bins, 8))
        ahead = random_.choice((0, 0, 0, 0, 1, 3)) if kind != "fluid" else 0
        updates.append(Update(kind, random_.randrange(1 << 31), count, ahead, stage))
    return tuple(updates)


def _python(value: Any) -> str:
    """Return a dataclass as Python without what has its default."""
    if isinstance(value, tuple):
        return f"({''.join(f'{_python(item)}, ' for item in value)})".replace(", )", ",)")
    if not isinstance(value, Sending | Update | Hog | Epoch):
        return repr(value)
    given = [(entry.name, getattr(value, entry.name), entry.default) for entry in fields(value)]
    return f"{type(value).__name__}({', '.join(f'{name}={_python(v)}' for name, v, default in given if v != default)})"


def snippet(script: Script, simulation_seed: int) -> str:
    """Return a script as Python that a test can take: what differs from the defaults, and how it is run."""
    lines = [
        f"    {entry.name}={getattr(script, entry.name)!r},"
        for entry in fields(Script)
        if entry.name != "epochs" and (entry.name == "seed" or getattr(script, entry.name) != entry.default)
    ]
    epochs = [f"        {_python(epoch)}," for epoch in script.epochs]
    return "\n".join(
        ["check_in_simulation(Script(", *lines, "    epochs=(", *epochs, "    ),", f"), {simulation_seed})"]
    )
