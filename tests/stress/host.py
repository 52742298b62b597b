"""The parent of the workers of each round: a process of its own, so that it can be stopped, watched and replaced.

One line of JSON per round on standard input, a script; on standard output any number of lines ``{"tick": ...}`` and
``{"told": ...}`` and then one ``{"outcome": ...}``. Whoever started it ends it by closing its input.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from megaphone._core import lib
from tests.stress.processes import outcome_of
from tests.stress.script import Script


def main(parent_pid: int) -> int:
    """Serve rounds until the input ends; returns the exit code."""
    if lib.mp_process_die_with(parent_pid) != 0:
        return 1
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    # Whatever else prints must not be taken for an answer.
    os.dup2(2, 1)

    def say(what: str, value: object) -> None:
        out.write(json.dumps({what: value}) + "\n")

    for line in sys.stdin:
        outcome = outcome_of(Script.from_json(line), lambda text: say("told", text), lambda: say("tick", 1))
        say("outcome", outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
