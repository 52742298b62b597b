"""All experiments, in the order in which they are listed and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiments.bins import BINS
from megaphone.bench.experiments.headline import HEADLINE
from megaphone.bench.experiments.ledger import LEDGER
from megaphone.bench.experiments.machine import MACHINE
from megaphone.bench.experiments.marks import MARKS
from megaphone.bench.experiments.memory import MEMORY
from megaphone.bench.experiments.nexmark import NEXMARK
from megaphone.bench.experiments.restart import RESTART
from megaphone.bench.experiments.rivals import RIVALS
from megaphone.bench.experiments.strategies import STRATEGIES
from megaphone.bench.experiments.throughput import THROUGHPUT
from megaphone.bench.experiments.timeline import TIMELINE
from megaphone.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from megaphone.bench.experiment import Experiment

EXPERIMENTS: Final[dict[str, Experiment]] = {
    one.name: one
    for one in (
        MACHINE, MARKS, BINS, STRATEGIES, TIMELINE, THROUGHPUT, MEMORY, HEADLINE, NEXMARK, LEDGER, RIVALS, RESTART,
    )
}  # fmt: skip


def chosen(names: Sequence[str]) -> list[Experiment]:
    """Return experiments by name, each once; ``all`` is every one.

    Raises:
        UsageError: there is none of that name; the message has all names.
    """
    found: dict[str, Experiment] = {}
    for name in names:
        if name == "all":
            found.update(EXPERIMENTS)
        elif name in EXPERIMENTS:
            found[name] = EXPERIMENTS[name]
        else:
            message = f"no experiment {name!r}: there are {', '.join(EXPERIMENTS)}, and all"
            raise UsageError(message)
    return list(found.values())
