"""Plans: which bins move to whom, in which steps, not before which time.

A plan is a list of steps.  Each is one update of the configuration, with the time before which it must not be sent;
the pacer (``pacing``) sends a step only when the one before is complete, so steps of one migration share a time.

=========  ======================================================  ==========================================
strategy   steps                                                   what it costs
=========  ======================================================  ==========================================
sudden     one map                                                 one pause as long as the busiest worker's move
fluid      one bin each                                            the shortest pauses, the longest migration
batched    one bin for each pair of workers in a matching          pauses as short as fluid's, as few steps as can be
none       no migration, only the map at time 0                    nothing
=========  ======================================================  ==========================================

Plans hold arrays and make the steps when they are asked for, since a fluid plan may have a million.  Plan files are
text in the original's format, one update per line; empty lines and what follows ``#`` are skipped::

    M <time_ns> <worker of bin 0> <worker of bin 1> ...        the owner of every bin
    D <time_ns> <bin> <worker> <bin> <worker> ...              moves; each line is one step
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import IO, Final, overload

import numpy as np
import numpy.typing as npt

from megaphone.errors import PlanError
from megaphone.migration.control import (
    TIME_MAX,
    Instruction,
    Instructions,
    U32Array,
    check_moves,
    checked_owner,
    encode,
    map_length_error,
    unknown_bin_error,
    unknown_worker_error,
)
from megaphone.migration.matching import colour_edges

U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

MAP_NAMES: Final = ("uniform", "half", "uniform_skew", "one")
STRATEGIES: Final = ("none", "sudden", "fluid", "batched")

_LINE_BYTES_MAX = 64 << 20  # Twice the longest line that lists each of 2**20 bins once; endless input stops here.
_NOT_TEXT = re.compile(rb"[^\t\n\v\f\r -~]")
_DIGITS_MAX = 20  # No longer number fits 64 bits.


# --- maps -------------------------------------------------------------------------------------------------------------


def parse_map(text: str, bin_count: int, workers: int) -> U32Array:
    """Return the owner map that a name or a list on the command line means.

    * ``uniform``: bin i on worker i % workers; the map that every run starts from.
    * ``half``: the bins on every second worker, as published: with two workers all on worker 0; with three workers it
      is the same as ``uniform``, because the published formula gives that.
    * ``uniform_skew``: ``uniform``, but every odd bin of the lower half of the bins goes elsewhere: 25 % of four or
      more bins for every count of workers above one.  From four workers on it goes where the published formula
      (``half`` in the lower half) sends it, which is another worker for odd counts too; with two and three workers that
      formula would move half of the bins or none, so there it goes to the next worker.
    * ``one``: every bin on worker 0.
    * ``bin:worker[,bin:worker...]``: these bins as listed, the others as ``uniform``.

    Args:
        text: a name or a list.
        bin_count: the bins of the run, at least 1.
        workers: the workers of the run, at least 1.

    Returns:
        uint32[bin_count], the worker of each bin; read-only.

    Raises:
        PlanError: an unknown name, a malformed list, a bin listed twice, an unknown bin or worker.
    """
    if bin_count < 1 or workers < 1:
        message = f"no map for {bin_count} bins and {workers} workers; there must be at least one of each"
        raise PlanError(message)
    bins = np.arange(bin_count, dtype=np.int64)
    owner = bins % workers
    name = text.strip()
    if name == "half":
        owner = _half(bins, workers)
    elif name == "uniform_skew":
        moved = bins[1 : bin_count // 2 : 2]
        owner[moved] = _half(moved, workers) if workers >= 4 else (moved + 1) % workers
    elif name == "one":
        owner[:] = 0
    elif ":" in name:
        listed = _parse_pairs(name, bin_count, workers)
        owner[list(listed)] = list(listed.values())
    elif name != "uniform":
        message = f"unknown map, {_shown(text)}; use {', '.join(MAP_NAMES)} or a list bin:worker[,bin:worker...]"
        raise PlanError(message)
    return checked_owner(owner, bin_count, workers)


def _half(bins: I64Array, workers: int) -> I64Array:
    if workers == 2:
        return np.zeros_like(bins)
    return (bins // 2 * 2 + bins % 2 * workers // 2) % workers


def _parse_pairs(text: str, bin_count: int, workers: int) -> dict[int, int]:
    owners: dict[int, int] = {}
    for pair in text.split(","):
        words = [word.strip().encode("utf-8", "replace") for word in pair.split(":")]
        if len(words) != 2 or not all(_is_number(word) for word in words):
            message = f"not bin:worker, {_shown(pair)}; write pairs of whole numbers as in 0:1,5:0"
            raise PlanError(message)
        bin_id, worker = (int(word) for word in words)
        if bin_id >= bin_count:
            raise unknown_bin_error(bin_id, bin_count)
        if worker >= workers:
            raise unknown_worker_error(worker, bin_id, workers)
        if bin_id in owners:
            message = f"bin listed twice, {bin_id}; name one worker for it"
            raise PlanError(message)
        owners[bin_id] = worker
    return owners


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) <= _DIGITS_MAX


def _shown(value: str | bytes) -> str:
    """Return a value for a message: one printable line, cut where it is long."""
    text = ascii(value[:40]).removeprefix("b")
    return text if len(value) <= 40 else f"{text}..."


# --- steps and plans --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One update of the configuration.

    Attributes:
        time_ns: the benchmark time before which it must not be sent; it takes effect at the control's time then.
        instructions: what changes, in order.
        strategy: the strategy of the migration that it belongs to, for reports; not compared.
    """

    time_ns: int
    instructions: Sequence[Instruction]
    strategy: str = field(default="", compare=False)

    @property
    def words(self) -> U32Array:
        """The instructions as they travel, uint32[n]."""
        return encode(self.instructions)


@dataclass(frozen=True, eq=False)
class Steps(Sequence[Step]):
    """The steps of a plan, held in arrays; each is either one map or some moves.

    Attributes:
        times_ns: uint64[steps], never falling.
        offsets: int64[steps + 1]; the moves of step i are ``bin_ids[offsets[i]:offsets[i + 1]]``, none for a map.
        bin_ids: uint32[moves], the bins.
        workers: uint32[moves], their new owners.
        maps: the owners, uint32[bin_count], of the steps that are maps, by index of the step.
        sections: (strategy, number of consecutive steps), for reports.
    """

    times_ns: U64Array
    offsets: I64Array
    bin_ids: U32Array
    workers: U32Array
    maps: Mapping[int, U32Array]
    sections: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for array in (self.times_ns, self.offsets, self.bin_ids, self.workers):
            array.setflags(write=False)

    @classmethod
    def of(cls, steps: Iterable[Step], strategy: str) -> Steps:
        """Return given steps as arrays; those without a strategy of their own get ``strategy``.

        Raises:
            PlanError: a time is impossible or falls, or a step has neither a map nor a move.
        """
        times: list[int] = []
        counts: list[int] = []
        bin_ids: list[U32Array] = [np.empty(0, dtype=np.uint32)]
        workers: list[U32Array] = [np.empty(0, dtype=np.uint32)]
        maps: dict[int, U32Array] = {}
        names: list[str] = []
        for index, step in enumerate(steps):
            least_ns = times[-1] if times else 0
            if not least_ns <= step.time_ns <= TIME_MAX:
                message = f"bad time of step {index}, {step.time_ns}; use {least_ns} (the step before) to {TIME_MAX}"
                raise PlanError(message)
            owner, step_bins, step_workers = Instructions(step.words).merged()
            if owner is not None:
                maps[index] = owner
            elif not step_bins.size:
                message = f"step {index} has neither a map nor a move, {step.instructions!r}; leave it out"
                raise PlanError(message)
            times.append(step.time_ns)
            counts.append(step_bins.size)
            bin_ids.append(step_bins)
            workers.append(step_workers)
            names.append(step.strategy or strategy)
        return cls(
            np.array(times, dtype=np.uint64),
            np.array([0, *accumulate(counts)], dtype=np.int64),
            np.concatenate(bin_ids),
            np.concatenate(workers),
            maps,
            tuple((name, len(list(group))) for name, group in groupby(names)),
        )

    def __len__(self) -> int:
        """Return the number of steps."""
        return int(self.times_ns.size)

    def __iter__(self) -> Iterator[Step]:
        """Make the steps one after the other."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        """Make one step, or those of a slice."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        at = range(len(self))[index]
        first, last = int(self.offsets[at]), int(self.offsets[at + 1])
        owner = self.maps.get(at)
        moves = (self.bin_ids[first:last], self.workers[first:last])
        instructions = Instructions.of_moves(*moves) if owner is None else Instructions.of_map(owner)
        return Step(int(self.times_ns[at]), instructions, self.strategy_of(at))

    def strategy_of(self, index: int) -> str:
        """Return the strategy of a step; O(sections)."""
        for name, count in self.sections:
            if index < count:
                return name
            index -= count
        raise IndexError(index)

    def __eq__(self, other: object) -> bool:
        """Compare times and instructions, not strategies."""
        if not isinstance(other, Steps):
            return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented
        return (
            np.array_equal(self.times_ns, other.times_ns)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.bin_ids, other.bin_ids)
            and np.array_equal(self.workers, other.workers)
            and self.maps.keys() == other.maps.keys()
            and all(np.array_equal(owner, other.maps[at]) for at, owner in self.maps.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def then(self, later: Steps) -> Steps:
        """Return these steps followed by ``later``; the caller has checked that times do not fall."""
        return Steps(
            np.concatenate([self.times_ns, later.times_ns]),
            np.concatenate([self.offsets, later.offsets[1:] + self.offsets[-1]]),
            np.concatenate([self.bin_ids, later.bin_ids]),
            np.concatenate([self.workers, later.workers]),
            {**self.maps, **{at + len(self): owner for at, owner in later.maps.items()}},
            self.sections + later.sections,
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps that take the bins from an owner map to others.

    Attributes:
        steps: in the order in which they are sent.
        strategy: a name for reports; those of parts joined by ``+``.
        initial: uint32[bin_count], the owners before the first step; read-only.
    """

    steps: Steps
    strategy: str
    initial: U32Array

    def __post_init__(self) -> None:
        """Copy the initial map; raise PlanError for a bin or a map that does not fit it."""
        object.__setattr__(self, "initial", checked_owner(self.initial))
        self.check(self.bin_count)

    @classmethod
    def of(cls, steps: Iterable[Step], strategy: str, initial: npt.ArrayLike) -> Plan:
        """Return a plan of steps that the caller made.

        Args:
            steps: in sending order, with times that do not fall; a map and the moves after it become one map.
            strategy: a name for reports, for the steps that have none of their own.
            initial: integers [bin_count], the owners before the first step.

        Raises:
            PlanError: a bad time, an empty step, an unknown bin, a map of the wrong length.
        """
        return cls(Steps.of(steps, strategy), strategy, checked_owner(initial))

    @property
    def bin_count(self) -> int:
        """The number of bins."""
        return int(self.initial.size)

    @property
    def initial_step_count(self) -> int:
        """The number of leading steps with time 0: they set up the run before its start and are no migration."""
        return int(np.searchsorted(self.steps.times_ns, 1))

    def owner_after(self, count: int) -> U32Array:
        """Return the owners after the first ``count`` steps, uint32[bin_count]; O(bins + moves) in numpy."""
        last_map = max((index for index in self.steps.maps if index < count), default=None)
        owner = (self.initial if last_map is None else self.steps.maps[last_map]).copy()
        span = slice(int(self.steps.offsets[0 if last_map is None else last_map]), int(self.steps.offsets[count]))
        owner[self.steps.bin_ids[span]] = self.steps.workers[span]  # of equal bins the last entry stays
        return owner

    @cached_property
    def moves(self) -> int:
        """The number of times that a bin really changes owner after the start; 0 says that the plan moves nothing."""
        return int(self.moved()[self.initial_step_count :].sum())

    def check(self, bin_count: int, workers: int | None = None) -> None:
        """Raise PlanError unless the plan fits a run of ``bin_count`` bins and (None: any) ``workers``."""
        checked_owner(self.initial, bin_count, workers)
        check_moves(self.steps.bin_ids, self.steps.workers, bin_count, workers)
        for owner in self.steps.maps.values():
            checked_owner(owner, bin_count, workers)

    def moved(self, initial: npt.ArrayLike | None = None) -> I64Array:
        """Return how many bins each step really moves: those whose owner after it is another than before.

        Args:
            initial: integers [bin_count], the owners before the first step; None takes the plan's own.

        Returns:
            int64[steps].

        Cost: O(moves log moves) in numpy, and O(bins) for each map.
        """
        owner = checked_owner(self.initial if initial is None else initial, self.bin_count).copy()
        result = np.zeros(len(self.steps), dtype=np.int64)
        edges = [-1, *sorted(self.steps.maps), len(self.steps)]
        for before, after in pairwise(edges):
            self._count_moves(before + 1, after, owner, result)
            if after in self.steps.maps:
                target = self.steps.maps[after]
                result[after] = np.count_nonzero(owner != target)
                owner[:] = target
        return result

    def _count_moves(self, first: int, last: int, owner: U32Array, result: I64Array) -> None:
        """Add the moved bins of the steps ``first`` to ``last - 1``, none a map, to ``result``, and move ``owner``."""
        steps = self.steps
        step_of = np.repeat(np.arange(first, last), np.diff(steps.offsets[first : last + 1]))
        span = slice(int(steps.offsets[first]), int(steps.offsets[last]))
        order = np.argsort(steps.bin_ids[span], kind="stable")  # By bin; the moves of a bin stay in sending order.
        bins, workers, step_of = steps.bin_ids[span][order], steps.workers[span][order], step_of[order]
        repeated = (bins[1:] == bins[:-1]) & (step_of[1:] == step_of[:-1])
        kept = np.append(~repeated, True)[: bins.size]  # Within a step the last write to a bin wins.
        bins, workers, step_of = bins[kept], workers[kept], step_of[kept]
        before = owner[bins]
        again = np.flatnonzero(bins[1:] == bins[:-1]) + 1
        before[again] = workers[again - 1]
        result[first:last] += np.bincount(step_of[workers != before] - first, minlength=last - first)
        owner[bins] = workers

    def then(self, later: Plan) -> Plan:
        """Return this plan followed by another one, which takes over the owners that this one leaves.

        Raises:
            PlanError: the other plan begins before this one's last time, or is for another number of bins.
        """
        ends, begins = self.steps.times_ns[-1:], later.steps.times_ns[:1]
        if (ends[:, None] > begins).any():
            message = f"falling times, {begins[0]} after {ends[0]}; put the earlier plan first"
            raise PlanError(message)
        names = dict.fromkeys(name for plan in (self, later) for name in plan.strategy.split("+") if name != "none")
        return Plan(self.steps.then(later.steps), "+".join(names) or "none", self.initial)

    def describe(self) -> str:
        """Return one line for people: what the plan does, or that it moves nothing."""
        if not self.moves:
            asked = self.strategy == "none"
            cure = "" if asked else "; choose a target map that differs from the initial one"
            return f"{self.strategy}: moves nothing, every bin keeps its owner{cure}"
        times_ns = self.steps.times_ns[self.initial_step_count :]
        return (
            f"{self.strategy}: {_counted(self.moves, 'move')} of {_counted(self.bin_count, 'bin')} in "
            f"{_counted(times_ns.size, 'step')}, {_counted(np.unique(times_ns).size, 'migration')}"
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- strategies -------------------------------------------------------------------------------------------------------


def none(initial: npt.ArrayLike) -> Plan:
    """Return the plan of a run without migrations: integers [bin_count] as its map at time 0."""
    return Plan.of([Step(0, Instructions.of_map(initial), "none")], "none", initial)


def sudden(current: npt.ArrayLike, target: npt.ArrayLike, at_ns: int) -> Plan:
    """Return the plan that moves all bins at once, as one map; also where nothing differs.

    Args:
        current: integers [bin_count], the owners before.
        target: integers [bin_count], the owners after.
        at_ns: benchmark time before which it must not begin, ns.
    """
    owner = checked_owner(target, checked_owner(current).size)
    return Plan.of([Step(at_ns, Instructions.of_map(owner))], "sudden", current)


def fluid(current: npt.ArrayLike, target: npt.ArrayLike, at_ns: int) -> Plan:
    """Return the plan that moves one bin per step, in ascending order; arguments as for ``sudden``."""
    before, after, bins = _differences(current, target)
    return _plan_of_moves("fluid", before, bins, after[bins], np.arange(bins.size + 1, dtype=np.int64), at_ns)


def batched(current: npt.ArrayLike, target: npt.ArrayLike, at_ns: int, *, bins_per_pair: int = 1) -> Plan:
    """Return the plan whose steps are matchings of workers, in as few steps as the busiest worker has turns.

    Args:
        current: integers [bin_count], the owners before.
        target: integers [bin_count], the owners after.
        at_ns: benchmark time before which it must not begin, ns.
        bins_per_pair: bins that a pair of workers exchanges in one step, at least 1.

    Returns:
        A plan in which, per step, each worker gives to at most one other and takes from at most one other; pairs begin
        with their highest bins, as in the original, and the moves of a step are in ascending order.
    """
    if bins_per_pair < 1:
        message = f"bad bins per pair and step, {bins_per_pair}; use 1 or more"
        raise PlanError(message)
    before, after, bins = _differences(current, target)
    # Pairs by source and target, and in each pair its bins in falling order: cut that into turns of bins_per_pair.
    order = np.lexsort((-bins.astype(np.int64), after[bins], before[bins]))
    bins = bins[order]
    sources, targets = before[bins], after[bins]
    new_pair = np.append(True, (sources[1:] != sources[:-1]) | (targets[1:] != targets[:-1]))[: bins.size]
    index = np.arange(bins.size)
    in_pair = index - np.maximum.accumulate(np.where(new_pair, index, 0))
    new_turn = in_pair % bins_per_pair == 0
    step_of_turn = colour_edges(sources[new_turn], targets[new_turn])
    step_of = step_of_turn[np.cumsum(new_turn) - 1] if bins.size else step_of_turn
    order = np.lexsort((bins, step_of))
    bins = bins[order]
    offsets = np.append(0, np.cumsum(np.bincount(step_of))).astype(np.int64)
    return _plan_of_moves("batched", before, bins, after[bins], offsets, at_ns)


def one_way(
    strategy: str, current: npt.ArrayLike, target: npt.ArrayLike, at_ns: int, *, bins_per_pair: int = 1
) -> Plan:
    """Return the plan of a strategy given by name; ``bins_per_pair`` matters to ``batched`` alone.

    Raises:
        PlanError: an unknown strategy, or maps that do not fit each other.
    """
    if strategy == "none":
        return none(current)
    if strategy == "sudden":
        return sudden(current, target, at_ns)
    if strategy == "fluid":
        return fluid(current, target, at_ns)
    if strategy == "batched":
        return batched(current, target, at_ns, bins_per_pair=bins_per_pair)
    message = f"unknown strategy, {_shown(strategy)}; use {', '.join(STRATEGIES)}"
    raise PlanError(message)


def round_trip(
    strategy: str, initial: npt.ArrayLike, target: npt.ArrayLike, duration_ns: int, *, bins_per_pair: int = 1
) -> Plan:
    """Return the plan of a run: the initial map at time 0, to the target at one third, and back at two thirds.

    Args:
        strategy: one of ``STRATEGIES``; ``none`` has the map at time 0 alone.
        initial: integers [bin_count], the owners at the start and at the end.
        target: integers [bin_count], the owners between one third and two thirds.
        duration_ns: the length of the run, at least 3 ns.
        bins_per_pair: for ``batched``, the bins that a pair of workers exchanges in one step.

    Raises:
        PlanError: an unknown strategy, a run that is too short, or maps that do not fit each other.
    """
    if duration_ns < 3:
        message = f"run too short for two migrations, {duration_ns} ns; use a longer duration"
        raise PlanError(message)
    there = one_way(strategy, initial, target, duration_ns // 3, bins_per_pair=bins_per_pair)
    if strategy == "none":
        return there
    back = one_way(strategy, target, initial, 2 * duration_ns // 3, bins_per_pair=bins_per_pair)
    return none(initial).then(there).then(back)


def _differences(current: npt.ArrayLike, target: npt.ArrayLike) -> tuple[U32Array, U32Array, U32Array]:
    before = checked_owner(current)
    after = checked_owner(target, before.size)
    return before, after, np.flatnonzero(before != after).astype(np.uint32)


def _plan_of_moves(
    strategy: str, initial: U32Array, bin_ids: U32Array, workers: U32Array, offsets: I64Array, at_ns: int
) -> Plan:
    if not 0 <= at_ns <= TIME_MAX:
        message = f"bad time, {at_ns}; use nanoseconds from 0 to {TIME_MAX}"
        raise PlanError(message)
    steps = offsets.size - 1
    times_ns = np.full(steps, at_ns, dtype=np.uint64)
    return Plan(Steps(times_ns, offsets, bin_ids, workers, {}, ((strategy, steps),)), strategy, initial)


# --- plan files -------------------------------------------------------------------------------------------------------


def format_plan(plan: Plan) -> str:
    """Return a plan as the text of a plan file, a line per step; strategies are not kept."""
    bin_ids, workers = plan.steps.bin_ids.tolist(), plan.steps.workers.tolist()
    lines: list[str] = []
    for index, (time_ns, (first, last)) in enumerate(
        zip(plan.steps.times_ns.tolist(), pairwise(plan.steps.offsets.tolist()), strict=True)
    ):
        owner = plan.steps.maps.get(index)
        if owner is not None:
            lines.append(f"M {time_ns} {' '.join(map(str, owner.tolist()))}\n")
        else:
            moves = zip(bin_ids[first:last], workers[first:last], strict=True)
            lines.append(f"D {time_ns} {' '.join(f'{bin_id} {worker}' for bin_id, worker in moves)}\n")
    return "".join(lines)


def load_plan(path: str | os.PathLike[str], bin_count: int, workers: int) -> Plan:
    """Read a plan file and check every line of it against the run.

    Args:
        path: the file; a pipe will do.
        bin_count: the bins of the run.
        workers: the workers of the run.

    Returns:
        A plan with the strategy ``file`` that starts from the ``uniform`` map.

    Raises:
        PlanError: one line ``FILE:LINE: what, value; cure`` for the first fault; line 0 stands for the file itself.
    """
    shown = str(path) if str(path).isprintable() else ascii(str(path))
    reader = _PlanReader(bin_count, workers)
    try:
        with Path(path).open("rb") as stream:
            reader.read(stream)
    except PlanError as error:
        message = f"{shown}:{reader.line}: {error}"
        raise PlanError(message) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        known = ", ".join(STRATEGIES)
        message = f"{shown}:0: cannot be read, {reason}; give a readable plan file, or one of {known}"
        raise PlanError(message) from None
    return Plan(reader.steps(), "file", parse_map("uniform", bin_count, workers))


class _PlanReader:
    """Reads a plan file line by line; its errors lack the file and the line, which ``line`` has."""

    def __init__(self, bin_count: int, workers: int) -> None:
        self.line = 0
        self._bin_count = bin_count
        self._workers = workers
        self._times: list[int] = []
        self._offsets = [0]
        self._bins: list[int] = []
        self._owners: list[int] = []
        self._maps: dict[int, U32Array] = {}

    def read(self, stream: IO[bytes]) -> None:
        while line := stream.readline(_LINE_BYTES_MAX):
            self.line += 1
            content, _, comment = line.removeprefix(b"\xef\xbb\xbf").partition(b"#")
            garbage = _NOT_TEXT.search(content) or re.search(rb"\0", comment)
            if garbage:
                message = f"not text, byte 0x{garbage[0][0]:02x}; give a plan file of lines that start with M, D or #"
                raise PlanError(message)
            if len(line) == _LINE_BYTES_MAX:
                message = f"line too long, over {_LINE_BYTES_MAX} bytes; split its moves into several lines"
                raise PlanError(message)
            if words := content.split():
                self._take(words)
        if not self._times:
            self.line = max(self.line, 1)
            message = "nothing in the file, 0 updates; add a line that starts with M or D"
            raise PlanError(message)

    def _take(self, words: list[bytes]) -> None:
        if words[0] not in (b"M", b"D"):
            message = f"unknown letter, {_shown(words[0])}; start the line with M (map), D (moves) or # (comment)"
            raise PlanError(message)
        if len(words) < 2 or not _is_number(words[1]) or int(words[1]) > TIME_MAX:
            value = _shown(words[1]) if len(words) > 1 else "nothing"
            message = f"bad time, {value}; give whole nanoseconds from 0 to {TIME_MAX}"
            raise PlanError(message)
        time_ns = int(words[1])
        if self._times and time_ns < self._times[-1]:
            message = f"falling time, {time_ns} after {self._times[-1]}; sort the lines by time"
            raise PlanError(message)
        wrong = next((word for word in words[2:] if not _is_number(word)), None)
        if wrong is not None:
            message = f"not a number, {_shown(wrong)}; give whole numbers"
            raise PlanError(message)
        numbers = list(map(int, words[2:]))
        if words[0] == b"M":
            self._take_map(numbers)
        else:
            self._take_moves(numbers)
        self._times.append(time_ns)
        self._offsets.append(len(self._bins))

    def _take_map(self, owners: list[int]) -> None:
        if len(owners) != self._bin_count:
            raise map_length_error(len(owners), self._bin_count)
        self._check_workers(range(self._bin_count), owners)
        self._maps[len(self._times)] = checked_owner(owners)

    def _take_moves(self, numbers: list[int]) -> None:
        if len(numbers) % 2 or not numbers:
            what = "odd list" if numbers else "no moves"
            message = f"{what}, {len(numbers)} numbers; give pairs of bin and worker"
            raise PlanError(message)
        bins, owners = numbers[0::2], numbers[1::2]
        if max(bins) >= self._bin_count:
            raise unknown_bin_error(next(b for b in bins if b >= self._bin_count), self._bin_count)
        self._check_workers(bins, owners)
        self._bins += bins
        self._owners += owners

    def _check_workers(self, bins: Sequence[int], owners: list[int]) -> None:
        if max(owners) >= self._workers:
            index, worker = next((i, w) for i, w in enumerate(owners) if w >= self._workers)
            raise unknown_worker_error(worker, bins[index], self._workers)

    def steps(self) -> Steps:
        return Steps(
            np.array(self._times, dtype=np.uint64),
            np.array(self._offsets, dtype=np.int64),
            np.array(self._bins, dtype=np.uint32),
            np.array(self._owners, dtype=np.uint32),
            self._maps,
            (("file", len(self._times)),),
        )
