# Every target sets up what it needs; only Python 3.10 or newer, make and a package index are assumed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests run side by side, one thread each.
WORKERS ?= 2

.PHONY: demo test interop processes torture check docs site clean

demo: $(READY)
	$(BIN)/lit-meta demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --ignore tests/interop

# Every rule in networks of other libraries through every host (docs/interop.md).
interop: $(VENV)/.interop
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal tests/interop

# Every rule in two and in four processes.
processes: $(READY)
	LIT_META_ALL_PROCESSES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/rules/test_processes.py

# Kills streams of every rule, at least 500 times in all (docs/resuming.md).
torture: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.streams.kills

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes the tables and figures of docs/ from the zoo's cards and docs/results/.
docs: $(READY)
	for table in results classification leak along animation interop choose reference published backbones binary_ladder; do $(BIN)/python -W ignore -m docs.tables.$$table || exit 1; done

# The site, in site/: every page, search, and a reference made from the docstrings.
site: $(VENV)/.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

$(VENV)/.interop: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,interop]"
	touch $(VENV)/.interop

$(VENV)/.site: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs]"
	touch $(VENV)/.site

clean:
	rm -rf $(VENV) runs dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
