"""A ring that holds what nobody sent: the core answers that it is no message, and touches nothing else."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.building import (
    NATIVE,
    SEED_VARIABLE,
    compile_objects,
    core_sources,
    link,
    need_sanitizer,
    run_checked,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

SECONDS_VARIABLE = "MEGAPHONE_FUZZ_SECONDS"
FLAGS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def fuzzed(folder: Path, seconds: float, record_property: Callable[[str, object], None]) -> dict[str, int]:
    """Build the fuzzer with the core that ships, run it, and return what it counted."""
    need_sanitizer(folder / "probe", "address,undefined")
    sources = [*core_sources(), NATIVE.parent / "fuzz" / "messages.c"]
    objects = compile_objects(folder / "core", sources, FLAGS)
    program = link(folder / "messages", objects, [*FLAGS, "-Wl,--wrap=fallocate"])
    seed = os.environ.get(SEED_VARIABLE) or str(random.SystemRandom().randrange(1 << 48))
    print(f"{SEED_VARIABLE}={seed}")
    told = run_checked(program, seed, str(seconds), seconds=seconds + 600)
    print(told)
    counts = {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", told, re.MULTILINE)}
    record_property("runs", counts["runs"])
    return counts


def test_whatever_lies_in_a_ring_is_a_message_or_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    counts = fuzzed(tmp_path, float(os.environ.get(SECONDS_VARIABLE, "5")), record_property)
    # That nothing bad happened says something only if much was refused, and much was not.
    assert min(counts["answered_0"], counts["answered_eproto"], counts["delivered"], counts["unchanged"]) > 0


@pytest.mark.stress
@pytest.mark.timeout(2400)
def test_whatever_lies_in_a_ring_for_minutes(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    assert fuzzed(tmp_path, float(os.environ.get(SECONDS_VARIABLE, "300")), record_property)["runs"] > 0
