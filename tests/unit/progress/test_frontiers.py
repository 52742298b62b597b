"""Frontiers at the end of time: what lies beyond it can never appear, and sums do not come round to the beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.graph import Graph
from megaphone.testing import Simulation

NEVER = 2**64 - 1


@pytest.mark.parametrize("step", [1, 5, 2**40])
@pytest.mark.parametrize("before_the_end", [1, 2, 5, 6, 7])
def test_a_sum_of_time_and_step_beyond_the_end_is_never(step: int, before_the_end: int) -> None:
    def build(graph: Graph) -> Any:
        source, stream = graph.input("source", {"n": "u8"})
        handle, back = graph.feedback(stream.schema, step)
        out, again = stream.concat(back).partition(2, lambda b: np.zeros(b.n, int))
        handle.connect(again)
        return source, out.probe(), back.probe()

    with Simulation(build, slots=2) as simulation:
        time = NEVER - before_the_end
        for source, *_ in simulation.handles:
            source.advance_to(time)
        while simulation.step(0) or simulation.step(1):
            pass
        for _, out, back in simulation.handles:
            assert out.frontier() == time
            assert back.frontier() == min(time + step, NEVER)
        for source, *_ in simulation.handles:
            source.close()
        simulation.run()
        assert [probe.frontier() for _, *probes in simulation.handles for probe in probes] == [NEVER] * 4
