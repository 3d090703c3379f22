# make demo: the main job, from nothing.   make test: lint, types and all tests, from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell git ls-files '*.py' 2>/dev/null)
STRICT := --config-settings editable_mode=strict

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/afterwit demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

# An editable install links file by file (so that type checkers can follow it): it is made again when files come or go.
$(VENV)/files: FORCE
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "$(sort $(SOURCES))" | cmp -s - $@ || echo "$(sort $(SOURCES))" > $@

$(VENV)/installed: $(VENV)/files setup.py
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ...") if not (3, 11) <= sys.version_info < (3, 14) else None'
	$(BIN)/python -m pip install --quiet --editable . $(STRICT)
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]' $(STRICT)
	@touch $@

clean:
	rm -rf build dist *.egg-info $(VENV)

FORCE:
