"""The engine that checks the models is checked itself: on worlds whose states can be counted by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "states"),
    [
        # A context has not begun, stands before one of its 4 accesses, or is done: 6 places each.
        ("selfcheck_steps", 6 * 6),
        # As many more with one of two dead, or both: a dead context has one place.
        ("selfcheck_crashes", 7 * 7),
        # Not begun, before the choice, done with one of 5 values; the other has not begun or is done.
        ("selfcheck_choices", 7 * 2),
    ],
)
def test_the_engine_counts_each_state_once(name: str, states: int, check: Callable[..., int]) -> None:
    assert check(name) == states


@pytest.mark.parametrize("name", ["selfcheck_add", "selfcheck_pair"])
def test_the_engine_finds_nothing_where_nothing_is_wrong(name: str, check: Callable[..., int]) -> None:
    assert check(name) > 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken_add", "the word is 1"),
        ("broken_release", "released before it was written"),
        ("broken_sleep", "deadlock: context 0 can never act again"),
        ("broken_owner", "slot 0 writes ring 1->0 tail, of which slot 1 is the only writer"),
        ("broken_pair", "a crash left one half"),
        ("broken_pointer", "the core touches what is not there"),
        ("broken_poll", "context 0 runs in a circle, and nobody else can act"),
        ("broken_loop", "a context runs on and comes to no point"),
    ],
)
def test_the_engine_finds_what_is_wrong_and_shows_the_way_there(
    name: str, said: str, programs: dict[str, Path]
) -> None:
    done = subprocess.run([str(programs[name]), name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert said in done.stdout.splitlines()[0]
    assert "starts" in done.stdout


def test_the_engine_stops_at_the_limit_of_states(programs: dict[str, Path]) -> None:
    command = [str(programs["parking_stop"]), "parking_stop", "--limit", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "model parking_stop: more than 1000 states\n")
