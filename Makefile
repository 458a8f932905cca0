# `make demo` and `make test` need Python 3.11 or newer and make; they set up .venv by themselves.
# More arguments for pytest: make test ARGS="tests/unit -k headers"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
CONSTRAINTS ?= constraints.txt
ARGS ?=
COVERAGE ?=
PYTHON ?=
PYTHONS ?= 3.11 3.12 3.13 3.14
# Where the Postgres and Redis runtime is, and what runs on it.
RUNTIME := .venv-postgres-runtime
ON_POSTGRES := $(addprefix tests/server/test_,$(addsuffix .py,outcomes joins fan_out same_key shared_threads \
  streams finalizer sweep start_runs nothing_done usage)) $(addprefix tests/faults/test_,$(addsuffix .py, \
  approvals killed_process lost_responses identical_calls))
# Test files at a time. Each of these processes starts servers of its own, which costs a minute of CPU.
JOBS ?= 4
IN_VENV := $(abspath $(VENV))/bin
# Git keeps no empty folders, and ruff refuses what is not there.
SOURCES := $(wildcard core blocks tasks flows tests examples benchmarks)

# The make that is interrupted passes the signal on; servers end with the Python that started them.
export PYTHONUNBUFFERED := 1
# The machine's own installation must not leak into the checks.
unexport PYTHONPATH PYTHONHOME

.PHONY: help demo test test-oldest test-newest test-postgres test-pythons lint format types docs release install system clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: install ## Run agents on an embedded LangGraph server and an embedded Prefect, and show what became of them
	@echo "make demo: running examples/demo.py"
	@exec $(IN_VENV)/python examples/demo.py

# Coverage costs a third of the tests' own time: COVERAGE=yes, for `make test` and for .ci/run.
test: install system ## Run the tests, against real servers on free ports
	@echo "make test: running pytest"
	@exec $(IN_VENV)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=10 \
	  $(ARGS) $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

test-oldest: ## Run the tests with the oldest versions of Prefect and of the SDK that are supported
	@$(MAKE) test VENV=.venv-oldest CONSTRAINTS="constraints-oldest.txt constraints.txt"

test-newest: ## Run the tests with the newest version of everything that installs today, pinned by nothing
	@rm -rf .venv-newest
	@$(MAKE) test VENV=.venv-newest CONSTRAINTS=

test-postgres: install system $(RUNTIME)/.installed ## Run the tests of runs on LangGraph's Postgres and Redis runtime
	@echo "make test-postgres: running pytest --runtime postgres"
	@POSTGRES_RUNTIME_BIN=$(abspath $(RUNTIME))/bin exec $(IN_VENV)/python -m pytest --runtime postgres \
	  -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=10 $(or $(ARGS),$(ON_POSTGRES))

$(RUNTIME)/.installed: constraints-postgres-runtime.txt
	@scripts/set_up_postgres_runtime $(RUNTIME) $<
	@touch $@

test-pythons: ## Run the unit and server tests on each Python of 3.11 to 3.14 that is there
	@scripts/test_pythons "$(PYTHONS)" "$(ARGS)"

lint: install ## Check style and format with ruff
	@echo "make lint: ruff check, ruff format --check"
	@$(IN_VENV)/ruff check $(SOURCES)
	@$(IN_VENV)/ruff format --check $(SOURCES)

format: install ## Put the code into ruff's format
	@$(IN_VENV)/ruff check --fix $(SOURCES) || true
	@$(IN_VENV)/ruff format $(SOURCES)

# A wheel, away from the root: what users get, py.typed included, and no folder of ours in sight.
types: install ## Check the types of the built wheel with mypy --strict
	@echo "make types: building the wheel, mypy --strict"
	@$(IN_VENV)/python tests/packaging/check_types.py

docs: install ## Build the documentation into build/docs; a warning is an error
	@echo "make docs: mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(IN_VENV)/mkdocs build --strict --quiet
	@echo "make docs: open build/docs/index.html"

release: install ## Build the wheel and the sdist into dist/, check both, and say what to upload
	@echo "make release: building, twine check, an empty environment"
	@$(IN_VENV)/python tests/packaging/release.py

system: ## Install Chromium, PostgreSQL and Redis with apt-get, where they are missing and it can be done without asking
	@scripts/install_system_packages

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@PYTHON="$(PYTHON)" scripts/set_up_venv $(VENV) $(CONSTRAINTS)
	@touch $@

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
