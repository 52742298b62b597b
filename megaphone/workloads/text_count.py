"""Counting the words of text, while the bins that hold the counts move.

::

    files --pieces of whole lines--> words --F by hash of the word--> S: count[word] += 1 --> sink
                                                                       |
    counts at the end  <-- each worker reads the bins that it owns <---+

Time is the clock, as in the word count of generated keys; a migration at one third of the input begins when worker 0
has sent one third of its share.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone._core import lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.execute import execute
from megaphone.errors import InternalError, UsageError
from megaphone.migration import plan as plans
from megaphone.migration.operators.adding import AddEmit
from megaphone.state.stores import HashTable
from megaphone.workloads.driver import BATCH_RECORDS, Driver, Measured, Warmer
from megaphone.workloads.native_count import NativeCount
from megaphone.workloads.progress_line import ProgressLine
from megaphone.workloads.settings import TextSettings
from megaphone.workloads.sink import Sink
from megaphone.workloads.text import STDIN, SkippedFile, TextFile, TextResult, find_files, pieces, share_out
from megaphone.workloads.word_count import FIRST_TIME, LEAD_NS, Handles, first_owner, make_report, show_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.plan import Plan

SCALE: Final = 1_000_000
"""Positions of the whole input, on which the plan's times lie."""
PIECE_BYTES: Final = 64 << 10
"""Small pieces, because splitting one holds the worker up."""
DEMO_RATE: Final = 150_000.0
"""Words per second and worker: the default demo then takes about ten seconds, so that there is something to see."""
_OUT: Final = {"word": "bytes", "count": "u8"}
_WORD: Final = re.compile(r"\w+")


def build(settings: TextSettings, graph: Graph) -> Handles:
    """Make the dataflow that counts words."""
    words, stream = graph.input("words", {"word": "bytes"})
    state = HashTable("bytes", {"count": "u8"})
    control = None
    if settings.is_native:
        count: Any = NativeCount(stream, key="word", hash_name=settings.hash, state=state, columns=_OUT, name="count")
        counts = type(stream)(graph, count.out)
    else:
        control = graph.control(words, lead=LEAD_NS)
        counts = stream.stateful_unary(
            key="word", hash=settings.hash, state=state, fold=AddEmit("word"), columns=_OUT, control=control,
            bin_shift=settings.bin_shift, transfer=settings.transfer, initial=first_owner(settings), name="count",
        )  # fmt: skip
        count = counts.operator
    return Handles(words, control, count, Sink(counts, from_time=0), [], [])


class WordSource:
    """One worker's share of the text, as words.

    Attributes:
        exhausted: whether everything has been sent.
        position: how far it is, 0 to SCALE.
    """

    def __init__(self, words: Input, files: Sequence[TextFile]) -> None:
        self._words = words
        self._total = max(1, sum(file.part_bytes for file in files))
        self._pieces = pieces(files, PIECE_BYTES)
        self._offsets = np.zeros(1, np.uint32)
        self._data = np.empty(0, np.uint8)
        self._at = 0
        self._done_bytes = 0
        self._piece_bytes = 0
        self.exhausted = not files

    def send(self, records: int) -> int:
        """Send the next words, at most to the end of the current piece."""
        while self._at == len(self._offsets) - 1:
            self._done_bytes += self._piece_bytes
            piece = next(self._pieces, None)
            if piece is None:
                self._piece_bytes = 0
                self.exhausted = True
                return 0
            self._offsets, self._data = piece.offsets, np.frombuffer(piece.data, np.uint8)
            self._piece_bytes, self._at = piece.input_bytes, 0
        end = min(self._at + records, len(self._offsets) - 1)
        offsets = self._offsets[self._at : end + 1]
        first = int(offsets[0])
        column = BytesColumn(offsets - offsets[0], self._data[first : int(offsets[-1])])
        sent, self._at = end - self._at, end
        self._words.send({"word": column})
        return sent

    @property
    def position(self) -> int:
        """How far this worker's share has been sent, on the common scale."""
        words = len(self._offsets) - 1
        part = self._piece_bytes * self._at // words if words else 0
        return min(SCALE, (self._done_bytes + part) * SCALE // self._total)


def make_plan(settings: TextSettings) -> Plan:
    """Return the migrations of a run, their times on the scale of its input."""
    if not settings.demo:
        return settings.plan(SCALE)
    before = settings.initial_map
    after = before.copy()
    half = len(before) // 2
    after[:half] = (before[:half] + 1) % settings.workers
    there = plans.sudden(before, after, SCALE // 3)
    back = plans.fluid(after, before, 2 * SCALE // 3)
    return plans.none(before).then(there).then(back)


def drive(settings: TextSettings, shares: Sequence[Sequence[TextFile]], worker: Worker, handles: Handles) -> Measured:
    """Read this worker's share, count, and bring home the counts of the bins that it owns in the end."""
    words, control, count, sink, _, _ = handles
    words.advance_to(FIRST_TIME)
    plan = make_plan(settings) if control is not None else None
    source = WordSource(words, shares[worker.index])
    driver = Driver(
        worker, words, sink, source,
        rate=settings.rate_per_worker, duration_ns=None, plan=plan, control=control, gap_ns=settings.gap_ns,
        first_time=FIRST_TIME, batch_records=BATCH_RECORDS, warm_at=SCALE // 10,
        warmer=Warmer(worker, count.op, plan) if plan is not None and settings.transfer == "handover" else None,
    )  # fmt: skip
    measured = driver.run()
    keys: list[Any] = []
    counts: list[Any] = []
    for chunk, values in count.state.items():
        keys.append((np.array(chunk.offsets), np.array(chunk.data)))
        counts.append(np.array(values["count"]))
    measured.extra = {
        "checksum_outputs": sink.checksum,
        "outputs": sink.records,
        "checksum_state": int(lib.mp_store_checksum(worker.slot, count.state.c)),
        "keys": keys,
        "counts": counts,
    }
    return measured


def run_text(settings: TextSettings) -> TextResult:
    """Count the words of text and report it.

    Raises:
        UsageError: a path cannot be read, or is not UTF-8.
        InternalError: ``compare_with_counter`` found other counts.
    """
    settings.check()
    if settings.demo and settings.rate_per_worker is None:
        settings = replace(settings, rate_per_worker=DEMO_RATE)
    files, skipped = find_files(settings.paths, suffixes=settings.suffixes, exclude_folders=settings.exclude_folders)
    with tempfile.TemporaryDirectory(prefix="megaphone-") as folder:
        files = [spooled(file, Path(folder), number) for number, file in enumerate(files)]
        return _count(settings, files, skipped)


def spooled(file: TextFile, folder: Path, number: int) -> TextFile:
    """Return a stream's text as a file, so that workers can share it and its length is known; others as they are."""
    if file.size_bytes is not None:
        return file
    target = folder / f"stream-{number}"
    with target.open("wb") as out:
        if file.path == STDIN:
            if sys.stdin is None:
                message = "-: standard input is closed: redirect it from a file"
                raise UsageError(message)
            source = sys.stdin.buffer
            while chunk := source.read(1 << 20):
                out.write(chunk)
        else:
            with Path(file.path).open("rb") as source:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
    try:
        (checked,), _ = find_files([target])
    except UsageError as error:
        raise UsageError(str(error).replace(str(target), file.path)) from None
    return checked


def _count(settings: TextSettings, files: list[TextFile], skipped: Sequence[SkippedFile]) -> TextResult:
    shares = share_out(files, settings.workers)
    with ProgressLine(None, "words") as line:
        result = execute(
            partial(build, settings), workers=settings.workers, drive=partial(drive, settings, shares),
            memory=settings.memory_bytes, measure_memory=True, on_tick=partial(show_records, line),
        )  # fmt: skip
    parts: Sequence[Measured] = result.returned
    report = make_report("word-count", settings, result, max(part.end_ns for part in parts))
    words = [word for part in parts for offsets, data in part.extra["keys"] for word in _decode(offsets, data)]
    counts = [count for part in parts for count in part.extra["counts"]]
    numbers = np.concatenate(counts) if counts else np.empty(0, np.uint64)
    agrees = None
    if settings.compare_with_counter:
        agrees = dict(zip(words, numbers.tolist(), strict=True)) == counter_of(files)
        if not agrees:
            message = "collections.Counter gives other counts than the run"
            raise InternalError(message)
    return TextResult(report, words, numbers, skipped, agrees)


def _decode(offsets: Any, data: Any) -> Iterator[str]:  # noqa: ANN401 - arrays
    raw, bounds = data.tobytes(), offsets.tolist()
    for start, end in zip(bounds, bounds[1:], strict=False):
        yield raw[start:end].decode()


def counter_of(files: Sequence[TextFile]) -> dict[str, int]:
    """Count again the plain way: the oracle that the run is compared with."""
    counter: Counter[str] = Counter()
    for file in files:
        counter.update(_WORD.findall(Path(file.path).read_bytes().decode().lower()))
    return dict(counter)
