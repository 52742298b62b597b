"""The flags of ``megaphone bench`` and ``megaphone plot``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import SIZES
from megaphone.workloads.flags import Parser, as_number, as_whole, note_flags

if TYPE_CHECKING:
    import argparse

DEFAULT_OUTPUT: Final = Path("results")

ABOUT: Final = """\
Measure what this project says of itself: every figure of its documents comes from one of these experiments.
Runs are processes of their own, in turns, each beside a yardstick of the same minute."""
_RUN_EPILOG: Final = """\
Each experiment's result is DIR/NAME.json, written after every run: what was interrupted goes on where it stopped when
the same command is given again. A result of other code, another machine, size or seed is refused. Measure on a machine
that does nothing else.

examples:
  megaphone bench list
  megaphone bench run machine marks --output results
  megaphone bench run all --size smoke --output build/smoke
  megaphone bench compare results results-of-yesterday
  megaphone bench targets results"""
_COMPARE_EPILOG: Final = """\
A rate is compared as a share of the yardstick of its minute. The ratio is the median over all pairs of a run of A and a
run of B, with the least and the most of them; p is the chance of such ranks if A and B were the same (Mann and
Whitney's test, exact), adjusted for all tests of the comparison (Benjamini and Hochberg): of what it calls better or
worse, about one in twenty is chance. Below 0.05 the difference counts as proven. Else it is noise; or there are too few
runs, where not even ranks wholly apart could have been below: 3 runs against 3, or 2 against 7, never are, by
themselves 4 against 4, or 3 against 5, can be, and among many tests it takes more.

Two folders are runs of two hours and not in turns. A share of a yardstick hardly minds; latencies of different hours
differ without a cause in the code, and "proven" only says that the hours differ. To compare two commits in turns, use
python -m megaphone.bench.against. Results of different sizes are refused.

example:
  megaphone bench compare results results-of-yesterday"""

_PLOT_ABOUT: Final = "Draw the results of a folder: charts as PNG and SVG, whose files are named on standard output."
_PLOT_EPILOG: Final = """\
Needs matplotlib: pip install 'megaphone[plot]'. A result is drawn as far as it goes, also while it is being measured.

example:
  megaphone plot results --output docs/charts"""

_TARGETS_ABOUT: Final = """\
Print what the project promises beside what a folder of results has of it: the median over all rounds, the least and the
most of them, whether the promise is kept, and the command that measured it."""
_TARGETS_EPILOG: Final = """\
Results of the smoke size promise nothing. In a document, a table stands between two lines such as <!-- targets --> and
<!-- /targets -->; --into writes it there, and changes nothing else.

examples:
  megaphone bench targets docs/results/full
  megaphone bench targets docs/results/full --markdown nexmark
  megaphone bench targets docs/results/full --into docs/figures.md"""


def add_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this layer's commands to those of the program."""
    bench = commands.add_parser("bench", help="measure, and compare what was measured", description=ABOUT)
    below = bench.add_subparsers(dest="bench_command", required=True, metavar="COMMAND", title="commands")
    listing = below.add_parser("list", help="the experiments", description="List the experiments and what they show.")
    run = below.add_parser("run", help="run experiments", description=ABOUT, epilog=_RUN_EPILOG)
    run.add_argument("names", nargs="+", metavar="NAME", help="of experiments, or all")
    run.add_argument("--size", choices=SIZES, help="smoke: seconds, and figures that mean little; full (default full)")
    run.add_argument("--repeat", type=as_whole, metavar="N", help="rounds (default: as each experiment says)")
    run.add_argument("--seed", type=as_whole, metavar="N", help="of the first round (default 0)")
    run.add_argument("--output", type=Path, metavar="DIR", help=f"of the results (default {DEFAULT_OUTPUT})")
    compare = below.add_parser(
        "compare", help="what differs between two folders of results",
        description="Compare two folders of results: ratios with their spread, what is proven, and what is noise.",
        epilog=_COMPARE_EPILOG,
    )  # fmt: skip
    compare.add_argument("a", type=Path, metavar="A", help="a folder of results")
    compare.add_argument("b", type=Path, metavar="B", help="another one")
    compare.add_argument(
        "--least", type=as_number, metavar="RATIO",
        help="fail with exit code 1 where B lacks a point that A has, or a rate of it (as a share of its yardstick, or "
        "of what was offered) is below this part of A's",
    )  # fmt: skip
    targets = below.add_parser(
        "targets", help="what was promised beside what was measured", description=_TARGETS_ABOUT,
        epilog=_TARGETS_EPILOG,
    )  # fmt: skip
    targets.add_argument("folder", type=Path, metavar="DIR", help="a folder of results")
    way = targets.add_mutually_exclusive_group()
    way.add_argument(
        "--markdown", nargs="?", const="targets", choices=("targets", "nexmark", "rates", "latencies"),
        help="as a table for a document: targets (the default), or nexmark, the queries beside the original's",
    )  # fmt: skip
    way.add_argument("--into", type=Path, metavar="FILE", help="write the tables into their places in this document")
    for name, command in (("list", listing), ("run", run), ("compare", compare), ("targets", targets)):
        note_flags(command)
        command.set_defaults(command=f"bench {name}")
    plot = commands.add_parser("plot", help="charts of what was measured", description=_PLOT_ABOUT, epilog=_PLOT_EPILOG)
    plot.add_argument("folder", type=Path, metavar="DIR", help="a folder of results")
    plot.add_argument("--output", type=Path, metavar="DIR", help="of the charts (default the same folder)")
    note_flags(plot)
    plot.set_defaults(command="plot")
