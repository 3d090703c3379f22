# make help lists the targets. Each works from nothing but Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(sort $(shell find envs world_models agents runs -name '*.py'))
# Without --no-compile pip takes 40 seconds for modules that nobody imports.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --config-settings editable_mode=strict --editable
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.NOTPARALLEL:  # two installations at a time would spoil each other
.PHONY: help demo test thorough quick lint docs examples format clean FORCE
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

demo: $(VENV)/installed  ## train two agents in two noisy mazes, and write a report
	$(BIN)/afterwit demo

test: lint  ## lint, types and tests: what CI runs
	$(BIN)/pytest

thorough: lint  ## lint, types and all tests, with the variations that `make test` leaves out
	$(BIN)/pytest -m ""

quick: lint  ## lint, types and the quick tests, under 90 seconds
	$(BIN)/pytest -m "not slow"

lint: $(VENV)/installed-dev  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples

docs: $(VENV)/installed-dev  ## the documentation, in docs/_build/html; warnings are errors
	$(BIN)/sphinx-build -W -n -q -b html docs docs/_build/html
	@echo "look at docs/_build/html/index.html"

examples: $(VENV)/installed-dev  ## run every example in its small form
	$(BIN)/pytest tests/examples

format: $(VENV)/installed-dev  ## let ruff format the code and sort the imports
	$(BIN)/ruff check --fix-only --select I .
	$(BIN)/ruff format .

# A .venv that works is kept, with what a person put into it; one that does not is made again.
# The file lists the sources: an editable install links them one by one (so that type checkers can follow), and is
# made again when they come or go, or when its build folder has been removed.
$(VENV)/files: FORCE
	@$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c '$(SUPPORTED)' || { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ..."; exit 1; }; \
		echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@test -d build || rm -f $@
	@echo "$(SOURCES)" | cmp -s - $@ || echo "$(SOURCES)" > $@

$(VENV)/installed: $(VENV)/files setup.py pyproject.toml
	@echo "installing afterwit and what it needs (a minute or three)"
	$(INSTALL) .
	@touch $@

$(VENV)/installed-dev: $(VENV)/files setup.py pyproject.toml
	@echo "installing afterwit, what it needs and what its tests need (a minute or three)"
	$(INSTALL) '.[dev]'
	@touch $(VENV)/installed $@

clean:  ## remove what these made
	rm -rf build dist *.egg-info docs/_build $(VENV)
