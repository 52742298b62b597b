"""The exact generator is the original: the same events, bit for bit, and its random stream at the same place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megaphone.workloads.nexmark.events import Generator, exact_seed
from tests.unit.workloads.nexmark import golden

ROOT = Path(__file__).resolve().parents[4]
# Where the whole files are, if they are there: a few lines and all sums of them are in golden.py.
WHOLE = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize(("text", "workers"), [(golden.ONE_WORKER, 1), (golden.TWO_WORKERS, 2)])
def test_the_first_events_are_the_originals(text: str, workers: int) -> None:
    assert list(golden.differences(text, workers)) == []


def test_the_first_events_are_those_of_the_original_files_that_are_there(
    record_property: Callable[[str, object], None],
) -> None:
    files = sorted(WHOLE.glob("nexmark-golden-*worker*.txt"))
    for file in files:
        workers = int(file.name.removeprefix("nexmark-golden-").split("worker")[0])
        assert list(golden.differences(file.read_text(), workers)) == []
    record_property("runs", len(files))


def test_a_difference_to_the_original_is_told() -> None:
    wrong = golden.ONE_WORKER.replace("price=596541", "price=596542").replace("acf27ec6", "acf27ec7")
    told = list(golden.differences(wrong, 1))
    assert len(told) == 2
    assert told[0].startswith("worker 0 persons 3")
    assert told[1].endswith("price=596541 t=4000000")


@pytest.mark.parametrize(
    ("worker", "workers", "rate", "events", "checksum", "state"),
    [
        (0, 1, 1000, 50_000, 0x6C5B6874162B930A, 0x32B19956CECF2D47A23F60326CCD9E39),
        (0, 4, 250_000, 20_000, 0x92534A96A48F789C, 0x4AF261E4313A8DB8FE84CA559BD3BCF9),
        (1, 4, 250_000, 20_000, 0x6411F8DE4A8FB62C, 0x2D6C91E362794069F897EE6A33C0D3D1),
        (2, 4, 250_000, 20_000, 0xCD4B9E85BAAB7D7A, 0x75C8230A6FAD193453EDFD30BDBAEA95),
        (3, 4, 250_000, 20_000, 0x7CB6088150173F52, 0x2D6C91E362794069F897EE6A33C0D3D1),
    ],
)
def test_checksum_and_random_stream_after_many_events_are_the_originals(
    worker: int, workers: int, rate: float, events: int, checksum: int, state: int
) -> None:
    generator = Generator("exact", worker, workers, rate)
    made = generator.take(events)
    assert f"{generator.state:032x}" == f"{state:032x}"
    assert f"{golden.checksum(made):016x}" == f"{checksum:016x}"


def test_the_random_stream_begins_with_the_count_of_workers_in_every_byte() -> None:
    assert exact_seed(3) == int("03" * 16, 16)
    # The least bit is always set, as a multiplicative stream must be odd.
    assert exact_seed(4) == int("04" * 16, 16) | 1
    assert len({exact_seed(2, seed) for seed in range(100)}) == 100
    assert all(exact_seed(2, seed) & 1 for seed in range(100))


def test_how_events_are_cut_into_calls_does_not_matter() -> None:
    whole = Generator("exact", 1, 3, 777.0, in_flight=20)
    pieces = Generator("exact", 1, 3, 777.0, in_flight=20)
    all_rows = golden.rows(whole.take(3000))
    seen = {}
    for size in (0, 1, 2, 47, 950, 2000):
        seen.update(golden.rows(pieces.take(size)))
    assert seen == all_rows
    assert pieces.state == whole.state


def test_columns_that_nobody_wants_are_drawn_all_the_same() -> None:
    whole, part = (Generator("exact", 0, 1, 1000, seed=7) for _ in range(2))
    whole.take(500)
    part.fill(500)
    assert part.state == whole.state
    part.seek(600)
    assert golden.rows(part.take(50)) == {n: row for n, row in golden.rows(whole.take(150)).items() if n >= 600}


def test_another_seed_is_another_stream_and_the_same_seed_the_same() -> None:
    prices = [Generator("exact", 0, 1, 1000, seed=seed).take(200).bid["price"].tolist() for seed in (0, 1, 2, 1)]
    assert prices[1] == prices[3]
    assert prices[0] != prices[1] != prices[2] != prices[0]


def test_times_and_closed_forms_do_not_read_the_stream() -> None:
    generator = Generator("exact", 0, 1, 1000)
    before = generator.state
    generator.before(10**12)
    generator.counts(1000)
    generator.date_time(99)
    assert generator.state == before
