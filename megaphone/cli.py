"""The ``megaphone`` command: flags in, settings out, one call, and the result on standard output.

Standard output is data and standard error is talk.  A user's mistake costs one line and exit code 2, never a
traceback; everything that can be checked is checked before the run starts.  What a command needs is imported by the
command, so that ``--help`` and a misspelt flag answer at once.

    argv --argparse--> namespace of what was given --dataclass--> settings --check--> workload --> report, counts
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import signal
import sys
import threading
import traceback
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from megaphone.bench import flags as bench
from megaphone.errors import MegaphoneError, UsageError, WorkerError
from megaphone.workloads import settings as ask
from megaphone.workloads.flags import build_parser
from megaphone.workloads.nexmark import settings as nexmark

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType

    from megaphone.observe.report import Report
    from megaphone.workloads.nexmark.events import GeneratorKind
    from megaphone.workloads.nexmark.files import FileFormat
    from megaphone.workloads.text import TextResult

Settings = TypeVar("Settings", bound=ask.RunSettings | ask.PlanSettings | nexmark.GenerateSettings)

DEMO_TOP = 20
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_INTERNAL = 70
_CHUNKS_PER_WRITE = 4096


class _TerminatedError(BaseException):
    """TERM has come; not an Exception, so that nothing on the way swallows it."""


class _ReaderGoneError(Exception):
    """Whoever read standard output has closed it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: what follows the program's name; None is this process's own.
    """
    try:
        with _terminable():
            _run(argv)
            _flush_stdout()
    except _ReaderGoneError:
        return 0
    except WorkerError as error:
        _talk(_remote_traceback(error))
        return _refuse(error)
    except MegaphoneError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        _talk("megaphone: interrupted")
        return EXIT_INTERRUPTED
    except _TerminatedError:
        _talk("megaphone: terminated")
        return EXIT_TERMINATED
    except Exception as error:
        # The last resort: a bug is shown whole, and has a code of its own.
        _talk(traceback.format_exc())
        _talk(f"megaphone: error: a bug in megaphone itself: {_one_line(error)}: please report it with the lines above")
        return EXIT_INTERNAL
    return 0


def _run(argv: Sequence[str] | None) -> None:
    try:
        arguments = build_parser(bench.add_commands).parse_args(argv)
    except SystemExit:
        # Only --help and --version end so, and they have printed what was asked for.
        return
    _COMMANDS[arguments.command](arguments)


def _word_count(arguments: argparse.Namespace) -> None:
    _load_engine()
    if "paths" in arguments or "demo" in arguments:
        _count_text(arguments)
        return
    settings = _settings(ask.WordCountSettings, arguments, "needs --text PATH")
    _check_outputs(settings.report_path)
    _talk_about_plan(settings, settings.duration_ns)
    from megaphone.workloads.word_count import run_synthetic

    _deliver(run_synthetic(settings), settings)


def _count_text(arguments: argparse.Namespace) -> None:
    from megaphone.workloads import text

    if "paths" in arguments:
        arguments.paths = tuple(arguments.paths)
    else:
        # Only --demo comes here without a path.
        arguments.paths = (os.fspath(text.default_corpus()),)
    if "demo" in arguments:
        arguments.suffixes = text.CORPUS_SUFFIXES
        arguments.exclude_folders = text.CORPUS_EXCLUDED_FOLDERS
    if "demo" in arguments or "validate" in arguments:
        vars(arguments).pop("validate", None)
        arguments.compare_with_counter = True
    if "demo" in arguments and "top" not in arguments and "output_path" not in arguments:
        arguments.top = DEMO_TOP
    settings = _settings(ask.TextSettings, arguments, "does not go with --text: leave it out")
    _check_outputs(settings.output_path, settings.report_path)
    _talk_about_plan(settings, 3)
    from megaphone.workloads.text_count import run_text

    _deliver_text(run_text(settings), settings)


def _talk_about_plan(settings: ask.MigratingSettings, duration: int) -> None:
    """Say so when bins were to move and none will."""
    if settings.migration != "none":
        plan = settings.plan(duration)
        if plan.moves == 0:
            _talk(f"megaphone: {plan.describe()}")
    elif settings.target != ask.MigratingSettings.target:
        _talk(f"megaphone: --target {settings.target} has no effect without --migration")


def _plan(arguments: argparse.Namespace) -> None:
    _load_engine()
    from megaphone.migration.plan import format_plan

    plan = _settings(ask.PlanSettings, arguments).plan()
    _say([format_plan(plan)])
    _talk(plan.describe())


def _exchange(arguments: argparse.Namespace) -> None:
    _load_engine()
    settings = _settings(ask.ExchangeSettings, arguments)
    _check_outputs(settings.report_path)
    from megaphone.workloads.exchange import run

    _deliver(run(settings), settings)


def _nexmark(arguments: argparse.Namespace) -> None:
    _load_engine()
    settings = _settings(nexmark.NexmarkSettings, arguments)
    _check_outputs(settings.report_path)
    if settings.migrates:
        _talk_about_plan(settings, settings.plan_length)
    from megaphone.workloads.nexmark.run import run_nexmark

    _deliver(run_nexmark(settings), settings)


def _generate(arguments: argparse.Namespace) -> None:
    _load_engine()
    settings = _settings(nexmark.GenerateSettings, arguments, "does not go with generate: leave it out")
    from megaphone.workloads.nexmark.generate import generate

    assert settings.events is not None
    assert settings.output_path is not None
    kind: GeneratorKind = "exact" if settings.generator == "exact" else "fast"
    made = generate(
        events=settings.events, output=settings.output_path, rate=settings.rate, workers=settings.workers,
        in_flight=settings.in_flight, generator=kind, seed=settings.seed,
        format=cast("FileFormat", settings.file_format),
    )  # fmt: skip
    _say(f"{path}\t{rows}\n" for path, rows in zip(made.paths.values(), made.rows, strict=True))


def _doctor(arguments: argparse.Namespace) -> None:  # noqa: ARG001  all commands have one signature
    from megaphone.observe.doctor import doctor_lines
    from megaphone.shm.limits import MEMORY_BYTES_MIN, Limits, default_memory_bytes

    memory_bytes = default_memory_bytes()
    # Too little for any run must still be told here, so the sizes are then those of the least run.
    limits = Limits.for_memory(max(memory_bytes, MEMORY_BYTES_MIN))
    found = {**dataclasses.asdict(limits), "memory_bytes": min(memory_bytes, limits.memory_bytes)}
    _say(f"{line}\n" for line in doctor_lines(found))


def _inspect(arguments: argparse.Namespace) -> None:
    from megaphone.observe import inspect

    width = inspect.terminal_width()
    given = vars(arguments)
    if given["pid"] is None:
        listed = inspect.list_runs(width=width, as_json=given.get("json", False))
        _say([listed]) if listed else _talk("megaphone: no run can be seen from here")
        return
    _say(
        [
            inspect.inspect(
                given["pid"], width=width, as_json=given.get("json", False), every_bin=given.get("every_bin", False),
                slot=given.get("slot"), content=given.get("content", True), fd=given.get("fd"),
            )
        ]
    )  # fmt: skip


def _bench_list(arguments: argparse.Namespace) -> None:  # noqa: ARG001  all commands have one signature
    from megaphone.bench.command import listed

    _say(f"{line}\n" for line in listed())


def _bench_run(arguments: argparse.Namespace) -> None:
    from megaphone.bench.command import run

    given = vars(arguments)
    run(
        given["names"], given.get("size", "full"), given.get("repeat"), given.get("seed", 0),
        given.get("output", bench.DEFAULT_OUTPUT), talk=_talk, say=lambda lines: _say(f"{line}\n" for line in lines),
    )  # fmt: skip


def _bench_compare(arguments: argparse.Namespace) -> None:
    from megaphone.bench.command import compare

    # Line by line: a gate that fails raises behind the lines that explain it.
    for line in compare(arguments.a, arguments.b, vars(arguments).get("least")):
        _say([f"{line}\n"])


def _bench_targets(arguments: argparse.Namespace) -> None:
    from megaphone.bench.command import targets_of

    given = vars(arguments)
    _say(f"{line}\n" for line in targets_of(given["folder"], given.get("markdown"), given.get("into")))


def _plot(arguments: argparse.Namespace) -> None:
    from megaphone.bench.plot import plot

    _say(f"{path}\n" for path in plot(arguments.folder, vars(arguments).get("output"), talk=_talk))


_COMMANDS = {
    "inspect": _inspect,
    "word-count": _word_count,
    "plan": _plan,
    "nexmark": _nexmark,
    "nexmark generate": _generate,
    "exchange": _exchange,
    "doctor": _doctor,
    "bench list": _bench_list,
    "bench run": _bench_run,
    "bench compare": _bench_compare,
    "bench targets": _bench_targets,
    "plot": _plot,
}


def _settings(kind: type[Settings], arguments: argparse.Namespace, otherwise: str = "") -> Settings:
    """Return the checked settings of what was given; a flag that this kind of run does not know is refused."""
    known = {field.name for field in dataclasses.fields(kind)}
    given: dict[str, Any] = {}
    for name, value in vars(arguments).items():
        if name in known:
            given[name] = value
        elif name not in ("command", "flag_of", "total_rate"):
            message = f"{arguments.flag_of[name]} {otherwise}"
            raise UsageError(message)
    if "total_rate" in arguments:
        ask.check_rate("--total-rate", arguments.total_rate, ask.RATE_MAX * ask.WORKERS_MAX)
        # No worker at all is refused by the check below.
        given["rate_per_worker"] = arguments.total_rate / max(given.get("workers", kind.workers), 1)
    settings = kind(**given)
    settings.check()
    return settings


def _check_outputs(*paths: str | None) -> None:
    """Refuse files that could not be written at the end, and two outputs into one file, before the run."""
    from megaphone.observe.files import check_writable

    named = [path for path in paths if path is not None]
    for path in named:
        check_writable(path)
    if len({os.path.realpath(path) for path in named}) < len(named):
        message = f"--output and --report both name {named[0]!r}: give each a file of its own"
        raise UsageError(message)


def _deliver(report: Report, settings: ask.RunSettings) -> None:
    """Write the report to its file, and print it even if that fails: a run may have been long."""
    try:
        if settings.report_path is not None:
            report.write(settings.report_path)
    finally:
        _say([report.render(settings.format)])


def _deliver_text(result: TextResult, settings: ask.TextSettings) -> None:
    """Write the counts and the report to where each belongs; the epilog of the command tells which is where."""
    from megaphone.observe.files import write_whole
    from megaphone.workloads.text import format_counts

    if result.skipped:
        _talk(f"megaphone: {len(result.skipped)} files skipped that are not UTF-8:")
        for skipped in result.skipped:
            _talk(f"  {skipped}")
    lines = (f"{line}\n" for line in format_counts(result.words, result.counts, settings.top))
    if settings.output_path is not None:
        write_whole(settings.output_path, "".join(lines))
    elif settings.format == "human":
        _say(lines)
        _flush_stdout()
    if settings.output_path is None and settings.format == "human":
        _talk(result.report.render("human"))
        if settings.report_path is not None:
            result.report.write(settings.report_path)
    else:
        _deliver(result.report, settings)
    if result.counter_agrees is not None:
        agrees = "the same counts" if result.counter_agrees else "OTHER counts, which is a bug: please report it"
        _talk(f"megaphone: collections.Counter gives {agrees}, for {len(result.words):,} different words")


def _say(chunks: Iterable[str]) -> None:
    """Write data to standard output, as UTF-8 whatever the locale: words are, and a file read back must be."""
    stream = sys.stdout
    if stream is None:
        message = "standard output is closed: redirect it to a file"
        raise UsageError(message)
    chunks = iter(chunks)
    try:
        stream.flush()
        while block := "".join(islice(chunks, _CHUNKS_PER_WRITE)):
            unwritten = memoryview(block.encode("utf-8"))
            # Unbuffered (python -u), one call may write a part only.
            while unwritten:
                unwritten = unwritten[stream.buffer.write(unwritten) :]
    except OSError as error:
        raise _stdout_refusal(error) from None


def _flush_stdout() -> None:
    """Write out what waits, so that a full disk or a closed pipe is seen here and not at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise _stdout_refusal(error) from None


def _stdout_refusal(error: OSError) -> Exception:
    """Return what to raise, after making sure that the interpreter's own last flush does not fail once more."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    if isinstance(error, BrokenPipeError):
        return _ReaderGoneError()
    return UsageError(f"standard output: cannot be written ({error.strerror}): free space, or redirect it")


def _talk(line: str) -> None:
    """Write to standard error, unless there is nothing to say; nobody listening is no reason to fail."""
    if not line:
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(line if line.endswith("\n") else f"{line}\n")
        sys.stderr.flush()


def _refuse(error: MegaphoneError) -> int:
    """Print the one line of an error and return its exit code."""
    _talk(f"megaphone: error: {_one_line(error)}")
    return error.exit_code


def _one_line(error: BaseException) -> str:
    """Return the message of an error on one line; an error without a message is at least named."""
    return " ".join(str(error).split("\n")).strip() or type(error).__name__


def _remote_traceback(error: WorkerError) -> str:
    """Return where the user's code raised, as text; the cause is the exception, or an exception made of its text."""
    cause = error.__cause__
    if cause is None:
        return ""
    if cause.__traceback__ is None and cause.__cause__ is None:
        return str(cause).rstrip()
    return "".join(traceback.format_exception(cause))


def _load_engine() -> None:
    """Import what is in C while Ctrl-C and TERM wait: numpy makes an ImportError of an import that they interrupt."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        importlib.import_module("numpy")
        importlib.import_module("megaphone._core")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let TERM unwind the stack as Ctrl-C does, so that workers end before their parent; a second TERM kills."""
    before = signal.getsignal(signal.SIGTERM)
    # Signals reach the main thread alone, and one that a parent has ignored on purpose stays ignored.
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise _TerminatedError

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
