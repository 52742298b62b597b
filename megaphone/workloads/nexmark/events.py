"""The NEXMark generator: the events of one worker, written as columns straight into whatever they are for.

    due(time) -> how many ──> counts(how many) -> rows per stream ──> loans of that size ──> fill(how many, loans)

``exact`` repeats the original's events bit for bit and can only go forwards; ``fast`` has the same distributions, is
several times faster, makes any event by itself and the same events for any number of workers.  ``generator.h`` says
how each draws; ``numpy_events`` is ``fast`` once more in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Loan
from megaphone.errors import UsageError
from megaphone.workloads.nexmark.schemas import STREAMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Columns: TypeAlias = Mapping[str, npt.NDArray[Any]] | Loan

GeneratorKind: TypeAlias = Literal["exact", "fast"]
KINDS: Final[tuple[str, ...]] = get_args(GeneratorKind)

EPOCH: Final = 50
"""Events from one person to the next: 1 person, 3 auctions, 46 bids."""
AUCTIONS_PER_EPOCH: Final = 3
WORKERS_MAX: Final = 255
"""The original seeds its stream with the number of workers as a byte."""
RATE_MIN: Final = 1e-3
RATE_MAX: Final = 1e11
IN_FLIGHT_PER_RATE: Final = 2592
"""Auctions that open in twelve hours at one event per second: 12 * 3600 * 3 / 50."""
IN_FLIGHT_MAX: Final = 1 << 48
EVENTS_MAX: Final = 1 << 53
DATE_TIME_MAX: Final = (1 << 63) - 1
PRICE_BITS: Final = 24
_WORD: Final = (1 << 64) - 1
_PRICE_FRACTION_BITS: Final = 128
# Of each column: its dtype, and what C calls it and its items.
_FIELDS: Final = {
    stream: {
        name: (np.dtype(kind), f"{stream}_{name}", f"uint{8 * np.dtype(kind).itemsize}_t")
        for name, kind in schema.items()
    }
    for stream, schema in STREAMS.items()
}


class Counts(NamedTuple):
    """Rows per stream."""

    person: int
    auction: int
    bid: int


class Events(NamedTuple):
    """Columns of each stream, by name; rows in the order of the events."""

    person: dict[str, npt.NDArray[Any]]
    auction: dict[str, npt.NDArray[Any]]
    bid: dict[str, npt.NDArray[Any]]


class Generator:
    """The events of one worker, in order; event ``k`` of worker ``w`` of ``p`` is event ``n = w + k * p`` of all.

    Args:
        kind: ``exact`` or ``fast``.
        worker: this worker's number, from 0.
        workers: how many share the events, 1 to 255.
        rate: events per second of event time, of all workers together.
        in_flight: auctions that bids are for, 1 or more; it is also how many are open, because it decides when they
            close. None: as many as open in twelve hours, ``rate * 2592``.
        seed: of all draws. In ``exact``, 0 is the original's stream and any other number another one.

    Attributes:
        position: number of this worker's next event, ``k``.
        end: this worker has events ``0 ... end - 1``; what would follow has no number or time of its own.

    Raises:
        UsageError: one of these is out of its range; the message names it, the value and the cure.

    Not thread-safe.

    >>> generator = Generator("exact", 0, 1, 1000)
    >>> generator.counts(60)
    Counts(person=2, auction=6, bid=52)
    >>> generator.take(10).bid["price"].tolist()
    [596541, 905279, 728, 2862988, 115537, 56587792]
    """

    def __init__(
        self,
        kind: GeneratorKind,
        worker: int,
        workers: int,
        rate: float,
        in_flight: int | None = None,
        seed: int = 0,
    ) -> None:
        if kind not in KINDS:
            message = f"generator {kind!r}: unknown: give one of {', '.join(KINDS)}"
            raise UsageError(message)
        _check_whole("workers", workers, 1, WORKERS_MAX)
        _check_whole("worker", worker, 0, workers - 1)
        _check_whole("seed", seed, 0, _WORD)
        if not RATE_MIN <= rate <= RATE_MAX:
            message = f"rate {rate!r}: events per second must be between {RATE_MIN:g} and {RATE_MAX:g}"
            raise UsageError(message)
        if in_flight is None:
            in_flight = max(1, int(rate * IN_FLIGHT_PER_RATE))
        _check_whole("in_flight", in_flight, 1, IN_FLIGHT_MAX)
        self.kind, self.worker, self.workers = kind, worker, workers
        self.rate, self.in_flight, self.seed = float(rate), int(in_flight), int(seed)
        self.delay_ns = 1e9 / self.rate
        # Every number is exact as a double, and every time, expiries included, is below 2**63 with room for rounding.
        ahead = self.in_flight * EPOCH // AUCTIONS_PER_EPOCH
        self._events_max = min(EVENTS_MAX, int(DATE_TIME_MAX / 4 / self.delay_ns)) - ahead
        if self._events_max <= 0:
            message = (
                f"in_flight {in_flight}: at {rate:g} events/s an auction would close after the end of time, 2^63 ns: "
                "give fewer auctions in flight, or a higher rate"
            )
            raise UsageError(message)
        self.end = self.share(self._events_max)
        self.position = 0
        c = self._c = ffi.new("mp_nexmark *")
        c.worker, c.workers, c.in_flight, c.seed = worker, workers, self.in_flight, self.seed
        c.delay_ns = self.delay_ns
        if kind == "exact":
            state = exact_seed(workers, self.seed)
            c.state_high, c.state_low = state >> 64, state & _WORD
        else:
            for row, table in enumerate(price_tables()):
                c.price[row] = table
        # Of each kind, how many are among the first events of this worker, over one turn of the numbers modulo EPOCH.
        turn = EPOCH // math.gcd(EPOCH, workers)
        rests = [(worker + k * workers) % EPOCH for k in range(turn)]
        self._turn = turn
        self._persons_before = _running(rest == 0 for rest in rests)
        self._auctions_before = _running(1 <= rest <= AUCTIONS_PER_EPOCH for rest in rests)

    # -- numbers and times, closed forms -----------------------------------------------------------------------------

    def number(self, k: int) -> int:
        """Return the number among all events of this worker's event ``k``."""
        return self.worker + k * self.workers

    def date_time(self, k: int) -> int:
        """Return the event time, in ns, of this worker's event ``k``, 0 to ``end - 1``."""
        if not 0 <= k < self.end:
            message = f"event {k} of worker {self.worker}: there are 0 to {self.end - 1}"
            raise UsageError(message)
        return int(lib.mp_nexmark_date_time(self.delay_ns, self.number(k)))

    def share(self, events: int) -> int:
        """Return how many of the first ``events`` of all workers are this worker's."""
        return max(0, -((self.worker - events) // self.workers))

    def before(self, time: int) -> int:
        """Return how many events of this worker have a date_time before ``time`` ns.

        Cost: about 1 us, whatever the time.
        """
        return self.share(int(lib.mp_nexmark_before(self.delay_ns, min(max(time, 0), _WORD), self._events_max)))

    def due(self, time: int) -> int:
        """Return how many events from the next one on have a date_time before ``time`` ns."""
        return max(0, self.before(time) - self.position)

    def counts_before(self, k: int) -> Counts:
        """Return how many rows the events ``0 ... k - 1`` of this worker are, per stream."""
        turns, rest = divmod(k, self._turn)
        persons = turns * self._persons_before[-1] + self._persons_before[rest]
        auctions = turns * self._auctions_before[-1] + self._auctions_before[rest]
        return Counts(persons, auctions, k - persons - auctions)

    def counts(self, events: int) -> Counts:
        """Return how many rows the next ``events`` events are, per stream."""
        before, after = self.counts_before(self.position), self.counts_before(self.position + events)
        return Counts(after.person - before.person, after.auction - before.auction, after.bid - before.bid)

    @property
    def state(self) -> int:
        """The 128 bits of the exact generator's random stream before the next event; 0 in ``fast``."""
        return int(self._c.state_high) << 64 | int(self._c.state_low)

    # -- events ------------------------------------------------------------------------------------------------------

    def seek(self, k: int) -> None:
        """Make event ``k`` of this worker the next one.

        Args:
            k: 0 to ``end``.

        Raises:
            UsageError: k is out of range, or lies behind in ``exact``, whose draws only go forwards.

        Cost: nothing in ``fast``; in ``exact`` the events between are made and thrown away.
        """
        _check_whole("event", k, 0, self.end)
        if self.kind == "exact":
            if k < self.position:
                message = f"event {k} lies before the next one, {self.position}: start an exact generator afresh"
                raise UsageError(message)
            self.fill(k - self.position)
        self.position = k

    def fill(
        self, events: int, person: Columns | None = None, auction: Columns | None = None, bid: Columns | None = None
    ) -> Counts:
        """Make the next events and write those columns of them that are asked for.

        Args:
            events: how many.
            person: where the persons go: a loan whose schema has columns of ``schemas.PERSON``, or arrays by the names
                of such columns. Columns that are not there are not made; a stream that is None is left out. There
                must be room for ``counts(events)`` rows; what is beyond stays as it is.
            auction: the same for auctions.
            bid: the same for bids.

        Returns:
            How many rows of each stream the events are.

        Raises:
            UsageError: a column is unknown, of another dtype, not contiguous, not writable or too short, or there are
                not so many events left; then nothing is written, and the same events are still the next.

        Cost: a few us per call; per event in ``exact`` about 60 ns, in ``fast`` about 15 ns with all columns and 11 ns
        with auction, bidder and price of bids.
        """
        if not 0 <= events <= self.end - self.position:
            message = (
                f"{events} events from event {self.position} on: worker {self.worker} has {self.end} events at "
                f"{self.rate:g} events/s: give at most {self.end - self.position}"
            )
            raise UsageError(message)
        counts = self.counts(events)
        columns = ffi.new("mp_nexmark_columns *")
        kept: list[Any] = []
        for stream, target, rows in zip(STREAMS, (person, auction, bid), counts, strict=True):
            if target is not None:
                kept += _point(columns, stream, target, rows)
        make = lib.mp_nexmark_exact if self.kind == "exact" else lib.mp_nexmark_fast
        make(self._c, self.position, events, columns)
        self.position += events
        return counts

    def take(self, events: int) -> Events:
        """Make the next events, all columns, as new arrays.

        Args:
            events: how many.

        Raises:
            UsageError: there are not so many events left.
        """
        counts = self.counts(events)
        made = Events(
            *(
                {name: np.empty(rows, dtype) for name, dtype in schema.items()}
                for schema, rows in zip(STREAMS.values(), counts, strict=True)
            )
        )
        self.fill(events, *made)
        return made


def exact_seed(workers: int, seed: int = 0) -> int:
    """Return the state that the exact random stream begins with, on every worker.

    Args:
        workers: the original's seed is sixteen bytes of this.
        seed: 0 for the original's stream; another number turns the bits into another stream.
    """
    state = int.from_bytes(bytes([workers] * 16), "little")
    if seed:
        halves = _mixed(seed), _mixed(seed ^ _WORD)
        state ^= halves[0] << 64 | halves[1]
    return state | 1


def price_tables() -> Sequence[list[float]]:
    """Return the factors of which a fast price is the product, one of each row: ``100 * 10 ** (6 * u)``.

    The first row is for the upper byte of the 24 bits of ``u`` and has the 100; the others are for the bytes below.
    They are made of integers and square roots alone, so that every machine has the same to the last bit, which no
    library's power function promises.

    Cost: below a millisecond.
    """
    one = 1 << _PRICE_FRACTION_BITS
    # 10**6 to the power of 2**-8, 2**-16 and 2**-24, in fixed point.
    root, roots = 10**6 * one, []
    for halvings in range(1, PRICE_BITS + 1):
        root = math.isqrt(root * one)
        if halvings % 8 == 0:
            roots.append(root)
    tables = []
    for step, scale in zip(roots, (100, 1, 1), strict=True):
        power, row = one, []
        for _ in range(256):
            row.append(scale * power / one)
            power = power * step >> _PRICE_FRACTION_BITS
        tables.append(row)
    return tables


def _mixed(value: int) -> int:
    """Return a number of 64 bits, by the engine's own mixer."""
    hashed = ffi.new("uint64_t *")
    lib.mp_hash_keys(ffi.new("uint64_t *", value), 8, 1, lib.MP_HASH_MIX, 8, hashed)
    return int(hashed[0])


def _running(flags: Any) -> list[int]:  # noqa: ANN401 - an iterable of booleans
    """Return how many are true before each place, and, last, in all."""
    sums = [0]
    for flag in flags:
        sums.append(sums[-1] + flag)
    return sums


def _point(columns: Any, stream: str, target: Columns, rows: int) -> list[Any]:  # noqa: ANN401 - a cffi struct
    """Point C at the columns of one stream, having checked them; return what must live until they are written."""
    if isinstance(target, Loan):
        if target.sent:
            message = f"the loan for the {stream} stream has been sent: fill a loan before sending it"
            raise UsageError(message)
        for name, dtype in zip(target.schema.names, target.schema.dtypes, strict=True):
            field, kind = _checked_field(stream, name, dtype, target.capacity, rows)
            setattr(columns, field, ffi.cast(f"{kind} *", target.pointer(name)))
        return [target]
    kept = []
    for name, array in target.items():
        field, kind = _checked_field(stream, name, array.dtype, len(array), rows)
        if array.ndim != 1 or not array.flags.c_contiguous or not array.flags.writeable:
            message = f"column {name!r} of the {stream} stream: must be one contiguous array that can be written"
            raise UsageError(message)
        pointer = ffi.from_buffer(f"{kind}[]", array, require_writable=True)
        setattr(columns, field, pointer)
        kept.append(pointer)
    return kept


def _checked_field(stream: str, name: str, dtype: Any, room: int, rows: int) -> tuple[str, str]:  # noqa: ANN401
    """Return what C calls a column and its type, having checked that it can take the rows."""
    known = _FIELDS[stream].get(name)
    if known is None:
        message = f"unknown column {name!r} of the {stream} stream: it has {', '.join(STREAMS[stream])}"
        raise UsageError(message)
    wanted, field, kind = known
    if dtype != wanted:
        message = f"column {name!r} of the {stream} stream: is {dtype or 'bytes'}, must be {wanted}"
        raise UsageError(message)
    if room < rows:
        message = f"column {name!r} of the {stream} stream: has room for {room} rows, {rows} are to be written"
        raise UsageError(message)
    return field, kind


def _check_whole(name: str, value: Any, least: int, most: int) -> None:  # noqa: ANN401 - what a user gives
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        message = f"{name} {value!r}: must be a whole number from {least} to {most}"
        raise UsageError(message)
