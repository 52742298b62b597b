"""The state of q4, q6 and q8 does not grow over a long run with many windows and closings: neither keys nor bytes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from megaphone._core import lib
from megaphone.migration.operators.applying import Applier
from megaphone.testing import Simulation
from megaphone.workloads.nexmark.queries import find
from megaphone.workloads.nexmark.run import build
from megaphone.workloads.nexmark.sink import joined
from megaphone.workloads.nexmark.source import EventSource
from tests.nexmark import oracle
from tests.nexmark.running import events_of, settings_of, windows_of

EVENTS = 480_000
SECOND = 1_000_000_000


class Held:
    """What the stateful operators of all slots hold."""

    def __init__(self, simulation: Simulation) -> None:
        self.keys: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self.pending: dict[str, int] = {}
        for index, worker in enumerate(simulation.workers):
            for operator in worker.graph.operators:
                if not isinstance(operator, Applier):
                    continue
                state, name = operator.state, operator.name.partition(".")[2]
                self.keys[name] = self.keys.get(name, 0) + state.live()
                if index == 0:  # bins are all slots', and who looks does not matter
                    bins = range(1 << state.bin_shift)
                    self.bytes[name] = sum(int(lib.mp_store_bytes(worker.slot, state.c, b)) for b in bins)
                    self.pending[name] = sum(int(lib.mp_pending_count(worker.slot, operator.keyed, b)) for b in bins)


@pytest.mark.parametrize("query", ["q4", "q6", "q8", "q4-flex", "q6-flex", "q8-flex"])
def test_state_stays_flat_over_a_long_run(query: str, record_property: Any) -> None:
    asked = settings_of(
        query, workers=2, events=EVENTS, rate_per_worker=500.0, in_flight=2000, q8_window_s=7.0, tick_ns=SECOND,
        bin_shift=4,
    )  # fmt: skip
    held = []
    with Simulation(partial(build, asked), 2, seed=1, memory="64M") as simulation:
        sources = [EventSource(asked, index, handles.inputs) for index, handles in enumerate(simulation.handles)]
        while not all(source.exhausted for source in sources):
            for source in sources:
                source.send(500)
                source.advance_to(0)
            for _ in range(20):
                simulation.step()
            held.append(Held(simulation))
        for source in sources:
            source.close()
        simulation.run()
        end = Held(simulation)
        rows = joined([handles.sinks[query].rows() for handles in simulation.handles], dict(find(query).columns))
    record_property("runs", len(held))
    # What was forgotten was not needed any more.
    base = query.removesuffix("-flex")
    must = oracle.expected(events_of(asked), windows_of(asked), queries=[base])[base]
    wrong = oracle.difference(must, rows, query)
    assert wrong is None, wrong
    # Nothing stays for a quarter of the run: q6's sellers stay for 50,000 events and until all their auctions close.
    quarter = len(held) // 4
    for what in ("keys", "bytes", "pending"):
        for name in held[0].keys:
            series = np.array([getattr(one, what)[name] for one in held])
            early, late = int(series[quarter : 2 * quarter].max()), int(series[2 * quarter :].max())
            assert late <= early * 1.2 + 16, f"{name}: {what} were {early} and are {late}"
            assert early > 0 or (query.startswith("q4") and name == "average"), f"{name}: never had {what}"
    left = {name: count for name, count in end.keys.items() if count}
    assert left == ({"average": 5} if query.startswith("q4") else {}), "what is left at the end"
    assert not any(end.pending.values())
