"""The result of a run as one object, and its three faces: JSON, the original's lines, plain text for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from megaphone.errors import UsageError
from megaphone.observe import human, tsv
from megaphone.observe.files import write_whole
from megaphone.observe.timeline import LatencyAround, LatencySummary

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from megaphone.dataflow.result import Result
    from megaphone.observe.histogram import Histogram
    from megaphone.observe.ledger import Ledger
    from megaphone.observe.switch import SwitchLatency
    from megaphone.observe.timeline import Timeline

FORMATS = ("human", "tsv", "json")


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration, from its first control instruction to the completion of its last step.

    Times are ns since the start of the run; ``bytes_moved`` is the state that changed owner, ``bytes_copied`` the
    part of it that was copied (0 by hand-over).  ``lead_ns`` of the duration are before the first step takes effect,
    which is ahead of the clock so that nobody waits for it; None where times are not the clock's.
    """

    time_ns: int
    strategy: str
    steps: int
    bins: int
    keys: int
    bytes_moved: int
    bytes_copied: int
    duration_ns: int
    warming_ns: int
    minor_faults: int
    lead_ns: int | None = None
    latency: LatencyAround | None = None
    """What `Timeline.around` gave; None in a closed loop."""

    def to_dict(self) -> dict[str, object]:
        """Return the migration as the JSON report has it; the latencies are those during it."""
        during = self.latency.during if self.latency else None
        return {
            "time_ns": self.time_ns,
            "strategy": self.strategy,
            "steps": self.steps,
            "bins": self.bins,
            "keys": self.keys,
            "bytes_moved": self.bytes_moved,
            "bytes_copied": self.bytes_copied,
            "duration_ns": self.duration_ns,
            "lead_ns": self.lead_ns,
            "warming_ns": self.warming_ns,
            "minor_faults": self.minor_faults,
            "latency_ns_max": during.max if during else None,
            "latency_ns_p999": during.p999 if during else None,
        }


@dataclass(frozen=True, slots=True)
class Memory:
    """What the run occupied: all its processes together, and its data region, of which some lies in huge pages.

    ``samples`` has ``[time_ns, pss_bytes, committed_bytes, state_bytes, pinned_bytes]`` of moments of the run, with ns
    since its start (negative while state was loaded) and None where the PSS was not read.
    """

    pss_bytes_max: int
    committed_bytes: int
    huge_bytes: int
    region_bytes: int
    samples: Sequence[Sequence[int | None]] = ()

    @classmethod
    def of(cls, result: Result) -> Memory:
        """Return what a run occupied."""
        start_ns = result.origin_ns or (result.memory_samples[0].time_ns if result.memory_samples else 0)
        samples = [
            [one.time_ns - start_ns, one.pss_bytes, one.committed_bytes, one.state_bytes, one.pinned_bytes]
            for one in result.memory_samples
        ]
        return cls(result.pss_bytes_max, result.committed_bytes, result.huge_bytes, result.region_bytes, samples)


@dataclass(frozen=True, slots=True)
class Trace:
    """What only the original's lines show; every part may be left out.

    Attributes:
        control_times_ns: when each step takes effect.
        moves: (bin, old worker, new worker, wire elements) of each moved bin.
        steps_done: (elapsed ns, duration ns) of each step.
        rss: (ns since program start, resident bytes) of each sample.
        loaded: (worker, keys) that were loaded before timing.
        batch_records: records per production batch.
        max_number: the greatest count of a dense backend.
    """

    control_times_ns: Sequence[int] = ()
    moves: Sequence[tuple[int, int, int, int]] = ()
    steps_done: Sequence[tuple[int, int]] = ()
    rss: Sequence[tuple[int, int]] = ()
    loaded: Sequence[tuple[int, int]] = ()
    batch_records: Histogram | None = None
    max_number: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run measured.

    ``latency`` (after the warm-up) and ``timeline`` are None in a closed loop, where a record has no intended send
    time; so are the rates.  What does not apply to a command (``bin_shift`` of a bare exchange) is None.
    The checksums are unsigned 64-bit; JSON has them as hexadecimal text, since many readers round large integers.
    """

    command: str
    version: str
    machine: Mapping[str, str | int]
    workers: int
    records: int
    seconds: float
    ledger: Ledger
    memory: Memory
    bin_shift: int | None = None
    backend: str | None = None
    hash: str | None = None
    transfer: str | None = None
    migration: str | None = None
    rate_per_worker: float | None = None
    rate_total: float | None = None
    latency: Histogram | None = None
    timeline: Timeline | None = None
    migrations: Sequence[Migration] = ()
    switches: Sequence[SwitchLatency] = ()
    """Around the planned time of each migration, or, where nothing moves, when the built-in strategies would."""
    checksum_outputs: int | None = None
    checksum_state: int | None = None
    workload: Mapping[str, object] = field(default_factory=dict)
    """What a workload reports beyond this: plain values by name, which follow the others in JSON."""
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = field(default_factory=dict)
    """Further tables for people: header and rows by title."""
    facts: Sequence[tuple[str, str]] = ()
    """Further lines for people about the run: name and value."""
    trace: Trace = field(default_factory=Trace)

    @property
    def records_per_s(self) -> float:
        """Records over the whole run by its seconds; 0 if it took no time."""
        return self.records / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, object]:
        """Return the report as one object of plain values, in a fixed order."""
        return {
            "command": self.command,
            "version": self.version,
            "machine": dict(self.machine),
            "workers": self.workers,
            "bin_shift": self.bin_shift,
            "backend": self.backend,
            "hash": self.hash,
            "transfer": self.transfer,
            "migration": self.migration,
            "rate_per_worker": self.rate_per_worker,
            "rate_total": self.rate_total,
            "records": self.records,
            "seconds": self.seconds,
            "records_per_s": round(self.records_per_s, 3),
            "latency_ns": LatencySummary.of(self.latency).to_dict() if self.latency else None,
            "timeline": self.timeline.rows() if self.timeline else [],
            "migrations": [migration.to_dict() for migration in self.migrations],
            "switches": [switch.to_dict() for switch in self.switches],
            "ledger": self.ledger.to_dict(),
            "memory": asdict(self.memory),
            "checksum_outputs": format_checksum(self.checksum_outputs),
            "checksum_state": format_checksum(self.checksum_state),
            **self.workload,
        }

    def to_json(self) -> str:
        """Return one JSON object, one line for each of its names."""
        pairs = self.to_dict().items()
        return (
            "{\n" + ",\n".join(f'  "{name}": {json.dumps(value, allow_nan=False)}' for name, value in pairs) + "\n}\n"
        )

    def to_tsv(self) -> str:
        """Return the original's tab-separated lines."""
        return tsv.render(self)

    def to_human(self) -> str:
        """Return plain text for people, at most 100 columns wide."""
        return human.render(self)

    def render(self, output_format: str) -> str:
        """Return the report in one of `FORMATS`.

        Raises:
            UsageError: there is no such format.
        """
        if output_format == "json":
            return self.to_json()
        if output_format == "tsv":
            return self.to_tsv()
        if output_format == "human":
            return self.to_human()
        message = f"no format {output_format!r}: choose one of {', '.join(FORMATS)}"
        raise UsageError(message)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON object to ``path``, whole or not at all; see `files.check_writable` for the early check.

        Raises:
            UsageError: the path cannot be written.
        """
        write_whole(path, self.to_json())


def format_checksum(checksum: int | None) -> str | None:
    """Return an unsigned 64-bit checksum as 16 hexadecimal digits; None stays None.

    >>> format_checksum(255)
    '00000000000000ff'
    """
    return None if checksum is None else f"{checksum:016x}"
