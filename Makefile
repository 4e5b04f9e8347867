# Set-up on a fresh machine is `make demo` and `make test`: each makes its own environment.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BENCHMARKS := select throughput scale lossless data_free iterative one_shot fine_tuned channels sparse_training tables

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check docs bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/demo.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/bench.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

demo: $(VENV)/demo.stamp  ## train, prune, encode and decode a network; show what each step cost in bits
	$(BIN)/laconic demo

test: $(VENV)/dev.stamp  ## the tests, offline, on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/dev.stamp  ## the tests that train real networks
	$(BIN)/python -m pytest -m slow

check: $(VENV)/dev.stamp  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/dev.stamp  ## the documentation, into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/bench.stamp  ## every benchmark, in some hours; each writes its JSON beside itself
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:  ## remove what the targets above made
	rm -rf $(VENV) docs/_build docs/examples runs report.html
