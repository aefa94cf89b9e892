# Two commands are all that is needed: `make quickstart` to see the grader work, `make test` to work on it.
# Every target does its own set-up; stamp files in the virtual environment make repeats quick.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BEGAN := $(shell date +%s)
# What pip does for a package that it copies: else every process compiles the source anew where PYTHONDONTWRITEBYTECODE
# is set, as in many containers.
COMPILE := $(BIN)/python -m compileall -q grader
PRINT_STARTER_SAMPLES := from grader.suites import registry; print(registry.starter_samples_path())

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format clean

help:
	@echo "make quickstart  install the grader into $(VENV) and grade the bundled samples"
	@echo "make test        install what the tests need and run them (more for pytest: ARGS='-k codec')"
	@echo "make lint        check style, types and the layers' imports"
	@echo "make format      put the source into its format"
	@echo "make clean       remove $(VENV) and the tools' caches"

$(VENV)/.made: scripts/make-venv.sh
	@sh scripts/make-venv.sh '$(PYTHON)' '$(VENV)'
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	@echo 'Installing the grader into $(VENV).'
	@$(PIP_INSTALL) --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	@echo 'Installing the grader and its development tools into $(VENV).'
	@$(PIP_INSTALL) --editable '.[dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/.installed

quickstart: $(VENV)/.installed
	@$(BIN)/grader score "$$($(BIN)/python -c '$(PRINT_STARTER_SAMPLES)')" --suite starter --k 1
	@echo "make quickstart took $$(( $$(date +%s) - $(BEGAN) )) s."

test: $(VENV)/.installed-dev
	@sh scripts/run-tests.sh $(BIN)/python $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
