"""Are the tests worth anything? Puts one mistake at a time into a copy of the tree, and sees whether its test fails.

``python -m tests.mutants.run``, or ``make mutants``.  For each patch in this folder: apply it to a copy of the tree,
build what it changes, run the tests that its header names, and take it back.  The mutant is *caught* when a test fails,
when the process dies, or when it does not end in a multiple of the time that the same tests need without the mistake.
The run fails if a mutant *survives*, if a patch does not apply or does not compile, and if a named test fails, or is
skipped, without any mistake: such a test catches nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.outcome import OUTCOME_VARIABLE
from tests.mutants.patches import FOLDER, ROOT, Mutant, read_mutants
from tests.mutants.workspace import PACKAGE, Builder, BuildError, copy_tree

SAMPLE = 6
LIMIT_FACTOR, LIMIT_SECONDS_MIN = 5, 20.0
BASELINE_SECONDS_MAX = 300.0
WHAT_WIDTH, BY_WIDTH = 72, 78


@dataclass(frozen=True)
class Verdict:
    """How the tests of a mutant ended: ``how`` is empty if all passed, ``error`` says why the run was worth nothing."""

    how: str = ""
    by: str = ""
    error: str = ""
    seconds: float = 0.0

    @property
    def caught(self) -> bool:
        return bool(self.how) and not self.error


def judge(returncode: int, outcome: dict[str, object] | None, said: str) -> tuple[str, str, str]:
    """Return how a run of pytest failed, which test failed, and what is wrong with the run itself.

    Args:
        returncode: of pytest, negative for a signal.
        outcome: what the plugin has noted, None if the process died before it could.
        said: what pytest printed.
    """
    if returncode < 0:
        return f"crash, {signal.Signals(-returncode).name}", "", ""
    failed = outcome["failed"] if outcome else None
    if returncode == 1 and isinstance(failed, list) and failed:
        kind, message = failed[0]["kind"], failed[0]["message"]
        how = "assertion" if kind in ("AssertionError", "FlakyFailure") else kind
        if kind == "Failed":  # what pytest.fail raises, and pytest-timeout through it
            how = "hang" if message.startswith("Timeout") else "assertion"
        return how, str(failed[0]["test"]), ""
    if returncode == 0 and outcome and outcome["passed"] and not outcome["skipped"]:
        return "", "", ""
    if returncode == 0:
        return "", "", f"nothing ran, or a test was skipped: {_last(said)}"
    return "", "", f"pytest ended with code {returncode}: {_last(said)}"


def _last(said: str, lines: int = 6) -> str:
    return " / ".join(line for line in said.strip().splitlines()[-lines:] if line.strip())


class Job:
    """One copy of the tree, in which one mutant at a time is tried."""

    def __init__(self, folder: Path, builder: Builder) -> None:
        self.tree = folder / "tree"
        self.outcome = folder / "outcome.json"
        self.builder = builder
        self.process: subprocess.Popen[bytes] | None = None
        copy_tree(ROOT, self.tree)
        builder.build(self.tree)

    def test(self, tests: Iterable[str], seconds_max: float) -> Verdict:
        """Run tests in this copy."""
        self.outcome.unlink(missing_ok=True)
        # Compiled files are compared by second and size, and a mistake may come and go within one.
        environment = os.environ | {
            "PYTHONPATH": str(self.tree),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONFAULTHANDLER": "",
            OUTCOME_VARIABLE: str(self.outcome),
        }
        # That an example is too large to be printed is a warning, and would be told in place of what is wrong with it.
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutants.outcome",
                   "-m", "", "-W", "ignore::hypothesis.errors.HypothesisWarning", "--hypothesis-seed=0", "--tb=line",
                   *tests]  # fmt: skip
        start = time.monotonic()
        with tempfile.TemporaryFile("w+") as said:
            self.process = process = subprocess.Popen(
                command, cwd=self.tree, env=environment, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(seconds_max)
            except subprocess.TimeoutExpired:
                self.end()
                return Verdict(how="hang", by=" ".join(tests), seconds=time.monotonic() - start)
            seconds = time.monotonic() - start
            said.seek(0)
            outcome = json.loads(self.outcome.read_text()) if self.outcome.exists() else None
            how, by, error = judge(process.returncode, outcome, said.read())
        return Verdict(how, by or (" ".join(tests) if how else ""), error, seconds)

    def end(self) -> None:
        """End what is running here, with all that it has started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def try_mutant(self, mutant: Mutant, seconds_max: float) -> Verdict:
        """Make the mistake, see what its tests say, and take it back."""
        before = {name: (self.tree / name).read_bytes() for name in mutant.files if (self.tree / name).exists()}
        is_native = any(name.endswith((".c", ".h")) for name in mutant.files)
        # From the copy, which is no repository: git then neither looks for one nor cares for its state.
        applied = subprocess.run(
            ["git", "apply", str(mutant.path)], cwd=self.tree, capture_output=True, text=True, check=False,
            env=os.environ | {"GIT_CEILING_DIRECTORIES": str(self.tree.parent)},
        )  # fmt: skip
        if applied.returncode:
            return Verdict(error=f"the patch does not apply: {_last(applied.stderr)}")
        try:
            if before == {name: (self.tree / name).read_bytes() for name in before}:
                return Verdict(error="the patch changes nothing")
            if is_native:
                self.builder.build(self.tree)
            return self.test(mutant.tests, seconds_max)
        except BuildError as error:
            return Verdict(error=f"the mutant does not compile: {_last(str(error))}")
        finally:
            for name, content in before.items():
                (self.tree / name).write_bytes(content)
            if is_native:
                self.builder.build(self.tree)  # all objects are there


class Runner:
    """Tries mutants in several copies at once.

    Args:
        folder: where the copies lie.
        jobs: how many.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        builder = Builder(ROOT / "build" / "mutants", jobs)
        self.jobs = jobs
        self._free: queue.Queue[Job] = queue.Queue()
        self._all: list[Job] = []
        for index in range(jobs):
            (folder / str(index)).mkdir()
            self._all.append(Job(folder / str(index), builder))
            self._free.put(self._all[-1])

    def baseline(self, tests: tuple[str, ...]) -> Verdict:
        """Run tests without any mistake."""
        job = self._free.get()
        try:
            return job.test(tests, BASELINE_SECONDS_MAX)
        finally:
            self._free.put(job)

    def mutant(self, mutant: Mutant, seconds: float) -> Verdict:
        """Try a mutant whose tests need so many seconds without it."""
        job = self._free.get()
        try:
            return job.try_mutant(mutant, max(LIMIT_SECONDS_MIN, LIMIT_FACTOR * seconds))
        finally:
            self._free.put(job)

    def run(self, mutants: list[Mutant]) -> dict[str, Verdict]:
        """Try mutants; those whose tests fail without them are not tried."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            lists = sorted({mutant.tests for mutant in mutants})
            sound = dict(zip(lists, pool.map(self.baseline, lists), strict=True))

            def verdict(mutant: Mutant) -> Verdict:
                without = sound[mutant.tests]
                if without.how or without.error:
                    return Verdict(error=f"without the mistake: {without.how or without.error} {without.by}")
                found = self.mutant(mutant, without.seconds)
                word = "error" if found.error else "caught" if found.caught else "SURVIVED"
                print(f"{word:8} {found.seconds:6.1f} s  {mutant.name}", file=sys.stderr, flush=True)
                return found

            return dict(zip([mutant.name for mutant in mutants], pool.map(verdict, mutants), strict=True))
        finally:
            # In the ordinary case there is nothing left; Ctrl-C reaches nobody who runs in a session of his own.
            pool.shutdown(wait=False, cancel_futures=True)
            for job in self._all:
                job.end()
            pool.shutdown()


# -- which -----------------------------------------------------------------------------------------------------------


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def changed_files(reference: str) -> set[str] | None:
    """Return what differs from a commit, untracked files included; None if that commit is not there or is HEAD."""
    commit, head = _git("rev-parse", "--verify", f"{reference}^{{commit}}"), _git("rev-parse", "--verify", "HEAD")
    if commit is None or head is None or commit == head:
        return None
    names = [_git("diff", "--name-only", commit), _git("ls-files", "--others", "--exclude-standard")]
    return {name for listed in names for name in (listed or "").splitlines()}


def concerned(mutants: list[Mutant], changed: set[str]) -> list[Mutant]:
    """Return the mutants whose patch, patched file or test file is among those that changed."""
    return [
        mutant
        for mutant in mutants
        if changed & {*mutant.files, *mutant.test_files, mutant.path.relative_to(ROOT).as_posix()}
    ]


def sample(mutants: list[Mutant], seed: str, count: int = SAMPLE) -> list[Mutant]:
    """Return a few mutants that depend on the seed alone: another commit has others, so that each has its turn."""

    def rank(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()

    return sorted(sorted(mutants, key=rank)[:count], key=lambda mutant: mutant.name)


def select(mutants: list[Mutant], names: list[str], reference: str | None) -> list[Mutant]:
    """Return the mutants that the command line asks for."""
    if names:
        return [mutant for mutant in mutants if any(name in mutant.name for name in names)]
    if reference is None:
        return mutants
    changed = changed_files(reference)
    if chosen := concerned(mutants, changed) if changed is not None else []:
        return chosen
    why = "is HEAD, or no commit here" if changed is None else "differs by nothing that a mutant is about"
    print(f"{reference} {why}: trying {SAMPLE} others", file=sys.stderr)
    return sample(mutants, _git("rev-parse", "HEAD") or "")


# -- what is said ----------------------------------------------------------------------------------------------------


def table(mutants: list[Mutant], verdicts: dict[str, Verdict]) -> str:
    """Return a line for each mutant, in columns, and what kept mutants from being tried."""
    rows = [("mutant", "what is wrong", "caught by", "how", "seconds")]
    for mutant in mutants:
        verdict = verdicts[mutant.name]
        # Without their folders: names of tests are sentences.
        by = verdict.by.split(" ")[0].rpartition("/")[2] if verdict.caught else "-"
        how = verdict.how if verdict.caught else "ERROR" if verdict.error else "SURVIVED"
        rows.append((mutant.name, _cut(mutant.what, WHAT_WIDTH), _cut(by, BY_WIDTH), how, f"{verdict.seconds:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), f"{row[4]:>7}"])
             for row in rows]  # fmt: skip
    errors = [f"{mutant.name}: {verdicts[mutant.name].error}" for mutant in mutants if verdicts[mutant.name].error]
    return "\n".join([*lines, *errors])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def report(mutants: list[Mutant], verdicts: dict[str, Verdict]) -> list[dict[str, object]]:
    """Return the same for a program."""
    return [
        {
            "name": mutant.name,
            "what": mutant.what,
            "invariants": list(mutant.invariants),
            "files": list(mutant.files),
            "tests": list(mutant.tests),
            "caught": verdicts[mutant.name].caught,
            "caught_by": verdicts[mutant.name].by,
            "how": verdicts[mutant.name].how,
            "error": verdicts[mutant.name].error,
            "seconds": round(verdicts[mutant.name].seconds, 2),
        }
        for mutant in mutants
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 if every mutant was caught, 1 if not, 2 if none was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the names of mutants; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree in use at once (default: 2)")
    parser.add_argument(
        "--changed", metavar="REF", help=f"only those that what differs from REF concerns; if none, {SAMPLE} others"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same here")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"argument --jobs: {options.jobs} copies try nothing: give 1 or more")
    mutants = select(read_mutants(FOLDER), options.names, options.changed)
    if not mutants:
        print(f"no mutant of {FOLDER} has such a name", file=sys.stderr)
        return 2
    # TERM leaves no more behind than Ctrl-C does: neither copies nor the tests that run in them.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # Mutants crash: that is no reason to fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-mutants-") as folder:
        verdicts = Runner(Path(folder), options.jobs).run(mutants)
    print(table(mutants, verdicts))
    caught = sum(verdict.caught for verdict in verdicts.values())
    errors = sum(bool(verdict.error) for verdict in verdicts.values())
    print(
        f"{len(mutants)} mutant{'s' * (len(mutants) != 1)}, {caught} caught, {len(mutants) - caught - errors} survived"
        f"{f', {errors} could not be tried' if errors else ''}, {time.monotonic() - start:.0f} s"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report(mutants, verdicts), indent=1) + "\n")
    return 0 if caught == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
