"""What one empty time costs: word count's graph, time advanced until the probe has moved, over and over.

::

    advance_to(t + 1) ──> input, control ──> F ──> S ──> sink      one worker: all of it in this process
            ^                                         │            two: each waits for the other to advance too
            └────────── probe beyond t ───────────────┘

No record is sent, so nothing but the steps themselves is measured: publishing, progress, frontiers, and one activation
of each operator that a frontier concerns.  That is the least latency that a record can have, too.

    python -m megaphone.bench.empty_time -w 1
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone._core import lib
from megaphone.dataflow.execute import execute
from megaphone.errors import MegaphoneError, UsageError
from megaphone.observe.machine import describe_machine
from megaphone.version import __version__
from megaphone.workloads.settings import WordCountSettings
from megaphone.workloads.word_count import Handles, build

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker

TIMES: Final = 20_000
WARM_UP_SHARE: Final = 10
"""One in so many times is not counted: caches, and what an interpreter specialises while it runs."""
DOMAIN: Final = 1_000


def drive(times: int, worker: Worker, handles: Handles) -> dict[str, Any]:
    """Let times pass one by one; returns what each took, in ns, and what the worker counted meanwhile."""
    words, sink = handles.words, handles.sink
    now = lib.mp_now_ns
    warm_up = times // WARM_UP_SHARE + 1
    took = np.zeros(times, np.int64)
    words.advance_to(1)
    worker.step_until(lambda: sink.frontier() >= 1)
    gc.collect()
    gc.freeze()
    before: dict[str, int] = {}
    for turn in range(-warm_up, times):
        if turn == 0:
            before = worker.counters()
        time = words.time + 1
        start = now()
        words.advance_to(time)
        while sink.frontier() < time:
            if not worker.step():
                worker.park(1_000_000)
            worker.raise_if_stopped()
        if turn >= 0:
            took[turn] = now() - start
    after = worker.counters()
    return {"took": took, "frontier": sink.frontier(), "counted": {name: after[name] - before[name] for name in before}}


def measure(workers: int, times: int) -> dict[str, Any]:
    """Run it in fresh processes and return the report.

    Args:
        workers: processes, 1 or more; they need a core each.
        times: empty times that are counted, 1 or more; a tenth as many come before them.
    """
    settings = WordCountSettings(
        workers=workers, backend="vec", domain=DOMAIN, rate_per_worker=None, duration_s=1.0, preload=False
    )
    parts = execute(partial(build, settings), workers=workers, drive=partial(drive, times)).returned
    # Worker 0 is asked: with more of them each waits for all, so they agree but for the order within one time.
    took, counted = parts[0]["took"], parts[0]["counted"]
    return {
        "command": f"empty_time -w {workers} --times {times}",
        "version": __version__,
        "machine": describe_machine(),
        "workers": workers,
        "times": times,
        "us_min": float(took.min()) / 1e3,
        "us_p50": float(np.quantile(took, 0.5)) / 1e3,
        "us_p99": float(np.quantile(took, 0.99)) / 1e3,
        "us_mean": float(took.mean()) / 1e3,
        "steps_per_time": counted["steps"] / times,
        "activations_per_time": counted["activations"] / times,
        "parks_per_time": counted["parks"] / times,
        "frontiers": [part["frontier"] for part in parts],
    }


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        message = f"{text} measures nothing: give 1 or more"
        raise argparse.ArgumentTypeError(message)
    return value


def main(arguments: list[str] | None = None) -> int:
    """Measure, print one line, and write the report where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-w", "--workers", type=_count, default=1, help="processes (default 1)")
    parser.add_argument("--times", type=_count, default=TIMES, help=f"empty times that are counted (default {TIMES})")
    parser.add_argument("--report", type=Path, help="write the figures to this file, as JSON")
    chosen = parser.parse_args(arguments)
    try:
        report = measure(chosen.workers, chosen.times)
        if chosen.report is not None:
            try:
                chosen.report.write_text(json.dumps(report, indent=1) + "\n")
            except OSError as error:
                message = f"--report {chosen.report}: {error.strerror}: name a file in a folder that can be written to"
                raise UsageError(message) from None
    except MegaphoneError as error:
        sys.stderr.write(f"empty_time: {error}\n")
        return error.exit_code
    sys.stdout.write(
        f"{report['workers']} workers, {report['times']} empty times: p50 {report['us_p50']:.1f} µs, "
        f"p99 {report['us_p99']:.1f} µs, least {report['us_min']:.1f} µs; per time "
        f"{report['steps_per_time']:.2f} steps, {report['activations_per_time']:.2f} activations, "
        f"{report['parks_per_time']:.2f} parks\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
