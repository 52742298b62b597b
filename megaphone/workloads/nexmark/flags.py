"""The flags of ``megaphone nexmark`` and ``megaphone nexmark generate``; see `megaphone.workloads.flags`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.workloads import flags
from megaphone.workloads.nexmark import settings as ask

if TYPE_CHECKING:
    import argparse

ABOUT: Final = """\
Run NEXMark's queries over the events of an auction house while their state moves between workers:
persons, auctions and bids, 1 : 3 : 46, on schedule or a number of them as fast as it goes."""
EPILOG: Final = f"""\
queries: {" ".join(ask.QUERIES)}; each also with {ask.FLEX}, on state in bins that may move
  q0  each event                              q5  the auctions with most bids in a window that slides
  q1  each bid, price * 89 // 100             q6  the average of a seller's last ten winning prices
  q2  bids on auctions divisible by 123       q7  the highest bid of each window
  q3  sellers in OR, ID, CA and their         q8  persons who open an auction in the window
      auctions of category 10                     in which they come
  q4  the average winning price of a category

output: the report on standard output, as --format says; with --output, the rows of each query in DIR/NAME.csv

examples:
  megaphone nexmark --queries q7-flex --rate 100000 --duration 30 --migration fluid
  megaphone nexmark --queries "q5 q5-flex" --events 1e6 --q5-window 10 --output results
  megaphone nexmark generate --events 1e6 --output events      the events alone, see its --help"""
_GENERATE_ABOUT: Final = "Write the events of an auction house to files: person, auction and bid, with their numbers."
_GENERATE_EPILOG: Final = """\
example:
  megaphone nexmark generate --events 1e6 --generator exact --in-flight 100 --format parquet --output events"""


def add_flags(command: flags.Parser) -> None:
    """Add the flags of a run, and the command below it that writes the events."""
    _add_run(command)
    generate = flags.Parser(prog=f"{command.prog} generate", description=_GENERATE_ABOUT, epilog=_GENERATE_EPILOG)
    _add_generate(generate)
    flags.note_flags(generate)
    command.below["generate"] = generate


def _add_run(command: argparse.ArgumentParser) -> None:
    of = ask.NexmarkSettings
    what = command.add_argument_group("queries and events")
    what.add_argument(
        "--queries", metavar="NAMES", action=flags.Once,
        help='such as "q5-flex q7", with spaces or commas; see below',
    )  # fmt: skip
    rate = what.add_mutually_exclusive_group()
    rate.add_argument(
        "--rate", dest="rate_per_worker", type=flags.as_rate, metavar="R|max",
        help="events per second that EACH worker offers on schedule, or max for as many as it can, without latency "
        f"(default {of.rate_per_worker:g})",
    )  # fmt: skip
    rate.add_argument(
        "--total-rate", type=flags.as_number, metavar="R", help="the same over ALL workers, instead of --rate; not max"
    )
    what.add_argument(
        "--duration", dest="duration_s", type=flags.as_number, metavar="S",
        help=f"seconds for which events are offered (default {ask.DURATION_S:g})",
    )  # fmt: skip
    what.add_argument(
        "--events", type=flags.as_whole, metavar="N",
        help="N events over all workers, as fast as they go, instead of --duration; --rate is then that of event time",
    )  # fmt: skip
    what.add_argument(
        "--time-dilation", type=flags.as_whole, metavar="N",
        help=f"event time passes N times as fast as the clock (default {of.time_dilation})",
    )  # fmt: skip
    _add_source(what)
    what.add_argument(
        "--tick", dest="tick_ns", type=flags.as_whole, metavar="NS",
        help="nanoseconds of event time that share one logical time (default 1 ms of the clock; with --rate max or "
        f"--events, the time of {ask.TICK_CLOSED_EVENTS} events of each worker, at most a slide of q5)",
    )  # fmt: skip
    windows = command.add_argument_group("windows, in seconds of event time")
    for flag, name, which, default in (
        ("--q5-window", "q5_size_s", "in which q5 counts bids", of.q5_size_s),
        ("--q5-slide", "q5_slide_s", "between two ends of it", of.q5_slide_s),
        ("--q7-window", "q7_window_s", "of which q7 gives the highest bid", of.q7_window_s),
        ("--q8-window", "q8_window_s", "in which q8 looks for a person and an auction", of.q8_window_s),
    ):
        windows.add_argument(flag, dest=name, type=flags.as_number, metavar="S", help=f"{which} (default {default:g})")
    flags.add_moves(command, of)
    state = command.add_argument_group("state and rows")
    flags.add_bin_shift(state, of.bin_shift)
    state.add_argument(
        "--output", dest="output_path", metavar="DIR",
        help="write each query's rows to a file in DIR, which is made if need be; they are kept in memory until then",
    )  # fmt: skip
    state.add_argument(
        "--output-format", choices=ask.OUTPUT_FORMATS,
        help=f"of these files: csv, or npz for arrays (default {of.output_format})",
    )  # fmt: skip
    flags.add_run(command)


def _add_source(what: flags.Flags, *, seed: bool = False) -> None:
    of = ask.NexmarkSettings
    what.add_argument(
        "--in-flight", type=flags.as_whole, metavar="N",
        help="auctions that bids are for, and that are open (default as many as open in 12 hours of event time)",
    )  # fmt: skip
    what.add_argument(
        "--generator", choices=ask.GENERATORS,
        help=f"of the events: fast, or exact for the original's, bit for bit (default {of.generator})",
    )  # fmt: skip
    if seed:
        what.add_argument("--seed", type=flags.as_whole, metavar="N", help=f"of all draws (default {of.seed})")


def _add_generate(command: argparse.ArgumentParser) -> None:
    of = ask.GenerateSettings
    command.set_defaults(command="nexmark generate")
    command.add_argument("--events", type=flags.as_whole, metavar="N", help="how many, over all workers")
    command.add_argument(
        "--rate", type=flags.as_number, metavar="R",
        help=f"events per second of event time, over all workers (default {of.rate:g})",
    )  # fmt: skip
    command.add_argument(
        "-w", "--workers", type=flags.as_whole, metavar="N",
        help=f"workers that share the events, 1 to {ask.GENERATE_WORKERS_MAX}; it matters with exact alone "
        f"(default {of.workers})",
    )  # fmt: skip
    _add_source(command, seed=True)
    command.add_argument(
        "--format", dest="file_format", choices=ask.FILE_FORMATS, help=f"of the files (default {of.file_format})"
    )
    command.add_argument("--output", dest="output_path", metavar="DIR", help="the folder, made if need be")
