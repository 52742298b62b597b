"""Views that a user's functions keep beyond their call: in lists, in cycles, in a thread's hands; checked at release.

::

    fold, inspect ... --offer(batch)--> kept for a random time --> content compared with what it was --> let go
                                         list | cycle | thread

With threads a timer's thread lets go of everything that is over, so that what is kept is never kept for ever, also
while the worker waits for memory.  Without (in the Simulation) time is counted in calls.
"""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from megaphone.dataflow.batch import Batch
from tests.stress.records import wrong_in

TICK_SECONDS: Final = 0.01
OFFER_SHARE: Final = 0.3


@dataclass
class Kept:
    """Views of one batch, or the batch itself."""

    batch: Batch | None
    views: dict[str, Any]
    checksum: int
    until: float
    how: str

    def wrong(self) -> str:
        """Return what has changed since these views were kept."""
        views: dict[str, Any] = self.views if self.batch is None else dict(self.batch.columns())
        idents = views["id"]
        if (found := wrong_in(idents, views.get("stamp"), views.get("b"))) or checksum_of(idents) != self.checksum:
            return f"{self.how}: {found or 'other records than were kept'}"
        return ""


class Cycle:
    """What only the cyclic collector can let go of; it looks at its views when it does."""

    def __init__(self, keeper: Keeper, kept: Kept) -> None:
        self.me = self
        self.keeper, self.kept = keeper, kept

    def __del__(self) -> None:
        """Compare."""
        self.keeper.note(self.kept)


def checksum_of(idents: Any) -> int:
    """Return a sum that names a batch's records."""
    return int(idents.sum()) ^ len(idents) << 1


class Keeper:
    """Keeps views of batches for one worker.

    Args:
        limit: entries at a time.
        keep_ms: how long at most.
        threaded: with a thread that lets go of what is over.
    """

    def __init__(self, limit: int, keep_ms: int, *, threaded: bool) -> None:
        self.limit = limit
        self.seconds = keep_ms / 1000
        self.random = random.Random(0)
        self.kept_count = 0
        self.looked = 0
        self.wrong: list[str] = []
        self._kept: list[Kept] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.threaded = threaded
        self._calls = 0.0
        self.now: Callable[[], float] = time.monotonic if threaded else lambda: self._calls

    def start(self, seed: int) -> None:
        """Begin on a worker."""
        self.random = random.Random(seed)
        if self.threaded and self.limit:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def offer(self, batch: Batch) -> None:
        """Look at a batch, and keep it at random; raises AssertionError when something kept has changed."""
        self._calls += self.seconds / 40
        if found := wrong_in(batch["id"], batch["stamp"], batch["b"] if "b" in batch.schema.index else None):
            self.wrong.append(f"as it arrived: {found}")
        self.check()
        if not self.limit or not batch.n or self.random.random() > OFFER_SHARE or len(self._kept) >= self.limit:
            return
        how = self.random.choice(("batch", "columns", "slice"))
        until = self.now() + self.random.random() * self.seconds
        views = {}
        if how == "columns":
            views = dict(batch.columns())
        elif how == "slice":
            start = self.random.randrange(batch.n)
            views = {"id": batch["id"][start:], "stamp": batch["stamp"][start:]}
        idents = views["id"] if views else batch["id"]
        kept = Kept(batch if how == "batch" else None, views, checksum_of(idents), until, how)
        self.kept_count += 1
        with self._lock:
            self._kept.append(kept)
        if not self.threaded:
            self.let_go()

    def check(self) -> None:
        """Raise AssertionError for what has been found."""
        assert not self.wrong, f"a view has changed: {self.wrong[:3]}"

    def note(self, kept: Kept) -> None:
        """Compare one entry."""
        self.looked += 1
        if found := kept.wrong():
            self.wrong.append(found)

    def let_go(self, *, everything: bool = False) -> None:
        """Let go of what is over; some of it as garbage in a cycle."""
        now = self.now()
        with self._lock:
            over = [kept for kept in self._kept if everything or kept.until <= now]
            self._kept = [kept for kept in self._kept if not (everything or kept.until <= now)]
        garbage = False
        for kept in over:
            if int(kept.until * 1000) % 3 == 0:
                kept.how += " in a cycle"
                Cycle(self, kept)
                garbage = True
            else:
                self.note(kept)
        del over
        if garbage:
            gc.collect()

    def close(self) -> None:
        """Let go of everything, and check."""
        if self._thread is not None:
            self._over.set()
            self._thread.join()
        self.let_go(everything=True)
        gc.collect()
        self.check()
        assert self.looked == self.kept_count, f"{self.kept_count} views kept, {self.looked} looked at"

    def _run(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            self.let_go()
