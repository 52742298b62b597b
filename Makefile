# Each target sets up what it needs, and does nothing for what is there already.
# CI runs `make check`; nothing here needs more than Python with its headers, a C compiler and make.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
EXTRAS := test,dev,plot

# A newer Python than these serves as well: make PYTHON=/path/to/python
PYTHON = $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import ensurepip, os, sys, sysconfig, venv; \
	sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
	2>/dev/null && { command -v $$python; break; }; done)

# Some builds of Python name a compiler that the machine does not have; what is exported here replaces it.
ifeq ($(origin CC),default)
CC := $(or $(shell command -v gcc),$(shell command -v cc))
endif
export CC

# Appended to the compiler's flags; the extension is rebuilt when they change.
export MEGAPHONE_CFLAGS ?=
# Two makes in one tree build one after the other.
LOCK := $(if $(shell command -v flock),flock build/lock,)

STDLIB = $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
DEMO_ARGS = word-count --text $(STDLIB) -w 2 --demo
DEMO_SMALL_ARGS = word-count --text $(STDLIB)/json -w 2 --demo

# What pytest is given: make pytest ARGS="tests/unit/shm -k ring"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv build demo demo-small test lint type pytest model native mutants mutants-changed stress stress-smoke \
	proof bench bench-against bench-smoke check wheel-check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(READY)

$(READY): pyproject.toml setup.py
	@[ -x $(PY) ] || [ -n "$(PYTHON)" ] || { echo "no Python 3.11 or newer with venv, pip and C headers was found:" \
		"install one (Debian: apt install python3-dev python3-venv), or say make PYTHON=/path/to/python" >&2; exit 1; }
	@command -v $(or $(CC),cc) >/dev/null || { echo "no C compiler was found: install gcc (Debian: apt install gcc)," \
		"or say make CC=/path/to/compiler" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "making $(VENV) with $(PYTHON)" >&2; "$(PYTHON)" -m venv $(VENV); }
	@echo "installing megaphone and what it needs into $(VENV)" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

build: $(READY) ## the extension, if its C sources changed
	@mkdir -p build
	@$(LOCK) sh -c '$(PY) -P megaphone/_abi.py || { echo "building the extension" >&2; \
		$(PY) setup.py --quiet build_ext --inplace --force; }'

demo: build ## count the words of Python's own library with two workers, moving state on the way
	$(PY) -m megaphone $(DEMO_ARGS)

demo-small: build
	$(PY) -m megaphone $(DEMO_SMALL_ARGS)

test: lint type pytest ## lint, types and all tests

lint: $(READY) ## ruff, and the C compiler with its warnings as errors
	$(PY) -m ruff check
	@find megaphone -name '*.c' -exec $(CC) -fsyntax-only -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Imegaphone {} +

type: $(READY) ## mypy, strict
	$(PY) -m mypy

pytest: build
	$(PY) -m pytest $(ARGS)

model: build ## every interleaving and crash of the protocols, at their large sizes too
	$(PY) -m pytest -m 'not bench' tests/model $(ARGS)

native: build ## the C core under sanitizers, by threads, fuzzed, and weighed from outside; long
	$(PY) -m pytest -m 'not bench' tests/native tests/fuzz $(ARGS)

mutants: build ## plausible mistakes, one at a time, and the test that catches each
	@mkdir -p build
	$(PY) -m tests.mutants.run --json build/mutants.json $(ARGS)

# What a clone without so much history, or without a change to the core, runs is a sample that differs by commit.
mutants-changed: build
	$(PY) -m tests.mutants.run --changed $(or $(SINCE),HEAD~20)

stress: build ## four processes, random dataflows, an oracle: make stress SECONDS=3600 SEED=7; then the long tests
	$(PY) tests/stress/run.py --seconds $(or $(SECONDS),300) $(if $(SEED),--seed $(SEED))
	$(PY) -m pytest -m stress $(ARGS)

stress-smoke: build
	$(PY) tests/stress/run.py --seconds 20

proof: mutants ## each invariant, the checks that guard it, what they looked at and which mutants they caught
	$(PY) tests/proof/table.py --mutants build/mutants.json

bench: build ## every experiment at its full size, in results/; goes on where it stopped; hours, on a quiet machine
	$(PY) -m megaphone bench run all --size full

bench-against: build ## this tree in turns with another commit: make bench-against REF=HEAD~1
	$(PY) -m megaphone.bench.against $(or $(REF),HEAD~1)

# A rate that is less than a third of the committed one, each as a share of what the machine gave in its minute, fails.
bench-smoke: build ## every experiment at a small size, so that none can rot or become three times as slow
	@rm -rf build/bench-smoke
	$(PY) -m megaphone bench run all --size smoke --output build/bench-smoke
	$(PY) -m megaphone bench compare docs/results/smoke build/bench-smoke --least 0.3333
	$(PY) -m megaphone.bench.nexmark_generator --repeat 1 --seconds 0.1

check: lint type wheel-check demo-small bench-smoke pytest stress-smoke mutants-changed ## all that CI runs

wheel-check: $(READY) ## build the wheel, and import its extension from a clean environment outside the tree
	@rm -rf dist && mkdir -p build
	$(PY) -m build --outdir dist . >build/wheel.log 2>&1 || { cat build/wheel.log >&2; exit 1; }
	@outside=$$(mktemp -d) && trap 'rm -rf "$$outside"' EXIT && wheel=$$(realpath dist/*.whl) && \
	$(PY) -m venv "$$outside/venv" && cd "$$outside" && \
	venv/bin/pip install --quiet --disable-pip-version-check "$$wheel" && \
	venv/bin/python -c 'import megaphone, megaphone._core as core; \
	assert core.lib.mp_abi_source_hash(); print("imported", core.__file__)' && \
	venv/bin/megaphone --help >/dev/null

clean: ## what make wrote, except the environment
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find megaphone tests -name __pycache__ -prune -exec rm -rf {} +
	find megaphone -name '*.so' -delete
