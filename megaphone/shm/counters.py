"""Names of a slot's counters, in the order of their layout in ``base.h``, and one read of all of them."""

from __future__ import annotations

from typing import Any, Final

from megaphone._core import lib

COUNTER_NAMES: Final[tuple[str, ...]] = (
    "records_in", "records_out", "batches_in", "batches_out", "bytes_in", "bytes_out",
    "copied_ingest", "copied_scatter", "copied_own", "copied_concat", "copied_split", "copied_gather",
    "copied_pend", "copied_migrate", "copied_realign",
    "allocations_fresh", "allocations_recycled", "pinned_bytes", "pinned_bytes_max",
    "outbox", "parks", "wakes", "minor_faults", "activations", "steps", "progress_cells", "progress_merged",
    "block_allocs", "block_frees", "block_live_bytes", "block_live_bytes_max", "block_frees_sent",
    "views_escaped", "slab_scans", "bins_out", "bins_in", "bytes_moved", "keys_moved", "warming_ns",
    "leases", "ring_cells", "grow_stalls", "input_records", "input_bytes", "copied_grow", "memory_waits",
    "grow_pause_max_ns",
    "ns_ingest", "ns_scatter", "ns_own", "ns_concat", "ns_split", "ns_gather", "ns_pend", "ns_migrate", "ns_grow",
    "ns_slab_scan", "ns_slab_fresh", "ns_blocks",
)  # fmt: skip
COUNTER_INDEX: Final[dict[str, int]] = {name: index for index, name in enumerate(COUNTER_NAMES)}


def read_counters(control: Any, slot: int) -> dict[str, int]:  # noqa: ANN401 - cffi pointers have no type
    """Return all counters of one slot by name.

    Args:
        control: cffi pointer to the control region.
        slot: worker index.

    Returns:
        Counts and bytes since the run began; gauges where the name says so. Each is read on its own.
    """
    return {name: int(lib.mp_counter_read(control, slot, index)) for index, name in enumerate(COUNTER_NAMES)}
