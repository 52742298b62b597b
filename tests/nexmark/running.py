"""A whole run in the Simulation: the dataflow, source and sinks that ship, several queries at once, in a seeded order.

``runner`` plays one query at a time and plans of every kind; this is for what a run adds to the queries.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np

from megaphone.migration.control import Move
from megaphone.testing import Simulation
from megaphone.workloads.nexmark.generate import MergedEvents
from megaphone.workloads.nexmark.queries import find
from megaphone.workloads.nexmark.run import build
from megaphone.workloads.nexmark.settings import NexmarkSettings
from megaphone.workloads.nexmark.sink import joined
from megaphone.workloads.nexmark.source import EventSource
from tests.nexmark import oracle

KEPT = "rows are kept"
"""Where a run would write them: in the Simulation nobody does."""


def settings_of(queries: str, **given: Any) -> NexmarkSettings:
    """Return settings of a small run in which windows and auctions close."""
    small: dict[str, Any] = {
        "events": 3000, "rate_per_worker": 1000.0, "in_flight": 20, "q5_size_s": 0.5, "q5_slide_s": 0.1,
        "q7_window_s": 0.25, "q8_window_s": 0.4, "bin_shift": 4, "output_path": KEPT,
    }  # fmt: skip
    return NexmarkSettings(queries=queries, **(small | given))


def events_of(settings: NexmarkSettings) -> dict[str, dict[str, Any]]:
    """Return the events of a run, all workers' together."""
    assert settings.events is not None
    kind: Any = settings.generator
    made = MergedEvents(
        kind, settings.events, workers=settings.workers, rate=settings.event_rate, in_flight=settings.in_flight,
        seed=settings.seed,
    )  # fmt: skip
    return made.all()._asdict()


def windows_of(settings: NexmarkSettings) -> oracle.Windows:
    windows = settings.windows
    return oracle.Windows(windows.q5_size, windows.q5_slide, windows.q7, windows.q8)


def with_texts(name: str, rows: dict[str, Any]) -> dict[str, Any]:
    """Return rows as the oracle has them: q0's kinds by their names."""
    texts = find(name).texts
    return {column: np.array(texts[column])[values] if column == "kind" else values for column, values in rows.items()}


class Run:
    """One run.

    Args:
        settings: of the run, with ``events``.
        seed: of the order of steps, of the sizes of batches and of what moves.
        moves: change the owner of every bin so many times, at times from the seed.
        **options: of the Simulation.

    Attributes:
        rows: columns by query.
        moved: bins that have changed their owner, counted as often as they did.
    """

    def __init__(self, settings: NexmarkSettings, seed: int = 0, moves: int = 0, **options: Any) -> None:
        self.settings, self.random = settings, random.Random(seed)
        given = {"memory": "64M"} | options
        with Simulation(partial(build, settings), settings.workers, seed, **given) as self.simulation:
            self.sources = [
                EventSource(settings, index, handles.inputs) for index, handles in enumerate(self.simulation.handles)
            ]
            self._send_all(moves)
            self.simulation.run()
            self.moved = self.simulation.counter("bins_out")
            self.rows = {
                name: with_texts(
                    name, joined([h.sinks[name].rows() for h in self.simulation.handles], dict(find(name).columns))
                )
                for name in settings.query_names
            }

    def _send_all(self, moves: int) -> None:
        draw, settings = self.random, self.settings
        total = sum(source.generator.share(settings.events or 0) for source in self.sources)
        bins = 1 << settings.bin_shift
        due = sorted(draw.randrange(total) for _ in range(moves * bins)) if settings.migrates else []
        sent = 0
        while any(not source.exhausted for source in self.sources):
            source = draw.choice([source for source in self.sources if not source.exhausted])
            sent += source.send(draw.choice((1, 10, 100, 1000)))
            if draw.random() < 0.5:
                source.advance_to(0)
            control = self.simulation.handles[0].control
            instructions = []
            while due and due[0] <= sent:
                due.pop(0)
                instructions.append(Move(draw.randrange(bins), draw.randrange(settings.workers)))
            if instructions and control is not None and not control.closed:
                control.send_instructions(instructions)
            for _ in range(draw.randrange(8)):
                self.simulation.step()
        for source in self.sources:
            source.close()


def check(run: Run) -> None:
    """Compare all rows of a run with what SQL says of the same events."""
    settings = run.settings
    wanted = {name.removesuffix("-flex") for name in settings.query_names}
    must = oracle.expected(events_of(settings), windows_of(settings), queries=wanted)
    for name, rows in run.rows.items():
        message = oracle.difference(must[name.removesuffix("-flex")], rows, name)
        assert message is None, message
