"""Stress as a test: rounds in processes for a while; the seed is printed, and MEGAPHONE_STRESS_SEED repeats it."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from typing import Final

import pytest

from tests.stress.run import run

SECONDS: Final = float(os.environ.get("MEGAPHONE_STRESS_SECONDS", "120"))


@pytest.mark.stress
@pytest.mark.timeout(SECONDS + 600)
def test_every_round_of_random_dataflows_in_four_processes_shows_what_the_oracle_says(
    record_property: Callable[[str, object], None],
) -> None:
    seed = int(os.environ.get("MEGAPHONE_STRESS_SEED", random.SystemRandom().randrange(1 << 31)))
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    failed = run(SECONDS, seed, say)
    rounds = [line for line in lines if re.match(r"round \d+ seed", line)]
    record_property("runs", len(rounds))
    assert not failed, "\n".join(lines[-40:])
    assert rounds
