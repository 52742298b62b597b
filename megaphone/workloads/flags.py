"""The flags of the ``megaphone`` command, and what ``--help`` says about them.

A flag that was not given is not in the namespace at all, so the defaults of ``settings`` are the only ones, and a flag
that does not fit the kind of run can be refused by its name.  Errors are one line, like all others of the program.
"""

from __future__ import annotations

import argparse
import sys
from decimal import Decimal, InvalidOperation
from importlib import metadata
from typing import TYPE_CHECKING, Any, NoReturn

from megaphone.errors import UsageError
from megaphone.workloads import settings as ask

if TYPE_CHECKING:
    from collections.abc import Callable

_WHOLE_MAX = Decimal(10) ** 40

_ABOUT = """\
Streaming dataflow over shared memory: workers are processes, keyed state lives in bins,
and bins change their worker while the stream runs."""
_EPILOG = """\
examples:
  megaphone doctor                                  what this machine offers, what a run would get
  megaphone word-count --text README.md --top 10    count the words of a file
  megaphone word-count --rate 100000 --duration 10 --domain 1000000 --migration fluid
  megaphone word-count --help                       everything about one command

exit codes: 0 ok, 1 user code raised, 2 usage or plan invalid, 3 worker lost,
            4 no shared memory left, 5 stuck, 130 Ctrl-C, 143 TERM"""
_WORD_COUNT_ABOUT = """\
Count records by key while bins of counts move between workers. Two kinds of input:
generated keys at a fixed rate (the benchmark), or, with --text, the words of text."""
_WORD_COUNT_EPILOG = """\
maps (--initial, --target), for B bins and W workers:
  uniform        bin i on worker i mod W
  half           the bins on every second worker (with two workers, all on worker 0)
  uniform_skew   uniform, but every second bin of the lower half elsewhere: a quarter of the bins
  one            all bins on worker 0
  0:1,5:0        a list of bin:worker; the bins that it does not name as in uniform

output:
  generated keys   the report on standard output, as --format says
  --text           word<TAB>count on standard output (or in --output FILE), by falling count, then by word; the
                   report for people goes to standard error then. With --format tsv or json standard output is the
                   report alone, and the counts go to --output FILE or nowhere

examples:
  megaphone word-count --rate 100000 --duration 30 --domain 1000000 --migration sudden -w 4
  megaphone word-count --rate max --duration 10 --domain 10000000 --backend vec
  megaphone word-count --total-rate 200000 --migration fluid --gap 1000000 --format json --report run.json
  megaphone word-count --text /usr/share/doc --top 20
  cat *.txt | megaphone word-count --text - --output counts.tsv"""
_PLAN_ABOUT = "Write the plan of a migration to standard output, to be edited and given to word-count --migration FILE."
_PLAN_EPILOG = """\
The file has one update per line; times are nanoseconds since the start of the run, and a step starts
when its time has come and the step before it is complete:
  M TIME worker worker ...        the worker of every bin, in order
  D TIME bin worker bin worker    bins that move

example:
  megaphone plan batched --bin-shift 4 --workers 4 --target half --at 10 > plan.txt
  megaphone word-count --bin-shift 4 -w 4 --duration 30 --migration plan.txt"""
_EXCHANGE_ABOUT = "Send records from all workers to all workers and count what that copies: transport alone, no state."
_EXCHANGE_EPILOG = """\
columns: name:type with commas between; types u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 bytes; the first is the
key that is routed by, a u64

example:
  megaphone exchange -w 2 --records 50000000 --columns key:u64,value:f64 --format json"""
_HELP_OF = {
    "word-count": "count generated keys or the words of text while state moves between workers",
    "plan": "write a migration plan to be edited",
    "nexmark": "queries over the events of an auction house while state moves; or the events alone",
    "exchange": "send records between workers: transport alone",
    "inspect": "look into the memory of a run that goes on or is stopped",
    "doctor": "shared memory, limits and cores of this machine",
}
_INSPECT_ABOUT = """\
Attach to a run, read-only, and show what its shared memory says: bins, queues, rings, frontiers,
what is only half done and what cannot be. Without a number: list the runs that can be seen."""
_INSPECT_EPILOG = """\
Figures of a run that goes on are of different moments; those of a run whose workers are stopped are exact:
kill -STOP the workers, not the program, and kill -CONT them afterwards. Lines are as wide as the terminal
(COLUMNS says otherwise), and columns that do not fit are left out; --json has everything.

words:
  applied    records that are in the state; post-dated ones wait in their bin for their time
  waiting    at F, the routing operator, until the configuration of their time is known
  stash      at S, the stateful operator, until no earlier record can come
  config     how many configurations of bins to workers are installed, and from which time the last one holds
  in between half done at this moment, as a worker was stopped in the middle of it: no fault (torn, with --json)

exit codes: 0 ok, 2 no such run, or one that cannot be looked at

examples:
  megaphone inspect                      the runs of this machine
  megaphone inspect 4711                 by the number of the program or of any of its workers
  megaphone inspect 4711 --slot 1        what concerns worker 1
  megaphone inspect 4711 --json | jq .violations"""
_DOCTOR_ABOUT = "Show shared memory, limits, huge pages and cores, and what a run would get."


class Parser(argparse.ArgumentParser):
    """A parser that keeps the layout of its texts, takes no abbreviations, and raises instead of printing a usage.

    Attributes:
        below: parsers of the commands that may follow this one as its first argument.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("argument_default", argparse.SUPPRESS)
        super().__init__(allow_abbrev=False, **options)
        self.below: dict[str, Parser] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse what follows a command below this one by that; argparse's own way takes a wrong flag's value for it."""
        if args and args[0] in self.below:
            return self.below[args[0]].parse_known_args(args[1:], namespace)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise the one line of a usage error."""
        line = f"{message.removeprefix('argument ')} ({self.prog} --help shows all flags)"
        raise UsageError(line)


class Once(argparse.Action):
    """A flag that takes a list and may be given once: a second one would silently replace the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401 - as argparse has it
        option_string: str | None = None,
    ) -> None:
        """Keep the value, or refuse the second."""
        if hasattr(namespace, self.dest):
            parser.error(f"{option_string} is given twice: put all into one, such as {option_string} 'q3 q5-flex'")
        setattr(namespace, self.dest, values)


class _Version(argparse.Action):
    """``--version``, which looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the version and end."""
        try:
            version = metadata.version("megaphone")
        except metadata.PackageNotFoundError:
            version = "(not installed: run from its source)"
        sys.stdout.write(f"megaphone {version}\n")
        parser.exit()


def build_parser(
    add_more: Callable[[argparse._SubParsersAction[Parser]], None] = lambda _: None,
) -> argparse.ArgumentParser:
    """Return the parser of all commands.

    Args:
        add_more: adds the commands of the layers above this one.

    Its namespaces hold ``command`` (the name), ``flag_of`` (the flag of each name, for messages) and whatever was given
    under the names of the fields of the settings.  Usage errors are raised as UsageError.
    """
    # These flags are made of the ones below.
    from megaphone.workloads.nexmark import flags as nexmark

    parser = Parser(prog="megaphone", description=_ABOUT, epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, about, epilog, add_flags in (
        ("word-count", _WORD_COUNT_ABOUT, _WORD_COUNT_EPILOG, _add_word_count),
        ("plan", _PLAN_ABOUT, _PLAN_EPILOG, _add_plan),
        ("nexmark", nexmark.ABOUT, nexmark.EPILOG, nexmark.add_flags),
        ("exchange", _EXCHANGE_ABOUT, _EXCHANGE_EPILOG, _add_exchange),
        ("inspect", _INSPECT_ABOUT, _INSPECT_EPILOG, _add_inspect),
        ("doctor", _DOCTOR_ABOUT, "", lambda _: None),
    ):
        command = commands.add_parser(name, help=_HELP_OF[name], description=about, epilog=epilog)
        add_flags(command)
        note_flags(command)
    add_more(commands)
    return parser


def note_flags(command: argparse.ArgumentParser) -> None:
    """Remember in a command's namespace the flag of each name, for messages."""
    flag_of = {
        action.dest: action.option_strings[-1] if action.option_strings else action.dest
        # argparse has no public way to ask for its flags.
        for action in command._actions
    }
    command.set_defaults(flag_of=flag_of)


def _add_inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "pid",
        nargs="?",
        type=as_whole,
        default=None,
        metavar="PID",
        help="a process of the run, the program or a worker",
    )
    command.add_argument("--bins", dest="every_bin", action="store_true", help="list each bin, however many there are")
    command.add_argument("--slot", type=as_whole, metavar="N", help="show only what concerns worker N")
    command.add_argument("--json", action="store_true", help="one object with everything, instead of text")
    command.add_argument(
        "--no-content",
        dest="content",
        action="store_false",
        help="do not read the rows of the bins: quicker where there are many millions",
    )
    command.add_argument(
        "--fd", type=as_whole, metavar="N", help="the run at descriptor N, where a process has several"
    )


def _add_word_count(command: Parser) -> None:
    of = ask.WordCountSettings
    keys = command.add_argument_group("generated keys")
    rate = keys.add_mutually_exclusive_group()
    rate.add_argument(
        "--rate",
        dest="rate_per_worker",
        type=as_rate,
        metavar="R|max",
        help="records per second that EACH worker sends on schedule, or max for as many as it can, without latency "
        f"(default {of.rate_per_worker:g}; with --text words, default max)",
    )
    rate.add_argument(
        "--total-rate", type=as_number, metavar="R", help="the same over ALL workers, instead of --rate; not max"
    )
    keys.add_argument(
        "--duration",
        dest="duration_s",
        type=as_number,
        metavar="S",
        help=f"seconds to measure, loading not included (default {of.duration_s:g})",
    )
    keys.add_argument("--domain", type=as_whole, metavar="K", help=f"number of different keys (default {of.domain})")
    keys.add_argument(
        "--validate",
        action="store_true",
        help="check every output against an independent count; with --text, against collections.Counter",
    )
    keys.add_argument(
        "--no-preload", dest="preload", action="store_false", help="do not load all keys before the clock starts"
    )
    keys.add_argument(
        "--slices",
        action="store_true",
        help="also keep latency around each migration in slices of 10 ms, for the JSON report; without migrations, "
        "around a third and two thirds of the run",
    )
    keys.add_argument(
        "--pss-interval",
        dest="pss_interval_s",
        type=as_number,
        metavar="S",
        help="seconds from one reading of PSS to the next, at best 0.25 (default as often as costs a thousandth of the "
        "time)",
    )
    text = command.add_argument_group("words of text")
    text.add_argument(
        "--text",
        dest="paths",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="count the words of these files; a folder is walked, and files in it that are not UTF-8 are skipped and "
        "named; - is standard input",
    )
    text.add_argument("--top", type=as_whole, metavar="N", help="only the N most frequent words (default all)")
    text.add_argument("--output", dest="output_path", metavar="FILE", help="write the counts to FILE")
    text.add_argument(
        "--demo",
        action="store_true",
        help="move half of the bins at one third of the text all at once and back, fluidly, at two thirds; compare "
        "with collections.Counter; of folders only .py and .txt files; without --text, Python's standard library",
    )
    add_moves(command, of)
    state = command.add_argument_group("state")
    state.add_argument(
        "--backend",
        choices=ask.BACKENDS,
        help="hashmap, or vec (arrays, generated keys only); with native: plain, without bins, nothing can move "
        f"(default {of.backend})",
    )
    state.add_argument(
        "--hash",
        choices=ask.HASHES,
        help=f"from key to bin: fnv (FNV-1a, the original's) or mix (faster) (default {of.hash})",
    )
    add_bin_shift(state, of.bin_shift)
    add_run(command)


def add_moves(command: argparse.ArgumentParser, of: type[ask.MigratingSettings]) -> None:
    """Add the flags that say which bins move, when and how; ``of`` has the defaults."""
    moves = command.add_argument_group("migration")
    moves.add_argument(
        "--migration",
        metavar="STRATEGY|FILE",
        help="none, sudden (all bins at once), fluid (one after the other), batched (one for each pair of workers at a "
        "time): to --target at one third of the run, and back at two thirds; or a plan file, see megaphone plan "
        f"(default {of.migration})",
    )
    add_maps(moves, of.initial, of.target)
    moves.add_argument(
        "--transfer",
        choices=ask.TRANSFERS,
        help="handover: a bin changes its owner and nothing is copied; copy: it is copied, as between hosts "
        f"(default {of.transfer})",
    )
    moves.add_argument(
        "--gap",
        dest="gap_ns",
        type=as_whole,
        metavar="NS",
        help=f"nanoseconds between the completion of a step and the next one (default {of.gap_ns})",
    )
    add_batch_bins(moves, of.batch_bins)


def _add_plan(command: argparse.ArgumentParser) -> None:
    of = ask.PlanSettings
    command.add_argument("strategy", choices=ask.STRATEGIES[1:], help="how the bins are to move")
    add_bin_shift(command, of.bin_shift)
    add_workers(command, of.workers)
    add_maps(command, of.initial, of.target)
    command.add_argument(
        "--at",
        dest="at_s",
        type=as_number,
        metavar="SECONDS",
        help=f"seconds since the start of the run before which nothing moves (default {of.at_s:g})",
    )
    add_batch_bins(command, of.batch_bins)


def _add_exchange(command: argparse.ArgumentParser) -> None:
    of = ask.ExchangeSettings
    command.add_argument("--records", type=as_whole, metavar="N", help=f"over all workers (default {of.records})")
    command.add_argument(
        "--batch",
        dest="batch_records",
        type=as_whole,
        metavar="N",
        help=f"records per batch (default {of.batch_records})",
    )
    command.add_argument("--columns", metavar="SPEC", help=f"what a record has, see below (default {of.columns})")
    command.add_argument("--times", action="store_true", help="measure the time in copies and allocations, too")
    add_run(command)


def add_run(command: argparse.ArgumentParser) -> None:
    """Add what every run can be told."""
    of = ask.RunSettings
    run = command.add_argument_group("run and report")
    add_workers(run, of.workers)
    run.add_argument("--seed", type=as_whole, metavar="N", help=f"of all random numbers (default {of.seed})")
    run.add_argument(
        "--memory",
        dest="memory_bytes",
        type=as_size,
        metavar="SIZE",
        help="shared memory for batches and state, such as 512M or 2G (default half of what /dev/shm has free, at most "
        "half of RAM)",
    )
    run.add_argument(
        "--format",
        choices=ask.FORMATS,
        help=f"of the report: human, tsv (the lines of the original), json (one object) (default {of.format})",
    )
    run.add_argument("--report", dest="report_path", metavar="FILE", help="also write the report to FILE, as JSON")


def parse_whole(text: str) -> int:
    """Return the whole number that a flag names: ``1000000``, ``1_000_000`` or ``1e6``.

    Raises:
        ValueError: it is none, or has more than 40 digits.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    # The bound comes first: 1e999999999 is short to write and long to compute.
    if not number.is_finite() or not -_WHOLE_MAX <= number <= _WHOLE_MAX or number != number.to_integral_value():
        raise ValueError(text)
    return int(number)


def parse_rate(text: str) -> float | None:
    """Return records per second, or None for ``max``.

    Raises:
        ValueError: it is neither ``max`` nor a number.
    """
    return None if text == "max" else float(text)


def parse_size(text: str) -> int:
    """Return a size in bytes; see `megaphone.shm.limits.parse_size`, whose module is loaded only if it is needed."""
    from megaphone.shm import limits

    return limits.parse_size(text)


# What parsers and groups have in common has no public name.
Flags = argparse._ActionsContainer


def add_workers(flags: Flags, default: int) -> None:
    """Add ``--workers``."""
    flags.add_argument(
        "-w",
        "--workers",
        type=as_whole,
        metavar="N",
        help=f"worker processes, 1 to {ask.WORKERS_MAX} (default {default})",
    )


def add_bin_shift(flags: Flags, default: int) -> None:
    """Add ``--bin-shift``."""
    flags.add_argument(
        "--bin-shift",
        type=as_whole,
        metavar="B",
        help=f"2^B bins, B from 1 to {ask.BIN_SHIFT_MAX} (default {default}: {1 << default} bins)",
    )


def add_maps(flags: Flags, initial: str, target: str) -> None:
    """Add ``--initial`` and ``--target``."""
    maps = "uniform, half, uniform_skew, one, or bin:worker,..."
    flags.add_argument("--initial", metavar="MAP", help=f"workers of the bins at the start: {maps} (default {initial})")
    flags.add_argument("--target", metavar="MAP", help=f"workers of the bins after moving (default {target})")


def add_batch_bins(flags: Flags, default: int) -> None:
    """Add ``--batch-bins``."""
    flags.add_argument(
        "--batch-bins",
        type=as_whole,
        metavar="N",
        help=f"bins of a pair of workers in one step of batched (default {default})",
    )


def _converter(parse: Callable[[str], Any], wanted: str) -> Callable[[str], Any]:
    """Return a type for argparse, whose error says what the flag got and what it wants."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, OverflowError):
            message = f"{text!r} is not {wanted}"
            raise argparse.ArgumentTypeError(message) from None

    return convert


as_whole = _converter(parse_whole, "a whole number: give one such as 4 or 1e6")
as_number = _converter(float, "a number: give one such as 30 or 0.5")
as_rate = _converter(parse_rate, "a rate: give records per second such as 100000, or max")
as_size = _converter(parse_size, "a size: give one such as 512M, 64MiB or 2G")
