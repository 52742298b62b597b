"""What a result says of where it comes from, and how a file that is none is told."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from megaphone.bench import results
from megaphone.cli import main
from megaphone.errors import UsageError

FULL = Path(__file__).parents[3] / "docs" / "results" / "full"


def installed(monkeypatch: pytest.MonkeyPatch, also: dict[str, str]) -> None:
    """Let packages be installed beside those of this environment, of which no rival is."""
    real = metadata.version

    def version(name: str) -> str:
        if name in also:
            return also[name]
        if name in ("numpy", "cffi", "posix_ipc", "psutil"):
            return real(name)
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)


def test_a_result_names_the_rivals_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {})
    assert {*results.packages()} == {"numpy", "cffi", "posix_ipc", "psutil"}
    installed(monkeypatch, {"iceoryx2": "0.7", "bytewax": "0.21"})
    found = results.packages()
    assert (found["iceoryx2"], found["bytewax"]) == ("0.7", "0.21")
    assert "MPI" not in found


@pytest.mark.parametrize(
    ("stdout", "code", "told"),
    [("Open MPI v4.1.4, ident\n\0", 0, "Open MPI v4.1.4, ident"), ("", 1, None), ("half", 1, None), ("\n", 0, None)],
)
def test_mpi_is_named_beside_its_package(
    monkeypatch: pytest.MonkeyPatch, stdout: str, code: int, told: str | None
) -> None:
    installed(monkeypatch, {"mpi4py": "4.0"})
    ended = subprocess.CompletedProcess([], code, stdout, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    found = results.packages()
    assert (found["mpi4py"], found.get("MPI")) == ("4.0", told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x7fELF\0GCC: (Debian 12.2.0-14) 12.2.0\0.text", "GCC: (Debian 12.2.0-14) 12.2.0"),
        (b"\0Debian clang version 14.0.6\0", "Debian clang version 14.0.6"), (b"\x7fELF stripped", "unknown"),
        (None, "unknown"),
    ],
)  # fmt: skip
def test_the_compiler_is_what_the_extension_says_it_was(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "_core.so"
    if content is not None:
        path.write_bytes(content)
    assert results.compiler(path) == told


def test_a_result_names_compiler_and_packages() -> None:
    head = results.head_of("bins", "smoke", 0, "")
    assert head["compiler"] == results.compiler()
    assert head["packages"] == results.packages()


def damaged(path: Path, where: str, name: str, value: object) -> None:
    """Write a result whose head or first row has something wrong in it, or, with None, does not have it."""
    content = json.loads((FULL / "bins.json").read_text())
    at = content if where == "head" else content["rows"][1]
    if value is None:
        del at[name]
    else:
        at[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("where", "name", "value", "told"),
    [
        ("head", "commit", None, "has no 'commit'"), ("head", "tree", None, "has no 'tree'"),
        ("head", "command", None, "has no 'command'"),
        ("head", "size", "huge", r"has 'huge' as 'size', which is no size \(smoke or full\)"),
        ("head", "machine", "x", "has 'x' as 'machine', which is no object"),
        ("head", "rows", {}, "has '{}' as 'rows', which is no list"),
        ("head", "seed", True, "has 'True' as 'seed', which is no whole number"),
        ("row", "point", None, "row 2 has no 'point'"), ("row", "paced", None, "row 2 has no 'paced'"),
        ("row", "figures", None, "row 2 has no 'figures'"), ("row", "yardstick", None, "row 2 has no 'yardstick'"),
        ("row", "command", None, "row 2 has no 'command'"),
        ("row", "series", None, "row 2 has no 'series'"),
        ("row", "repeat", "first", "row 2 has 'first' as 'repeat', which is no whole number"),
        ("row", "figures", {"p50_ms": []}, "row 2 has .* as 'figures', which is no object of numbers"),
        ("row", "yardstick", {"x": None}, "row 2 has .* as 'yardstick', which is no object of numbers"),
        ("row", "point", {"x": []}, "row 2 has .* as 'point', which is no object of texts"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [("plot",), ("bench", "targets"), ("bench", "compare")])
def test_a_damaged_result_is_told_in_one_line_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, name: str, value: object, told: str,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    if words == ("plot",):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: the extra plot brings it")
    path = tmp_path / "bins.json"
    damaged(path, where, name, value)
    folders = [str(tmp_path)] * (2 if words[-1] == "compare" else 1)
    assert main([*words, *folders]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"megaphone: error: {re.escape(str(path))}: {told}.*: restore the file, or remove it .*", line)


def test_a_row_that_is_no_object_is_told(tmp_path: Path) -> None:
    content = json.loads((FULL / "bins.json").read_text())
    (tmp_path / "bins.json").write_text(json.dumps({**content, "rows": [content["rows"][0], 7]}))
    with pytest.raises(UsageError, match=r"bins\.json: row 2 is no object: restore"):
        results.read(tmp_path / "bins.json")


def test_a_result_of_another_format_is_not_passed_over(tmp_path: Path) -> None:
    damaged(tmp_path / "bins.json", "head", "format", 2)
    with pytest.raises(UsageError, match=r"bins\.json: is of format 2, and this version reads 1: run .* again"):
        results.read_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "\0", "[" * 100_000])
def test_what_is_no_result_is_passed_over_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "notes.json").write_text(text)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UsageError, match=r"folder\.json: cannot be read as a result"):
        results.read_folder(tmp_path)
    (tmp_path / "bins.json").write_bytes((FULL / "bins.json").read_bytes())
    assert [*results.read_folder(tmp_path)] == ["bins"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(".json: ")[0] for line in lines] == [
        f"megaphone: {tmp_path}/{name}" for name in ("folder", "notes")
    ]
    assert all(line.endswith(": skipped") for line in lines)


def test_two_results_of_one_experiment_are_refused_with_both_names(tmp_path: Path) -> None:
    for name in ("bins", "bins-old"):
        (tmp_path / f"{name}.json").write_bytes((FULL / "bins.json").read_bytes())
    with pytest.raises(UsageError, match=r"bins-old\.json and .*bins\.json are both results of bins: remove one"):
        results.read_folder(tmp_path)


@pytest.mark.parametrize(
    "path", sorted(FULL.parent.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_the_results_of_the_documents_are_whole(path: Path) -> None:
    assert results.read(path).head["experiment"] == path.stem


@pytest.mark.parametrize("seed", ["-1", str(2**63 + 1)])
def test_a_seed_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: str) -> None:
    output = tmp_path / "out"
    assert main(["bench", "run", "bins", "--size", "smoke", "--seed", seed, "--output", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"megaphone: error: --seed: {seed} is no seed: give a whole number from 0")
    assert not output.exists()
