"""Runs experiments: every point in a fresh process, in turns, beside a yardstick of the same minute.

    for each round: for each point: [yardstick, when the last is older than a minute] -> memory -> run -> row -> file

In turns means round by round: a slow minute of the machine slows one run of each point and not all runs of one.  A row
is written as soon as its run has ended, so that what was measured is never measured again.

Memory: a virtual machine gives back to its host what has been free for some minutes, and has to ask for it again at the
next touch, which then takes ten times as long: not a cost of what is measured, and a different one in each run.  Before
each run of full size as much memory as it needs is therefore touched and let go of.
"""

from __future__ import annotations

import json
import mmap
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench import results
from megaphone.bench.experiment import START_SECONDS, Experiment, Point, Size
from megaphone.errors import MegaphoneError
from megaphone.observe.machine import memory_info

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from megaphone.bench.experiment import Value

YARDSTICK: Final = Point({}, "megaphone.bench.yardstick", ("--quick",), 2 * START_SECONDS, seeded=False)
YARDSTICK_AGE_SECONDS: Final = 45.0
"""Taken anew before a run when the last is older; a run that is longer than a minute has one of its beginning."""
MEMORY_SHARE: Final = 0.8
_TOUCHED_PIECE: Final = 1 << 28
_THEN: Final = " && "
_END_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.5


class RunFailedError(MegaphoneError):
    """A measured command failed; the message has its last line."""


@dataclass
class Todo:
    """What is still to be run of an experiment.

    Attributes:
        experiment: which.
        path: of its result.
        result: what is there.
        runs: (round, point) in the order in which they run.
        left_out: points for which this machine has too little memory.
    """

    experiment: Experiment
    path: Path
    result: results.Result
    runs: list[tuple[int, Point]]
    left_out: list[Point]

    @property
    def seconds(self) -> float:
        """About how long that takes."""
        return sum(point.seconds for _, point in self.runs)


def todo(experiment: Experiment, size: Size, repeat: int | None, folder: Path, seed: int) -> Todo:
    """Return what has to be run so that a folder holds an experiment whole.

    Raises:
        UsageError: the folder holds a result of other code, another machine, size or seed.
    """
    asked = "" if repeat is None else f" --repeat {repeat}"
    command = f"megaphone bench run {experiment.name} --size {size}{asked} --seed {seed}"
    path = folder / f"{experiment.name}.json"
    result = results.resume(path, results.head_of(experiment.name, size, seed, command))
    before = dict(result.head)
    points = list(experiment.points(size))
    # Some must be left for everything else.
    room_bytes = MEMORY_SHARE * memory_info().get("MemAvailable", 0)
    able = [point for point in points if point.memory_bytes <= room_bytes]
    rounds = [experiment.rounds(point, size, repeat) for point in points]
    runs = [
        (turn, point)
        for turn in range(max(rounds, default=0))
        for point, count in zip(points, rounds, strict=True)
        if turn < count and point in able and not result.has(point.parameters, turn)
    ]
    left_out = [point for point in points if point not in able]
    # A row that is missing says why, for as long as it is.
    result.head["left_out"] = {
        point.name: f"needs {point.memory_bytes / 1e9:.1f} GB, of which {room_bytes / 1e9:.1f} GB could be had"
        for point in left_out
        if not result.has(point.parameters, 0)
    }
    planned = [(point.parameters, count) for point, count in zip(points, rounds, strict=True)]
    result.head["command"] = _command_of(result, command, planned, more=bool(runs))
    # What is still to be run writes the file with its first row.
    is_said = result.rows or result.head["left_out"]
    if not runs and is_said and (result.head != before or not path.exists()):
        result.write(path)
    return Todo(experiment, path, result, runs, left_out)


def _command_of(
    result: results.Result, command: str, planned: Sequence[tuple[Mapping[str, Value], int]], *, more: bool
) -> str:
    """Return the command that gives what a result has and what is going to be added to it.

    That is the newest one, unless there are rows that it does not ask for: of more rounds, or of points of an older
    catalog.  Then it is that of those rows, and both, one after the other, where the new one adds some.
    """
    if all(any(row["point"] == of and row["repeat"] < count for of, count in planned) for row in result.rows):
        return command
    older = str(result.head["command"])
    return older if not more or command in older.split(_THEN) else f"{older}{_THEN}{command}"


def run_all(todos: Sequence[Todo], seed: int, tell: Callable[[float, str], None]) -> list[str]:
    """Run what is to be done and write each row as it comes.

    Args:
        todos: of `todo`.
        seed: of the first round; each further one has its own.
        tell: called with the seconds of work that are done and what runs next.

    Returns:
        One line for each run that failed; they are not in the results, and the next call tries them again.
    """
    failed: list[str] = []
    done = 0.0
    yardstick: dict[str, Any] = {}
    taken = -YARDSTICK_AGE_SECONDS
    for one in todos:
        for turn, point in one.runs:
            name = f"{one.experiment.name} {point.name}"
            tell(done, name)

            def look(passed: float, done: float = done, point: Point = point, name: str = name) -> None:
                tell(done + min(passed, point.seconds), name)

            if one.experiment.yardsticks and time.monotonic() - taken >= YARDSTICK_AGE_SECONDS:
                yardstick = run_point(YARDSTICK, seed, look)[0]["figures"]
                taken = time.monotonic()
            if one.result.head["size"] == "full" and point.touched_bytes:
                touch_memory(point.touched_bytes)
            try:
                row = measured(one.experiment, point, turn, seed + turn, look)
            except RunFailedError as error:
                failed.append(f"{one.experiment.name} {point.name}: {error}")
            else:
                row["yardstick"] = {name: yardstick[name] for name in one.experiment.yardsticks}
                one.result.rows.append(row)
                one.result.write(one.path)
            done += point.seconds
    return failed


def touch_memory(needed_bytes: int) -> int:
    """Have the machine hold, and not its host, what a run is going to need while it is measured.

    Not for what a run takes before: what is left free goes back to the host two seconds later, and while it does, the
    host takes cores away, with some GB 50 ms at a time.  Runs that had all their memory already showed it.

    Returns:
        Bytes touched: at most what can be had without anybody else being pressed.
    """
    wanted = min(needed_bytes, int(MEMORY_SHARE * memory_info().get("MemAvailable", 0)))
    pieces: list[mmap.mmap] = []
    try:
        # In pieces, so that an interrupt does not wait for all of it.
        while len(pieces) * _TOUCHED_PIECE < wanted:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
            pieces.append(mmap.mmap(-1, _TOUCHED_PIECE, flags=flags))
        return len(pieces) * _TOUCHED_PIECE
    finally:
        for piece in pieces:
            piece.close()


def stolen_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Return how long the host has kept cores from this machine, all together; 0 where the kernel does not tell."""
    try:
        fields = stat.read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else 0.0


def measured(
    experiment: Experiment, point: Point, turn: int, seed: int, look: Callable[[float], None]
) -> dict[str, Any]:
    """Run a point once and return its row, without the yardstick."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    before, stolen_before = time.monotonic(), stolen_seconds()
    report, command = run_point(point, seed, look)
    return {
        "point": dict(point.parameters),
        "repeat": turn,
        "paced": point.paced,
        "command": command,
        "started": started,
        "seconds": round(time.monotonic() - before, 3),
        "stolen_s": round(stolen_seconds() - stolen_before, 2),
        "figures": dict(experiment.figures(report)),
        "series": dict(experiment.series(report)),
    }


def run_point(point: Point, seed: int, look: Callable[[float], None]) -> tuple[dict[str, Any], str]:
    """Run a point in a process of its own; its report, and the command as a person would type it.

    Args:
        point: what to run.
        seed: of all its random numbers.
        look: called about twice a second with the seconds that it has taken.

    Raises:
        RunFailedError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="megaphone-") as folder:
        path = Path(folder) / "report.json"
        typed = ["-m", point.module, *point.flags, *(("--seed", str(seed)) if point.seeded else ())]
        process = subprocess.Popen(
            [sys.executable, *typed, "--report", os.fspath(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started = time.monotonic()
        try:
            while True:
                try:
                    _, told = process.communicate(timeout=_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    look(time.monotonic() - started)
        except BaseException:
            # Politely: it has workers and shared memory of its own to end.
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        command = shlex.join(["python", *typed])
        if process.returncode:
            last = told.strip().splitlines()[-1:] or ["no message"]
            message = f"exit code {process.returncode}: {last[0]} ({command})"
            raise RunFailedError(message)
        report: dict[str, Any] = json.loads(path.read_text())
        return report, command
