# Two commands: `make train` and `make test`. Each sets up .venv on a fresh machine first, once, and then does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready-$(shell cksum pyproject.toml | cut -d' ' -f1)
CONFIG ?= configs/upernet_inceptionnext_a_mini.py

.PHONY: train test lint clean

train: $(READY)
	$(BIN)/python tools/train.py $(CONFIG)

test: lint
	$(BIN)/python -m pytest tests

lint: $(READY)
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV)

# Named by pyproject.toml's checksum: a change builds a new environment; the marker is written last, so that an
# interrupted installation is not taken for a whole one.
$(READY):
	rm -rf $(VENV)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
