"""The command line: flags become settings, mistakes become one line, and results go where they belong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from megaphone.cli import main
from megaphone.errors import (
    InternalError,
    MegaphoneError,
    PlanError,
    SharedMemoryError,
    StuckError,
    UsageError,
    WorkerError,
    WorkerLostError,
)
from megaphone.observe.files import write_whole
from megaphone.workloads.settings import ExchangeSettings, TextSettings, WordCountSettings
from megaphone.workloads.text import SkippedFile, TextResult

Output = pytest.CaptureFixture[str]


class PlayedReport:
    """What the command line uses of a report."""

    def render(self, output_format: str) -> str:
        return f"report as {output_format}\n"

    def write(self, path: str) -> None:
        write_whole(path, '{"played": true}\n')


@dataclass
class Played:
    """Workloads that note what they were asked for; `act` may do something on the way."""

    asked: list[Any] = field(default_factory=list)
    act: Callable[[], object] = lambda: None
    result: TextResult = field(
        default_factory=lambda: TextResult(
            PlayedReport(),  # type: ignore[arg-type]
            ["b", "Σ".lower(), "a"],
            np.array([1, 3, 1], np.uint64),
        )
    )

    def run_text(self, settings: TextSettings) -> TextResult:
        self.run(settings)
        return self.result

    def run(self, settings: object) -> PlayedReport:
        self.asked.append(settings)
        self.act()
        return PlayedReport()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    workloads = Played()
    word_count = ModuleType("megaphone.workloads.word_count")
    exchange = ModuleType("megaphone.workloads.exchange")
    text_count = ModuleType("megaphone.workloads.text_count")
    vars(word_count).update(run_synthetic=workloads.run)
    vars(text_count).update(run_text=workloads.run_text)
    vars(exchange).update(run=workloads.run)
    for module in (word_count, text_count, exchange):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return workloads


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def refused(output: Output, *argv: str) -> str:
    """Return the one line that a refusal prints, after checking that it is one and that nothing else came."""
    assert main(argv) == 2
    out, err = output.readouterr()
    assert out == ""
    assert err.startswith("megaphone: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


def test_all_flags_of_word_count_reach_the_settings(played: Played, tmp_path: Path) -> None:
    report = str(tmp_path / "report")
    argv = (
        "word-count --rate 5e4 --duration 2.5 --domain 1e6 --migration batched --backend vec --hash mix -w 3"
        " --bin-shift 4 --transfer copy --gap 1000 --batch-bins 2 --initial half --target one --validate --no-preload"
        " --slices --pss-interval 0.5 --seed 7 --memory 512M --format tsv --report"
    )
    assert main([*argv.split(), report]) == 0
    expected = WordCountSettings(
        rate_per_worker=50_000.0,
        duration_s=2.5,
        domain=1_000_000,
        migration="batched",
        backend="vec",
        hash="mix",
        workers=3,
        bin_shift=4,
        transfer="copy",
        gap_ns=1000,
        batch_bins=2,
        slices=True,
        pss_interval_s=0.5,
        initial="half",
        target="one",
        validate=True,
        preload=False,
        seed=7,
        memory_bytes=512 << 20,
        format="tsv",
        report_path=report,
    )
    assert played.asked == [expected]


def test_without_flags_the_defaults_of_the_settings_hold(played: Played) -> None:
    assert main(["word-count"]) == 0
    assert main(["exchange"]) == 0
    assert played.asked == [WordCountSettings(), ExchangeSettings()]


def test_the_total_rate_is_shared_by_the_workers(played: Played) -> None:
    assert main(["word-count", "--total-rate", "1000", "-w", "4"]) == 0
    assert main(["word-count", "--rate", "max"]) == 0
    assert [asked.rate_per_worker for asked in played.asked] == [250.0, None]


def test_all_flags_of_text_reach_the_settings(played: Played, tmp_path: Path) -> None:
    output = str(tmp_path / "counts")
    argv = ["word-count", "--text", "a", "-", "--top", "5", "--rate", "9", "--validate", "--text", "b"]
    assert main([*argv, "--output", output]) == 0
    assert played.asked == [
        TextSettings(paths=("a", "-", "b"), top=5, rate_per_worker=9.0, compare_with_counter=True, output_path=output)
    ]


def test_the_demo_reads_python_and_text_files_and_by_default_the_standard_library(played: Played) -> None:
    assert main(["word-count", "--demo"]) == 0
    assert main(["word-count", "--demo", "--text", "folder"]) == 0
    by_default, named = played.asked
    assert (Path(by_default.paths[0]) / "argparse.py").exists()
    assert named.paths == ("folder",)
    for settings in played.asked:
        assert settings.demo
        assert settings.compare_with_counter
        assert settings.suffixes == (".py", ".txt")
        assert "site-packages" in settings.exclude_folders


def test_all_flags_of_exchange_reach_the_settings(played: Played) -> None:
    argv = "exchange -w 4 --records 1000 --batch 10 --columns key:u64,x:f32 --times --format json --seed 1 --memory 1G"
    assert main(argv.split()) == 0
    assert played.asked == [
        ExchangeSettings(
            workers=4,
            records=1000,
            batch_records=10,
            columns="key:u64,x:f32",
            times=True,
            format="json",
            seed=1,
            memory_bytes=1 << 30,
        )
    ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("count", "invalid choice: 'count'"),
        ("word-count --rat 5", "unrecognized arguments: --rat 5"),
        ("word-count -w 0", "--workers 0: must be a whole number from 1 to 64"),
        ("word-count -w 65", "--workers 65"),
        ("word-count -w two", "-w/--workers: 'two' is not a whole number: give one such as 4 or 1e6"),
        ("word-count --rate 0", "--rate 0"),
        ("word-count --rate nan", "--rate nan"),
        ("word-count --rate -1", "--rate -1"),
        ("word-count --rate fast", "--rate: 'fast' is not a rate: give records per second such as 100000, or max"),
        ("word-count --total-rate 0", "--total-rate 0"),
        ("word-count --total-rate nan", "--total-rate nan"),
        ("word-count --total-rate 5 -w 0", "--workers 0"),
        ("word-count --total-rate 5 --rate 5", "--rate: not allowed with argument --total-rate"),
        ("word-count --domain 0", "--domain 0"),
        ("word-count --rate max --slices", "--slices: with --rate max no record is due at any time: give a --rate"),
        ("word-count --duration 0", "--duration 0"),
        ("word-count --duration inf", "--duration inf"),
        ("word-count --pss-interval 0", "--pss-interval 0"),
        ("word-count --bin-shift 21", "--bin-shift 21: must be a whole number from 1 to 20"),
        ("word-count --gap -1", "--gap -1"),
        ("word-count --memory lots", "--memory: 'lots' is not a size: give one such as 512M, 64MiB or 2G"),
        ("word-count --memory 1K", "--memory 1024: 2 workers need at least 8M"),
        ("word-count --backend tree", "--backend: invalid choice: 'tree'"),
        ("word-count --migration nowhere", "nowhere:0: cannot be read"),
        ("word-count --initial 0:9", "--initial: "),
        ("word-count --top 5", "--top needs --text PATH"),
        ("word-count --text", "--text: expected at least one argument"),
        ("word-count --text x --domain 5", "--domain does not go with --text: leave it out"),
        ("word-count --text x --no-preload", "--no-preload does not go with --text"),
        ("word-count --text x --backend vec", "--backend 'vec': unknown for words"),
        ("word-count --demo --migration fluid", "--migration fluid: --demo has migrations of its own"),
        ("word-count --report /nowhere/report", "'/nowhere/report'"),
        ("word-count --text x --output /nowhere/counts", "'/nowhere/counts'"),
        ("word-count --text x --output same --report ./same", "--output and --report both name 'same'"),
        ("plan", "the following arguments are required: strategy"),
        ("plan none", "strategy: invalid choice: 'none'"),
        ("plan fluid --bin-shift 0", "--bin-shift 0"),
        ("plan fluid --at nan", "--at nan"),
        ("exchange --records 0", "--records 0"),
        ("exchange --columns key", "'key' is not name:type"),
    ],
)
def test_a_mistake_is_refused_with_one_line_before_anything_runs(
    played: Played, capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *argv.split())
    assert played.asked == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("what"), 2),
        (PlanError("what"), 2),
        (MegaphoneError("what"), 1),
        (WorkerLostError("what"), 3),
        (SharedMemoryError("what"), 4),
        (StuckError("what"), 5),
        (InternalError("what"), 70),
    ],
)
def test_an_error_has_its_exit_code_and_one_line(
    played: Played, capsys: Output, error: MegaphoneError, code: int
) -> None:
    played.act = raising(error)
    assert main(["word-count"]) == code
    assert capsys.readouterr() == ("", "megaphone: error: what\n")


def test_a_message_of_several_lines_is_printed_on_one(played: Played, capsys: Output) -> None:
    played.act = raising(UsageError("what\nand why"))
    assert main(["word-count"]) == 2
    assert capsys.readouterr().err == "megaphone: error: what and why\n"


def test_the_users_traceback_comes_before_the_line_when_it_came_as_text(played: Played, capsys: Output) -> None:
    error = WorkerError("worker 1: ValueError: no")
    error.__cause__ = RuntimeError("Traceback of the worker\n  line")
    played.act = raising(error)
    assert main(["word-count"]) == 1
    err = capsys.readouterr().err
    assert err == "Traceback of the worker\n  line\nmegaphone: error: worker 1: ValueError: no\n"


def test_the_users_traceback_comes_before_the_line_when_it_is_an_exception(played: Played, capsys: Output) -> None:
    def act() -> None:
        try:
            int("their code")
        except ValueError as error:
            message = "worker 1"
            raise WorkerError(message) from error

    played.act = act
    assert main(["word-count"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert 'int("their code")' in err
    assert err.endswith("megaphone: error: worker 1\n")


def test_a_worker_error_without_a_cause_is_one_line(played: Played, capsys: Output) -> None:
    played.act = raising(WorkerError("worker 1"))
    assert main(["word-count"]) == 1
    assert capsys.readouterr().err == "megaphone: error: worker 1\n"


def test_a_bug_of_ours_shows_its_traceback_and_has_its_own_exit_code(played: Played, capsys: Output) -> None:
    played.act = raising(ZeroDivisionError("oh"))
    assert main(["word-count"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("a bug in megaphone itself: oh: please report it with the lines above\n")


def test_ctrl_c_ends_with_130_and_without_a_traceback(played: Played, capsys: Output) -> None:
    played.act = raising(KeyboardInterrupt())
    assert main(["word-count"]) == 130
    assert capsys.readouterr().err == "megaphone: interrupted\n"


def test_term_unwinds_the_run_and_ends_with_143(played: Played, capsys: Output) -> None:
    before = signal.getsignal(signal.SIGTERM)
    unwound = []

    def act() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            unwound.append(signal.getsignal(signal.SIGTERM))

    played.act = act
    assert main(["word-count"]) == 143
    assert capsys.readouterr().err == "megaphone: terminated\n"
    # While the first one is being obeyed, a second TERM kills.
    assert unwound == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_term_that_the_parent_ignores_stays_ignored(played: Played) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        played.act = lambda: signal.raise_signal(signal.SIGTERM)
        assert main(["word-count"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_command_may_run_in_any_thread(played: Played) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["word-count"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert len(played.asked) == 1


def test_the_report_goes_to_standard_output_and_to_its_file(played: Played, capsys: Output, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert main(["word-count", "--format", "json", "--report", str(path)]) == 0
    assert capsys.readouterr() == ("report as json\n", "")
    assert json.loads(path.read_text()) == {"played": True}
    assert len(played.asked) == 1


def test_the_figures_of_a_run_are_printed_even_if_their_file_cannot_be_written_any_more(
    played: Played, capsys: Output, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    played.act = folder.rmdir
    assert main(["word-count", "--report", str(folder / "report")]) == 2
    out, err = capsys.readouterr()
    assert out == "report as human\n"
    assert err.startswith("megaphone: error: cannot write")


def test_counts_go_to_standard_output_and_the_report_for_people_beside_them(played: Played, capsys: Output) -> None:
    assert main(["word-count", "--text", "x"]) == 0
    assert capsys.readouterr() == ("σ\t3\na\t1\nb\t1\n", "report as human\n")
    assert main(["word-count", "--text", "x", "--top", "1"]) == 0
    assert capsys.readouterr().out == "σ\t3\n"
    assert len(played.asked) == 2


def test_a_report_for_machines_has_standard_output_for_itself(played: Played, capsys: Output, tmp_path: Path) -> None:
    assert main(["word-count", "--text", "x", "--format", "json"]) == 0
    assert capsys.readouterr() == ("report as json\n", "")
    counts = tmp_path / "counts"
    assert main(["word-count", "--text", "x", "--format", "tsv", "--output", str(counts)]) == 0
    assert capsys.readouterr() == ("report as tsv\n", "")
    assert counts.read_text(encoding="utf-8") == "σ\t3\na\t1\nb\t1\n"
    assert len(played.asked) == 2


def test_with_an_output_file_the_report_for_people_is_on_standard_output(
    played: Played, capsys: Output, tmp_path: Path
) -> None:
    counts, report = tmp_path / "counts", tmp_path / "report"
    argv = ["word-count", "--text", "x", "--output", str(counts), "--report", str(report)]
    assert main(argv) == 0
    assert capsys.readouterr() == ("report as human\n", "")
    assert counts.exists()
    assert report.exists()
    assert len(played.asked) == 1


def test_skipped_files_are_counted_and_named_and_the_comparison_is_told(played: Played, capsys: Output) -> None:
    skipped = [SkippedFile("dir/a.bin", 0, 1), SkippedFile("dir/b", 9, 2)]
    for agrees, said in ((True, "gives the same counts, for 3 different words"), (False, "OTHER counts")):
        played.result = TextResult(
            played.result.report, played.result.words, played.result.counts, skipped, counter_agrees=agrees
        )
        main(["word-count", "--text", "dir"])
        err = capsys.readouterr().err
        assert "2 files skipped that are not UTF-8:\n  dir/a.bin: not UTF-8 at byte 0 (line 1)\n  dir/b: " in err
        assert said in err


def test_a_plan_is_written_to_standard_output_and_told_on_standard_error(capsys: Output) -> None:
    argv = "plan fluid --bin-shift 2 --workers 2 --initial uniform --target half --at 0.5"
    assert main(argv.split()) == 0
    out, err = capsys.readouterr()
    assert out == "M 0 0 1 0 1\nD 500000000 1 0\nD 500000000 3 0\n"
    assert err == "fluid: 2 moves of 4 bins in 2 steps, 1 migration\n"


def test_a_plan_that_moves_nothing_says_so(capsys: Output) -> None:
    assert main(["plan", "sudden", "--target", "uniform"]) == 0
    assert "moves nothing" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "word-count", "plan", "exchange", "doctor"])
def test_every_command_explains_itself(capsys: Output, command: str) -> None:
    assert main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: megaphone")
    assert err == ""


def test_the_version_can_be_asked_for(capsys: Output) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("megaphone ")


class FullDisk(io.RawIOBase):
    """Standard output that takes nothing."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device"), 2, "megaphone: error: standard output: cannot be written (No space"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
    ],
)
def test_standard_output_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, error: OSError, code: int, said: str
) -> None:
    raw = FullDisk(error)
    stdout = io.TextIOWrapper(io.BufferedWriter(raw))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert main(["plan", "fluid"]) == code
    err = capsys.readouterr().err
    # The plan's own line comes before the text is flushed.
    assert (said in err) if said else ("error" not in err)
    raw.write = lambda data: len(data)  # type: ignore[assignment, method-assign, arg-type]
    stdout.close()


def test_output_is_whole_where_one_call_writes_a_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unbuffered(io.RawIOBase):
        written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.written += bytes(data[:7])
            return min(len(data), 7)

    raw = Unbuffered()
    # As python -u makes it: text over the raw file, without a buffer between.
    stdout = io.TextIOWrapper(raw, write_through=True)  # type: ignore[type-var]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert main(["plan", "sudden", "--bin-shift", "2", "--target", "half"]) == 0
    assert raw.written == b"M 0 0 1 0 1\nM 1000000000 0 0 0 0\n"


def test_doctor_tells_what_a_run_would_get(capsys: Output) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for topic in ("shared memory", "cores", "huge pages", "slab", "ring", "workers"):
        assert topic in out


def test_doctor_speaks_also_where_no_run_would_be_possible(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr("megaphone.shm.limits.default_memory_bytes", lambda: 4096)
    assert main(["doctor"]) == 0
    assert " 4.0 KiB for a run" in capsys.readouterr().out


def test_closed_standard_output_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["plan", "fluid"]) == 2
    assert "standard output is closed" in capsys.readouterr().err


def run(*argv: str, **options: Any) -> subprocess.Popen[bytes]:
    # Buffered, as for a user; test machines often say otherwise, and then nothing is left to be flushed at exit.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "megaphone", *argv]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, **options)


@pytest.mark.process
def test_a_reader_that_has_enough_is_no_error() -> None:
    with run("plan", "fluid", "--bin-shift", "16", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert b"rror" not in process.stderr.read()
        assert process.wait(30) == 0


@pytest.mark.process
@pytest.mark.parametrize("argv", ["plan sudden --bin-shift 2", "--help"])
def test_a_reader_that_was_never_there_is_no_error_either(argv: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with run(*argv.split(), stdout=writing) as process:
        os.close(writing)
        assert process.stderr is not None
        assert b"rror" not in process.stderr.read()
        assert process.wait(30) == 0


@pytest.mark.process
def test_words_are_utf8_on_standard_output_whatever_the_locale() -> None:
    # Through a workload that is played, since what is tested is the way out.
    source = "from megaphone import cli; cli._say(['\\u03c3\\t3\\n']); cli._flush_stdout()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, env=environment, check=False, timeout=30)
    assert done.stdout == "σ\t3\n".encode()
    assert done.returncode == 0


@pytest.mark.process
def test_help_imports_nothing_that_is_slow() -> None:
    source = (
        "import sys\n"
        "from megaphone.cli import main\n"
        "assert main(['--help']) == 0\n"
        "loaded = {'megaphone.workloads.word_count', 'megaphone.workloads.text', 'megaphone.observe.report'}\n"
        "sys.exit(sorted(loaded & sys.modules.keys()) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
