# Every target sets up what it needs in .venv, from a bare clone with Python 3.11+ and make, and is quick when nothing
# changed.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
FAST := not slow and not model and not gpu

.PHONY: demo test check bench fmt clean

demo: $(READY)                ## pull the small model and answer questions about real rows
	$(BIN)/dql models pull smollm2
	mkdir -p demo-out
	$(BIN)/dql run examples/demo.dql

test: $(READY)                ## everything: lint, types, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

check: $(READY)               ## the fast tier, for between two edits
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal -m "$(FAST)"

bench: $(READY)               ## measure against transformers on this machine
	$(BIN)/dql models pull smollm2
	$(BIN)/python -m benchmarks.tables --data examples/data/tickets.csv --column body

fmt: $(READY)                 ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:                        ## remove what the other targets made
	rm -rf .venv build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis ./*.egg-info

# torch comes first and alone: the build that suits the machine (a CPU one, where the index has it) is then kept.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dql needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch>=2.11,<2.14'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
