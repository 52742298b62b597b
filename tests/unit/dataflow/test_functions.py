"""Functions travel to workers by name: which ones can, and what is said of the others."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from megaphone.dataflow.functions import load_program, pack_program
from megaphone.errors import UsageError

join = os.path.join
at_the_top = lambda graph: graph  # noqa: E731 - a lambda with a name is one all the same


def nested() -> Callable[..., Any]:
    def inside(graph: Any) -> Any:
        return graph

    return inside


class Callee:
    """An object that can be called and pickled."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, number: int) -> int:
        return self.factor * number

    def method(self, number: int) -> int:
        return self.factor + number


@pytest.mark.parametrize("function", [os.path.join, max, Callee, functools.partial(os.path.join, "a"), Callee(3)])
def test_what_has_a_name_or_can_be_pickled_is_loaded_as_it_was(function: Callable[..., Any]) -> None:
    program = pack_program(join, (1, "two"), {"three": [3]}, join)
    assert program.main_module is None
    assert program.main_path is None
    assert load_program(program) == (join, (1, "two"), {"three": [3]}, join)
    if "Callee" not in repr(function):  # this file has no name under which another interpreter would find it
        assert str(load_program(pack_program(function, (), {}, None))[0]) == str(function)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda graph: graph, r"build is a lambda \(test_functions.py:\d+\): workers find functions by name: write it"),
        (at_the_top, r"build is a lambda \(test_functions.py:\d+\)"),
        (nested(), r"build 'inside' \(test_functions.py:\d+\) is defined inside another function"),
        (functools.partial(nested(), 1), "build 'inside' .* is defined inside another function"),
        (functools.partial(functools.partial(lambda: 0), 1), "build is a lambda"),
        (functools.partial(join, lambda: 0), r"build \(a partial\) cannot be sent to workers .*: its name must"),
        (17, "build is 17, which cannot be called: pass a function"),
    ],
)
def test_what_workers_cannot_find_is_refused_with_its_name_and_the_cure(function: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pack_program(function, (), {}, None)


def test_drive_is_named_as_such() -> None:
    with pytest.raises(UsageError, match="drive is a lambda"):
        pack_program(join, (), {}, lambda worker, handles: None)  # noqa: ARG005 - never called


def test_a_function_whose_name_leads_to_another_is_refused() -> None:
    @functools.wraps(os.getcwd)
    def wrapper() -> str:
        return ""

    with pytest.raises(UsageError, match=r"build \(getcwd.*\) cannot be sent to workers .*not the same object"):
        pack_program(wrapper, (), {}, None)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((1, threading.Lock()), {}, r"args\[1\] \(a lock\) cannot be sent to workers .*: pass plain data"),
        ((), {"key": nested()}, r"kwargs\['key'\] \(nested.<locals>.inside.*\) cannot be sent to workers"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pack_program(join, args, kwargs, None)
