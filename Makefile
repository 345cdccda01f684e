# Everything a person or CI does here is a target of this file. `make help` lists them.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
DATA ?= var
DEMO_TOKENS ?= 65536
RUN_FLAGS ?=
WORKERS ?= 2
BIN := $(VENV)/bin
SOURCES := $(wildcard requirements/*.txt shared/*/pyproject.toml services/*/pyproject.toml client/pyproject.toml deploy/local/pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help run setup lint format types test bench bench-dashboards bench-store bench-search bench-inference bench-autointerp demo-saes lock openapi clean

##@ Use it
help: ## Show this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run-installed ## Install what is missing, start everything, build the demo (DEMO_TOKENS=65536 DATA=var RUN_FLAGS="--gateway-port 9000")
	@$(BIN)/python -m interpedia_local run --data-dir $(DATA) --demo-tokens $(DEMO_TOKENS) $(RUN_FLAGS)

##@ Work on it
setup: $(VENV)/.dev-installed ## Make .venv with everything: services, tests, tools

lint: setup ## Style, dead code, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: setup ## Put the style right
	$(BIN)/ruff check --fix-only -q . && $(BIN)/ruff format .

types: setup ## Types, strictly
	$(BIN)/pyright

# The tests start many processes: compiled modules are kept, else each of them compiles torch anew.
test: setup ## All tests (T=tests/gateway for some, WORKERS=0 in one process)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(T)

openapi: setup ## Write docs/openapi.json anew from the code
	$(BIN)/python -m interpedia_gateway.openapi docs/openapi.json

lock: setup ## Write requirements/constraints.txt anew from what is installed
	$(BIN)/pip freeze --exclude-editable | grep -v ' @ ' | sed 's/+cpu$$//' | sort -f > requirements/constraints.txt

clean: ## Remove .venv and all local data
	rm -rf $(VENV) $(DATA)

##@ Measure it
bench: bench-dashboards bench-store bench-search bench-inference bench-autointerp ## All benchmarks; they rewrite the README's tables

bench-dashboards: setup ## Dashboards and the forward pass against SAEDashboard and plain transformers
	$(BIN)/python -m benchmarks.dashboards --work-dir $(DATA)/bench

bench-store: setup ## Storage and reads of 294,912 features against a row per example
	$(BIN)/python -m benchmarks.store --work-dir $(DATA)/bench

bench-inference: setup ## Live requests against plain transformers: one caller, many, steering, memory (ten minutes)
	$(BIN)/python -m benchmarks.inference --work-dir $(DATA)/bench

bench-autointerp: setup ## Explainers and scorers beside their baselines, calls in flight, puzzles
	$(BIN)/python -m benchmarks.autointerp --work-dir $(DATA)/bench

bench-search: setup ## Search over 294,912 explanations through the gateway (loads in minutes, once)
	$(BIN)/python -m benchmarks.search --work-dir $(DATA)/bench

demo-saes: setup ## Train the demo SAEs anew (about an hour on two cores)
	$(BIN)/python examples/train_demo_saes.py --cache $(DATA)/demo-saes && $(BIN)/python examples/evaluate_demo_saes.py --cache $(DATA)/demo-saes

$(VENV)/.run-installed: $(SOURCES) deploy/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) DATA=$(DATA) bash deploy/setup.sh run

$(VENV)/.dev-installed: $(SOURCES) deploy/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) DATA=$(DATA) bash deploy/setup.sh dev
