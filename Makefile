# `make serve` turns a clean clone into a running service, `make test` runs every test, `make help` lists all targets.
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
KERAS_MODELS := $(shell sed -n 's/^    "\([a-z0-9-]*\)": .*/\1/p' training/keras_models/models.py)

export PYTHONDONTWRITEBYTECODE ?=
export BENTOML_DO_NOT_TRACK := True

.PHONY: help install lock train export serve test check format bench bench-peers docs bench-scoring prove-models prove-labels prove-wire prove-engine prove-soak prove-scoring prove-tests prove-mutants prove-adopted prove-generation prove-clients prove-door prove-mix prove-deploy

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

install: $(VENV)/.installed ## install all pinned packages into .venv; other targets do this when they need it
$(VENV)/.installed: pyproject.toml constraints/dev.txt
	@echo "Installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check "pip>=25.1"
	@$(BIN)/pip install -q --disable-pip-version-check --group serve --group train --group keras --group ray --group dev -c constraints/dev.txt
	@touch $@

lock: $(VENV)/.installed ## regenerate constraints/ from pyproject.toml
	@for name in "serve grpc otel" "gpu ray grpc otel" "ray serve tables sql" "dev serve train keras ray"; do \
	    set -- $$name; file=$$1; \
	    $(BIN)/uv pip compile -q --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	        $$(printf -- '--group %s ' $$name) pyproject.toml -o constraints/$$file.txt; done

# On two cores, two models with one thread each train faster than one model with two threads.
JOBS ?= $(shell nproc)
.PRECIOUS: runs/%/checkpoint.json runs/%/metrics.json

train: $(VENV)/.installed ## train every model without a run, on embedded data
	@$(MAKE) --no-print-directory -s -j$(JOBS) $(RECIPES:%=runs/%/checkpoint.json) $(KERAS_MODELS:%=runs/%/metrics.json)
runs/%/checkpoint.json: | $(VENV)/.installed
	@$(BIN)/python -m training $* --threads 1 $$(test ! -e runs/$*/optimizer.safetensors || echo --resume)

runs/%/metrics.json: | $(VENV)/.installed
	@$(BIN)/python -m training.keras_models $*

export: $(VENV)/.installed ## export every run without a bundle, with proof
	@$(MAKE) --no-print-directory -s -j$(JOBS) $(RECIPES:%=bundles/%/current) $(KERAS_MODELS:%=bundles/%/current)
$(KERAS_MODELS:%=bundles/%/current): bundles/%/current: | runs/%/metrics.json
	@$(BIN)/python -m export keras runs/$*/model.keras --examples runs/$*/examples.safetensors --spec runs/$*/spec.toml --bundles bundles
bundles/%/current: | runs/%/checkpoint.json
	@$(BIN)/python -m export runs/$* --bundles bundles

serve: export ## train and export missing models, then serve on 127.0.0.1:3000
	@EKIBEN_BUNDLES=bundles $(BIN)/bentoml serve service.app:Ekiben --host $(HOST) --port $(PORT)

# Two processes, because a test or its server uses one core at a time. The fixtures of a file are made in one of them.
test: export ## run every test, against real bundles and real servers
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed ## check format, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed ## format the sources and apply lint fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: export ## regenerate the tables and answers in README and docs
	@$(BIN)/python -m tests.documents --serve

bench: export ## measure CPU time and latency of one request at each endpoint
	@$(BIN)/python -m benchmarks.requests

bench-peers: export ## install other servers and compare them with this service (hours; needs wrk and Java 17)
	@$(BIN)/python -m benchmarks.peers --install
	@$(BIN)/python -m benchmarks.peers

prove-wire: export ## change graphs 200,000 times and compare how the service, onnx and onnxruntime read what is accepted
	@$(BIN)/python -m benchmarks.proof.wire

prove-labels: export ## swap every pair of labels, corrupt every tokenizer, and count what is not refused
	@$(BIN)/python -m benchmarks.proof.labels_and_tokenizers

prove-engine: export ## measure 2,000 sequences at once, adversarial texts, overload at twice the peak, killed workers and starts
	@$(BIN)/python -m benchmarks.engine.lengths
	@$(BIN)/python -m benchmarks.engine.adversarial_texts
	@$(BIN)/python -m benchmarks.engine.overload
	@$(BIN)/python -m benchmarks.engine.kills --workers 1
	@$(BIN)/python -m benchmarks.engine.kills --workers 2
	@$(BIN)/python -m benchmarks.engine.kills --workers 2 --at-once 2
	@$(BIN)/python -m benchmarks.engine.loading

prove-soak: export ## run ten minutes of mixed load, bad input, disconnects and new versions; check answers and memory
	@$(BIN)/python -m benchmarks.engine.soak

prove-mix: export ## run four minutes of 48 clients, cancellations and bad requests on each host; compare every answer
	@$(BIN)/python -m benchmarks.engine.soak --minutes 4 --clients 48 --no-swaps
	@$(BIN)/python -m benchmarks.engine.soak --minutes 4 --clients 48 --no-swaps --host bentoml --workers 1

prove-mutants: export ## change every graph in 135 ways and count the changes that export and the goldens refuse (minutes)
	@$(BIN)/python -m benchmarks.proof.graph_mutants

prove-adopted: $(VENV)/.installed ## export models from elsewhere of a realistic size, with time, memory and answers (minutes)
	@$(BIN)/python -m benchmarks.export.adopted
	@$(BIN)/python -m benchmarks.export.adopted_modules

prove-generation: export ## compare generated tokens with PyTorch and in company; measure cost and latency (minutes)
	@$(BIN)/python -m benchmarks.generate.parity
	@$(BIN)/python -m benchmarks.generate.company
	@$(BIN)/python -m benchmarks.generate.adopted
	@$(BIN)/python -m benchmarks.generate.throughput
	@$(BIN)/python -m benchmarks.generate.latency

prove-deploy: export ## replace two replicas behind haproxy 20 times under load; measure the memory of every model (minutes; needs haproxy)
	@$(BIN)/python -m benchmarks.deploy.rolling_update
	@$(BIN)/python -m benchmarks.deploy.rolling_update --order retry
	@$(BIN)/python -m benchmarks.deploy.sizing

prove-clients: export ## run litellm, KServe's and MLServer's clients in environments of their own, and 1,000 clients that disconnect, against both hosts
	@test -e .venv-clients/.installed || { $(PYTHON) -m venv .venv-clients && \
	    .venv-clients/bin/pip install -q --disable-pip-version-check "litellm>=1.80" && touch .venv-clients/.installed; }
	@$(BIN)/python -m benchmarks.generate.clients --python .venv-clients/bin/python
	@$(BIN)/python -m benchmarks.generate.disconnects
	@for client in kserve mlserver; do test -e .venv-$$client/.installed || { $(PYTHON) -m venv .venv-$$client && \
	    .venv-$$client/bin/pip install -q --disable-pip-version-check $$client && touch .venv-$$client/.installed; }; done
	@$(BIN)/pytest -q tests/clients

prove-door: export ## send broken, changed and generated requests and pictures, tens of thousands; none may be answered wrongly (minutes)
	@$(BIN)/python -m benchmarks.proof.inference_requests
	@$(BIN)/python -m benchmarks.proof.picture_fuzz
	@$(BIN)/python -m benchmarks.proof.openapi_cases
	@$(BIN)/python -m benchmarks.http.connections

prove-scoring: $(VENV)/.installed ## kill scoring jobs at 200 random moments, over all formats
	@$(BIN)/python -m benchmarks.scoring.kills --kills 200

bench-scoring: export ## compare scoring of a million rows with other methods (minutes)
	@$(BIN)/python -m benchmarks.scoring

prove-tests: $(VENV)/.installed ## change one operator, constant or statement at a time; the tests of its module must fail (hours)
	@$(BIN)/python -m benchmarks.proof.tests

prove-models: $(VENV)/.installed ## train every recipe on the real data sets in DATA=FOLDER and check the thresholds
	@test -d "$(DATA)" || { echo "make prove-models DATA=FOLDER"; exit 2; }
	@for name in $(RECIPES); do \
	    test -e runs-real/$$name/checkpoint.json || $(BIN)/python -m training $$name --out runs-real/$$name \
	        --data "$(DATA)/$$($(BIN)/python -m benchmarks.thresholds --data-of $$name)"; done
	@$(BIN)/python -m benchmarks.thresholds runs-real
