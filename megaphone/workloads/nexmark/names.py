"""What the codes of NEXMark's text columns stand for: a code is the text's place in its tuple."""

from __future__ import annotations

from typing import Final

FIRST_NAMES: Final = (
    "peter", "paul", "luke", "john", "saul", "vicky", "kate", "julie", "sarah", "deiter", "walter",
)  # fmt: skip
LAST_NAMES: Final = ("shultz", "abrams", "spencer", "white", "bartels", "walton", "smith", "jones", "noris")

NAMES: Final = ("", *(f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES))
"""Code 0, which the exact generator always gives, is empty; 1 + first * len(LAST_NAMES) + last is a whole name."""
CITIES: Final = (
    "phoenix", "los angeles", "san francisco", "boise", "portland", "bend", "redmond", "seattle", "kent", "cheyenne",
)  # fmt: skip
STATES: Final = ("AZ", "CA", "ID", "OR", "WA", "WY")

TEXTS: Final[dict[str, tuple[str, ...]]] = {"name": NAMES, "city": CITIES, "state": STATES}
"""Texts of each coded column of the person stream."""
