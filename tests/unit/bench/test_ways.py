"""The ways of a record cost what their descriptions say, and nothing is lost on any of them."""

from __future__ import annotations

from typing import Any

import pytest

from megaphone.bench import ways
from megaphone.bench.ways import WAYS, Reader, Settings
from megaphone.errors import InternalError, UsageError

pytestmark = pytest.mark.process

COPIES = {
    "keep": 0.0, "exchange": 1.0, "arrays": 1.0, "own": 2.0, "broadcast": 0.0, "tee": 0.0, "views": 1.0, "jumbo": 1.0,
}  # fmt: skip


def sent(way: str, records: int = 400_000, **more: Any) -> dict[str, Any]:
    usual = {"batch": 4096, "columns": 2, "workers": 2, "seed": 3}
    return ways.run(Settings(**{"way": way, "records": records, **usual, **more}))


@pytest.mark.parametrize("way", WAYS)
def test_a_way_copies_what_it_says(way: str) -> None:
    told = sent(way)
    assert told["copies_per_record"] == pytest.approx(COPIES[way], abs=0.005)


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
