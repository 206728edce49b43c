# Every target sets up what it needs; only Python 3.10 or newer, make and a package index are assumed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests run side by side, one thread each.
WORKERS ?= 2

.PHONY: demo test check docs clean

demo: $(READY)
	$(BIN)/lit-meta demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes the tables and figures of docs/ from the zoo's cards and docs/results/.
docs: $(READY)
	for table in results classification leak along; do $(BIN)/python -W ignore -m docs.tables.$$table || exit 1; done

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
