"""What all rivals are asked and what they report: arguments, records, counts, checksum, report.

The records of a run are one sequence, fixed by --seed and --domain alone: record i has the key
``pool(task)[i % POOL_RECORDS]`` and the value 1, whatever the size of a batch and whoever makes it.  So the checksum
of a run with --records is the same for every rival, for every --batch-bytes, and for any engine given that sequence.
Batch b holds the records from b * n on, n of them; worker b % 2 makes it, out of a pool that lies ready, because
making keys is not what is compared.  A key's home is worker ``key & 1``, which counts it at ``key >> 1``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from megaphone.errors import MegaphoneError, UsageError

U64Array = npt.NDArray[np.uint64]

WORKERS: Final = 2
RECORD_BYTES: Final = 16
# So many that ten million counters are all touched: with half a million keys only 5 % of them would be, and what
# looks like the memory's rate would be the cache's.
POOL_RECORDS: Final = 1 << 22
BATCH_BYTES_MAX: Final = 64 << 20
CHECKSUM_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Task:
    """What a run is to do.

    Attributes:
        job: ``count`` or ``transport``.
        domain: keys are uniform in [0, domain).
        seconds: how long records are made; not used with `records`.
        records: how many are made in all, by both workers; None: as many as `seconds` allow.
        batch_bytes: of 16-byte records in a batch before it is routed; of one message in transport.
        seed: of the keys.
    """

    job: str
    domain: int
    seconds: float
    records: int | None
    batch_bytes: int
    seed: int

    @property
    def batch_records(self) -> int:
        """Records in a full batch."""
        return self.batch_bytes // RECORD_BYTES

    @property
    def limit_seconds(self) -> float:
        """After how long a run is given up: something hangs."""
        return 600.0 if self.records is not None else 60.0 + 10.0 * self.seconds


class Share(NamedTuple):
    """What one worker did.

    Attributes:
        started_ns: of the machine's monotonic clock, when it made its first batch.
        ended_ns: when it had counted, or read, its last.
        made: records made; in transport bytes sent.
        done: records counted; in transport bytes read.
        checksum: of its counts; in transport the sum of all words sent or read.
        one_way_us: median and 99th percentile; transport only, from the worker that takes the time.
    """

    started_ns: int
    ended_ns: int
    made: int
    done: int
    checksum: int
    one_way_us: tuple[float, float] | None = None


@dataclass(frozen=True)
class Rival:
    """One rival as a program.

    Attributes:
        name: of the module.
        how: what is run, in one line, by job.
        version: imports what the rival needs and returns its version.
        run: does a task with two workers.
    """

    name: str
    how: dict[str, str]
    version: Callable[[], str]
    run: Callable[[Task], Sequence[Share]]


def pool(task: Task) -> U64Array:
    """Return uint64[POOL_RECORDS], the keys that records have in turn; a new array."""
    return np.random.default_rng(task.seed).integers(0, task.domain, POOL_RECORDS, np.uint64)


class Stream:
    """The batches that one worker makes: every second one of all, as views of the pool."""

    def __init__(self, task: Task, me: int) -> None:
        self._task = task
        self._n = task.batch_records
        # As many again at the end as a batch has, so that one that wraps around is a view as well.
        self._keys = np.resize(pool(task), POOL_RECORDS + self._n)
        self._at = me * self._n
        self._end_ns: int | None = None
        self.made = 0

    def next(self, now_ns: int) -> U64Array | None:
        """Return the next batch, uint64[n] of keys, or None when there are no more."""
        if self._task.records is None:
            if self._end_ns is None:
                self._end_ns = now_ns + int(self._task.seconds * 1e9)
            length = self._n if now_ns < self._end_ns else 0
        else:
            length = min(self._n, self._task.records - self._at)
        if length <= 0:
            return None
        at = self._at % POOL_RECORDS
        self._at += WORKERS * self._n
        self.made += length
        return self._keys[at : at + length]


def routed(keys: U64Array, me: int) -> tuple[U64Array, U64Array]:
    """Return the keys that are counted here, and the other worker's; two new arrays, 8 bytes per key together."""
    mine = (keys & np.uint64(1)) == np.uint64(me)
    return keys[mine], keys[~mine]


class Tally:
    """Counts of the keys whose home is one worker, in a dense array; indices are keys shifted by one."""

    def __init__(self, task: Task, me: int) -> None:
        self._me = me
        self._counts = np.zeros(task.domain // WORKERS + 1, np.int64)
        # The kernel hands out pages at the first touch; that is not what is compared.
        self._counts += 0
        self.records = 0

    def add(self, keys: U64Array) -> None:
        """Count these keys, all of this home; they may view memory of others and are not kept.

        Raises:
            MegaphoneError: the first of them has the other home.
        """
        if len(keys) and int(keys[0]) % WORKERS != self._me:
            message = f"worker {self._me} was brought the other worker's keys"
            raise MegaphoneError(message)
        # A view as signed numbers is what numpy indexes with; unsigned ones it would convert.
        np.add.at(self._counts, keys.view(np.int64) >> 1, 1)
        self.records += len(keys)

    def checksum(self) -> int:
        """Return this home's part of the checksum, and make sure that what was added is what is there.

        Raises:
            MegaphoneError: the counts do not add up to the records added.
        """
        if int(self._counts.sum()) != self.records:
            message = f"worker {self._me} added {self.records} records and has counted {int(self._counts.sum())}"
            raise MegaphoneError(message)
        return checksum(self._counts, first_key=self._me, key_step=WORKERS)


def mixed(keys: U64Array) -> U64Array:
    """Return splitmix64's finalizer of each key, uint64[n]; a new array.

    >>> [f"{int(mixed(np.array([key], np.uint64))[0]):016x}" for key in (0, 1, 2**64 - 1)]
    ['0000000000000000', '5692161d100b05e5', 'b4d055fcf2cbbd7b']
    """
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def checksum(counts: npt.NDArray[np.int64], first_key: int = 0, key_step: int = 1) -> int:
    """Return the sum of mixed(key) * count over all keys, modulo 2**64: parts may be added in any order.

    Args:
        counts: int64[n], of the keys first_key, first_key + key_step, ...
        first_key: of the first count.
        key_step: from one key to the next.

    Returns:
        A number below 2**64.  Key 0 mixes to 0: how often it was counted shows in the number of records only.

    Cost: temporaries of 8 MiB each, whatever n.
    """
    total = 0
    for at in range(0, len(counts), CHECKSUM_PIECE):
        piece = counts[at : at + CHECKSUM_PIECE].view(np.uint64)
        keys = np.arange(at, at + len(piece), dtype=np.uint64) * np.uint64(key_step) + np.uint64(first_key)
        total += int((mixed(keys) * piece).sum(dtype=np.uint64))
    return total % 2**64


def report(rival: Rival, version: str, task: Task, shares: Sequence[Share]) -> dict[str, Any]:
    """Return what a run's report says.

    Raises:
        MegaphoneError: what was made is not what was done.
    """
    seconds = (max(share.ended_ns for share in shares) - min(share.started_ns for share in shares)) / 1e9
    made, done = sum(share.made for share in shares), sum(share.done for share in shares)
    if made != done:
        unit = "records" if task.job == "count" else "bytes"
        message = f"{made} {unit} were made and {done} arrived"
        raise MegaphoneError(message)
    head = {
        "rival": rival.name, "installed": True, "version": version, "how": rival.how[task.job], "job": task.job,
        "domain": task.domain, "batch_bytes": task.batch_bytes, "seed": task.seed, "seconds": seconds,
    }  # fmt: skip
    if task.job == "count":
        total = sum(share.checksum for share in shares) % 2**64
        return {**head, "records": done, "records_per_s": done / seconds, "checksum": f"{total:016x}"}
    if len({share.checksum for share in shares}) != 1:
        message = "the bytes that arrived are not the bytes that were sent"
        raise MegaphoneError(message)
    one_way = next((share.one_way_us for share in shares if share.one_way_us is not None), None)
    return {
        **head,
        "bytes": done,
        "gb_per_s": done / seconds / 1e9,
        "one_way_us_p50": None if one_way is None else one_way[0],
        "one_way_us_p99": None if one_way is None else one_way[1],
        "checksum": f"{shares[0].checksum % 2**64:016x}",
    }


def parsed(argv: Sequence[str] | None, name: str) -> tuple[Task, Path | None]:
    """Return the task of a command line, and where the report goes; None: to stdout.

    Raises:
        UsageError: a value that no run could have.
    """
    parser = argparse.ArgumentParser(prog=f"python -m megaphone.bench.rivals.{name}", allow_abbrev=False)
    parser.add_argument("--job", choices=("count", "transport"), default="count")
    parser.add_argument("--domain", type=int, default=10_000_000, help="number of keys (default 10 million)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=3.0, help="how long records are made (default 3)")
    length.add_argument("--records", type=int, help="make exactly so many instead, always the same for a seed")
    parser.add_argument("--batch-bytes", type=int, default=256 << 10, help="a multiple of 16 (default 256 KiB)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="where the JSON object goes (default: stdout)")
    given = parser.parse_args(argv)
    refused = (
        (not 1 <= given.domain < 2**62, f"--domain {given.domain}: pick 1 … 2**62 - 1"),
        (not (math.isfinite(given.seconds) and given.seconds > 0), f"--seconds {given.seconds}: pick more than 0"),
        (given.records is not None and given.records < 1, f"--records {given.records}: pick at least 1"),
        (given.records is not None and given.job != "count", "--records is for --job count: leave one of them out"),
        (
            given.batch_bytes % RECORD_BYTES != 0 or not 64 <= given.batch_bytes <= BATCH_BYTES_MAX,
            f"--batch-bytes {given.batch_bytes}: pick a multiple of 16 in 64 … {BATCH_BYTES_MAX}",
        ),
        (given.seed < 0, f"--seed {given.seed}: pick 0 or more"),
    )
    for wrong, message in refused:
        if wrong:
            raise UsageError(message)
    task = Task(given.job, given.domain, given.seconds, given.records, given.batch_bytes, given.seed)
    return task, given.report


def main(rival: Rival, argv: Sequence[str] | None = None) -> int:
    """Run a rival as its command line says, write the report, and return the exit code."""
    try:
        with ended_by_sigterm():
            task, path = parsed(argv, rival.name)
            try:
                version = rival.version()
            except ImportError as missing:
                result = {"rival": rival.name, "installed": False, "why": str(missing)}
            else:
                result = report(rival, version, task, rival.run(task))
            text = json.dumps(result) + "\n"
            if path is None:
                sys.stdout.write(text)
            else:
                path.write_text(text)
    except (MegaphoneError, OSError) as error:
        sys.stderr.write(f"{rival.name}: {error}\n")
        return error.exit_code if isinstance(error, MegaphoneError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


@contextlib.contextmanager
def ended_by_sigterm() -> Any:
    """Turn SIGTERM into the exit code that a shell expects, by way of every ``finally``."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
