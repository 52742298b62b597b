"""How numbers and sizes may be written on the command line."""

from __future__ import annotations

import re

import pytest

from megaphone.errors import UsageError
from megaphone.workloads.flags import build_parser, parse_rate, parse_whole


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("1_000", 1000), ("1e6", 10**6), ("-3", -3), ("2.0", 2), ("+1", 1)]
)
def test_a_whole_number_may_be_written_as(text: str, value: int) -> None:
    assert parse_whole(text) == value


@pytest.mark.parametrize("text", ["", "x", "1.5", "nan", "inf", "1e999999999", "9" * 5000, "0x10", "1 2"])
def test_what_is_no_whole_number_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_whole(text)


@pytest.mark.parametrize("text", ["", "M", "-1M", "0", "1X", "1e3M", "nan", "9" * 5000 + ".5G", "１G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--memory: {text!r} is not a size: give one such as 512M")):
        build_parser().parse_args(["word-count", f"--memory={text}"])


def test_a_size_is_read_in_bytes() -> None:
    assert build_parser().parse_args(["word-count", "--memory", "64MiB"]).memory_bytes == 64 << 20


def test_a_rate_is_a_number_or_max() -> None:
    assert parse_rate("max") is None
    assert parse_rate("1e5") == 100_000.0
    with pytest.raises(ValueError, match="fast"):
        parse_rate("fast")


def test_a_flag_that_was_not_given_is_not_in_the_namespace() -> None:
    given = vars(build_parser().parse_args(["word-count"]))
    assert given.keys() == {"command", "flag_of"}


def test_every_name_in_the_namespace_has_its_flag() -> None:
    flag_of = build_parser().parse_args(["word-count"]).flag_of
    assert flag_of["rate_per_worker"] == "--rate"
    assert flag_of["workers"] == "--workers"
    assert flag_of["paths"] == "--text"
