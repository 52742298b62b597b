"""Each example runs as it is, and prints what its text says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from megaphone.workloads.nexmark.events import Generator

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str) -> list[str]:
    """Run an example and return its lines."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    # What workers print is forwarded to standard error, with their number.
    return [*done.stdout.splitlines(), *(line for line in done.stderr.splitlines() if line.startswith("[w"))]


def test_every_example_is_run_by_a_test_here() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in sorted(EXAMPLES.glob("*.py")) if f'run("{path.name}")' not in here] == []


def test_hello_brings_each_number_to_one_worker() -> None:
    lines = run("01_hello.py")
    assert "bytes copied by the exchange: 160" in lines
    shown = [line for line in lines if line.startswith("[w")]
    seen = [(line[:4], number) for line in shown for number in re.findall(r"\d+", line.split(":")[1])]
    assert len(seen) == 20
    assert len({n for _, n in seen}) == len(set(seen)) == 10


def test_word_count_counts() -> None:
    assert run("02_word_count.py") == ["the 4", "dog 2", "fox 2", "and 1"]


def test_a_bin_moves_and_its_count_goes_on() -> None:
    assert run("03_move_one_bin.py") == [
        "worker 0 counted at times [0, 1, 2, 3, 4]: [1, 2, 3, 4, 5]",
        "worker 1 counted at times [5, 6, 7, 8, 9]: [6, 7, 8, 9, 10]",
        "bins moved: 1",
        "bytes of state copied: 0",
    ]


def test_a_fold_of_your_own_gives_the_means() -> None:
    assert run("04_your_own_fold.py") == ["sensor 1: mean 11.50", "sensor 2: mean 21.50", "sensor 3: mean 31.50"]


def test_the_program_in_the_readme_prints_what_stands_below_it(tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "README.md").read_text()
    program, printed = re.findall(r"```(?:python)?\n(.*?)```", text, re.DOTALL)[:2]
    path = tmp_path / "readme.py"
    path.write_text(program)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_a_query_of_your_own_counts_the_bids_that_numpy_counts() -> None:
    lines = run("05_your_own_query.py")
    events = Generator("fast", 0, 1, rate=1000, in_flight=1000)
    _, auction, bid = events.take(events.before(240 * 10**9))
    category = dict(zip(auction["id"].tolist(), auction["category"].tolist(), strict=True))
    opened = dict(zip(auction["id"].tolist(), (auction["date_time"] // 10**9).tolist(), strict=True))
    counts: Counter[tuple[int, int]] = Counter()
    for number, date in zip(bid["auction"].tolist(), bid["date_time"].tolist(), strict=True):
        if opened.get(number, date) <= date // 10**9 and number in category:
            counts[date // (60 * 10**9), category[number]] += 1
    assert lines == [f"minute {m}, category {c}: {counts[m, c]:6,} bids" for m, c in sorted(counts)]
    assert len(lines) == 20
