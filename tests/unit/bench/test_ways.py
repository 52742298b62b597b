"""The ways of a record cost what their descriptions say, and nothing is lost on any of them."""

from __future__ import annotations

from typing import Any

import pytest

from megaphone.bench import ways
from megaphone.bench.experiments.ledger import COPIES
from megaphone.bench.ways import WAYS, Reader, Settings
from megaphone.errors import InternalError, UsageError
from megaphone.observe.ledger import ALLOCATION_PARTS, TIME_COUNTERS, TIMED_PARTS

pytestmark = pytest.mark.process

COPIES_OF = {
    "keep": 0.0, "exchange": 1.0, "arrays": 1.0, "own": 2.0, "broadcast": 0.0, "tee": 0.0, "views": 1.0, "jumbo": 1.0,
}  # fmt: skip


def sent(way: str, records: int = 400_000, **more: Any) -> dict[str, Any]:
    usual = {"batch": 4096, "columns": 2, "workers": 2, "seed": 3}
    return ways.run(Settings(**{"way": way, "records": records, **usual, **more}))


@pytest.mark.parametrize("way", WAYS)
def test_a_way_copies_what_it_says(way: str) -> None:
    told = sent(way)
    assert told["copies_per_record"] == pytest.approx(COPIES_OF[way], abs=0.005)


def test_a_deliberately_copying_exchange_shows_two() -> None:
    told = sent("own", columns=3)
    assert told["copies_per_record"] == pytest.approx(2.0, abs=0.0005)
    assert told["bytes_copied"]["own"] == told["bytes_copied"]["scatter"] == 400_000 * 24


def test_an_allocation_for_each_batch_shows_as_fresh_and_a_reused_one_does_not() -> None:
    jumbo = sent("jumbo", records=40_000_000)
    assert jumbo["fresh_per_k_batches"] == pytest.approx(1000, rel=0.25)
    assert sent("exchange", records=4_000_000)["fresh_per_k_batches"] == 0


def test_kept_views_pin_memory() -> None:
    free, kept = sent("exchange", records=4_000_000), sent("views", records=4_000_000)
    assert kept["pinned_mb_max"] > free["pinned_mb_max"] + 1


@pytest.mark.parametrize("way", WAYS)
def test_the_time_in_copies_is_where_the_copies_are_and_the_parts_fit_the_processor_time(way: str) -> None:
    told = sent(way)
    by_part = {part: told[f"{part}_ns_per_record"] for part in TIMED_PARTS}
    timed = {part for part, ns in by_part.items() if ns}
    assert timed - set(ALLOCATION_PARTS) == {cause for cause, copied in told["bytes_copied"].items() if copied}
    assert timed - set(ALLOCATION_PARTS) <= set(COPIES)
    assert (told["copies_ns_per_record"] > 0) is (COPIES_OF[way] > 0)
    parts = told["copies_ns_per_record"] + told["allocation_ns_per_record"]
    assert parts == pytest.approx(sum(by_part.values()))
    assert parts <= told["cpu_ns_per_record"]


def test_an_allocation_for_each_batch_takes_time_and_its_page_faults_are_told() -> None:
    jumbo = sent("jumbo", records=8_000_000)
    assert jumbo["slab_fresh_ns_per_record"] > 0
    assert jumbo["faults_ns_estimated"] == pytest.approx(
        jumbo["faults_per_m_records"] * jumbo["first_touch_ns"] / 1e6, rel=1e-9
    )
    assert jumbo["faults_ns_estimated"] > 0
    assert 0 <= jumbo["system_ns_per_record"] < 1e6


def test_without_clocks_there_are_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    run = ways._run

    def kept(settings: Settings) -> Any:
        results.append(run(settings))
        return results[-1]

    monkeypatch.setattr(ways, "_run", kept)
    told = sent("own", times=False)
    assert told["copies_per_record"] == pytest.approx(2.0)
    assert [name for name in told if "ns" in name.split("_")] == ["cpu_ns_per_record"]
    (result,) = results
    assert {name: result.counter(name) for name in TIME_COUNTERS if result.counter(name)} == {}


def test_all_ways_of_the_same_records_read_the_same_keys() -> None:
    exchanged = sent("exchange")["checksum"]
    assert sent("own")["checksum"] == sent("arrays")["checksum"] == sent("keep")["checksum"] == exchanged
    assert sent("tee")["checksum"] == f"{2 * int(exchanged, 16) % 2**64:016x}"


def test_a_reader_that_misses_a_batch_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ways._run

    def lossy(settings: Settings) -> Any:
        result = parts(settings)
        result.returned[0] = result.returned[0]._replace(received=result.returned[0].received - 1)
        return result

    monkeypatch.setattr(ways, "_run", lossy)
    with pytest.raises(InternalError, match="exchange: 399999 records .* were read, not 400000"):
        sent("exchange")


@pytest.mark.parametrize(("name", "value"), [("records", 5), ("batch", 0), ("columns", 0), ("workers", 0)])
def test_settings_that_measure_nothing_are_named(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{name}: {value} is too few"):
        sent("exchange", **{name: value})


def test_a_reader_keeps_no_more_views_than_it_says() -> None:
    assert Reader("views").kept.maxlen == ways.VIEWS_KEPT
