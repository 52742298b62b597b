"""State that several slots share: counts of times, chunks, blocks, and bins that change owner.

Two kinds of models.  Those of `engine.h` stop at every shared access and may be killed there.  Those in `orders/` take
a whole activation or one delivery as a step, and so can afford three slots and a dataflow: the core runs as it ships,
without MP_MODEL, and a state is put back by copying it (`orders.h`).  Both walk all orders with a table of seen states.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.model import build

Record = Callable[[str, object], None]

# ---- every interleaving of shared accesses, and every crash ----------------------------------------------------------

# States are counted, so that a model whose processes are stuck from the start does not pass for one that holds.
SMALL = {
    "leases": 5_000,
    "leases_three": 20_000,
    "leases_grown": 1_500,
    "leases_grown_two": 300_000,
    "leases_full": 2_000,
    "frees": 140,
    "frees_full": 250,
    "frees_mutual": 300,
    "frees_parked": 200,
    "frees_hurried": 150,
    "frees_hurried_full": 250,
    "frees_crash": 250,
    "frees_full_crash": 400,
    "frees_mutual_crash": 600,
    "handover": 15_000,
    "handover_copy": 100_000,
    "handover_crash": 30_000,
    "handover_copy_crash": 150_000,
}
LARGE = {
    "leases_three_large": 1_000_000,
    "frees_large": 900,
    "handover_large": 2_000_000,
    "handover_copy_large": 5_000_000,
}
ENDS_THE_PROCESS = "frees_twice"
FILES = ("leases", "frees", "handover")


@pytest.mark.parametrize("name", SMALL)
def test_every_interleaving_and_crash_keeps_the_rules_of(name: str, check: Callable[..., int]) -> None:
    assert check(name) >= SMALL[name]


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LARGE)
def test_every_interleaving_and_crash_of_a_larger_world_keeps_the_rules_of(
    name: str, check: Callable[..., int]
) -> None:
    assert check(name, seconds_max=3500.0) >= LARGE[name]


def test_a_block_that_is_freed_twice_by_another_slot_ends_the_process(programs: dict[str, Path]) -> None:
    command = [str(programs[ENDS_THE_PROCESS]), ENDS_THE_PROCESS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "is freed twice; this is a bug of the engine" in done.stderr


def test_every_model_of_these_files_has_its_line_here(programs: dict[str, Path]) -> None:
    mine = {name for name, program in programs.items() if program.stem in FILES}
    assert mine == {*SMALL, *LARGE, ENDS_THE_PROCESS}


# ---- every order of activations and deliveries -----------------------------------------------------------------------

ORDERS = Path(build.HERE) / "orders"
WRAPPED = "-Wl," + ",".join(f"--wrap={name}" for name in ("malloc", "calloc", "realloc", "free"))

# Loop, hold, cells that are full, limit; a script for each slot; what must be more than 0. See tracker_orders.c.
TRACKER = {
    "broadcast": ("0 0 0 0", ["m10c", "", "c"], ["negative"]),
    "loop": ("1 1 0 0", ["m10c", "", ""], ["negative"]),
    "capabilities_let_go_at_any_moment": ("0 2 0 0", ["m10c", "m10c", ""], ["negative"]),
    "full_ring_data_waits": ("0 0 14 0", ["m10c", "", ""], ["negative"]),
    "full_ring_progress_merges": ("0 0 15 0", ["m10c", "", ""], ["negative", "backlog"]),
}
TRACKER_LARGE = {
    "loop_and_broadcast": ("1 0 0 0", ["m10c", "", ""], ["negative"]),
    "two_sources_broadcast": ("0 0 0 0", ["m10c", "m21c", ""], ["negative"]),
    "loop_and_two_capabilities": ("1 1 0 0", ["m10d1 c", "c", ""], ["negative"]),
    "loop_round_twice": ("2 1 0 0", ["m10c", "", ""], ["negative"]),
    "three_messages": ("0 1 0 0", ["m10d1 m21c", "", "m02c"], ["negative"]),
    "full_ring_merges_twice": ("0 1 15 0", ["m10d1 c", "", ""], ["negative", "backlog"]),
    "full_ring_and_loop": ("1 1 15 0", ["m10c", "", ""], ["negative", "backlog"]),
}
# Mode, bins as a power of two, limit; a script for each slot. See handover_orders.c.
HANDOVER = {
    "by_hand": ("h 1 0", ["r00M011C r01c", "r01c"]),
    "by_copy": ("c 1 0", ["r00M011C r01c", "r01c"]),
    "eager": ("he 1 0", ["r00M011C r01c", "r01c"]),
    "time_by_time": ("ht 1 0", ["r00M011C r01c", "r01c"]),
    "there_and_back": ("h 1 0", ["M011 M002C r02c", "c"]),
    "there_and_back_by_copy": ("c 1 0", ["M011 M002C r02c", "c"]),
    "two_bins_swapped": ("h 1 0", ["M011 M110C r01c", "r11c"]),
    "batches_of_both_bins": ("h 1 0", ["M011 M111C r01c", "b1c"]),
    "post_dated": ("hp 1 0", ["r00M011Cc", "c"]),
    "post_dated_by_copy": ("cp 1 0", ["r00M011Cc", "c"]),
    "three_slots": ("hw 1 0", ["M011Cr01c", "", ""]),
    "full_rings": ("hs 1 0", ["M011Cc", "r01c"]),
    "full_rings_by_copy": ("cs 1 0", ["M011Cc", "r01c"]),
}
HANDOVER_LARGE = {
    "three_slots_with_records": ("hw 1 0", ["M011Cc", "r01c", ""]),
    "three_slots_by_copy": ("cw 1 0", ["M011C r01c", "", ""]),
    "three_slots_message_by_message": ("h 1 0", ["M011Cr01c", "", ""]),
    "three_slots_one_after_another": ("hw 1 0", ["M011M022Cr02c", "", ""]),
    "two_moves_with_records_between": ("h 1 0", ["r00M011 r01M002C r02c", "r01c"]),
    "post_dated_and_waiting": ("hp 1 0", ["r00M011C r01c", "r01c"]),
    "post_dated_and_waiting_by_copy": ("cp 1 0", ["r00M011C r01c", "r01c"]),
    "four_bins": ("h 2 0", ["r00M011 M232C r21c", "b1c"]),
}


def _compiled(source: Path, out: Path) -> Path:
    flags = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror")
    includes = (f"-I{build.PACKAGE}", f"-I{build.HERE}", f"-I{ORDERS}")
    subprocess.run([*build.compiler(), *flags, *includes, "-c", str(source), "-o", str(out)], check=True)
    return out


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The programs in orders/ by name."""
    if shutil.which(build.compiler()[0]) is None:
        pytest.skip("no C compiler: the models are compiled from the sources")
    folder = tmp_path_factory.mktemp("orders")
    core = [source for layer in build.LAYERS for source in sorted((build.PACKAGE / layer).glob("*.c"))]
    models = sorted(ORDERS.glob("*.c"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda path: _compiled(path, folder / f"{path.parent.name}_{path.stem}.o"), [*core, *models])
        objects = dict(zip([*core, *models], made, strict=True))
    shared = [str(objects[source]) for source in core]
    for model in models:
        command = [*build.compiler(), str(objects[model]), *shared, WRAPPED, "-o", str(folder / model.stem)]
        subprocess.run(command, check=True)
    return {model.stem: folder / model.stem for model in models}


def _explore(program: Path, arguments: list[str], record: Record, seconds_max: float) -> dict[str, int]:
    command = [str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds_max)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    counts: dict[str, int] = json.loads(done.stdout)
    record("states", counts["states"])
    assert counts["whole"], "the walk was cut short"
    assert counts["ends"]
    assert counts["states"] > 1000
    return counts


@pytest.mark.parametrize("name", TRACKER)
def test_no_order_of_deliveries_shows_a_frontier_beyond_the_true_one(
    name: str, orders: dict[str, Path], record_property: Record
) -> None:
    sizes, scripts, more_than_0 = TRACKER[name]
    counts = _explore(orders["tracker_orders"], [*sizes.split(), *scripts], record_property, 100)
    assert all(counts[what] > 0 for what in more_than_0), counts


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TRACKER_LARGE)
def test_no_order_of_deliveries_of_more_messages_shows_a_frontier_beyond_the_true_one(
    name: str, orders: dict[str, Path], record_property: Record
) -> None:
    sizes, scripts, more_than_0 = TRACKER_LARGE[name]
    counts = _explore(orders["tracker_orders"], [*sizes.split(), *scripts], record_property, 3500)
    assert all(counts[what] > 0 for what in more_than_0), counts


@pytest.mark.parametrize("name", HANDOVER)
def test_no_order_of_activations_gives_a_bin_two_writers_or_loses_a_record(
    name: str, orders: dict[str, Path], record_property: Record
) -> None:
    sizes, scripts = HANDOVER[name]
    counts = _explore(orders["handover_orders"], [*sizes.split(), *scripts], record_property, 100)
    assert counts["in_message"] > 0
    assert counts["stashed"] > 0


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", HANDOVER_LARGE)
def test_no_order_of_activations_of_more_slots_gives_a_bin_two_writers_or_loses_a_record(
    name: str, orders: dict[str, Path], record_property: Record
) -> None:
    sizes, scripts = HANDOVER_LARGE[name]
    counts = _explore(orders["handover_orders"], [*sizes.split(), *scripts], record_property, 3500)
    assert counts["in_message"] > 0
    assert counts["stashed"] > 0
