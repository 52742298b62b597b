"""Rules about the tree itself: layers, the two ends of each synchronisation, and nothing of one machine in it."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "megaphone"

# A file imports from its own layer or a lower one. What stands directly in the package is listed by its stem.
LAYERS = {
    "errors": 0,
    "abi": 0,
    "_abi": 0,
    "version": 0,
    "_build": 0,
    "_core": 0,
    "shm": 1,
    "progress": 2,
    "dataflow": 3,
    "state": 4,
    "migration": 5,
    "observe": 6,
    "workloads": 7,
    "bench": 8,
    "testing": 9,
    "cli": 9,
    "__main__": 9,
    # The public face: it imports from everywhere, and nothing in the package imports from it.
    "__init__": 10,
}

SYNC_SECTION = re.compile(r"^ \* Sync\b(?P<body>.*?)(?=^ \* [A-Z][a-z]+\b|\*/)", re.MULTILINE | re.DOTALL)
SYNC_ANNOUNCED = re.compile(r"^[\s*]*(?P<letter>[A-Z][0-9]?)\s{2,}\S.*->", re.MULTILINE)
SYNC_PLACED = re.compile(r"\bSYNC (?P<letter>[A-Z][0-9]?)\b")

# One bracketed letter in each keeps this file, and whoever searches for the same, from finding this file.
OF_ONE_MACHINE = re.compile(
    r"/wor[k]/|/far[m]/|/roo[t]/|\.librar[y]|p[y]pi\.|n[p]mjs|pythonh[o]sted|farm-benc[h]|DESIG[N]\.md|STYL[E]\.md"
)
# What make writes, for a copy of the tree without git.
WRITTEN_BY_MAKE = re.compile(r"(^|/)(\.venv|build|dist|__pycache__|\.\w+_cache|\.hypothesis|[^/]*\.egg-info)/|\.so$")


def layer_of(path: Path, package: Path) -> str:
    """Return the layer's name of a file: its first folder, or its stem where it stands in the package itself."""
    parts = path.relative_to(package).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported_modules(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name, below the package, of each import of the package anywhere in a file.

    ``from megaphone import name`` is the module of that name where there is one, else the face.
    """
    own = [package.name, *path.relative_to(package).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package.name:
                    yield node.lineno, alias.name.partition(".")[2] or "__init__"
        elif isinstance(node, ast.ImportFrom):
            base = own[: -node.level] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            if module[:1] != [package.name]:
                continue
            if len(module) > 1:
                yield node.lineno, ".".join(module[1:])
                continue
            for alias in node.names:
                is_module = (package / alias.name).is_dir() or any(package.glob(f"{alias.name}.*"))
                yield node.lineno, alias.name if is_module else "__init__"


def included_headers(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield line and path, below the package, of each header in quotation marks that a C file includes."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if match := re.match(r'\s*#\s*include\s*"([^"]+)"', line):
            beside = path.parent / match[1]
            yield number, (beside.resolve().relative_to(package) if beside.exists() else Path(match[1])).as_posix()


def upward_references(package: Path) -> list[str]:
    """Return a line for each import and include that goes up, and for each file and target that has no layer."""
    wrong: list[str] = []
    references = [
        (path, number, target, target.split(".")[0])
        for path in sorted(package.rglob("*.py"))
        for number, target in imported_modules(path, package)
    ]
    references += [
        (path, number, target, layer_of(package / target, package))
        for suffix in ("*.c", "*.h")
        for path in sorted(package.rglob(suffix))
        for number, target in included_headers(path, package)
    ]
    for path, number, target, target_layer in references:
        place = f"{path.relative_to(package.parent)}:{number}"
        layer = layer_of(path, package)
        if unknown := {layer, target_layer} - LAYERS.keys():
            wrong.append(f"{place}: {', '.join(sorted(unknown))} has no layer: give it one in LAYERS")
        elif (up := LAYERS[target_layer] - LAYERS[layer]) > 0:
            wrong.append(f"{place}: {layer} ({LAYERS[layer]}) uses {target}, {up} up")
    return wrong


def sync_mismatches(package: Path) -> list[str]:
    """Return a line for each letter of a layer that is announced and lacks an end, or has ends and is not announced."""
    headers: dict[str, Counter[str]] = defaultdict(Counter)
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    for path in [*sorted(package.rglob("*.h")), *sorted(package.rglob("*.c"))]:
        text = path.read_text(encoding="utf-8")
        layer = layer_of(path, package)
        ends[layer].update(match["letter"] for match in SYNC_PLACED.finditer(text))
        if path.suffix == ".h":
            for section in SYNC_SECTION.finditer(text):
                headers[layer].update({match["letter"] for match in SYNC_ANNOUNCED.finditer(section["body"])})
    wrong: list[str] = []
    for layer, letters in sorted(headers.items()):
        for letter, header_count in sorted(letters.items()):
            # A letter that two headers of a layer use has two pairs of ends to show.
            if ends[layer][letter] < 2 * header_count:
                wrong.append(
                    f"{layer}: SYNC {letter} is announced by {header_count} header(s) and placed {ends[layer][letter]} "
                    "time(s): a release and an acquire each need their comment"
                )
    for layer, letters in sorted(ends.items()):
        unannounced = sorted(letters.keys() - headers[layer].keys())
        wrong += [f"{layer}: SYNC {letter} is announced by no header" for letter in unannounced]
    return wrong


def files_of_the_tree() -> list[Path]:
    """Return what git tracks or would offer to track; in a copy without git, every file that make did not write."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        every_file = (path for path in ROOT.rglob("*") if path.is_file())
        return [path for path in every_file if not WRITTEN_BY_MAKE.search(path.relative_to(ROOT).as_posix())]
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_every_import_and_include_goes_to_its_own_layer_or_a_lower_one() -> None:
    assert upward_references(PACKAGE) == []


def test_every_announced_synchronisation_has_both_its_ends() -> None:
    assert sync_mismatches(PACKAGE) == []


def test_no_file_names_a_path_or_a_host_of_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in files_of_the_tree()
        for number, line in enumerate(path.read_bytes().decode("utf-8", errors="replace").splitlines(), start=1)
        for match in OF_ONE_MACHINE.finditer(line)
    ]
    assert found == []


@pytest.fixture
def small_package(tmp_path: Path) -> Path:
    """A package called megaphone with two layers that obey all rules."""
    package = tmp_path / "megaphone"
    for layer in ("shm", "progress"):
        (package / layer).mkdir(parents=True)
        (package / layer / "__init__.py").write_text("from megaphone import errors\n")
    (package / "errors.py").write_text("")
    (package / "__init__.py").write_text("from .progress import tracker\n")
    (package / "shm" / "ring.h").write_text(
        "/* ring.h - a ring.\n"
        " * Units     positions are counts.\n"
        " * Sync      P  tail store-release (f) -> tail load-acquire (g)\n"
        " *           C  head store-release (g) -> head load-acquire (f)\n"
        " * Progress  N  is not a letter -> here. */\n"
    )
    (package / "shm" / "ring.c").write_text(
        '#include "ring.h"\n/* SYNC P: a. */\n/* SYNC P: b. */\n/* SYNC C: a. */\n/* SYNC C: b. */\n'
    )
    (package / "progress" / "tracker.c").write_text('#include "shm/ring.h"\n')
    return package


def test_a_package_that_obeys_the_rules_has_nothing_against_it(small_package: Path) -> None:
    assert upward_references(small_package) == []
    assert sync_mismatches(small_package) == []


@pytest.mark.parametrize(
    "line",
    [
        "import megaphone.progress.tracker",
        "from megaphone import progress",
        "from megaphone.progress import tracker",
        "from megaphone import SomethingPublic",
        "from ..progress import tracker",
        "def late():\n    from megaphone.progress import tracker",
        "if TYPE_CHECKING:\n    import megaphone.progress",
    ],
)
def test_an_import_that_goes_up_is_found(small_package: Path, line: str) -> None:
    (small_package / "shm" / "ring.py").write_text(line + "\n")
    (wrong,) = upward_references(small_package)
    assert wrong.startswith("megaphone/shm/ring.py:")


def test_an_include_that_goes_up_is_found(small_package: Path) -> None:
    (small_package / "progress" / "tracker.h").write_text("")
    (small_package / "shm" / "ring.c").write_text('#include "progress/tracker.h"\n')
    assert upward_references(small_package) == ["megaphone/shm/ring.c:1: shm (1) uses progress/tracker.h, 1 up"]


def test_a_module_without_a_layer_is_found(small_package: Path) -> None:
    (small_package / "news.py").write_text("import megaphone.shm\n")
    assert upward_references(small_package) == ["megaphone/news.py:1: news has no layer: give it one in LAYERS"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("/* SYNC P: b. */", "", "SYNC P is announced by 1 header(s) and placed 1 time(s)"),
        ("/* SYNC P: a. */", "/* SYNC Q: a. */ /* SYNC P: c. */", "SYNC Q is announced by no header"),
    ],
)
def test_a_synchronisation_with_one_end_or_no_announcement_is_found(
    small_package: Path, old: str, new: str, said: str
) -> None:
    source = small_package / "shm" / "ring.c"
    source.write_text(source.read_text().replace(old, new))
    (wrong,) = sync_mismatches(small_package)
    assert said in wrong
