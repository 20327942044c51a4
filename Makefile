# Everything runs in .venv, which is made from the lock files. Start with `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first interpreter that really runs and is new enough; `make PYTHON=/path/to/python3` overrides.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3.14 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)
DOCKER ?= docker
IMAGE ?= ws-auth-sidecar
ARGS ?=

# All paths are relative, so that the checkout may stand in a folder with spaces in its name.
VENV := .venv
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip -qq --disable-pip-version-check
INSTALLED := $(VENV)/.installed
SCANNER := build/compiled/.made
COVERED_IN_FULL := sidecar/wire/*,sidecar/policy/*,sidecar/auth/*
COMPILE := $(VENV)/bin/uv --quiet --no-config pip compile --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock'

.PHONY: help demo test bench bench-prices lint format lock image clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## See it work: an open server, the sidecar before it, clients (ARGS=--once ends by itself)
	@$(VENV)/bin/python examples/demo.py $(ARGS)

test: $(INSTALLED) $(SCANNER) ## Run all tests with coverage (95 % of all, every branch of wire, policy and auth)
	@$(RUN) coverage erase
	@$(RUN) pytest -q -n auto -rs --cov --cov-report= $(ARGS)
	@$(RUN) coverage report --fail-under=95
	@$(RUN) coverage report --include='$(COVERED_IN_FULL)' --fail-under=100

bench: $(INSTALLED) $(SCANNER) ## Measure the sidecar beside nginx, HAProxy, Envoy and a bare relay (ARGS=--quick to try)
	@$(RUN) benchmarks.run $(ARGS)

bench-prices: $(INSTALLED) $(SCANNER) ## Measure what each feature costs (ARGS=--quick to try)
	@$(RUN) benchmarks.prices $(ARGS)

lint: $(INSTALLED) ## Check style, types and the Dockerfile
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@$(VENV)/bin/hadolint Dockerfile

format: $(INSTALLED) ## Format the code and mend what ruff can
	@$(RUN) ruff check --fix
	@$(RUN) ruff format

lock: $(INSTALLED) ## Write the lock files anew after a change in pyproject.toml (ARGS=--upgrade for newer versions)
	@$(COMPILE) $(ARGS) pyproject.toml -o requirements.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra dev -o requirements-dev.lock
	@$(COMPILE) $(ARGS) --group build -o requirements-build.lock

image: ## Build the container image
	@"$(DOCKER)" build --tag "$(IMAGE)" .

clean: ## Remove the environment and everything that was made
	@rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements-dev.lock pyproject.toml
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		echo 'error: Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python3' >&2; \
		exit 1; \
	fi; \
	if ! $(VENV)/bin/python -c 'import pip' >/dev/null 2>&1; then \
		echo "Making $(VENV) with $$("$$python" --version); this takes a minute the first time."; \
		rm -rf $(VENV); \
		"$$python" -m venv $(VENV) >/dev/null 2>&1 \
		|| { rm -rf $(VENV); "$$python" -m virtualenv --quiet $(VENV) >/dev/null 2>&1; } \
		|| { rm -rf $(VENV); \
			echo "error: $$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
			exit 1; }; \
	fi
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@WS_SIDECAR_COMPILE=off $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# The package with its compiled modules, for the tests to run beside the sources. In .venv the
# sources themselves run: nothing that was compiled can hide what was changed since.
$(SCANNER): $(INSTALLED) setup.py $(shell find sidecar -name '*.py' -o -name '*.pxd')
	@rm -rf build/compiled build/lib* build/temp.* build/bdist.*
	@$(PIP) install --no-deps --no-build-isolation --target build/compiled .
	@if ls build/compiled/sidecar/wire/scanner.*.so >/dev/null 2>&1; then touch $@; \
	else echo 'warning: no C compiler or no Python headers: the compiled scanner is not tested' >&2; fi
