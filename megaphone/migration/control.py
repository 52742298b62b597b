"""Control instructions, how they travel, and the configurations that they make.

A configuration says which worker owns each bin from one time on.  It is changed by instructions: a ``Map`` names the
owner of every bin, a ``Move`` that of one, a ``Noop`` changes nothing (its update is still a barrier at its time).
Instructions of one time are applied in the order in which they were sent, on a copy of the configuration before: the
last write to a bin wins, a ``Map`` replaces all, a later ``Move`` refines it.

On the control channel a list of instructions is one array of 32-bit words, so that no worker runs Python per bin::

    words  = run*
    run    = header payload           header = kind << 30 | count
    map    : kind 1, count = bins     payload = owner[count]
    moves  : kind 2, count = moves    payload = bin_id[count] worker[count]
    no-ops : kind 3, count = no-ops   no payload

Kind 0 is not used: words that were never written do not decode.  Consecutive moves share a run, so a fluid step is
three words and a list of a million moves is two array copies.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from megaphone.errors import ControlOrderError, InternalError, PlanError

U32Array = npt.NDArray[np.uint32]

TIME_MAX: Final = 2**64 - 2  # 2**64 - 1 is the empty frontier, which is no time.
WORD_MAX: Final = 2**32 - 1

_MAP, _MOVES, _NOOPS = 1, 2, 3
_KIND_SHIFT = 30
_COUNT_MASK = (1 << _KIND_SHIFT) - 1
_PAYLOAD_WORDS = {_MAP: 1, _MOVES: 2, _NOOPS: 0}


def unknown_bin_error(bin_id: int, bin_count: int) -> PlanError:
    """Return the error for a bin that the run does not have."""
    return PlanError(f"unknown bin, {bin_id}; there are {bin_count} bins, use 0 to {bin_count - 1}")


def unknown_worker_error(worker: int, bin_id: int, workers: int) -> PlanError:
    """Return the error for a bin given to a worker that the run does not have."""
    return PlanError(f"unknown worker for bin {bin_id}, {worker}; there are {workers} workers, use 0 to {workers - 1}")


def map_length_error(length: int, bin_count: int) -> PlanError:
    """Return the error for a map with too few or too many owners."""
    what = "short map" if length < bin_count else "long map"
    return PlanError(f"{what}, {length} workers for {bin_count} bins; name exactly one worker for each bin")


def checked_owner(owner: npt.ArrayLike, bin_count: int | None = None, workers: int | None = None) -> U32Array:
    """Return an owner map as a read-only array of its own, after checking it.

    Args:
        owner: integers [bin_count], the worker of each bin.
        bin_count: the bins of the run; None takes the length of the map.
        workers: the workers of the run; None leaves them unchecked, as where only the lengths are known.

    Returns:
        uint32[bin_count], C-order, read-only, a copy of 4*bin_count bytes.

    Raises:
        PlanError: not a list of whole numbers, the wrong length, or an unknown worker.
    """
    values = np.asarray(owner)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
        message = f"not a map, {values.dtype} of shape {values.shape}; give one whole worker number for each bin"
        raise PlanError(message)
    if bin_count is not None and values.size != bin_count:
        raise map_length_error(values.size, bin_count)
    limit = WORD_MAX + 1 if workers is None else workers
    wrong = np.flatnonzero((values < 0) | (values >= limit))
    if wrong.size:
        raise unknown_worker_error(int(values[wrong[0]]), int(wrong[0]), limit)
    result = values.astype(np.uint32)
    result.setflags(write=False)
    return result


def _checked_word(value: SupportsIndex, what: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= WORD_MAX:
        message = f"{what} is no whole number from 0 to {WORD_MAX}, {value!r}; give its index"
        raise PlanError(message)
    return number


@dataclass(frozen=True, eq=False)
class Map:
    """Name the owner of every bin.

    Attributes:
        owner: uint32[bin_count], the worker of each bin; read-only, a copy of what was given.
    """

    owner: U32Array

    def __init__(self, owner: npt.ArrayLike) -> None:
        """Copy the map; raise PlanError if it is not a list of whole numbers."""
        object.__setattr__(self, "owner", checked_owner(owner))

    def __eq__(self, other: object) -> bool:
        """Compare by owners."""
        return np.array_equal(self.owner, other.owner) if isinstance(other, Map) else NotImplemented

    def __hash__(self) -> int:
        """Hash by owners; O(bins)."""
        return hash(self.owner.tobytes())


@dataclass(frozen=True)
class Move:
    """Give one bin to one worker.

    Attributes:
        bin_id: the bin's index.
        worker: the new owner's index; the present owner is allowed and moves nothing.
    """

    bin_id: int
    worker: int

    def __post_init__(self) -> None:
        """Take any integer type; raise PlanError for what is none or does not fit 32 bits."""
        object.__setattr__(self, "bin_id", _checked_word(self.bin_id, "the bin of a move"))
        object.__setattr__(self, "worker", _checked_word(self.worker, "the worker of a move"))


@dataclass(frozen=True)
class Noop:
    """Change nothing: an update that is only a barrier at its time."""


Instruction = Map | Move | Noop


@dataclass(frozen=True)
class _Run:
    """One run of encoded words: its kind, its count, and where its payload begins."""

    kind: int
    count: int
    start: int

    def __len__(self) -> int:
        return 1 if self.kind == _MAP else self.count


def _runs_of(words: U32Array) -> list[_Run]:
    """Split encoded words into runs; raise InternalError when they were not made by ``encode``."""
    if words.dtype != np.uint32 or words.ndim != 1:
        message = f"control words are {words.dtype} of shape {words.shape}, not uint32[n]"
        raise InternalError(message)
    runs: list[_Run] = []
    position = 0
    while position < words.size:
        header = int(words[position])
        run = _Run(header >> _KIND_SHIFT, header & _COUNT_MASK, position + 1)
        end = run.start + _PAYLOAD_WORDS.get(run.kind, 0) * run.count
        if run.kind not in _PAYLOAD_WORDS or not run.count or end > words.size:
            message = f"control words do not decode: header {header:#010x} at word {position} of {words.size}"
            raise InternalError(message)
        runs.append(run)
        position = end
    return runs


def _header(kind: int, count: int) -> U32Array:
    return np.array([kind << _KIND_SHIFT | count], dtype=np.uint32)


def _columns(words: U32Array, run: _Run) -> tuple[U32Array, U32Array]:
    """Return the bins and the workers of a run of moves, as views."""
    middle = run.start + run.count
    return words[run.start : middle], words[middle : middle + run.count]


class Instructions(Sequence[Instruction]):
    """A list of instructions in its encoded form; the objects are made only when somebody looks at them.

    Attributes:
        words: uint32[n], what travels on the control channel; read-only, a copy of what was given.
    """

    __slots__ = ("_runs", "words")

    def __init__(self, words: U32Array) -> None:
        """Copy encoded words; raise InternalError when they do not decode."""
        self.words: U32Array = np.array(words, dtype=np.uint32)
        self.words.setflags(write=False)
        self._runs = _runs_of(self.words)

    @classmethod
    def of_map(cls, owner: npt.ArrayLike) -> Instructions:
        """Return the list of one Map; ``owner`` is integers [bin_count]."""
        checked = checked_owner(owner)
        return cls(np.concatenate([_header(_MAP, checked.size), checked]))

    @classmethod
    def of_moves(cls, bin_ids: U32Array, workers: U32Array) -> Instructions:
        """Return the list of one Move per entry of two arrays, uint32[n] each."""
        if not bin_ids.size:
            return cls(np.empty(0, dtype=np.uint32))
        return cls(np.concatenate([_header(_MOVES, bin_ids.size), bin_ids, workers]))

    def merged(self) -> tuple[U32Array | None, U32Array, U32Array]:
        """Return the list's effect: the last map refined by later moves, or else None with the moves of all bins.

        Returns:
            uint32[bin_count] and two empty arrays where the list has a map; None, and uint32[n] bins and workers in
            the order in which they were sent, where it has none.
        """
        map_run = next((run for run in self._runs if run.kind == _MAP), None)
        if map_run is not None:
            owner = np.empty(map_run.count, dtype=np.uint32)  # Maps of different lengths fail to decode.
            decode_into(self.words, owner)
            return owner, owner[:0], owner[:0]
        bin_ids, workers = [self.words[:0]], [self.words[:0]]
        for run in self._runs:
            if run.kind == _MOVES:
                run_bins, run_workers = _columns(self.words, run)
                bin_ids.append(run_bins)
                workers.append(run_workers)
        return None, np.concatenate(bin_ids), np.concatenate(workers)

    def __len__(self) -> int:
        """Return the number of instructions."""
        return sum(len(run) for run in self._runs)

    def __iter__(self) -> Iterator[Instruction]:
        """Make the instructions one after the other; O(1) memory beside a map."""
        for run in self._runs:
            if run.kind == _MAP:
                yield Map(self.words[run.start : run.start + run.count])
            elif run.kind == _MOVES:
                for bin_id, worker in zip(*_columns(self.words, run), strict=True):
                    yield Move(int(bin_id), int(worker))
            else:
                yield from itertools.repeat(Noop(), run.count)

    @overload
    def __getitem__(self, index: int) -> Instruction: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Instruction, ...]: ...
    def __getitem__(self, index: int | slice) -> Instruction | tuple[Instruction, ...]:
        """Make all instructions and return those asked for; O(n), meant for people and tests."""
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        """Compare by instructions, with any other sequence of them."""
        if isinstance(other, Instructions) and np.array_equal(self.words, other.words):
            return True
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        """Hash by instructions; O(n)."""
        return hash(tuple(self))

    def __repr__(self) -> str:
        """Show the count, and the instructions where they are few."""
        return f"Instructions({list(self)!r})" if len(self) <= 4 else f"Instructions(<{len(self)} instructions>)"


def encode(instructions: Iterable[Instruction]) -> U32Array:
    """Return a list of instructions as the words of one control message.

    Args:
        instructions: in send order; an ``Instructions`` costs nothing, a list of objects O(1) each.

    Returns:
        uint32[n], read-only; empty for an empty list.

    Raises:
        PlanError: something in the list is no instruction.
    """
    if isinstance(instructions, Instructions):
        return instructions.words
    parts: list[U32Array] = [np.empty(0, dtype=np.uint32)]
    for kind, group in itertools.groupby(instructions, key=type):
        items = list(group)
        if kind is Map:
            for item in items:
                assert isinstance(item, Map)
                parts += [_header(_MAP, item.owner.size), item.owner]
        elif kind is Move:
            pairs = [(item.bin_id, item.worker) for item in items if isinstance(item, Move)]
            parts += [_header(_MOVES, len(pairs)), np.array(pairs, dtype=np.uint32).T.ravel()]
        elif kind is Noop:
            parts.append(_header(_NOOPS, len(items)))
        else:
            message = f"not an instruction, {items[0]!r}; use Map, Move or Noop"
            raise PlanError(message)
    words = np.concatenate(parts)
    words.setflags(write=False)
    return words


def decode_into(words: U32Array, owner: U32Array, *, workers: int | None = None) -> None:
    """Apply encoded instructions to an owner map in place; after an error the map is as it was.

    Args:
        words: uint32[n], as made by ``encode``; may view shared memory, never kept.
        owner: uint32[bin_count], writable; the owners before, then after.
        workers: the workers of the run, to refuse others; None leaves them unchecked.

    Raises:
        PlanError: an unknown bin, an unknown worker, or a map of the wrong length.
        InternalError: the words were not made by ``encode``, or the owners are not uint32[bin_count].

    Cost: one numpy assignment per run of instructions, no Python per bin.
    """
    if owner.dtype != np.uint32 or owner.ndim != 1:
        message = f"owners are {owner.dtype} of shape {owner.shape}, not uint32[bin_count]"
        raise InternalError(message)
    runs = _runs_of(words)
    for run in runs:
        if run.kind == _MAP:
            checked_owner(words[run.start : run.start + run.count], owner.size, workers)
        elif run.kind == _MOVES:
            check_moves(*_columns(words, run), owner.size, workers)
    for run in runs:
        if run.kind == _MAP:
            owner[:] = words[run.start : run.start + run.count]
        elif run.kind == _MOVES:
            # Where a bin is repeated, numpy leaves the last value: the rule that the last write wins.
            bin_ids, workers_new = _columns(words, run)
            owner[bin_ids] = workers_new


def check_moves(bin_ids: U32Array, workers_new: U32Array, bin_count: int, workers: int | None = None) -> None:
    """Raise PlanError for the first move of an unknown bin, or to an unknown worker (None: unchecked)."""
    wrong = np.flatnonzero(bin_ids >= bin_count)
    if wrong.size:
        raise unknown_bin_error(int(bin_ids[wrong[0]]), bin_count)
    if workers is not None:
        wrong = np.flatnonzero(workers_new >= workers)
        if wrong.size:
            raise unknown_worker_error(int(workers_new[wrong[0]]), int(bin_ids[wrong[0]]), workers)


def apply_instructions(
    owner: npt.ArrayLike, instructions: Iterable[Instruction], *, workers: int | None = None
) -> U32Array:
    """Return the owner map that instructions make of another one.

    Args:
        owner: integers [bin_count], the owners before; not changed.
        instructions: in send order.
        workers: the workers of the run, to refuse others; None leaves them unchecked.

    Returns:
        uint32[bin_count], a new array, read-only.

    Raises:
        PlanError: an unknown bin, an unknown worker, or a map of the wrong length.
    """
    result = checked_owner(owner).copy()
    decode_into(encode(instructions), result, workers=workers)
    result.setflags(write=False)
    return result


@dataclass(frozen=True, eq=False)
class Configuration:
    """Which worker owns each bin from one time on; immutable.

    Attributes:
        sequence: the number of the update that made it, from 0; rises with the time.
        time: the first logical time at which it holds, 0 to 2**64 - 2.
        owner: uint32[bin_count], the worker of each bin; read-only, a copy of what was given.
    """

    sequence: int
    time: int
    owner: U32Array

    def __post_init__(self) -> None:
        """Copy the owners; raise ControlOrderError for an impossible time and PlanError for an impossible map."""
        if not 0 <= self.time <= TIME_MAX:
            message = f"no time for a configuration, {self.time}; use 0 to {TIME_MAX}"
            raise ControlOrderError(message)
        object.__setattr__(self, "owner", checked_owner(self.owner))

    @property
    def bin_count(self) -> int:
        """The number of bins."""
        return int(self.owner.size)

    def successor(
        self, time: int, instructions: Iterable[Instruction], *, sequence: int | None = None, workers: int | None = None
    ) -> Configuration:
        """Return the configuration that the update of a later time makes of this one.

        Args:
            time: the update's logical time; all instructions of one time are one update, so it is a greater one.
            instructions: all instructions of that time, in send order.
            sequence: the update's number, greater than this one's; None takes the next.
            workers: the workers of the run, to refuse others; None leaves them unchecked.

        Raises:
            ControlOrderError: the time or the sequence does not rise.
            PlanError: an unknown bin, an unknown worker, or a map of the wrong length.
        """
        number = self.sequence + 1 if sequence is None else sequence
        if time <= self.time or number <= self.sequence:
            message = (
                f"update {number} at time {time} does not follow update {self.sequence} at time {self.time}; "
                "merge the instructions of one time, and number updates by their times"
            )
            raise ControlOrderError(message)
        return Configuration(number, time, apply_instructions(self.owner, instructions, workers=workers))

    def moved_bins(self, previous: Configuration) -> U32Array:
        """Return the bins whose owner differs from that in ``previous``, uint32[n], ascending."""
        return np.flatnonzero(self.owner != previous.owner).astype(np.uint32)

    def __eq__(self, other: object) -> bool:
        """Compare sequence, time and owners."""
        if not isinstance(other, Configuration):
            return NotImplemented
        same_place = (self.sequence, self.time) == (other.sequence, other.time)
        return same_place and np.array_equal(self.owner, other.owner)

    def __hash__(self) -> int:
        """Hash by sequence and time, which decide all else within one run."""
        return hash((self.sequence, self.time))
