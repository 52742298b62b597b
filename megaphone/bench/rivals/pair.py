"""Two processes, and what they do over a link: the keyed count, and transport with its latency.

      worker 0 ── send ──> link ──> receive ── worker 1        a message: columns of words of equal length,
      worker 0 <── receive ── link <── send ── worker 1        and `()`, which says that nothing follows

A rival brings a class of links, one object per worker, and everything else is here: so what differs between two
rivals' figures is their link.  Nothing waits without a limit, and no worker outlives the program that started it.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Protocol

import numpy as np

from megaphone._core import lib
from megaphone.bench.rivals.common import WORKERS, Share, Stream, Tally, Task, U64Array, pool, routed
from megaphone.errors import MegaphoneError

Message = tuple[U64Array, ...]

SLOTS: Final = 8  # messages on their way in one direction, where a link lets one choose
SILENT_SECONDS_MAX: Final = 30.0
END_SECONDS_MAX: Final = 5.0
PING_WORDS: Final = 8  # 64 bytes
PINGS_MAX: Final = 1_000_000
TRANSPORT_BATCHES: Final = 16


class Link(Protocol):
    """One worker's end of a link to the other."""

    def send(self, message: Message) -> bool:
        """Send a copy of the message, or return False: no room now."""

    def receive(self, wait: bool = False) -> Message | None:
        """Return a message, readable until the next call, or None: none now.

        Args:
            wait: there is nothing else to do; a link that can sleep may do so for some milliseconds.
        """

    def close(self) -> None:
        """Give back what the link has, after the last message."""


class Patience:
    """How long a worker waits for the other one without anything happening."""

    def __init__(self) -> None:
        self._since: float | None = None

    def renew(self) -> None:
        """Something happened."""
        self._since = None

    def lose(self) -> None:
        """Nothing happened.

        Raises:
            MegaphoneError: and nothing has for SILENT_SECONDS_MAX.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since > SILENT_SECONDS_MAX:
            message = f"the other worker has been silent for {SILENT_SECONDS_MAX:.0f} s"
            raise MegaphoneError(message)


def columns_of(words: U64Array, count: int) -> Message:
    """Return a message as one buffer brought it: `count` columns of equal length behind each other, or the end."""
    if not len(words):
        return ()
    length = len(words) // count
    return tuple(words[at * length : (at + 1) * length] for at in range(count))


def count_over(link: Link, task: Task, me: int, start: Callable[[], None]) -> Share:
    """Make batches, send the other worker's keys over, and count what has its home here."""
    stream, tally = Stream(task, me), Tally(task, me)
    ones = np.ones(task.batch_records, np.uint64)
    patience = Patience()
    outgoing: Message | None = None
    said_end = heard_end = False
    start()
    started_ns = time.monotonic_ns()
    while not (said_end and heard_end):
        busy = False
        if outgoing is None and not said_end:
            keys = stream.next(time.monotonic_ns())
            if keys is None:
                outgoing = ()
            else:
                own, theirs = routed(keys, me)
                tally.add(own)
                busy = True
                if len(theirs):
                    outgoing = (theirs, ones[: len(theirs)])
        if outgoing is not None and link.send(outgoing):
            said_end = not outgoing
            outgoing = None
            busy = True
        while not heard_end and (message := link.receive(wait=not busy)) is not None:
            busy = True
            if message:
                tally.add(message[0])
            else:
                heard_end = True
        if busy:
            patience.renew()
        else:
            patience.lose()
    ended_ns = time.monotonic_ns()
    link.close()
    return Share(started_ns, ended_ns, stream.made, tally.records, tally.checksum())


def transport_over(link: Link, task: Task, me: int, start: Callable[[], None]) -> Share:
    """Send batches one way and read every byte of them; then 64 bytes to and fro, halved."""
    batches = transport_batches(task)
    start()
    if me == 0:
        sums = [int(batch.sum(dtype=np.uint64)) for batch in batches]
        share = _send_batches(link, task, batches, sums)
        share = share._replace(one_way_us=_ping(link, task.seconds / 2))
    else:
        share = _read_batches(link)
        _pong(link)
    link.close()
    return share


def transport_batches(task: Task) -> U64Array:
    """Return uint64[TRANSPORT_BATCHES, words of a batch], what is sent in turns."""
    words = task.batch_bytes // 8
    return np.resize(pool(task), TRANSPORT_BATCHES * words).reshape(TRANSPORT_BATCHES, words)


def percentiles_us(times_ns: Sequence[int] | np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return median and 99th percentile in µs."""
    p50, p99 = np.percentile(np.asarray(times_ns, np.float64), (50, 99)) / 1e3
    return float(p50), float(p99)


def _send_batches(link: Link, task: Task, batches: U64Array, sums: list[int]) -> Share:
    patience = Patience()
    started_ns = time.monotonic_ns()
    end_ns = started_ns + int(task.seconds * 1e9)
    sent = total = 0
    while time.monotonic_ns() < end_ns:
        turn = sent % len(batches)
        if link.send((batches[turn],)):
            total += sums[turn]
            sent += 1
            patience.renew()
        else:
            os.sched_yield()
            patience.lose()
    _send(link, ())
    return Share(started_ns, time.monotonic_ns(), sent * task.batch_bytes, 0, total % 2**64)


def _read_batches(link: Link) -> Share:
    started_ns = 0
    read_bytes = total = 0
    while message := _receive(link):
        started_ns = started_ns or time.monotonic_ns()
        total += int(message[0].sum(dtype=np.uint64))
        read_bytes += message[0].nbytes
    ended_ns = time.monotonic_ns()
    return Share(started_ns or ended_ns, ended_ns, 0, read_bytes, total % 2**64)


def _ping(link: Link, seconds: float) -> tuple[float, float]:
    taken_ns = np.empty(PINGS_MAX, np.int64)
    ping = (np.arange(PING_WORDS, dtype=np.uint64),)
    end_ns = time.monotonic_ns() + int(seconds * 1e9)
    count = 0
    while count == 0 or (count < PINGS_MAX and time.monotonic_ns() < end_ns):
        before_ns = time.monotonic_ns()
        _send(link, ping)
        answer = _receive(link)
        taken_ns[count] = time.monotonic_ns() - before_ns
        count += 1
        if len(answer) != 1 or len(answer[0]) != PING_WORDS:
            message = f"an answer of {[len(column) for column in answer]} words came to a message of {PING_WORDS}"
            raise MegaphoneError(message)
    _send(link, ())
    return percentiles_us(taken_ns[:count] / 2)


def _pong(link: Link) -> None:
    while message := _receive(link):
        _send(link, message)


def _send(link: Link, message: Message) -> None:
    patience = Patience()
    while not link.send(message):
        os.sched_yield()
        patience.lose()


def _receive(link: Link) -> Message:
    patience = Patience()
    while (message := link.receive(wait=True)) is None:
        patience.lose()
    return message


JOBS: Final = {"count": count_over, "transport": transport_over}


def run_pair(task: Task, work: Callable[[int, Callable[[], None]], Share]) -> list[Share]:
    """Run ``work(worker, start)`` in two forked processes and return their shares.

    Args:
        task: for its limit of time.
        work: may use whatever this process had before; calls start once, which returns when both have called it.

    Returns:
        The shares, by worker.

    Raises:
        MegaphoneError: one failed, was killed, or is late; none of them runs any more.
    """
    context = multiprocessing.get_context("fork")
    ready = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8, WORKERS)
    pipes = [context.Pipe(duplex=False) for _ in range(WORKERS)]
    parent = os.getpid()
    processes = [context.Process(target=_worker, args=(work, me, ready, parent, pipes[me][1])) for me in range(WORKERS)]
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; the only ones here are a library's, idle, and not used below.
            warnings.simplefilter("ignore", DeprecationWarning)
            for process in processes:
                process.start()
        return _shares(task, processes, [reader for reader, _ in pipes])
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join(END_SECONDS_MAX)
                process.kill()
                process.join()


def _shares(task: Task, processes: Sequence[Any], readers: Sequence[Connection]) -> list[Share]:
    shares: dict[int, Share] = {}
    deadline = time.monotonic() + task.limit_seconds
    while len(shares) < len(processes):
        pending = [me for me in range(len(processes)) if me not in shares]
        wait(
            [thing for me in pending for thing in (readers[me], processes[me].sentinel)],
            timeout=max(0.0, deadline - time.monotonic()),
        )
        for me in pending:
            ended = not processes[me].is_alive()  # looked at first: an answer is written before the end
            if readers[me].poll():
                answer = readers[me].recv()
                if isinstance(answer, str):
                    message = f"worker {me}: {answer}"
                    raise MegaphoneError(message)
                shares[me] = answer
            elif ended:
                raise MegaphoneError(_how_it_ended(me, processes[me].exitcode))
        if len(shares) < len(processes) and time.monotonic() > deadline:
            message = f"no end after {task.limit_seconds:.0f} s: given up"
            raise MegaphoneError(message)
    return [shares[me] for me in range(len(processes))]


def _how_it_ended(me: int, code: int) -> str:
    if code < 0:
        return f"worker {me} was killed by {signal.Signals(-code).name}"
    return f"worker {me} ended with exit code {code} and without a result"


def _worker(
    work: Callable[[int, Callable[[], None]], Share], me: int, ready: Any, parent: int, answer: Connection
) -> None:
    become_worker(parent)
    try:
        result: Share | str = work(me, lambda: _meet(me, ready))
    except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception, and one line has to tell it
        result = told(error)
    with contextlib.suppress(BrokenPipeError):
        answer.send(result)


def told(error: BaseException) -> str:
    """Return an error's first cause in one line: libraries wrap what was raised in their own."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split())
    return said if isinstance(error, MegaphoneError) else f"{type(error).__name__}: {said}"


def become_worker(parent: int) -> None:
    """Die with the parent, leave Ctrl-C to it, and stdout as well: what a library prints there is talk."""
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if lib.mp_process_die_with(parent) != 0:
        os._exit(1)


def _meet(me: int, ready: Any) -> None:
    patience = Patience()
    ready[me] = 1
    while not ready.all():
        time.sleep(0.001)
        patience.lose()


def column_count(task: Task) -> int:
    """Columns in a message of a job: keys and values, or words."""
    return 2 if task.job == "count" else 1
