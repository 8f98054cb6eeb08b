# Every target brings what it needs: `make demo` and `make test` want nothing but python3 and a package index.
# The virtual environment is made once in .venv and made again only when the dependencies change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two workers of one thread each: tiny matrix products gain nothing from threads that wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: demo test test-slow lint types imports spelling docs bench lock clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## real data to a comparison of five recommenders and readable recommendations
	$(BIN)/python examples/demo.py

test: lint types imports spelling  ## what CI checks: lint, types, import contracts, spelling, fast tests (SIDREC_DATA: see test-slow)
	$(PYTEST)

test-slow: $(VENV)/.dev  ## the tests that take minutes; with SIDREC_DATA=<folder> also those on published data
	$(PYTEST) -m "slow and not gpu"

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/basedpyright

imports: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

spelling: $(VENV)/.dev
	$(BIN)/codespell src tests docs benchmarks examples *.md

docs: $(VENV)/.docs  ## build the site into site/
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.dev  ## run every benchmark and print one table
	$(BIN)/python benchmarks/run_all.py

lock:  ## resolve the dependencies again (needs uv)
	uv lock
	uv export -q --format requirements.txt --no-hashes --all-extras --no-emit-project --no-annotate --no-header -o constraints.txt

clean:  ## remove the environment and everything built
	rm -rf $(VENV) site dist .demo

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("sidrec needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11") if not (3, 11) <= sys.version_info < (3, 14) else None'
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version > /dev/null && touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@
