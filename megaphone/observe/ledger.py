"""The copy ledger: what the run copied, and why; what it allocated, and what it used again.

A copy is a byte written to the data region that was read from it or from the user.  Every worker counts its own, in
its slot of shared memory; here the counts of all workers become one account.  A run that was told to (``--times``) has
measured the time of the copies, too, and of the ways to memory; what a part contains says `TIMED_PARTS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from megaphone.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CopyCause(StrEnum):
    """Why a byte was copied."""

    INGEST = "ingest"  # the user's own arrays into the region
    SCATTER = "scatter"  # an exchange, into the targets' open slabs
    OWN = "own"  # a received batch that user code wants to write to
    CONCAT = "concat"  # pieces joined into one array
    SPLIT = "split"  # a batch divided by time or by size
    GATHER = "gather"  # state columns taken by row address
    PEND = "pend"  # records kept for a later time
    MIGRATE = "migrate"  # state that moved by copy
    REALIGN = "realign"  # bytes moved to a 64-byte boundary
    GROW = "grow"  # rows that a growing table or array moves


DATA_PATH_CAUSES = (
    CopyCause.INGEST,
    CopyCause.SCATTER,
    CopyCause.OWN,
    CopyCause.CONCAT,
    CopyCause.SPLIT,
    CopyCause.GATHER,
    CopyCause.REALIGN,
)
"""What a record pays on its way.  PEND, MIGRATE and GROW are apart: the price of waiting, of moving, of growing."""

FLOW_COUNTERS = (
    "records_in", "records_out", "batches_in", "batches_out", "bytes_in", "bytes_out", "input_records", "input_bytes",
)  # fmt: skip
COPY_COUNTERS = tuple(f"copied_{cause}" for cause in CopyCause)
STORE_COUNTERS = ("allocations_fresh", "allocations_recycled", "pinned_bytes", "pinned_bytes_max")
TIMED_PARTS = {
    str(CopyCause.INGEST): "the user's arrays written into a batch",
    str(CopyCause.SCATTER): "an exchange, routing included",
    str(CopyCause.OWN): "copies in private memory, its allocation included",
    str(CopyCause.CONCAT): "pieces joined",
    str(CopyCause.SPLIT): "a batch sorted by time and divided",
    str(CopyCause.GATHER): "state columns and chosen records",
    str(CopyCause.PEND): "the heap of records that wait",
    str(CopyCause.MIGRATE): "state packed and unpacked",
    str(CopyCause.GROW): "rows that a growing table moves",
    "slab_scan": "looking for a slab to use again",
    "slab_fresh": "carving a slab; memory from the system",
    "blocks": "blocks for state and queues",
}
"""What nanoseconds are counted for, by name.  The parts are disjoint: a slab that a scatter takes counts as a slab.  An
exchange hashes, routes and writes a record in one pass, whose parts have no time of their own; likewise the keys that a
fold writes beside its values are the fold's time and not gathering.  It is the worker's
processor time, page faults where they happen included.  Realigning copies nothing today, and has no clock."""
ALLOCATION_PARTS = ("slab_scan", "slab_fresh", "blocks")
TIME_COUNTERS = tuple(f"ns_{part}" for part in TIMED_PARTS)
PAUSE_COUNTERS = ("outbox", "parks", "wakes", "minor_faults", "grow_pause_max_ns")
COUNTERS = FLOW_COUNTERS + COPY_COUNTERS + STORE_COUNTERS + PAUSE_COUNTERS
"""The counters that a worker must give; it may give more, which are not looked at here."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of a run, over all workers."""

    records_in: int = 0
    records_out: int = 0
    batches_in: int = 0
    batches_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    input_records: int = 0
    input_bytes: int = 0
    bytes_copied: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, CopyCause), 0))
    allocations_fresh: int = 0
    allocations_recycled: int = 0
    fresh_after_warmup: int = 0
    pinned_bytes_max: int = 0
    minor_faults: int = 0
    outbox: int = 0
    parks: int = 0
    wakes: int = 0
    grow_pause_max_ns: int = 0
    nanoseconds: Mapping[str, int] | None = None

    @classmethod
    def of(
        cls,
        workers: Sequence[Mapping[str, int]],
        at_warm_up: Sequence[Mapping[str, int]] | None = None,
        *,
        has_times: bool = False,
    ) -> Ledger:
        """Add up the counters of all workers.

        Args:
            workers: one mapping per worker, with every name of `COUNTERS`.
            at_warm_up: the same, taken when the warm-up ended.  Without it ``fresh_after_warmup`` counts from the
                start, so that a run without a warm-up never looks better than it is.
            has_times: whether the workers measured times; only then is a 0 a time.

        Returns:
            The sums.  ``pinned_bytes_max`` is the sum of the workers' maxima: since they need not have been at one
            moment, the true peak is at most that.  ``grow_pause_max_ns`` is the longest of all workers: the time in one
            call that had to get memory from the system, to begin or finish the growth of a table, or to let lists or
            the heap of post-dated records grow; with what it waited there for memory that other workers held.  In a run
            whose workers begin together (`megaphone.workloads.driver.start_together`) it counts from that moment, as
            records are due only from then on, while all other counters are of the whole run.

        Raises:
            InternalError: a worker lacks a counter.
        """
        sums = _sums(workers, (*COUNTERS, *(TIME_COUNTERS if has_times else ())))
        fresh_in_warm_up = _sums(at_warm_up, COUNTERS)["allocations_fresh"] if at_warm_up else 0
        return cls(
            **{name: sums[name] for name in FLOW_COUNTERS},
            bytes_copied={str(cause): sums[f"copied_{cause}"] for cause in CopyCause},
            allocations_fresh=sums["allocations_fresh"],
            allocations_recycled=sums["allocations_recycled"],
            fresh_after_warmup=sums["allocations_fresh"] - fresh_in_warm_up,
            pinned_bytes_max=sums["pinned_bytes_max"],
            minor_faults=sums["minor_faults"],
            outbox=sums["outbox"],
            parks=sums["parks"],
            wakes=sums["wakes"],
            grow_pause_max_ns=max((int(worker["grow_pause_max_ns"]) for worker in workers), default=0),
            nanoseconds={part: sums[f"ns_{part}"] for part in TIMED_PARTS} if has_times else None,
        )

    @property
    def copies_per_record(self) -> float | None:
        """How often a byte of a record was copied on its way: 1.000 for an exchange that scatters what was loaned.

        Bytes copied for `DATA_PATH_CAUSES`, divided by ``input_bytes``, the payload that came in through inputs.  Both
        are in bytes, so records of different width weigh as what they are, and a hop inside a worker, which costs no
        copy, does not thin the figure out.  None if nothing came in.
        """
        if self.input_bytes == 0:
            return None
        return sum(self.bytes_copied[cause] for cause in DATA_PATH_CAUSES) / self.input_bytes

    def to_dict(self) -> dict[str, object]:
        """Return what reports print, in their order."""
        copies = self.copies_per_record
        return {
            "copies_per_record": None if copies is None else round(copies, 6),
            "bytes_copied": dict(self.bytes_copied),
            "allocations_fresh": self.allocations_fresh,
            "allocations_recycled": self.allocations_recycled,
            "fresh_after_warmup": self.fresh_after_warmup,
            "pinned_bytes_max": self.pinned_bytes_max,
            "minor_faults": self.minor_faults,
            "outbox": self.outbox,
            "parks": self.parks,
            "wakes": self.wakes,
            "grow_pause_max_ns": self.grow_pause_max_ns,
            **({} if self.nanoseconds is None else {"nanoseconds": dict(self.nanoseconds)}),
        }


def _sums(workers: Sequence[Mapping[str, int]], names: Sequence[str]) -> dict[str, int]:
    """Return each counter, added up over the workers."""
    for index, counters in enumerate(workers):
        missing = [name for name in names if name not in counters]
        if missing:
            message = f"worker {index} lacks the counters {', '.join(missing)}; it has {', '.join(counters)}"
            raise InternalError(message)
    return {name: sum(int(counters[name]) for counters in workers) for name in names}
