"""Objects of any type per key: pickled into lists of bytes, which the core keeps; nothing of Python stays behind.

Python per key is inherent here, and told in the name; everything but the pickling is one call for all keys.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from megaphone.errors import UsageError
from megaphone.state.calls import Keys
from megaphone.state.lists import ListCalls
from megaphone.state.stores import Pickled


class ObjectCalls(ListCalls):
    """What can be done with :class:`~megaphone.state.stores.Pickled`, whose ``put`` is ``put_objects``."""

    __slots__ = ()

    def get(self, keys: Keys) -> list[Any]:
        """Return the object of each key, made anew by each call; None for keys that are not there.

        Args:
            keys: [k] of the key's dtype, or a bytes column.

        Raises:
            UsageError: keys of another dtype, or bytes that no object can be made of here; the message says of which
                class, and why.

        Cost: one copy of the bytes, counted as gather, and one unpickling for each key.
        """
        self._need("get", Pickled)
        offsets, columns = self._lists(self._look(keys), None)
        return self._objects(keys, offsets.tolist(), columns["pickle"].data)

    def put_objects(self, keys: Keys, objects: Sequence[Any]) -> None:
        """Keep an object for each key instead of what it has; of a key that is named twice the last one stays.

        Args:
            keys: [k] of the key's dtype, or a bytes column.
            objects: [k], of any types that pickle takes.

        Raises:
            UsageError: keys of another dtype or number, or an object that cannot be pickled: nothing has been put then.
            SharedMemoryError: there is no memory for an object; those before it have been put.
        """
        self._need("put", Pickled)
        count = len(keys)
        if len(objects) != count:
            message = f"{self._told()}put of {len(objects)} objects for {count} keys: give one for each"
            raise UsageError(message)
        pieces = [self._pickled(keys, index, value) for index, value in enumerate(objects)]
        bounds = np.zeros(count + 1, np.uint64)
        np.cumsum([len(piece) for piece in pieces], out=bounds[1:])
        self._replace(keys, bounds, {"pickle": np.frombuffer(b"".join(pieces), np.uint8)})

    def _pickled(self, keys: Keys, index: int, value: object) -> bytes:
        try:
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever a class's own methods raise
            message = (
                f"{self._told()}put of key {_shown(keys, index)}: an object of type {_type(value)} cannot be pickled "
                f"({_first_line(error)}): keep plain data, or objects of classes that stand at the top of a module"
            )
            raise UsageError(message) from error

    def _objects(self, keys: Keys, offsets: list[int], data: memoryview) -> list[Any]:
        found: list[Any] = []
        for index, (start, stop) in enumerate(zip(offsets, offsets[1:], strict=False)):
            try:
                found.append(pickle.loads(data[start:stop]) if stop > start else None)  # noqa: S301 - put has made it
            except Exception as error:  # whatever a class's own methods raise
                message = (
                    f"{self._told()}get of key {_shown(keys, index)}: its {stop - start} bytes, put as "
                    f"{_class_named(data[start:stop])}, cannot be unpickled ({type(error).__name__}: "
                    f"{_first_line(error)}): every worker must be able to import the class, and to make an object of it"
                )
                raise UsageError(message) from error
        return found

    def objects(self, bin_id: int | None = None) -> Iterator[tuple[Keys, list[Any]]]:
        """Yield keys and their objects, some thousand at a time; the store must not change meanwhile.

        Args:
            bin_id: one bin, which must be resident; None is every bin that is resident here.

        Raises:
            UsageError: as :meth:`get`.
        """
        self._need("objects", Pickled)
        for keys, offsets, columns in self._lists_items(bin_id):
            yield keys, self._objects(keys, offsets.tolist(), columns["pickle"].data)


def _shown(keys: Keys, index: int) -> str:
    key = keys[index]
    return repr(key.item() if isinstance(key, np.generic) else key)


def _type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _class_named(data: memoryview) -> str:
    """Return the class that a pickle names first, without importing anything: for a message."""
    import pickletools  # noqa: PLC0415 - only for a run that ends here

    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(bytes(data)):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                return ".".join(texts[-2:])
            if isinstance(argument, str):
                texts.append(argument)
    except Exception:  # noqa: BLE001 - bytes that are no pickle name no class
        return "no pickle"
    return "plain data"
