"""A look at a run: what its shared memory says, as records; see inspect.h and audit.h for what each figure means.

::

    /proc/PID/fd ──find──> Attachment ──copy──> Look ──> bins, messages, slots, trackers, audit
    a Simulation's memory ─────────────────────> Look

Nothing is written, and nothing is believed: the core checks every offset before it follows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.errors import UsageError
from megaphone.state.stores import store_layout

Records = npt.NDArray[Any]

NEVER: Final = 2**64 - 1
NOBODY: Final = 2**32 - 1
FINDINGS_MAX: Final = 64
BINS_AT_ONCE: Final = 4096
SUMMED_KINDS: Final = "uibf"
MESSAGE: Final = 1
"""Kind of a cell that is a message; others carry progress."""
_PORTS: Final = (
    "f_data", "f_control", "f_feedback", "s_data", "s_state", "s_out", "f_data2", "f_control2", "f_feedback2", "s_data2"
)  # fmt: skip
_NO_ENTRY: Final = 2


class InspectError(UsageError):
    """A process or its memory cannot be looked at; the message says why, and what to do."""


class OtherVersionError(InspectError):
    """The run was made by another build of the engine."""


@dataclass(frozen=True, eq=False)
class Stateful:
    """A stateful operator as a look sees it.

    Attributes:
        name: of the operator.
        about: what the run tells of its state.
        op: the core's ``mp_look_op``.
        store: the core's ``mp_store``, None for bins that are names and hold nothing.
        columns: names of its value columns.
        kinds: numpy's kind of each that can be added up, a zero byte for the others.
    """

    name: str
    about: Mapping[str, Any]
    op: Any
    store: Any
    columns: tuple[str, ...]
    kinds: bytes

    @property
    def bin_count(self) -> int:
        """How many bins there are."""
        return 1 << int(self.op.bin_shift)

    @classmethod
    def of(cls, operator: Mapping[str, Any]) -> Stateful:
        """Lay out what the run's text says about one operator."""
        about = operator["state"]
        op = ffi.new("mp_look_op *")
        op.keyed, op.bin_shift = about["keyed"], about["bin_shift"]
        for name in _PORTS:
            setattr(op, name, about["ports"].get(name, NOBODY))
        if about["store"] is None:
            return cls(operator["name"], about, op, None, (), b"")
        store = store_layout(about["store"], about["keyed"], about["bin_shift"], about["hash"])
        columns = about["store"]["columns"]
        kinds = bytes(ord(c["kind"]) if c["kind"] in SUMMED_KINDS and c["bytes"] <= 8 else 0 for c in columns)
        return cls(operator["name"], about, op, store, tuple(column["name"] for column in columns), kinds)


@dataclass(frozen=True)
class Finding:
    """A law that does not hold."""

    kind: int
    slot: int | None
    bin_id: int | None
    a: int
    b: int


@dataclass(frozen=True)
class Audit:
    """What ``mp_audit_run`` has found for one stateful operator.

    Attributes:
        figures: the fields of ``mp_audit`` by name.
        findings: the first of them; ``figures["findings"]`` is how many there are.
    """

    figures: Mapping[str, int]
    findings: tuple[Finding, ...]

    def __getitem__(self, name: str) -> int:
        return self.figures[name]

    @property
    def on_the_way(self) -> int:
        """Records that have been sent towards the state and are not applied, each counted once."""
        places = ("inbox_f", "waiting", "ring", "outbox", "inbox_s", "stash", "staged")
        return sum(self.figures[place] for place in places)


class Look:
    """One moment of a run's memory.

    Args:
        control: pointer to the control region, or to a copy of it.
        data: pointer to the data region.
        about: what the run tells about itself.
        keep: whatever the pointers point into.

    Attributes:
        about: names of operators and ports.
        slots: how many workers.
        stateful: the stateful operators.
    """

    def __init__(self, control: Any, data: Any, about: Mapping[str, Any], keep: object = None) -> None:  # noqa: ANN401
        self._keep = keep
        self._look = ffi.gc(lib.mp_look_open(control, data), lib.mp_look_close)
        self._audit = ffi.new("mp_audit *")
        self._findings = ffi.new("mp_finding[]", FINDINGS_MAX)
        self.control = control
        self.about = about
        self.slots = int(lib.mp_slots(control))
        self.locations = len(about["ports"])
        self.stateful = [Stateful.of(operator) for operator in about["operators"] if "state" in operator]

    def port(self, location: int) -> str:
        """Return the name of a port."""
        return str(self.about["ports"][location]["name"]) if location < self.locations else f"location {location}"

    def audit(self, stateful: Stateful) -> Audit:
        """Check the laws of one operator. O(messages + bins x slots)."""
        self._check(lib.mp_audit_run(self._look, stateful.op, self._audit, self._findings, FINDINGS_MAX))
        figures = {name: int(getattr(self._audit, name)) for name in _fields("mp_audit") if name != "reserved"}
        found = self._findings[0 : min(FINDINGS_MAX, figures["findings"])]
        return Audit(
            figures,
            tuple(
                Finding(
                    int(f.kind),
                    None if f.slot == NOBODY else int(f.slot),
                    None if f.bin == NOBODY else int(f.bin),
                    int(f.a),
                    int(f.b),
                )
                for f in found
            ),
        )

    def bins(self, stateful: Stateful, content: bool = True) -> Iterator[tuple[int, Records, Records]]:
        """Yield (first bin, ``mp_look_bin`` records, ``mp_look_sum`` records[bins, columns]), some thousand at a time.

        Args:
            stateful: the operator.
            content: read the rows too, to count and to add up; it costs about 10 ns a row.
        """
        columns = len(stateful.columns)
        for first in range(0, stateful.bin_count, BINS_AT_ONCE):
            count = min(BINS_AT_ONCE, stateful.bin_count - first)
            bins, sums = ffi.new("mp_look_bin[]", count), ffi.new("mp_look_sum[]", max(1, count * columns))
            store = stateful.store if content and stateful.store is not None else ffi.NULL
            self._check(
                lib.mp_look_bins(self._look, stateful.op, store, stateful.kinds, first, count, bins, sums)
            )  # fmt: skip
            added = _array(sums, "mp_look_sum")[: count * columns]
            yield first, _array(bins, "mp_look_bin"), added.reshape(count, columns)

    def roots(self, slot: int) -> Records:
        """Return everything that names a batch for a slot, as ``mp_root`` records.

        Raises:
            InspectError: a queue's words cannot be true.
        """
        room = 256
        while True:
            out = ffi.new("mp_root[]", room)
            count = self._check(int(lib.mp_roots_read(self._look, slot, out, room)), f"the queues of worker {slot}")
            if count <= room:
                return _array(out, "mp_root")[:count]
            room = 2 * count

    def slot(self, slot: int) -> Any:  # noqa: ANN401 - a cffi struct
        """Return the ``mp_look_slot`` of a worker."""
        return self._read("mp_look_slot", lambda out: lib.mp_look_slot_read(self._look, slot, out))

    def ring(self, sender: int, receiver: int) -> Any:  # noqa: ANN401 - a cffi struct
        """Return the ``mp_look_ring`` between two workers."""
        return self._read("mp_look_ring", lambda out: lib.mp_look_ring_read(self._look, sender, receiver, out))

    def half(self, stateful: Stateful, slot: int) -> Any:  # noqa: ANN401 - a cffi struct
        """Return the ``mp_look_keyed`` of a worker."""
        return self._read("mp_look_keyed", lambda out: lib.mp_look_keyed_read(self._look, stateful.op, slot, out))

    def updates(self, stateful: Stateful, slot: int) -> list[tuple[int, bool]]:
        """Return the configurations that a worker knows and has not installed: (time, known whole)."""
        room = 64
        while True:
            times, built = ffi.new("uint64_t[]", room), ffi.new("uint8_t[]", room)
            count = self._check(int(lib.mp_look_updates(self._look, stateful.op, slot, times, built, room)))
            if count <= room:
                return [(int(times[i]), bool(built[i])) for i in range(count)]
            room = count

    def owners(self, stateful: Stateful, slot: int) -> npt.NDArray[np.uint8] | None:
        """Return uint8[bins], the owner of each bin as a worker's F routes now; None before it has started."""
        out = np.empty(stateful.bin_count, np.uint8)
        rc = lib.mp_look_owners(self._look, stateful.op, slot, ffi.from_buffer("uint8_t[]", out))
        if rc == -_NO_ENTRY:
            return None
        self._check(rc, f"the configuration of worker {slot}")
        return out

    def frontiers(self, slot: int) -> npt.NDArray[np.uint64]:
        """Return uint64[locations], the frontier of each input port as a worker knows it; NEVER at outputs."""
        out = np.empty(self.locations, np.uint64)
        pointer = ffi.from_buffer("uint64_t[]", out)
        self._check(lib.mp_look_frontiers(self._look, slot, pointer), f"the tracker of worker {slot}")
        return out

    def times(self, slot: int, location: int, *, held: bool) -> list[tuple[int, int]]:
        """Return (time, count) of a port: what a worker holds there itself, or everybody's as it knows them."""
        room = 64
        while True:
            times, counts = ffi.new("uint64_t[]", room), ffi.new("int64_t[]", room)
            count = int(lib.mp_look_times(self._look, slot, location, held, times, counts, room))
            self._check(count, f"the tracker of worker {slot}")
            if count <= room:
                return [(int(times[i]), int(counts[i])) for i in range(count)]
            room = count

    def _read(self, name: str, read: Any) -> Any:  # noqa: ANN401 - a cffi struct
        out = ffi.new(f"{name} *")
        self._check(read(out), name)
        return out

    def _check(self, rc: int, what: str = "a word") -> int:
        if rc < 0:
            message = f"{what} cannot be read ({rc}): the run goes on, or its memory is damaged; stop it and look again"
            raise InspectError(message)
        return rc


def read_about(control: Any) -> dict[str, Any]:  # noqa: ANN401 - a cffi pointer
    """Return what a run tells about itself.

    Raises:
        InspectError: it has not told yet.
    """
    size = ffi.new("uint32_t *")
    text = lib.mp_control_about(control, size)
    try:
        about: dict[str, Any] = json.loads(bytes(ffi.buffer(text, size[0])))
    except ValueError:
        message = "the run is only just being started: look again"
        raise InspectError(message) from None
    return about


def sum_of(record: Any, kind: int) -> int | float:  # noqa: ANN401 - a record of mp_look_sum
    """Return the sum of one column."""
    if kind == ord("f"):
        return float(record["real"])
    return (int(record["high"]) << 64) + int(record["low"])


@cache
def _fields(name: str) -> tuple[str, ...]:
    return tuple(field for field, _ in ffi.typeof(name).fields)


@cache
def dtype_of(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of a struct of the core."""
    dtype: np.dtype[Any] = np.dtype(_dtype(ffi.typeof(name)))
    return dtype


def _dtype(ctype: Any) -> Any:  # noqa: ANN401 - cffi has no type for it
    if ctype.kind == "struct":
        names = [name for name, _ in ctype.fields]
        fields = [field for _, field in ctype.fields]
        formats = [_dtype(field.type) for field in fields]
        layout: Any = {
            "names": names,
            "formats": formats,
            "offsets": [field.offset for field in fields],
            "itemsize": ffi.sizeof(ctype),
        }
        return np.dtype(layout)
    if ctype.kind == "array":
        return np.dtype((_dtype(ctype.item), (ctype.length,)))
    return np.dtype({"double": "f8", "float": "f4"}.get(ctype.cname) or ctype.cname.removesuffix("_t"))


def _array(data: Any, name: str) -> Records:  # noqa: ANN401 - a cffi array
    return np.frombuffer(ffi.buffer(data), dtype_of(name)) if len(data) else np.empty(0, dtype_of(name))
