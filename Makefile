# SPDX-License-Identifier: AGPL-3.0-or-later
#
# `make demo` and `make test` set up everything they need; see CONTRIBUTING.md for the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
INSTALLED := .venv/.installed
JS_HOST := tests/conformance/js-libp2p
JS_INSTALLED := $(JS_HOST)/node_modules/.package-lock.json
# One worker a core, two at most: the tests start nodes of their own, each a process.
WORKERS ?= 2
EXTRAS := node libp2p postgres dev bench

.PHONY: help setup demo test test-long check static doctest docs format bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## three cooperatives federate; DEMO_ONCE=1 stops at the end, DEMO_PLAYS=FILE shares real listening
	@$(BIN)/ecot demo

test: static $(JS_INSTALLED) ## every check and every test but the long ones
	@tools/setup --model
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup
	@$(MAKE) doctest

test-long: $(INSTALLED) ## the long tests, with many more generated cases
	@tools/setup --model
	@HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -m long --timeout 3600

check: static doctest ## in less than a minute: style, types, floors, examples, the tests of the protocol
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup tests/protocol

static: $(INSTALLED)
	@echo '[check] form' && $(BIN)/ruff format --check . || { echo '`make format` mends this'; exit 1; }
	@echo '[check] style' && $(BIN)/ruff check --quiet .
	@echo '[check] types' && $(BIN)/mypy
	@echo '[check] floors' && { floors=$$($(BIN)/lint-imports --no-logo) || { echo "$$floors"; exit 1; }; }
	@echo '[check] docs' && $(BIN)/python tools/check_docs.py

doctest: $(INSTALLED)
	@$(BIN)/python -m pytest -q --doctest-modules protocol clients/python

format: $(INSTALLED) ## put the code in its form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

bench: $(INSTALLED) ## measure, and write build/bench.json; BENCH_SHORT=1 takes a tenth of the time
	@tools/setup --bench
	@mkdir -p build
	@$(BIN)/python tests/benchmarks/run.py

# Universal: one lock for every Python from 3.11 and every machine, with the hashes of all published files and no address.
UV_LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command 'make lock'

lock: $(INSTALLED) ## write the lock files again from pyproject.toml; LOCK_ARGS=--upgrade takes newer versions
	@printf 'setuptools>=77\nwheel>=0.45\n' | $(UV_LOCK) $(LOCK_ARGS) - -o requirements-build.lock
	@$(UV_LOCK) $(LOCK_ARGS) $(EXTRAS:%=--extra %) pyproject.toml -o requirements.lock
	@! grep -nE '://|^-|@ ' requirements.lock requirements-build.lock || { echo 'the lock names an address'; exit 1; }

clean: ## remove what was built, but not the virtual environment
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	@find protocol node clients tests -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(INSTALLED)

$(JS_INSTALLED): $(JS_HOST)/package-lock.json
	@tools/setup-js
	@touch $@

$(INSTALLED): pyproject.toml requirements.lock requirements-build.lock tools/setup
	@tools/setup
	@touch $@
