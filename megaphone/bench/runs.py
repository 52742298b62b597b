"""One measured run: a fresh process of the command line, and the report that it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def report_of(*flags: str, job: str = "word-count") -> dict[str, Any]:
    """Run ``megaphone word-count``, or another job, with these flags in a process of its own; its JSON report."""
    with tempfile.TemporaryDirectory(prefix="megaphone-") as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, "-m", "megaphone", job, *flags, "--report", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result: dict[str, Any] = json.loads(path.read_text())
        return result
