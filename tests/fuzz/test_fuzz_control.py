"""Control words of any content: what they decode to is what encodes to them, or they are refused whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from megaphone.errors import InternalError, PlanError
from megaphone.migration.control import Instructions, Map, Move, Noop, apply_instructions, decode_into, encode

BINS, WORKERS = 6, 3
LISTED_MAX = 10_000
EXAMPLES_MAX = 4 * settings.default.max_examples if settings.default else 200

counts = st.sampled_from([0, 1, 2, BINS, 2**30 - 1])
headers = st.builds(lambda kind, count: kind << 30 | count, st.integers(0, 3), counts)
words = st.lists(st.one_of(st.integers(0, 2**32 - 1), st.integers(0, BINS), headers), max_size=24)
instructions = st.lists(
    st.one_of(
        st.builds(Move, st.integers(0, BINS - 1), st.integers(0, WORKERS - 1)),
        st.lists(st.integers(0, WORKERS - 1), min_size=BINS, max_size=BINS).map(Map),
        st.just(Noop()),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def check(content: list[int]) -> bool:
    """Decode words; return whether they were accepted. What is refused leaves the owners as they were."""
    given_words = np.array(content, np.uint32)
    before = np.arange(BINS, dtype=np.uint32) % WORKERS
    owner = before.copy()
    try:
        decode_into(given_words, owner, workers=WORKERS)
    except (PlanError, InternalError) as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert (owner == before).all()
        assert refused.isprintable()
        return False
    assert (owner < WORKERS).all()
    decoded = Instructions(given_words)
    if len(decoded) > LISTED_MAX:
        return True  # a run of a billion no-ops is one word, and a long list
    listed = list(decoded)
    assert len(decoded) == len(listed)
    assert (apply_instructions(before, listed, workers=WORKERS) == owner).all()
    return True


@settings(max_examples=EXAMPLES_MAX)
@given(content=words)
def test_words_decode_to_owners_or_leave_them_alone(content: list[int]) -> None:
    check(content)


@settings(max_examples=EXAMPLES_MAX)
@given(listed=instructions, data=st.data())
def test_words_with_one_changed_decode_to_owners_or_leave_them_alone(
    listed: list[Move | Map | Noop], data: st.DataObject
) -> None:
    content = encode(listed).tolist()
    assert check(content)
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.one_of(st.integers(0, 2**32 - 1), headers))
    check(content)
    check(content[: data.draw(st.integers(0, len(content)))])
