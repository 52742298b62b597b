"""What a change costs: this tree against another commit of it, in turns, on the same machine in the same minutes.

Both trees lie in temporary folders, compiled with the same flags, and the same command runs in one and then in the
other, the order changing from round to round.  Quoted are the medians, and the median of the ratios of neighbours: a
slow minute slows both.  Work that is not committed is measured, too.

    python -m megaphone.bench.against HEAD~1 --repeat 15
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Final

from megaphone.errors import MegaphoneError, UsageError

ROOT: Final = Path(__file__).resolve().parents[2]
ARRAY: Final = ("word-count", "--rate", "max", "--backend", "vec", "--domain", "1000000")
TABLE: Final = ("word-count", "--rate", "max", "--backend", "hashmap", "--hash", "mix", "--domain", "1000000")
JOBS: Final[dict[str, tuple[str, ...]]] = {
    "word count, array, 1 worker": (*ARRAY, "-w", "1"),
    "word count, array, 2 workers": (*ARRAY, "-w", "2"),
    "word count, table, 1 worker": (*TABLE, "-w", "1"),
    "exchange, 2 workers": ("exchange",),
}
"""Command line of each job, without what says how long it runs."""


def _git(*arguments: str) -> bytes:
    ended = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if ended.returncode:
        told = ended.stderr.decode().strip().splitlines()
        message = f"git {' '.join(arguments)}: {told[-1] if told else 'failed'}: name a commit that this clone has"
        raise UsageError(message)
    return ended.stdout


def lay_out(ref: str | None, folder: Path) -> Path:
    """Put a commit, or with None the tree as it is, into a folder, and compile its extension there."""
    folder.mkdir()
    if ref is None:
        for name in _git("ls-files", "--cached", "--others", "--exclude-standard", "-z").decode().split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
    else:
        with tarfile.open(fileobj=BytesIO(_git("archive", ref))) as archive:
            archive.extractall(folder, filter="data")
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if built.returncode:
        message = f"{ref or 'this tree'} does not compile:\n{built.stderr}"
        raise MegaphoneError(message)
    return folder


def records_per_s(folder: Path, job: str, seconds: float) -> float:
    """Run a job of one tree in a process of its own; its million records per second."""
    flags = JOBS[job]
    size = ("--records", str(int(seconds * 40e6))) if flags[0] == "exchange" else ("--duration", str(seconds))
    report = folder / "report.json"
    command = [sys.executable, "-m", "megaphone", *flags, *size, "--report", str(report)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        message = f"{' '.join(command[1:])} failed in {folder.name}:\n{ended.stderr}"
        raise MegaphoneError(message)
    return float(json.loads(report.read_text())["records_per_s"]) / 1e6


def measure(ref: str, repeat: int, seconds: float) -> None:
    """Measure all jobs in turns and print a table."""
    with tempfile.TemporaryDirectory(prefix="megaphone-") as name:
        trees = {"before": lay_out(ref, Path(name) / "before"), "now": lay_out(None, Path(name) / "now")}
        figures = {job: {tree: list[float]() for tree in trees} for job in JOBS}
        for turn in range(repeat):
            for job in JOBS:
                for tree in ("before", "now") if turn % 2 == 0 else ("now", "before"):
                    figures[job][tree].append(records_per_s(trees[tree], job, seconds))
    out = sys.stdout
    out.write(f"million records/s, medians of {repeat} runs each, in turns; before: {ref}\n")
    out.write(f"{'':34}{'before':>9}{'now':>9}{'ratio':>9}{'least':>8}{'most':>8}\n")
    for job, by_tree in figures.items():
        before, now = by_tree["before"], by_tree["now"]
        ratios = [a / b for a, b in zip(now, before, strict=True)]
        out.write(
            f"{job:34}{statistics.median(before):9.2f}{statistics.median(now):9.2f}{statistics.median(ratios):9.3f}"
            f"{min(ratios):8.3f}{max(ratios):8.3f}\n"
        )


def main() -> int:
    """Compare this tree with a commit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ref", help="the commit to compare with, such as HEAD~1")
    parser.add_argument("--repeat", type=int, default=15, help="runs of each (default 15)")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a run is (default 3)")
    arguments = parser.parse_args()
    if arguments.repeat < 1:
        parser.error(f"argument --repeat: {arguments.repeat} runs measure nothing: give 1 or more")
    if not 0 < arguments.seconds < math.inf:
        parser.error(f"argument --seconds: {arguments.seconds:g} is no length of a run: give a number above 0")
    try:
        measure(arguments.ref, arguments.repeat, arguments.seconds)
    except MegaphoneError as error:
        sys.stderr.write(f"against: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
