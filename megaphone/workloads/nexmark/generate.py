"""The events alone, in files: what ``megaphone nexmark generate`` does.

All workers' events are merged into one table per stream, in the order of ``seq``; so are those of queries that are
compared with SQL over the same files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.errors import UsageError
from megaphone.workloads.nexmark.events import Counts, Events, Generator
from megaphone.workloads.nexmark.files import Table, WholeFiles, check_format, write_tables
from megaphone.workloads.nexmark.names import TEXTS
from megaphone.workloads.nexmark.schemas import STREAMS

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import numpy.typing as npt

    from megaphone.workloads.nexmark.events import GeneratorKind
    from megaphone.workloads.nexmark.files import FileFormat

RATE_DEFAULT: Final = 1000.0
PIECE_EVENTS: Final = 1 << 18
"""Events made at a time: about 12 MB of columns."""


@dataclass(frozen=True)
class Generated:
    """What `generate` has written.

    Attributes:
        paths: the file of each stream, by its name.
        rows: how many of each stream.
        size_bytes: of all files.
    """

    paths: dict[str, Path]
    rows: Counts
    size_bytes: int


class MergedEvents:
    """The first events of all workers together, in the order of their numbers, as often as one likes.

    Args:
        kind: ``exact`` or ``fast``.
        events: how many, of all workers.
        workers: how many share them: the events of ``exact`` depend on it, those of ``fast`` do not.
        rate: events per second of event time, of all workers together.
        in_flight: see `Generator`.
        seed: see `Generator`.

    Attributes:
        rows: of each stream.

    Raises:
        UsageError: one of these is out of its range.
    """

    def __init__(
        self,
        kind: GeneratorKind,
        events: int,
        *,
        workers: int = 1,
        rate: float = RATE_DEFAULT,
        in_flight: int | None = None,
        seed: int = 0,
    ) -> None:
        self._kind, self._workers, self._rate, self._in_flight, self._seed = kind, workers, rate, in_flight, seed
        generators = self._generators()
        if isinstance(events, bool) or not isinstance(events, int | np.integer) or events < 0:  # type: ignore[redundant-expr]
            message = f"events {events!r}: must be a whole number, 0 or more"
            raise UsageError(message)
        if any(generator.share(events) > generator.end for generator in generators):
            message = (
                f"events {events}: at {rate:g} events/s there are {sum(generator.end for generator in generators)} "
                "before the end of time, 2^63 ns: give fewer events, or a higher rate"
            )
            raise UsageError(message)
        self.events = int(events)
        counts = [generator.counts(generator.share(self.events)) for generator in generators]
        self.rows = Counts(*(sum(rows) for rows in zip(*counts, strict=True)))

    def _generators(self) -> list[Generator]:
        first = self._generator(0, self._workers)
        return [first, *(self._generator(worker, self._workers) for worker in range(1, self._workers))]

    def _generator(self, worker: int, workers: int) -> Generator:
        return Generator(self._kind, worker, workers, self._rate, self._in_flight, self._seed)

    def pieces(self, wanted: Mapping[str, Collection[str]], piece_events: int = PIECE_EVENTS) -> Iterator[Events]:
        """Yield the events piece by piece, only those columns that are wanted, as new arrays.

        Args:
            wanted: names of columns by stream; a stream that is missing is not made.
            piece_events: most events of all workers in a piece.
        """
        # The same events for any number of workers, and one generator need not be merged.
        single = self._kind == "fast"
        generators = [self._generator(0, 1)] if single else self._generators()
        for first in range(0, self.events, piece_events):
            last = min(first + piece_events, self.events)
            parts = [
                _part(generator, generator.share(last) - generator.share(first), wanted, with_seq=not single)
                for generator in generators
            ]
            yield parts[0] if single else _merged(parts, wanted)

    def all(self) -> Events:
        """Return all events with all columns: for tests and small runs."""
        made = list(self.pieces(STREAMS, max(1, self.events)))
        return made[0] if made else Events(*({n: np.empty(0, d) for n, d in s.items()} for s in STREAMS.values()))


def generate(
    *,
    events: int,
    output: str | os.PathLike[str],
    rate: float = RATE_DEFAULT,
    workers: int = 1,
    in_flight: int | None = None,
    generator: GeneratorKind = "fast",
    seed: int = 0,
    format: FileFormat = "csv",  # noqa: A002 - the flag's word
) -> Generated:
    """Write the first events of all workers to ``person``, ``auction`` and ``bid`` files, in the order of ``seq``.

    Args:
        events: how many, of all workers together.
        output: the folder of the files; made if need be, and files in it are replaced.
        rate: events per second of event time, of all workers together.
        workers: how many share the events; of consequence in ``exact`` only.
        in_flight: auctions that bids are for; None is ``rate * 2592``, as many as open in twelve hours.
        generator: ``exact`` or ``fast``.
        seed: of all draws.
        format: ``csv`` (with a header, texts for codes), ``npz`` (arrays, codes) or ``parquet`` (texts; needs pyarrow).

    Returns:
        Which files, and how many rows of each.

    Raises:
        UsageError: an argument is out of its range, or the files cannot be written; then none is.

    Cost: constant memory; csv takes about 120 ns per event.
    """
    check_format(format)
    source = MergedEvents(generator, events, workers=workers, rate=rate, in_flight=in_flight, seed=seed)

    def table(stream: str) -> Table:
        def pieces(columns: Sequence[str]) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
            for piece in source.pieces({stream: columns}):
                yield getattr(piece, stream)

        return Table(STREAMS[stream], getattr(source.rows, stream), pieces, TEXTS)

    with WholeFiles(output) as files:
        paths = write_tables(files, {stream: table(stream) for stream in STREAMS}, format)
    return Generated(paths, source.rows, sum(path.stat().st_size for path in paths.values()))


def _part(generator: Generator, events: int, wanted: Mapping[str, Collection[str]], *, with_seq: bool) -> Events:
    """Make the next events of one worker."""
    made = []
    for (stream, schema), rows in zip(STREAMS.items(), generator.counts(events), strict=True):
        names = [*wanted.get(stream, ())]
        if with_seq and names and "seq" not in names:
            names.append("seq")
        made.append({name: np.empty(rows, schema[name]) for name in names})
    part = Events(*made)
    generator.fill(events, *part)
    return part


def _merged(parts: Sequence[Events], wanted: Mapping[str, Collection[str]]) -> Events:
    """Return the events of all workers in the order of their numbers."""
    merged = []
    for stream, columns in zip(STREAMS, zip(*parts, strict=True), strict=True):
        names = wanted.get(stream, ())
        order = np.argsort(np.concatenate([each["seq"] for each in columns]), kind="stable") if names else None
        merged.append({name: np.concatenate([each[name] for each in columns])[order] for name in names})
    return Events(*merged)
