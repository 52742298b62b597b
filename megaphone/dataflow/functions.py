"""How the functions of a run reach its workers: by name, and imported again there.

A function of a module travels as (module, name), as pickle has it.  What a script defines is in ``__main__``, and a
worker's ``__main__`` is another; so a worker runs the script once more under the name ``__megaphone_main__``, which
does not enter its ``if __name__ == "__main__":`` block, and finds the function there.  The script is run again only
when something that travels is defined in it.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from megaphone.errors import UsageError

MAIN_NAME: Final = "__megaphone_main__"
GUARD: Final = 'if __name__ == "__main__":'
_AT_THE_TOP: Final = "workers find functions by name: write it with def at the top level of a module"


@dataclass(frozen=True, slots=True)
class Program:
    """The user's side of a run, in a form that another interpreter can load.

    Attributes:
        payload: pickle of (build, args, kwargs, drive).
        main_module: name under which ``python -m`` has run the main module; None for a script, or if it is not needed.
        main_path: file of the script; None for a module, or if it is not needed.
    """

    payload: bytes
    main_module: str | None = None
    main_path: str | None = None


class _Role:
    """What this interpreter is to the run that started it.

    The one thing that belongs to the process and not to a slot: a script that is run again has no other way to tell.
    """

    worker: int | None = None
    script: str | None = None  # while the script is run again


def enter_worker(index: int) -> None:
    """Remember that this interpreter is a worker, so that ``execute`` can be refused in it."""
    _Role.worker = index


def refuse_inside_worker() -> None:
    """Raise UsageError when a worker process reaches ``execute``; the message has the cure."""
    if _Role.script is not None:
        message = f"{_Role.script} starts a run while a worker imports it: put what starts it under `{GUARD}`"
        raise UsageError(message)
    if _Role.worker is not None:
        message = f"worker {_Role.worker} calls execute: start a run in the main program, not inside build or drive"
        raise UsageError(message)


def pack_program(
    build: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], drive: Callable[..., Any] | None
) -> Program:
    """Put the functions of a run and their arguments into a form that workers can load.

    Raises:
        UsageError: a function is a lambda, is defined inside another function or in an interactive session, or an
            argument cannot be pickled; the message names it and the cure.
    """
    _refuse_nameless(build, "build")
    if drive is not None:
        _refuse_nameless(drive, "drive")
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    try:
        pickler.dump((build, tuple(args), dict(kwargs), drive))
    except Exception as error:
        raise _unpicklable({"build": build, "drive": drive}, args, kwargs) or error from error
    if not pickler.uses_main:
        return Program(buffer.getvalue())
    return Program(buffer.getvalue(), *_main_module())


def load_program(program: Program) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]:
    """Return (build, args, kwargs, drive) in a worker; what importing the user's modules raises passes through.

    Raises:
        UsageError: a function is not there when its script is imported, or the script starts a run of its own.
    """
    if program.main_module or program.main_path:
        _run_main_again(program)
    try:
        loaded: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]
        loaded = Unpickler(io.BytesIO(program.payload), {"__main__": MAIN_NAME}).load()
    except AttributeError as error:
        if MAIN_NAME not in str(error):
            raise
        script = program.main_path or program.main_module
        message = f"{script}: {error} when a worker imports it: define it above `{GUARD}`, at the top level"
        raise UsageError(message.replace(f" on <module '{MAIN_NAME}'", " on <module")) from error
    return loaded


class Unpickler(pickle.Unpickler):
    """Unpickler that finds what is defined in the main module under the name that the main module has here.

    Args:
        file: as for pickle.
        renamed: module names to be replaced.
        buffers: out-of-band buffers, in order.
    """

    def __init__(self, file: io.BytesIO, renamed: Mapping[str, str], buffers: Sequence[Any] = ()) -> None:
        super().__init__(file, buffers=buffers)
        self._renamed = renamed

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle
        """Return what a name means in this interpreter."""
        return super().find_class(self._renamed.get(module, module), name)


class _Pickler(pickle.Pickler):
    """Pickler that remembers whether anything it wrote is defined in the main module."""

    uses_main = False

    def reducer_override(self, obj: Any) -> Any:  # noqa: ANN401 - as pickle
        # An instance is written with its class, which comes here too.
        if isinstance(obj, (FunctionType, type)) and obj.__module__ == "__main__":
            self.uses_main = True
        return NotImplemented


def _refuse_nameless(function: Any, role: str) -> None:  # noqa: ANN401 - whatever the caller passed
    """Raise UsageError when a worker could not find a function by its name."""
    while isinstance(function, functools.partial):
        function = function.func
    if not callable(function):
        message = f"{role} is {function!r}, which cannot be called: pass a function"
        raise UsageError(message)
    name: str | None = getattr(function, "__qualname__", None)
    if name is None:  # an object with __call__: pickle knows whether it can travel
        return
    where = _where(function)
    if name.rpartition(".")[2] == "<lambda>":
        message = f"{role} is a lambda{where}: {_AT_THE_TOP}"
        raise UsageError(message)
    if "<locals>" in name:
        message = (
            f"{role} {name.rpartition('.')[2]!r}{where} is defined inside another function: {_AT_THE_TOP}, and pass "
            "what it uses of the other function with functools.partial or args"
        )
        raise UsageError(message)


def _where(function: Any) -> str:  # noqa: ANN401 - whatever the caller passed
    code = getattr(function, "__code__", None)
    return f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code is not None else ""


def _unpicklable(functions: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> UsageError | None:
    """Return the error for the first part that pickle refuses; None if each by itself is fine."""
    parts = {**functions, **{f"args[{number}]": arg for number, arg in enumerate(args)}}
    parts |= {f"kwargs[{name!r}]": arg for name, arg in kwargs.items()}
    for what, part in parts.items():
        try:
            _Pickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(part)
        except Exception as error:  # noqa: BLE001 - objects may raise anything while they are pickled
            cure = "pass plain data and functions of modules"
            if what in functions:
                cure = "its name must lead to it, and what a functools.partial holds must be plain data"
            return UsageError(f"{what} ({_named(part)}) cannot be sent to workers ({_one_line(error)}): {cure}")
    return None


def _named(part: Any) -> str:  # noqa: ANN401 - whatever the caller passed
    name = getattr(part, "__qualname__", None)
    return f"{name}{_where(part)}" if isinstance(name, str) else f"a {type(part).__name__}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _main_module() -> tuple[str | None, str | None]:
    """Return (module name, script path) of the main module, one of them None.

    Raises:
        UsageError: it is an interactive session, which has no file to import.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    # A folder or archive that is run has a spec with the name that every main module has.
    if spec is not None and spec.name != "__main__":
        return spec.name, None
    path = getattr(main, "__file__", None)
    if path is None or not Path(path).is_file():
        message = "build or drive is defined in an interactive session, which workers cannot import: put it into a file"
        raise UsageError(message)
    return None, str(Path(path).resolve())


def _run_main_again(program: Program) -> None:
    """Run the main module of the caller under another name, and leave it where pickle finds it."""
    module = ModuleType(MAIN_NAME)
    if program.main_module is not None:
        spec = importlib.util.find_spec(program.main_module)
        code = spec.loader.get_code(program.main_module) if spec and spec.loader else None  # type: ignore[attr-defined]
        if spec is None or code is None:
            message = f"the main module {program.main_module!r} has no code to import: start a file instead"
            raise UsageError(message)
        module.__package__, module.__file__, _Role.script = spec.parent, spec.origin, program.main_module
    else:
        path = Path(program.main_path or "")
        # Compiled here, because an import would leave a __pycache__ beside the user's script.
        code = compile(path.read_bytes(), str(path), "exec")
        module.__file__, _Role.script = str(path), path.name
    sys.modules[MAIN_NAME] = module
    try:
        exec(code, module.__dict__)
    finally:
        _Role.script = None
