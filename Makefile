# Everything a developer runs.  Each target makes .venv by itself: git, make and Python >= 3.10 are enough.
#
#   make demo          run the demonstration          make bench        the benchmarks
#   make test          run the tests                  make bench-quick  ... in a minute
#   make check         format, lint and types         make features     write docs/features.md anew
#   make types         types only                     make docs         write the generated parts of docs/ anew
#   make matrix        the tests without each plugin
#   make wheel         build and check dist/          make clean        remove what was built (not .venv)

SHELL := /bin/sh
VENV ?= .venv
ARGS ?=

# The newest Python on PATH that is new enough, can make a virtual environment, and really starts.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3.10 python3 python; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 \
	&& { command -v "$$python"; break; }; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test matrix check types bench bench-quick features wheel docs clean format

help:
	@sed -n '3,8s/^#  *//p' Makefile

demo: $(VENV)/.stamp-run
	$(BIN)/python examples/demo/demo.py $(ARGS)

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -n auto $(ARGS)

matrix: $(VENV)/.stamp-test
	$(BIN)/python tools/matrix.py $(ARGS)

check: $(VENV)/.stamp-check
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

types: $(VENV)/.stamp-check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.stamp-check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.stamp-bench
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-quick: $(VENV)/.stamp-bench
	$(BIN)/python benchmarks/bench.py --quick $(ARGS)

features: $(VENV)/.stamp-test
	$(BIN)/python tools/features.py $(ARGS)

docs: $(VENV)/.stamp-test
	$(BIN)/python tools/gen_docs.py $(ARGS)

wheel: $(VENV)/.stamp-build
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python tools/check_dist.py dist

clean:
	rm -rf dist build htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -path './.venv*' -prune -o -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +

# ---------------------------------------------------------------- the virtual environment
# A stamp says that the editable install with these extras was done for the present pyproject.toml.
EXTRAS_run :=
EXTRAS_test := [test]
EXTRAS_check := [test,check,bench]
EXTRAS_bench := [bench]
EXTRAS_build := [build]

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'make: no Python >= 3.10 with venv and ensurepip on PATH;' \
		'install one, or say "make PYTHON=/path/to/python3 ..."' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo 'make: $(PYTHON) is not Python >= 3.10' >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV)

$(VENV)/.stamp-%: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.$(EXTRAS_$*)'
	@touch $@
