"""Stress: random dataflows in four real processes, round after round, each compared with an oracle.

    python tests/stress/run.py [--seconds 300] [--seed S] [--rounds N] [--only ROUND]

The seed comes first, then a line per round. The run stops at the first difference, says which command repeats it, and
plays the round's script in the Simulation under many orders of steps: if it fails there too, the smallest script that
does is printed as Python that a test can take.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.stress.rounds import Host
from tests.stress.script import Round, Script, round_of, snippet
from tests.stress.shrink import shrink
from tests.stress.simulated import failure_of

SIMULATION_SEEDS: Final = 40
REPLAY_SECONDS: Final = 120.0
SHRINK_SECONDS: Final = 180.0


def described(round_: Round, outcome: dict[str, Any], seconds: float) -> str:
    """Return the line about a round."""
    script = round_.script
    what = [script.memory, f"{script.ring_cells} cells", f"{script.store}/{script.hash}", f"2^{script.bin_shift} bins",
            script.transfer, "+".join(script.front) or "plain"]  # fmt: skip
    what += [name for name in ("eager", "kernel", "wide", "payload") if getattr(script, name)]
    what += [f"second ({script.second_kind})"] * script.second
    what += ["post-dated"] * script.has_pending + [f"keeps {script.keep}"] * bool(script.keep)
    what += [f"recounts/{script.recount}"] * bool(script.recount)
    result = outcome.get("kind", "ok")
    names = ("records", "updates", "moves", "stops", "waits", "naps", "kept")
    figures = {name: outcome.get(name, "?") for name in names}
    return (
        f"round {round_.number} seed {round_.seed}: {', '.join(what)}: {figures['records']} records, "
        f"{figures['updates']} migrations of {figures['moves']} bins, {figures['stops']} stops, "
        f"{figures['waits']} + {figures['naps']} waits for memory, {figures['kept']} views kept, "
        f"{seconds:.1f} s: {result}"
    )


def replay(script: Script, say: Callable[[str], None]) -> bool:
    """Look for an order of steps under which a script fails in the Simulation too, and print the smallest script."""
    begun = time.monotonic()
    failure, seed = "", 0
    for seed in range(SIMULATION_SEEDS):
        if (failure := failure_of(script, seed)) or time.monotonic() > begun + REPLAY_SECONDS:
            break
    if not failure:
        say(f"the Simulation does not show it, under {seed + 1} orders of steps: it needs processes")
        return False
    say(f"the Simulation shows it with seed {seed}: {failure[:500]}")
    found = [seed]
    kind = failure.partition(":")[0]

    def fails(smaller: Script) -> bool:
        for again in dict.fromkeys((found[0], *range(3))):
            # Another failure would be another script's.
            if failure_of(smaller, again).partition(":")[0] == kind:
                found[0] = again
                return True
        return False

    smallest = shrink(script, fails, SHRINK_SECONDS)
    say(f"the smallest script that fails: {failure_of(smallest, found[0])[:500]}")
    say(snippet(smallest, found[0]))
    return True


def run(seconds: float, seed: int, say: Callable[[str], None], *, only: int | None = None, rounds: int = 0) -> int:
    """Play rounds until the time is over; returns 0, or 1 when one has failed.

    Args:
        seconds: after which no further round begins.
        seed: of the run.
        say: called with each line.
        only: this round alone.
        rounds: at most so many; 0 is any number.
    """
    say(f"seed {seed}")
    begun = time.monotonic()
    host = Host(lambda text: say(f"    {text}"))
    number = 0 if only is None else only
    try:
        while True:
            round_ = round_of(seed, number)
            round_begun = time.monotonic()
            outcome = host.play(round_)
            say(described(round_, outcome, time.monotonic() - round_begun))
            if "failed" in outcome:
                say(f"{outcome['kind']}: {outcome['failed']}")
                say(f"to repeat it: python tests/stress/run.py --seed {seed} --only {number}")
                host.close()
                replay(round_.script, say)
                return 1
            number += 1
            is_over = time.monotonic() > begun + seconds
            if is_over or only is not None or number == rounds:
                return 0
    finally:
        host.close()


def main() -> int:
    """Run from the command line; 0: all rounds were right, 1: one failed, 2: usage, 130: Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=300.0, help="no round begins later (300)")
    parser.add_argument("--seed", type=int, default=None, help="of all rounds; another one every time by default")
    parser.add_argument("--only", type=int, default=None, help="this round alone")
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds at most")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if given.seed is None else given.seed

    def say(text: str) -> None:
        print(text, flush=True)

    if not given.seconds >= 0:
        parser.error(f"argument --seconds: {given.seconds:g} is no time: give 0 for one round")
    try:
        return run(given.seconds, seed, say, only=given.only, rounds=given.rounds)
    except KeyboardInterrupt:
        say("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
