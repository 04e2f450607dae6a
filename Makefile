# make serve: from a clean clone to a running service. make test: the proof. Each target says what it does in one line.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 3000
RECIPES := $(shell sed -n 's/^    "\([a-z0-9-]*\)": .*/\1/p' training/models/__init__.py)

export PYTHONDONTWRITEBYTECODE ?=
export BENTOML_DO_NOT_TRACK := True

.PHONY: help install lock train export serve test check format bench bench-peers docs bench-scoring prove-models prove-engine prove-soak prove-scoring

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

install: $(VENV)/.installed ## set up .venv with everything pinned (done by every target that needs it)
$(VENV)/.installed: pyproject.toml constraints/dev.txt
	@echo "Installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check "pip>=25.1"
	@$(BIN)/pip install -q --disable-pip-version-check --group serve --group train --group ray --group dev -c constraints/dev.txt
	@touch $@

lock: $(VENV)/.installed ## write constraints/ anew from pyproject.toml
	@for name in serve "gpu ray" "ray serve" "dev serve train ray"; do \
	    set -- $$name; file=$$1; \
	    $(BIN)/uv pip compile -q --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	        $$(printf -- '--group %s ' $$name) pyproject.toml -o constraints/$$file.txt; done

# Two models at a time, one thread each, use two cores better than one model with two threads.
JOBS ?= $(shell nproc)
.PRECIOUS: runs/%/checkpoint.json

train: $(VENV)/.installed ## train every recipe that has no run yet, on embedded data
	@$(MAKE) --no-print-directory -s -j$(JOBS) $(RECIPES:%=runs/%/checkpoint.json)
runs/%/checkpoint.json: | $(VENV)/.installed
	@$(BIN)/python -m training $* --threads 1 $$(test ! -e runs/$*/optimizer.safetensors || echo --resume)

export: $(VENV)/.installed ## export every run that has no bundle yet, with proof
	@$(MAKE) --no-print-directory -s -j$(JOBS) $(RECIPES:%=bundles/%/current)
bundles/%/current: | runs/%/checkpoint.json
	@$(BIN)/python -m export runs/$* --bundles bundles

serve: export ## train and export what is missing, then serve on 127.0.0.1:3000
	@EKIBEN_BUNDLES=bundles $(BIN)/bentoml serve service.app:Ekiben --host $(HOST) --port $(PORT)

test: export ## every test, against real bundles and real servers
	@$(BIN)/pytest

check: $(VENV)/.installed ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed ## rewrite the sources in house style
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: export ## write the tables and answers of the documents anew
	@$(BIN)/python -m tests.documents --serve

bench: export ## CPU time and latency of one request at each endpoint
	@$(BIN)/python -m benchmarks.requests

bench-peers: export ## install the peers and measure them side by side with this service (hours; wants wrk and Java 17)
	@$(BIN)/python -m benchmarks.peers --install
	@$(BIN)/python -m benchmarks.peers

prove-engine: export ## 2,000 sequences of any length at once; a minute of twice the load that can be answered, over HTTP
	@$(BIN)/python -m benchmarks.engine.lengths
	@$(BIN)/python -m benchmarks.engine.overload
	@$(BIN)/python -m benchmarks.engine.kills --workers 1
	@$(BIN)/python -m benchmarks.engine.kills --workers 2
	@$(BIN)/python -m benchmarks.engine.kills --workers 2 --at-once 2

prove-soak: export ## ten minutes of mixed work, bad input, clients that leave and versions that change: nothing wrong, nothing grows
	@$(BIN)/python -m benchmarks.engine.soak

prove-scoring: $(VENV)/.installed ## kill scoring jobs at 200 random moments over all formats
	@$(BIN)/python -m benchmarks.scoring.kills --kills 200

bench-scoring: export ## a million rows by scoring and by other ways (minutes)
	@$(BIN)/python -m benchmarks.scoring

prove-models: $(VENV)/.installed ## train every recipe on the real sets in DATA=FOLDER and compare them with their thresholds
	@test -d "$(DATA)" || { echo "make prove-models DATA=FOLDER"; exit 2; }
	@for name in $(RECIPES); do \
	    test -e runs-real/$$name/checkpoint.json || $(BIN)/python -m training $$name --out runs-real/$$name \
	        --data "$(DATA)/$$($(BIN)/python -m benchmarks.thresholds --data-of $$name)"; done
	@$(BIN)/python -m benchmarks.thresholds runs-real
