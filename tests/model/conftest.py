"""One build of the model checker per session."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model import build

RESULT = re.compile(r"^model (\w+): (\d+) states, (\d+) ends, (\d+) crashes, depth (\d+)$", re.MULTILINE)

Check = Callable[..., int]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The programs by the names of the models in them."""
    if shutil.which(build.compiler()[0]) is None:
        pytest.skip("no C compiler: the models are compiled from the sources")
    return build.build(tmp_path_factory.mktemp("models"))


@pytest.fixture
def check(programs: dict[str, Path], record_property: Callable[[str, object], None]) -> Check:
    """Explore one model, record how many states it has, and return that."""

    def run(name: str, seconds_max: float = 100.0) -> int:
        command = [str(programs[name]), name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max)
        assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        (result,) = RESULT.finditer(done.stdout)
        record_property("states", int(result[2]))
        return int(result[2])

    return run
