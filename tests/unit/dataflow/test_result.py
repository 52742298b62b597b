"""What a run gives back: the history of its memory, however long it was."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from megaphone.dataflow.result import SAMPLE_NS, SAMPLES_MAX, MemoryHistory, MemorySample


def history_of(samples: list[MemorySample]) -> list[MemorySample]:
    history = MemoryHistory()
    for sample in samples:
        history.add(sample)
        assert len(history.samples) <= SAMPLES_MAX
    return history.samples


def run_of(count: int, seed: int) -> list[MemorySample]:
    """About as the supervisor takes them: each a little later than it was due, PSS now and then."""
    chance, time_ns, samples = random.Random(seed), 10**12, list[MemorySample]()
    for _ in range(count):
        pss = chance.randrange(1 << 30) if chance.random() < 0.2 else None
        samples.append(MemorySample(time_ns, pss, *(chance.randrange(1 << 30) for _ in range(3))))
        time_ns += SAMPLE_NS + chance.randrange(SAMPLE_NS // 50)
    return samples


def test_a_short_run_is_told_sample_by_sample() -> None:
    taken = run_of(SAMPLES_MAX, seed=1)
    assert history_of(taken) == taken


@pytest.mark.parametrize("count", [SAMPLES_MAX + 1, 3 * SAMPLES_MAX, 20 * SAMPLES_MAX + 7])
def test_each_sample_of_a_long_run_has_the_peaks_of_the_time_until_the_next(count: int) -> None:
    taken = run_of(count, seed=count)
    told = history_of(taken)
    assert told[0].time_ns == taken[0].time_ns
    ends = [*(one.time_ns for one in told[1:]), 2**63]
    at = 0
    for one, end in zip(told, ends, strict=True):
        span = []
        while at < len(taken) and taken[at].time_ns < end:
            span.append(taken[at])
            at += 1
        assert one == MemorySample(
            span[0].time_ns,
            max((each.pss_bytes for each in span if each.pss_bytes is not None), default=None),
            max(each.committed_bytes for each in span),
            max(each.state_bytes for each in span),
            max(each.pinned_bytes for each in span),
        )
    assert at == len(taken)


@pytest.mark.parametrize("count", [SAMPLES_MAX + 1, 3 * SAMPLES_MAX, 20 * SAMPLES_MAX + 7])
def test_a_long_run_is_told_as_densely_at_its_start_as_at_its_end(count: int) -> None:
    told = history_of(run_of(count, seed=count))
    assert len(told) >= SAMPLES_MAX // 2
    gaps = [later.time_ns - sooner.time_ns for sooner, later in pairwise(told)]
    # All but the last, which may still be filling.
    assert max(gaps[:-1]) <= 2 * min(gaps[:-1])
