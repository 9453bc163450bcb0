# Thin wrappers: with an environment of your own, `snakemake` and `pytest` do the same.

PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN = .venv/bin
# numexpr, which pandas loads, dies of OMP_NUM_THREADS=4,2.
export NUMEXPR_NUM_THREADS ?= 1

RESULTS ?= results

.PHONY: setup demo explore test reliability lint

setup: .venv/installed

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) --resources gpu=1

# The explorer's page from a small server on this machine, until Ctrl-C.
explore: setup
	@PYTHONPATH=workflow_scripts $(BIN)/python -m casesim.explorer.server $(RESULTS)

# A thread each: several workers test at a time.
test: export OMP_NUM_THREADS ?= 1
test: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest --numprocesses auto --maxprocesses 4 \
	  --dist loadscope --no-loadscope-reorder

# What `make test` takes a sample of; docs/reliability.md has the figures, and how long it takes.
reliability: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" RELIABILITY=full RELIABILITY_REPORT=reliability.json \
	  pytest tests/reliability
	$(BIN)/python docs/reliability_table.py reliability.json

LINTERS = ruff mypy snakefmt hadolint snakemake
.PHONY: $(LINTERS:%=lint-%)

lint: $(LINTERS:%=lint-%)

lint-ruff: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-mypy: setup
	$(BIN)/mypy

lint-snakefmt: setup
	$(BIN)/snakefmt --check Snakefile rules

lint-hadolint: setup
	$(BIN)/hadolint Dockerfile

lint-snakemake: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint
