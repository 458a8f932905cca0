# `make demo` and `make test` need Python 3.11 or newer and make; they set up .venv by themselves.
# More arguments for pytest: make test ARGS="tests/unit -k headers"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
# Where several files pin a package, the first one counts.
CONSTRAINTS ?= constraints.txt
ARGS ?=
COVERAGE ?=
PYTHON ?=
PYTHONS ?= 3.11 3.12 3.13 3.14
# Test files at a time. Each of these processes starts servers of its own.
JOBS ?= 3
IN_VENV := $(abspath $(VENV))/bin
# Git keeps no empty folders, and ruff refuses what is not there.
SOURCES := $(wildcard core blocks tasks flows tests examples benchmarks)

# The make that is interrupted passes the signal on; servers end with the Python that started them.
export PYTHONUNBUFFERED := 1
# The machine's own installation must not leak into the checks.
unexport PYTHONPATH PYTHONHOME

.PHONY: help demo test test-oldest test-newest test-pythons lint format types docs release install system clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: install ## Run agents on an embedded LangGraph server and an embedded Prefect, and show what became of them
	@echo "make demo: running examples/demo.py"
	@exec $(IN_VENV)/python examples/demo.py

# Coverage costs a third of the tests' own time, and is of the whole: COVERAGE=yes, as .ci/run has it.
test: install system ## Run the tests, against real servers on free ports
	@echo "make test: running pytest"
	@exec $(IN_VENV)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=10 \
	  $(ARGS) $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

test-oldest: ## Run the tests with the oldest versions of Prefect and of the SDK that are supported
	@$(MAKE) test VENV=.venv-oldest CONSTRAINTS="constraints-oldest.txt constraints.txt"

test-newest: ## Run the tests with the newest version of everything that installs today, pinned by nothing
	@rm -rf .venv-newest
	@$(MAKE) test VENV=.venv-newest CONSTRAINTS=

# The interpreter itself, not a shim of pyenv, which may lead nowhere.
test-pythons: ## Run the unit and server tests on each Python of 3.11 to 3.14 that is there
	@ran=""; failed=""; \
	for version in $(PYTHONS); do \
	  found=""; \
	  for python in $$(ls -vd "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python$$version 2>/dev/null) \
	      $$(command -v python$$version); do \
	    if $$python -c 'import venv, ensurepip' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "make test-pythons: there is no Python $$version here"; continue; fi; \
	  ran="$$ran $$version"; \
	  $(MAKE) test PYTHON=$$found VENV=.venv-$$version ARGS="$(or $(ARGS),tests/unit tests/server)" \
	    || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ] || [ -z "$$ran" ]; then echo "make test-pythons: failed on:$${failed:- no Python}"; exit 1; fi; \
	echo "make test-pythons: passed on:$$ran"

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

# tests/browser look at Prefect's pages, tests/worker run a Prefect on PostgreSQL. Where one is missing
# those tests fail and say so; nobody is asked here.
system: ## Install Chromium and PostgreSQL with apt-get, where they are missing and it can be done without asking
	@missing=""; \
	command -v chromium chromium-browser google-chrome >/dev/null || missing="chromium"; \
	{ command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || missing="$$missing postgresql"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	as_root=""; if [ "$$(id -u)" != 0 ]; then as_root="sudo -n"; fi; \
	if ! command -v apt-get >/dev/null || ! $$as_root true 2>/dev/null; then \
	  echo "make system: missing: $$missing; apt-get cannot be used: install it yourself" >&2; \
	  exit 0; \
	fi; \
	echo "make system: apt-get install $$missing"; \
	apt="$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120"; \
	log=$$(mktemp); \
	if ! { $$apt update && $$apt install -y --no-install-recommends $$missing; } >"$$log" 2>&1; then \
	  tail -n 20 "$$log" >&2; \
	  echo "make system: apt-get did not install $$missing, see above" >&2; \
	fi; \
	rm -f "$$log"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@echo "make: setting up $(VENV); the first time takes a few minutes"
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "make: needs Python 3.11 or newer, with venv" >&2; exit 1; fi; \
	if [ ! -x $(IN_VENV)/python ]; then echo "make: $$found -m venv $(VENV)"; $$found -m venv $(VENV); fi
	@echo "make: pip install -e .[dev], pinned by $(or $(CONSTRAINTS),nothing)"
	@awk -F== '!seen[$$1]++' $(CONSTRAINTS) /dev/null >$(VENV)/constraints.txt
	@$(IN_VENV)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $@

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
