"""What a result says of where it comes from, and how a file that is none is told."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from megaphone.bench import results


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
