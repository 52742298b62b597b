"""``megaphone plot``: the charts of a folder of results, each as PNG and SVG.

    DIR/bins.json --read--> Result --draw--> Sheet --content--> DIR/bins.png, DIR/bins.svg

A chart shows what a result holds, however little that is: a smoke result, an interrupted one, a point without a figure.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from megaphone.bench import results
from megaphone.bench.charts import (
    bins,
    headline,
    ledger,
    machine,
    marks,
    memory,
    nexmark,
    restart,
    rivals,
    strategies,
    throughput,
    timeline,
)
from megaphone.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from megaphone.bench.charts.sheet import Sheet
    from megaphone.bench.results import Result

DRAWINGS: Final[dict[str, Callable[[Result], dict[str, Sheet]]]] = {
    "machine": machine.draw, "marks": marks.draw, "bins": bins.draw, "strategies": strategies.draw,
    "timeline": timeline.draw, "throughput": throughput.draw, "memory": memory.draw, "headline": headline.draw,
    "nexmark": nexmark.draw, "ledger": ledger.draw, "rivals": rivals.draw, "restart": restart.draw,
}  # fmt: skip
KINDS: Final = ("png", "svg")


def plot(folder: Path, output: Path | None = None, *, talk: Callable[[str], None]) -> list[Path]:
    """Draw all results of a folder that have a chart.

    Args:
        folder: of results, as ``megaphone bench run`` writes them.
        output: of the charts, made if need be; None: the same folder.
        talk: prints a line for people, for each result that has no chart or no row.

    Returns:
        The files that were written.

    Raises:
        UsageError: matplotlib is missing, there is nothing to draw, or a file cannot be read or written.
    """
    _check_matplotlib()
    found = results.read_folder(folder)
    output = folder if output is None else output
    paths: list[Path] = []
    for name, result in found.items():
        if name not in DRAWINGS:
            talk(f"megaphone: {folder}: experiment {name!r} has no chart: skipped")
        elif not result.rows:
            talk(f"megaphone: {folder}: {name} has no rows yet: skipped")
        else:
            for stem, sheet in DRAWINGS[name](result).items():
                paths += [_write(output / f"{stem}.{kind}", sheet.content(kind)) for kind in KINDS]
    if not paths:
        message = f"{folder}: nothing to draw: there are charts of {', '.join(DRAWINGS)}"
        raise UsageError(message)
    return paths


def _check_matplotlib() -> None:
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        message = "plot needs matplotlib, which is not installed: pip install 'megaphone[plot]'"
        raise UsageError(message) from None


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror}): give an --output that can"
        raise UsageError(message) from None
    return path
