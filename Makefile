# make demo: the main job, from nothing.   make test: lint, types and all tests, from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(sort $(shell find envs world_models agents runs -name '*.py'))
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=strict --editable
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.PHONY: demo test clean FORCE

demo: $(VENV)/installed
	$(BIN)/afterwit demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

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

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) '.[dev]'
	@touch $@

clean:
	rm -rf build dist *.egg-info $(VENV)
