# Two commands: `make train` and `make test`. Each sets up .venv on a fresh machine first, once, and then does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUM := $(shell cksum pyproject.toml | cut -d' ' -f1)
READY := $(VENV)/ready-$(SUM)
TEST_READY := $(VENV)/test-ready-$(SUM)
CONFIG ?= configs/upernet_inceptionnext_a_mini.py
TESTS ?= tests

.PHONY: train test lint fuzz sanitize reliability long-run gpu docs wheel clean

train: $(READY)
	$(BIN)/python tools/train.py $(CONFIG)

test: lint
	$(BIN)/python -m pytest $(TESTS) -n logical --maxprocesses 4 --dist worksteal

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# Kills training at random and resumes it; about half an hour.
reliability: $(TEST_READY)
	$(BIN)/python tools/reliability.py --out docs/results/reliability/kills.json
	$(BIN)/python tools/readme.py

# 2,000 iterations, about a quarter of an hour: do memory, open files or time grow?
long-run: $(TEST_READY)
	$(BIN)/python tools/long_run.py --out docs/results/reliability/long_run.json

# 10,000 random inputs; in pieces: make fuzz FUZZ='--only operators --seed 1 --add'
fuzz: $(TEST_READY)
	$(BIN)/python tools/fuzz.py --out docs/results/reliability/fuzz.json $(FUZZ)

# The operators on random inputs, with C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(TEST_READY)
	$(BIN)/python tests/sanitize/run.py --out docs/results/reliability/sanitize.json

# Tests and throughput on a GPU, for whoever has one; goes on where it was stopped. Without a GPU tools/gpu.py
# exits with status 3, and so make with 2.
gpu: $(TEST_READY)
	@$(BIN)/python tools/gpu.py $(GPU)

# The documentation as a site, in site/; a link to nothing ends it.
docs: $(TEST_READY)
	$(BIN)/mkdocs build --strict

# dist/*.whl
wheel: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV)

# Named by pyproject.toml's checksum: a change builds a new environment; the marker is written last, so that an
# interrupted installation is not taken for a whole one.
$(READY):
	rm -rf $(VENV)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# What only the tests and the studies need.
$(TEST_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
