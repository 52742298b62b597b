"""The search for a highest rate: it finds the step that holds wherever that lies, and asks for few of them."""

from __future__ import annotations

import pytest

from megaphone.bench import nexmark
from megaphone.bench.nexmark import DOWN, RUNGS_DOWN, RUNGS_UP, highest_rung, search


@pytest.mark.parametrize("first", range(-RUNGS_UP, RUNGS_DOWN + 1))
def test_the_first_rung_that_holds_is_found_wherever_it_lies(first: int) -> None:
    asked: list[int] = []

    def holds(rung: int) -> bool:
        assert -RUNGS_UP <= rung <= RUNGS_DOWN
        asked.append(rung)
        return rung >= first

    assert highest_rung(holds) == first
    assert len(asked) == len(set(asked)) <= 2 * (abs(first) + 2).bit_length() + 1


def test_where_none_holds_none_is_found() -> None:
    assert highest_rung(lambda _: False) is None


class Machine:
    """A query that takes so many events/s, with one run that was lucky."""

    query, windows, seconds = "q1", "12h", 1.0

    def __init__(self, takes: float, lucky: float = 0.0) -> None:
        self.takes, self.lucky, self.rates = takes, lucky, [0]

    def run(self, flag: str, rate: str) -> dict[str, object]:
        if flag == "--rate":
            return {"records_per_s": 1e6}
        self.rates.append(int(rate))
        kept = int(rate) <= self.takes or (int(rate) <= self.lucky and int(rate) not in self.rates[:-1])
        latency = {"p50": 1e6, "p99": 2e6 if kept else 1e9, "max": 3e6}
        return {"records": int(rate), "latency_ns": latency}


@pytest.mark.parametrize(("takes", "rung"), [(1e6, 0), (0.99e6, 1), (1.2e6, -1), (0.5e6, 6), (3e6, -8)])
def test_the_rate_that_counts_has_held_twice_and_its_half_is_looked_at(takes: float, rung: int) -> None:
    machine = Machine(takes)
    found = search(machine)  # type: ignore[arg-type]
    assert found.highest_m_s == pytest.approx(DOWN**rung)
    assert machine.rates.count(int(1e6 * DOWN**rung)) == 2
    assert machine.rates[-1] == int(1e6 * DOWN**rung / 2)
    assert found.tries == len(machine.rates)


def test_a_rate_that_held_once_by_luck_does_not_count() -> None:
    assert search(Machine(0.7e6, lucky=1e6)).highest_m_s == pytest.approx(DOWN**3)  # type: ignore[arg-type]


def test_a_query_that_never_keeps_up_has_no_rate() -> None:
    assert search(Machine(0.0)).highest_m_s == 0.0  # type: ignore[arg-type]


def test_the_smoke_size_takes_the_closed_loops_rate_for_it() -> None:
    machine = Machine(1.0)
    assert search(machine, once=True).highest_m_s == nexmark.Found("", "", 0, 1.0, 0, 0, 0, 0).highest_m_s  # type: ignore[arg-type]
    assert len(machine.rates) == 2
