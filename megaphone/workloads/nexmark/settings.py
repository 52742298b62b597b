"""What a NEXMark run is asked to do, and what ``nexmark generate`` is; see `megaphone.workloads.settings`.

Event time and the clock: a run offers ``rate`` events per second of the clock on each worker, and event time passes
``time_dilation`` times as fast as the clock.  Where there is no schedule (``--rate max``, ``--events``), event time
passes as if there were the default one.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final

from megaphone.errors import UsageError
from megaphone.workloads import settings as ask

QUERIES: Final = ("q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8")
"""The queries that there are; each is a module of `megaphone.workloads.nexmark.queries`."""
FLEX: Final = "-flex"
"""What the name of a query ends with when its state is to be in bins that may move."""
QUERY_NAMES: Final = (*QUERIES, *(f"{query}{FLEX}" for query in QUERIES))

GENERATORS: Final = ("fast", "exact")
OUTPUT_FORMATS: Final = ("csv", "npz")
FILE_FORMATS: Final = ("csv", "npz", "parquet")
GENERATE_WORKERS_MAX: Final = 255
"""The original seeds its stream with the number of workers as a byte."""
DURATION_S: Final = 10.0
SECOND: Final = 1_000_000_000
EVENTS_MAX: Final = 1 << 53
IN_FLIGHT_MAX: Final = 1 << 48
DILATION_MAX: Final = 1_000_000_000
WINDOW_NS_MAX: Final = 1 << 60
TICK_OPEN_NS: Final = 1_000_000
"""Of the clock, in open loop: so long a record may wait for its tick to end, and no latency is below it."""
TICK_CLOSED_EVENTS: Final = 8192
"""Of each worker, in closed loop: a batch that numpy works on for longer than Python takes to begin."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Lengths in ns of event time; the defaults are the original's.

    Attributes:
        q5_size: the window in which q5 counts bids.
        q5_slide: the distance of its ends.
        q7: the tumbling window of q7's highest bid.
        q8: the tumbling window in which q8 looks for a person and an auction.
    """

    q5_size: int = 60 * SECOND
    q5_slide: int = SECOND
    q7: int = 10 * SECOND
    q8: int = 12 * 3600 * SECOND


@dataclass(frozen=True, kw_only=True)
class NexmarkSettings(ask.MigratingSettings):
    """Queries over the events of an auction house.

    Attributes:
        queries: names, as in `QUERY_NAMES`, with spaces or commas between them.
        duration_s: seconds for which events are offered; None is 10, or until ``events`` have been.
        events: of all workers, then the run ends, in closed loop; None: by ``duration_s``.
        time_dilation: how many times as fast as the clock event time passes.
        in_flight: auctions that bids are for; None is as many as open in twelve hours.
        generator: ``fast``, or ``exact`` for the original's events, bit for bit.
        tick_ns: event time that shares one logical time, ns; None is 1 ms of the clock, or in closed loop the time of
            `TICK_CLOSED_EVENTS` events of each worker, but not more than a slide of q5, if that is among the queries.
        q5_size_s: seconds of event time, as the three below; see `Windows`.
        output_path: folder that gets each query's rows, or None.
        output_format: ``csv`` or ``npz``.
    """

    rate_per_worker: float | None = 100_000.0
    queries: str = ""
    duration_s: float | None = None
    events: int | None = None
    time_dilation: int = 1
    in_flight: int | None = None
    generator: str = "fast"
    tick_ns: int | None = None
    q5_size_s: float = Windows.q5_size / SECOND
    q5_slide_s: float = Windows.q5_slide / SECOND
    q7_window_s: float = Windows.q7 / SECOND
    q8_window_s: float = Windows.q8 / SECOND
    output_path: str | None = None
    output_format: str = "csv"

    @property
    def query_names(self) -> tuple[str, ...]:
        """The queries one by one, in the order in which they were given."""
        return tuple(re.split(r"[\s,]+", self.queries.strip(" \t\n,"))) if self.queries.strip(" \t\n,") else ()

    @property
    def windows(self) -> Windows:
        """The sizes of all windows."""
        sizes = (self.q5_size_s, self.q5_slide_s, self.q7_window_s, self.q8_window_s)
        size, slide, q7, q8 = (round(seconds * SECOND) for seconds in sizes)
        return Windows(q5_size=size, q5_slide=slide, q7=q7, q8=q8)

    @property
    def offered_per_worker(self) -> float | None:
        """Events per second by the schedule of each worker; None in closed loop, which every bounded run is."""
        return None if self.events is not None else self.rate_per_worker

    @property
    def duration_ns(self) -> int | None:
        """For how long events are offered, by the clock; None until ``events`` have been."""
        if self.events is not None:
            return None
        return round((DURATION_S if self.duration_s is None else self.duration_s) * SECOND)

    @property
    def _events_offered(self) -> int | None:
        """Events of all workers, or what the schedule has; None in a closed loop by the clock."""
        if self.events is not None or self.offered_per_worker is None:
            return self.events
        return round(self.event_rate * self.time_dilation * (self.duration_ns or 0) / SECOND)

    @property
    def plan_length(self) -> int:
        """Length of the run on the scale of its migrations: ns of the clock, or events of worker 0."""
        if self.events is None:
            return max(3, self.duration_ns or 0)
        return max(3, -(-self.events // self.workers))

    @property
    def event_rate(self) -> float:
        """Events of all workers per second of event time.

        A schedule has whole nanoseconds between two events of a worker, and event time must not drift away from it.
        """
        per_worker = NexmarkSettings.rate_per_worker if self.rate_per_worker is None else self.rate_per_worker
        assert per_worker is not None
        if self.offered_per_worker is not None:
            per_worker = 1e9 / max(1, round(1e9 / per_worker))
        return per_worker * self.workers / self.time_dilation

    @property
    def tick(self) -> int:
        """Event time that shares one logical time, ns."""
        if self.tick_ns is not None:
            return self.tick_ns
        if self.offered_per_worker is not None:
            tick = TICK_OPEN_NS * self.time_dilation
        else:
            tick = round(TICK_CLOSED_EVENTS * self.workers * 1e9 / self.event_rate)
        return max(1, min(tick, self.windows.q5_slide) if self.counts_slides else tick)

    @property
    def counts_slides(self) -> bool:
        """Whether q5 runs, which looks at all that it counts at each end of a slide."""
        return any(name.removesuffix(FLEX) == "q5" for name in self.query_names)

    @property
    def migrates(self) -> bool:
        """Whether a query keeps its state in bins that may move."""
        return any(name.endswith(FLEX) for name in self.query_names)

    def check(self) -> None:
        """Refuse what cannot be run; see `RunSettings.check`."""
        check_queries(self.query_names)
        super().check()
        if self.events is not None and self.duration_s is not None:
            message = f"--events {self.events} and --duration {self.duration_s:g}: each ends the run: give one of them"
            raise UsageError(message)
        if self.duration_s is not None:
            ask.check_seconds("--duration", self.duration_s)
        if self.events is not None:
            ask.check_whole("--events", self.events, 1, EVENTS_MAX)
        ask.check_whole("--time-dilation", self.time_dilation, 1, DILATION_MAX)
        if self.tick_ns is not None:
            ask.check_whole("--tick", self.tick_ns, 1, WINDOW_NS_MAX, " nanoseconds")
        for flag, seconds in (
            ("--q5-window", self.q5_size_s), ("--q5-slide", self.q5_slide_s), ("--q7-window", self.q7_window_s),
            ("--q8-window", self.q8_window_s),
        ):  # fmt: skip
            ask.check_seconds(flag, seconds)
        ask.check_choice("--output-format", self.output_format, OUTPUT_FORMATS)
        asked = f"--duration {(self.duration_ns or 0) / SECOND:g}" if self.events is None else f"--events {self.events}"
        offered = self._events_offered
        check_source(self.generator, self.in_flight, self.event_rate, self.workers, offered, self.seed, asked)
        if self.migration != "none" and not self.migrates:
            first = self.query_names[0]
            message = (
                f"--migration {self.migration}: no query has state that could move: "
                f"use --queries {first}{FLEX}, or --migration none"
            )
            raise UsageError(message)
        if self.output_path is not None:
            check_folder("--output", self.output_path)


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """Events alone, in files.

    Attributes:
        events: how many, over all workers.
        output_path: the folder of the files.
        rate: events per second of event time, over all workers.
        workers: how many share the events, 1 to 255; of consequence with ``exact`` alone.
        in_flight: see `NexmarkSettings`, as generator and seed.
        file_format: ``csv``, ``npz`` or ``parquet``.
    """

    events: int | None = None
    output_path: str | None = None
    rate: float = 1000.0
    workers: int = 1
    in_flight: int | None = None
    generator: str = "fast"
    seed: int = 0
    file_format: str = "csv"

    def check(self) -> None:
        """Refuse what cannot be generated; see `RunSettings.check`."""
        if self.events is None:
            message = "--events is missing: give the number of events, such as 1e6"
            raise UsageError(message)
        if self.output_path is None:
            message = "--output is missing: give the folder of the files"
            raise UsageError(message)
        ask.check_whole("--events", self.events, 0, EVENTS_MAX)
        ask.check_whole("--workers", self.workers, 1, GENERATE_WORKERS_MAX)
        ask.check_whole("--seed", self.seed, 0, ask.WORD_MAX)
        ask.check_choice("--format", self.file_format, FILE_FORMATS)
        asked = f"--events {self.events}"
        check_source(self.generator, self.in_flight, self.rate, self.workers, self.events, self.seed, asked)
        check_folder("--output", self.output_path)


def check_queries(names: tuple[str, ...]) -> None:
    """Refuse queries that do not exist, none at all, and one that is named twice.

    Raises:
        UsageError: with the nearest names there are.
    """
    if not names:
        message = f"--queries is empty: give one or more of {', '.join(QUERY_NAMES)}"
        raise UsageError(message)
    for number, name in enumerate(names):
        if name not in QUERY_NAMES:
            near = difflib.get_close_matches(name, QUERY_NAMES, n=3, cutoff=0.5) or QUERY_NAMES
            message = f"--queries: there is no query {name!r}: the nearest are {', '.join(near)}"
            raise UsageError(message)
        if name in names[:number]:
            message = f"--queries: {name} is named twice: name each query once"
            raise UsageError(message)


def check_source(
    generator: str, in_flight: int | None, rate: float, workers: int, events: int | None, seed: int, asked: str
) -> None:
    """Refuse what no events can be made of.

    Args:
        generator: as in the settings, like those that follow.
        in_flight: auctions.
        rate: events per second of event time, over all workers.
        workers: how many share the events.
        events: how many will be made; None is not known.
        seed: of all draws.
        asked: the flag that asks for so many, with its value.

    Raises:
        UsageError: one line.
    """
    ask.check_choice("--generator", generator, GENERATORS)
    if in_flight is not None:
        ask.check_whole("--in-flight", in_flight, 1, IN_FLIGHT_MAX, " auctions")
    from megaphone.workloads.nexmark.events import RATE_MAX, RATE_MIN, Generator

    if not RATE_MIN <= rate <= RATE_MAX:
        message = (
            f"--rate: {rate:g} events per second of event time over {workers} workers: "
            f"must be between {RATE_MIN:g} and {RATE_MAX:g}: give another rate or --time-dilation"
        )
        raise UsageError(message)
    source = Generator("exact" if generator == "exact" else "fast", 0, workers, rate, in_flight, seed)
    if events is not None and source.share(events) > source.end:
        most = source.end * workers
        message = f"{asked}: at {rate:g} events/s of event time it ends after {most} events: give fewer, or less time"
        raise UsageError(message)


def check_folder(flag: str, path: str) -> None:
    """Refuse a folder that could not be written to at the end; nothing is left behind.

    Raises:
        UsageError: one line.
    """
    from pathlib import Path

    from megaphone.observe.files import check_writable

    if not path:
        message = f"{flag} is empty: give the name of a folder"
        raise UsageError(message)
    folder = Path(path)
    try:
        if folder.exists() and not folder.is_dir():
            message = f"{flag} {path!r}: it is a file: give a folder, which is made if need be"
            raise UsageError(message)
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            message = f"{flag} {path!r}: {str(folder)!r} is a file: give a folder below a folder"
            raise UsageError(message)
    except OSError as error:
        message = f"{flag} {path!r}: {error.strerror}: give a folder that you may write to"
        raise UsageError(message) from None
    try:
        check_writable(folder / ".megaphone-check")
    except UsageError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        message = f"{flag} {path!r}: cannot write in {str(folder)!r}: {reason}: give a folder that you may write to"
        raise UsageError(message) from None
