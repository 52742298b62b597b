"""Plan files and maps of any content: a plan that keeps its meaning when written and read again, or a PlanError."""

from __future__ import annotations

import re
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megaphone.errors import PlanError
from megaphone.migration.plan import Plan, format_plan, load_plan, parse_map

BINS, WORKERS = 8, 4
MEMORY_BYTES_MAX = 8 << 20

EXAMPLES_MAX = 4 * settings.default.max_examples if settings.default else 200
numbers = st.one_of(
    st.integers(0, 2**64 + 3).map(str),
    st.integers(0, BINS + 1).map(str),
    st.integers(0, 3).map(str),
    st.sampled_from(["-1", "+1", "1_0", "0x1", "1e3", "01", "\u0661", "9" * 30, "nan", "", "1.0", "2**3"]),
)
gaps = st.sampled_from([" ", "  ", "\t", "\r", "\v", "\f", "\u00a0", ",", "\x00"])
lines = st.one_of(
    st.builds(
        lambda time, owners: f"M {time} {' '.join(map(str, owners))}",
        st.integers(0, 5), st.lists(st.integers(0, WORKERS), min_size=BINS - 1, max_size=BINS + 1),
    ),
    st.builds(
        lambda time, moves: f"D {time} {' '.join(f'{bin_id} {worker}' for bin_id, worker in moves)}",
        st.integers(0, 5), st.lists(st.tuples(st.integers(0, BINS), st.integers(0, WORKERS)), min_size=1, max_size=4),
    ),
    st.builds(lambda head, gap, words: gap.join([head, *words]), st.sampled_from(["M", "D", "d", "MD", ""]), gaps,
              st.lists(numbers, max_size=12)),
    st.text(max_size=20).map(lambda text: f"# {text}"),
    st.just(""),
)  # fmt: skip
good_lines = st.lists(
    st.one_of(
        st.lists(st.integers(0, WORKERS - 1), min_size=BINS, max_size=BINS).map(
            lambda owners: "M 7 " + " ".join(map(str, owners))
        ),
        st.lists(st.tuples(st.integers(0, BINS - 1), st.integers(0, WORKERS - 1)), min_size=1, max_size=4).map(
            lambda moves: "D 7 " + " ".join(f"{b} {w}" for b, w in moves)
        ),
    ),
    min_size=1, max_size=8,
).map(lambda many: "\n".join(many).encode() + b"\n")  # fmt: skip
line_files = st.lists(lines, max_size=8).map(lambda many: "\n".join(many).encode("utf-8", "surrogatepass"))


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """A file in order, with some of its bytes changed, removed, doubled or put in."""
    content = bytearray(draw(good_lines))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        what = draw(st.sampled_from(["change", "remove", "insert", "double", "cut"]))
        if what == "change" and content:
            content[at] = draw(st.integers(0, 255))
        elif what == "remove":
            del content[at : at + draw(st.integers(1, 5))]
        elif what == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=5))
        elif what == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 60))]
        else:
            del content[at:]
    return bytes(content)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def seen() -> dict[str, int]:
    return {"plans": 0, "refused": 0}


def read(content: bytes, folder: Path) -> Plan | None:
    """Read a file; return None for a PlanError that names the file and one of its lines."""
    path = folder / "some.plan"
    path.write_bytes(content)
    try:
        return load_plan(path, BINS, WORKERS)
    except PlanError as error:
        said = str(error)
    named = re.fullmatch(re.escape(str(path)) + r":(\d+): .+; .+", said)
    assert named, f"it does not say where and what to do: {said}"
    assert said.isprintable()
    assert len(said) < 400
    assert 1 <= int(named[1]) <= content.count(b"\n") + 1
    return None


@pytest.mark.parametrize(
    "files", [st.binary(max_size=300), line_files, mutated_files()], ids=["bytes", "lines", "mutated"]
)
def test_a_plan_file_is_a_plan_that_round_trips_or_an_error_that_names_its_line(
    files: st.SearchStrategy[bytes], folder: Path, seen: dict[str, int], record_property: Callable[[str, object], None]
) -> None:
    runs = 0

    @settings(max_examples=EXAMPLES_MAX)
    @given(content=files)
    def check(content: bytes) -> None:
        nonlocal runs
        runs += 1
        tracemalloc.start()
        try:
            plan = read(content, folder)
            assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES_MAX
        finally:
            tracemalloc.stop()
        if plan is None:
            seen["refused"] += 1
            return
        seen["plans"] += 1
        plan.check(BINS, WORKERS)
        again = read(format_plan(plan).encode(), folder)
        assert again is not None
        assert again.steps == plan.steps
        assert (again.owner_after(len(again.steps)) == plan.owner_after(len(plan.steps))).all()

    check()
    record_property("runs", runs)


def test_some_of_those_files_were_plans_and_some_were_refused(seen: dict[str, int]) -> None:
    if not sum(seen.values()):
        return  # chosen alone
    assert min(seen.values()) > 0


@settings(max_examples=EXAMPLES_MAX)
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.lists(st.tuples(numbers, numbers), max_size=4).map(lambda pairs: ",".join(f"{a}:{b}" for a, b in pairs)),
        st.lists(st.tuples(st.integers(0, BINS), st.integers(0, WORKERS)), max_size=4).map(
            lambda pairs: ",".join(f"{a}:{b}" for a, b in pairs)
        ),
    ),
    bin_count=st.integers(-1, 20),
    workers=st.integers(-1, 9),
)
def test_a_map_is_an_owner_for_each_bin_or_an_error(text: str, bin_count: int, workers: int) -> None:
    try:
        owner = parse_map(text, bin_count, workers)
    except PlanError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert said.isprintable()
        assert len(said) < 400
        return
    assert owner.shape == (bin_count,)
    assert (owner < workers).all()
