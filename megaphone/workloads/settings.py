"""What a run is asked to do: one frozen object per workload, checked as a whole before anything is started.

The command line fills these objects and Python callers may too; the defaults stand here and nowhere else.  `check`
refuses with one line that names the flag, the value and the cure, so that a mistake costs a second and not a run.
Numbers carry their units here; what a flag may be written as (``2G``, ``max``, ``1e6``) is for ``flags`` to know.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from megaphone.errors import PlanError, UsageError

if TYPE_CHECKING:
    from megaphone.migration.control import U32Array
    from megaphone.migration.plan import Plan

WORKERS_MAX = 64
BIN_SHIFT_MAX = 20
# A send time is a whole number of nanoseconds, so no worker can be asked for more than one record in each.
RATE_MAX = 1e9
RATE_MIN = 1e-3
DURATION_S_MAX = 1e9
DOMAIN_MAX = 1 << 48
WORD_MAX = (1 << 64) - 1
MEMORY_BYTES_MAX = 1 << 47


STRATEGIES = ("none", "sudden", "fluid", "batched")
BACKENDS = ("hashmap", "hashmapnative", "vec", "vecnative")
TEXT_BACKENDS = ("hashmap", "hashmapnative")
HASHES = ("fnv", "mix")
TRANSFERS = ("handover", "copy")
FORMATS = ("human", "tsv", "json")
COLUMN_TYPES = ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64", "bytes")

_COLUMN = re.compile(r"([A-Za-z_]\w*):(\w+)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every workload needs.

    Attributes:
        workers: processes, 1 to 64.
        memory_bytes: size of the data region; None is half of what /dev/shm has free, at most half of RAM.
        seed: of all random numbers, 0 to 2^64 - 1.
        format: of the report on standard output: human, tsv (the original's lines) or json (one object).
        report_path: file that also gets the report as JSON, or None.
    """

    workers: int = 2
    memory_bytes: int | None = None
    seed: int = 0
    format: str = "human"
    report_path: str | None = None

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            UsageError: one line that names the flag, the value and the cure.
            PlanError: the same, for a plan file or a map of bins.
        """
        check_whole("--workers", self.workers, 1, WORKERS_MAX)
        check_whole("--seed", self.seed, 0, WORD_MAX)
        check_choice("--format", self.format, FORMATS)
        if self.memory_bytes is not None:
            from megaphone.shm.limits import CHUNK_BYTES_MIN, CHUNKS_PER_SLOT_MIN, MEMORY_BYTES_MIN

            memory_bytes_min = max(MEMORY_BYTES_MIN, CHUNKS_PER_SLOT_MIN * CHUNK_BYTES_MIN * self.workers)
            if not memory_bytes_min <= self.memory_bytes <= MEMORY_BYTES_MAX:
                message = (
                    f"--memory {self.memory_bytes}: {self.workers} workers need at least {memory_bytes_min >> 20}M and "
                    f"can map at most {MEMORY_BYTES_MAX >> 40}T: give a size such as 512M or 2G"
                )
                raise UsageError(message)


@dataclass(frozen=True, kw_only=True)
class MigratingSettings(RunSettings):
    """What every workload with keyed state in bins that may move needs.

    Attributes:
        rate_per_worker: records (words) that each worker offers per second, open loop; None is as many as it can.
        migration: ``none``, ``sudden``, ``fluid``, ``batched``, or the path of a plan file.
        bin_shift: log2 of the number of bins, 1 to 20.
        transfer: ``handover`` (a bin changes its owner, nothing is copied) or ``copy`` (as between hosts).
        gap_ns: rest between the completion of a step and the next one, nanoseconds.
        batch_bins: bins per pair of workers in one step of ``batched``.
        initial: map of bins at the start: ``uniform``, ``half``, ``uniform_skew``, ``one``, or ``bin:worker`` pairs.
        target: map that the built-in strategies move to at one third of the run, and back from at two thirds.
    """

    rate_per_worker: float | None = None
    migration: str = "none"
    bin_shift: int = 8
    transfer: str = "handover"
    gap_ns: int = 0
    batch_bins: int = 1
    initial: str = "uniform"
    target: str = "uniform_skew"

    @property
    def rate_total(self) -> float | None:
        """Records per second over all workers; None is as many as they can."""
        return None if self.rate_per_worker is None else self.rate_per_worker * self.workers

    @property
    def offered_per_worker(self) -> float | None:
        """Records per second by the schedule of each worker; None is a closed loop."""
        return self.rate_per_worker

    @cached_property
    def initial_map(self) -> U32Array:
        """uint32[2^bin_shift], the worker of each bin at the start; PlanError if there is no such map."""
        return _map("--initial", self.initial, self.bin_shift, self.workers)

    @cached_property
    def target_map(self) -> U32Array:
        """uint32[2^bin_shift], the worker of each bin between the migrations; PlanError if there is no such map."""
        return _map("--target", self.target, self.bin_shift, self.workers)

    @cached_property
    def plan_file(self) -> Plan | None:
        """The plan of the file that `migration` names, or None if it names a strategy; PlanError if it is wrong."""
        if self.migration in STRATEGIES:
            return None
        from megaphone.migration.plan import load_plan, none

        loaded = load_plan(self.migration, 1 << self.bin_shift, self.workers)
        # The steps of a file follow on the map that the run starts from; by itself that is the uniform one.
        return loaded if self.initial == "uniform" else none(self.initial_map).then(loaded)

    def plan(self, duration_ns: int) -> Plan:
        """Return the plan of a run: the file's, or the strategy's there at one third and back at two thirds.

        Args:
            duration_ns: length of the run in the unit of its control times, at least 3.

        Raises:
            PlanError: see `plan_file` and `megaphone.migration.plan.round_trip`.
        """
        from megaphone.migration.plan import round_trip

        if self.plan_file is not None:
            return self.plan_file
        return round_trip(self.migration, self.initial_map, self.target_map, duration_ns, bins_per_pair=self.batch_bins)

    def check(self) -> None:
        """Refuse what cannot be run; see `RunSettings.check`."""
        super().check()
        check_rate("--rate", self.rate_per_worker)
        check_choice("--transfer", self.transfer, TRANSFERS)
        check_whole("--bin-shift", self.bin_shift, 1, BIN_SHIFT_MAX)
        check_whole("--gap", self.gap_ns, 0, WORD_MAX, " nanoseconds")
        check_whole("--batch-bins", self.batch_bins, 1, 1 << BIN_SHIFT_MAX)
        # Each is read once and kept, because a plan may come from a pipe.
        _ = (self.initial_map, self.target_map, self.plan_file)


@dataclass(frozen=True, kw_only=True)
class CountSettings(MigratingSettings):
    """What both kinds of word count need.

    Attributes:
        backend: what keeps the counts; see `BACKENDS`.
        hash: key to bin: ``fnv`` (the original's) or ``mix`` (faster).
    """

    backend: str = "hashmap"
    hash: str = "fnv"

    @property
    def is_native(self) -> bool:
        """Whether the backend is the plain rival: no bins, so nothing that could move."""
        return self.backend.endswith("native")

    def check(self) -> None:
        """Refuse what cannot be run; see `RunSettings.check`."""
        super().check()
        check_choice("--backend", self.backend, BACKENDS)
        check_choice("--hash", self.hash, HASHES)
        if self.is_native and self.migration != "none":
            message = (
                f"--migration {self.migration}: the backend {self.backend} has no bins to move: "
                f"use --backend {self.backend.removesuffix('native')}, or --migration none"
            )
            raise UsageError(message)


@dataclass(frozen=True, kw_only=True)
class WordCountSettings(CountSettings):
    """Counting generated keys: the original's benchmark.

    Attributes:
        duration_s: of the measured part, seconds; loading comes on top.
        domain: number of different keys, drawn uniformly.
        validate: compare all outputs with an independent count.
        preload: load every key before the clock starts.
        slices: keep latency around each migration in slices of 10 ms; with migration "none", around the times at
            which the built-in strategies move. Needs a rate.
        pss_interval_s: seconds from one reading of PSS to the next, at best four a second; None is as often as costs a
            thousandth of the time.
    """

    rate_per_worker: float | None = 100_000.0
    duration_s: float = 10.0
    domain: int = 1_000_000
    validate: bool = False
    preload: bool = True
    slices: bool = False
    pss_interval_s: float | None = None

    @property
    def duration_ns(self) -> int:
        """Length of the measured part, nanoseconds."""
        return round(self.duration_s * 1e9)

    def check(self) -> None:
        """Refuse what cannot be run; see `RunSettings.check`."""
        super().check()
        check_seconds("--duration", self.duration_s)
        if self.pss_interval_s is not None:
            check_seconds("--pss-interval", self.pss_interval_s)
        check_whole("--domain", self.domain, 1, DOMAIN_MAX, " keys")
        if self.slices and self.rate_per_worker is None:
            message = "--slices: with --rate max no record is due at any time: give a --rate, or leave --slices out"
            raise UsageError(message)


@dataclass(frozen=True, kw_only=True)
class TextSettings(CountSettings):
    """Counting the words of text.

    Attributes:
        paths: files, folders, or ``-`` for standard input; what they name is checked by `text.find_files`.
        suffixes: of the files that count in folders; None is all.
        exclude_folders: names of folders that are not entered.
        top: print so many words; None is all.
        output_path: file that gets the counts instead of standard output, or None.
        compare_with_counter: count again with `collections.Counter` and compare.
        demo: move half of the bins at one third of the input all at once, and back at two thirds, fluidly; compares.
    """

    paths: tuple[str, ...] = ()
    suffixes: tuple[str, ...] | None = None
    exclude_folders: tuple[str, ...] = ()
    top: int | None = None
    output_path: str | None = None
    compare_with_counter: bool = False
    demo: bool = False

    def check(self) -> None:
        """Refuse what cannot be run; see `RunSettings.check`."""
        super().check()
        if not self.paths:
            message = "--text: no file is named: give files or folders, or - for standard input"
            raise UsageError(message)
        check_choice("--backend", self.backend, TEXT_BACKENDS, " for words")
        if self.top is not None:
            check_whole("--top", self.top, 1, WORD_MAX, " words")
        if self.demo and self.migration != "none":
            message = f"--migration {self.migration}: --demo has migrations of its own: leave one of the two out"
            raise UsageError(message)


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """A migration to be written down instead of run.

    Attributes:
        strategy: ``sudden``, ``fluid`` or ``batched``.
        workers: 1 to 64.
        bin_shift: log2 of the number of bins, 1 to 20.
        initial: map of bins before; see `MigratingSettings`.
        target: map of bins after.
        at_s: when the migration may begin, seconds since the start of the run.
        batch_bins: bins per pair of workers in one step of ``batched``.
    """

    strategy: str = "batched"
    workers: int = 2
    bin_shift: int = 8
    initial: str = "uniform"
    target: str = "uniform_skew"
    at_s: float = 1.0
    batch_bins: int = 1

    def check(self) -> None:
        """Refuse what cannot be planned; see `RunSettings.check`."""
        check_choice("strategy", self.strategy, STRATEGIES[1:])
        check_whole("--workers", self.workers, 1, WORKERS_MAX)
        check_whole("--bin-shift", self.bin_shift, 1, BIN_SHIFT_MAX)
        check_whole("--batch-bins", self.batch_bins, 1, 1 << BIN_SHIFT_MAX)
        check_seconds("--at", self.at_s, seconds_min=0)
        for flag, text in (("--initial", self.initial), ("--target", self.target)):
            _map(flag, text, self.bin_shift, self.workers)

    def plan(self) -> Plan:
        """Return the plan: the initial map at time 0, then the steps to the target.

        Raises:
            PlanError: one of the maps is wrong.
        """
        from megaphone.migration.plan import none, one_way

        before = _map("--initial", self.initial, self.bin_shift, self.workers)
        after = _map("--target", self.target, self.bin_shift, self.workers)
        steps = one_way(self.strategy, before, after, round(self.at_s * 1e9), bins_per_pair=self.batch_bins)
        return none(before).then(steps)


@dataclass(frozen=True, kw_only=True)
class ExchangeSettings(RunSettings):
    """Transport alone: records that every worker scatters to all.

    Attributes:
        records: over all workers.
        batch_records: records per batch.
        columns: ``name:type`` pairs with commas between them; the first is the key that is routed by.
        times: whether to measure the time in copies and allocations.
    """

    records: int = 10_000_000
    batch_records: int = 16_384
    columns: str = "key:u64,value:u64"
    times: bool = False

    def check(self) -> None:
        """Refuse what cannot be run; see `RunSettings.check`."""
        super().check()
        check_whole("--records", self.records, 1, DOMAIN_MAX)
        check_whole("--batch", self.batch_records, 1, 1 << 24, " records")
        self.column_types()

    def column_types(self) -> dict[str, str]:
        """Return the type of each column by its name, in order.

        Raises:
            UsageError: a pair is not ``name:type``, a type is unknown, a name comes twice, the key is not u64.
        """
        types: dict[str, str] = {}
        for pair in self.columns.split(","):
            match = _COLUMN.fullmatch(pair.strip())
            if match is None or match[2] not in COLUMN_TYPES:
                message = (
                    f"--columns {self.columns!r}: {pair.strip()!r} is not name:type with a type of "
                    f"{', '.join(COLUMN_TYPES)}: write it as key:u64,value:f64"
                )
                raise UsageError(message)
            if match[1] in types:
                message = f"--columns {self.columns!r}: the name {match[1]!r} comes twice: give each its own"
                raise UsageError(message)
            types[match[1]] = match[2]
        first = next(iter(types))
        if types[first] != "u64":
            message = f"--columns {self.columns!r}: records are routed by the first column: make {first} a u64"
            raise UsageError(message)
        return types


def check_rate(flag: str, rate: float | None, rate_max: float = RATE_MAX) -> None:
    """Refuse a rate that no schedule can be made from; None is ``max`` and always fine.

    Raises:
        UsageError: not a number, or outside of `RATE_MIN` … `rate_max` records per second.
    """
    # Written so that nan, which no comparison holds for, is refused too.
    if rate is not None and not RATE_MIN <= rate <= rate_max:
        message = (
            f"{flag} {rate:g}: records per second must be between {RATE_MIN:g} and {rate_max:g}: "
            "give such a number, or --rate max for as many as possible"
        )
        raise UsageError(message)


def check_seconds(flag: str, seconds: float, seconds_min: float = 1e-9) -> None:
    """Refuse a length of time that is not positive (or is below `seconds_min`), not finite, or beyond 30 years.

    Raises:
        UsageError: it is.
    """
    if not (math.isfinite(seconds) and seconds_min <= seconds <= DURATION_S_MAX):
        wanted = f"{'more than 0' if seconds_min else '0 or more'} and at most {DURATION_S_MAX:g}"
        message = f"{flag} {seconds:g}: seconds must be {wanted}: give a number of seconds such as 10 or 0.5"
        raise UsageError(message)


def _map(flag: str, text: str, bin_shift: int, workers: int) -> U32Array:
    """Return uint32[2^bin_shift], the worker of each bin, or refuse with the flag in front of what is wrong."""
    from megaphone.migration.plan import parse_map

    try:
        return parse_map(text, 1 << bin_shift, workers)
    except PlanError as error:
        message = f"{flag}: {error}"
        raise PlanError(message) from None


def check_whole(flag: str, value: object, least: int, most: int, unit: str = "") -> None:
    """Refuse what is not a whole number in a range; raises UsageError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        message = f"{flag} {value}: must be a whole number from {least} to {most}{unit}: give one in that range"
        raise UsageError(message)


def check_choice(flag: str, value: str, choices: tuple[str, ...], what_for: str = "") -> None:
    """Refuse what is none of the choices; raises UsageError."""
    if value not in choices:
        message = f"{flag} {value!r}: unknown{what_for}: give one of {', '.join(choices)}"
        raise UsageError(message)
