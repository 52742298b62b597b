"""``megaphone inspect``: what the shared memory of a run says, for people or as one JSON object.

::

    inspect_attach   find the regions through /proc/PID/fd, open and map them read-only
    inspect_look     the core's figures as records (inspect.c, inspect_rows.c, audit.c)
    inspect_model    one plain object with everything
    inspect_text     the same for people; inspect_operator its part about bins
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from typing import Any

from megaphone._core import lib
from megaphone.errors import UsageError
from megaphone.observe.inspect_attach import PROC, Attachment, Region, runs
from megaphone.observe.inspect_look import InspectError, OtherVersionError
from megaphone.observe.inspect_model import model_of
from megaphone.observe.inspect_text import render, render_runs

__all__ = ["InspectError", "inspect", "list_runs", "terminal_width"]


def terminal_width() -> int:
    """Return how many characters a line may have here; COLUMNS overrides."""
    return shutil.get_terminal_size((100, 24)).columns


def inspect(
    pid: int,
    *,
    width: int,
    as_json: bool = False,
    every_bin: bool = False,
    slot: int | None = None,
    content: bool = True,
    fd: int | None = None,
) -> str:
    """Return the text about one run.

    Args:
        pid: of any of its processes.
        width: of a line, in characters.
        as_json: everything as one object, whatever else is asked for.
        every_bin: list each bin.
        slot: only what concerns this worker.
        content: read the rows of the bins.
        fd: descriptor of its control region, where the process has more than one run.

    Raises:
        InspectError: the process cannot be looked at, or is no run.
        UsageError: there is no such worker.
    """
    with Attachment(pid, fd) as attachment:
        look, moment = attachment.look()
        if slot is not None and not 0 <= slot < look.slots:
            message = f"--slot {slot}: the run of process {pid} has workers 0 to {look.slots - 1}"
            raise UsageError(message)
        model = model_of(look, moment, content=content)
    if as_json:
        return json.dumps(model, indent=1) + "\n"
    return render(model, width=width, every_bin=every_bin, slot=slot)


def list_runs(*, width: int, as_json: bool = False) -> str:
    """Return the runs that this user can see, one a line; no text where there are none."""
    found = [run for pid, region in runs() if (run := _described(pid, region)) is not None]
    return json.dumps(found, indent=1) + "\n" if as_json else render_runs(found, width)


def _described(pid: int, region: Region) -> dict[str, Any] | None:
    """Return a line of the list; None where the run has ended meanwhile."""
    described: dict[str, Any] = {
        "pid": pid, "fd": int(region.path.name), "workers": 0, "age_s": 0.0, "committed_bytes": 0,
        "data_bytes": 0, "worker_pids": [], "command": "", "error": "",
    }  # fmt: skip
    try:
        with Attachment(pid, described["fd"]) as attachment:
            look, _ = attachment.look()
            described |= {
                "workers": look.slots,
                "age_s": max(0.0, time.time() - look.about["started"]),
                "committed_bytes": int(lib.mp_committed_bytes(look.control)),
                "data_bytes": int(lib.mp_data_bytes(look.control)),
                "worker_pids": [int(lib.mp_pid_get(look.control, slot)) for slot in range(look.slots)],
                "command": " ".join(look.about["command"]),
            }
    except OtherVersionError as error:
        described["error"] = str(error)
        with contextlib.suppress(OSError):
            words = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            described["command"] = b" ".join(words).decode(errors="replace")
    except InspectError:
        return None
    return described
