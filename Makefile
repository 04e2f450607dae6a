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
# The longest first, which are last in the registry, so that none keeps one core busy at the end.
RECIPES := $(shell sed -n 's/^    "\([a-z0-9-]*\)": .*/\1/p' training/models/__init__.py | tac)
KERAS_MODELS := $(shell sed -n 's/^    "\([a-z0-9-]*\)": .*/\1/p' training/keras_models/models.py)

# Bytecode is written when a module is first imported, whatever the environment says: hundreds of processes import the
# same ones, and most of what is installed is imported by none.
export PYTHONDONTWRITEBYTECODE :=
export BENTOML_DO_NOT_TRACK := True

.PHONY: $(shell grep -oE '^[a-z-]+:' Makefile | tr -d :)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

# constraints/dev.txt lists every package but torch with its hashes. torch has builds for CPU and for CUDA under one
# version, each with dependencies of its own, so pip takes the build that the package index offers, at the pinned version.
install: $(VENV)/.installed ## install all pinned packages into .venv; other targets do this when they need it
$(VENV)/.installed: pyproject.toml constraints/dev.txt constraints/torch.txt
	@echo "Installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile --require-hashes --no-deps -r constraints/dev.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile torch -c constraints/torch.txt
	@$(BIN)/pip check -q --disable-pip-version-check
	@touch $@

LOCK := $(BIN)/uv pip compile -q --python-version 3.11 --no-emit-index-url --no-header --no-annotate
DEV_GROUPS := --group dev --group serve --group train --group keras --group ray
lock: $(VENV)/.installed ## regenerate constraints/ from pyproject.toml, with hashes
	@trap 'rm -f constraints/.all.txt' EXIT; cat constraints/dev.txt constraints/torch.txt > constraints/.all.txt; \
	    $(LOCK) $(DEV_GROUPS) -o constraints/.all.txt > /dev/null; \
	    grep -E '^(torch|triton|cuda-.*|nvidia-(cu|nccl|nv).*)==' constraints/.all.txt > constraints/torch.txt
	@lock() { $(LOCK) --generate-hashes "$${@:2}" -o "constraints/$$1.txt" > /dev/null; }; \
	    others="-c constraints/torch.txt $$(sed 's/==.*//; s/^/--no-emit-package /' constraints/torch.txt | xargs)"; \
	    lock serve --group serve --group grpc --group otel; \
	    lock gpu --group gpu --group ray --group grpc --group otel; \
	    lock ray --group ray --group serve --group tables --group sql; \
	    lock export --group serve --group train --group hf --group keras $$others; \
	    lock dev $(DEV_GROUPS) $$others

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

# The real sets and the models trained on them have folders of their own, so that neither replaces the embedded ones.
export-real: $(VENV)/.installed
	@test -d "$(DATA)" || { echo "DATA=$(DATA): expected a folder with the data sets, as docs/models.md lists them"; exit 2; }
	@$(MAKE) --no-print-directory -s -j$(JOBS) DATA="$(DATA)" $(RECIPES:%=bundles-real/%/current)
bundles-real/%/current: | runs-real/%/checkpoint.json
	@$(BIN)/python -m export runs-real/$* --bundles bundles-real
.PRECIOUS: runs-real/%/checkpoint.json
runs-real/%/checkpoint.json: | $(VENV)/.installed
	@$(BIN)/python -m training $* --threads 1 --out runs-real/$* \
	    --data "$(DATA)/$$($(BIN)/python -m benchmarks.thresholds --data-of $*)" \
	    $$(test ! -e runs-real/$*/optimizer.safetensors || echo --resume)

serve: $(if $(DATA),export-real,export) ## train and export missing models, then serve on 127.0.0.1:3000; DATA=FOLDER: on the real data sets
	@EKIBEN_BUNDLES=$(if $(DATA),bundles-real,bundles) $(BIN)/bentoml serve service.app:Ekiben --host $(HOST) --port $(PORT)

# Three processes for two cores, because tests wait for their servers. tests/conftest.py says which files one of them runs.
test: export ## run every test, against real bundles and real servers
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

sbom: $(VENV)/.installed ## write an SBOM of each image to build/sbom, and check the licences of what it contains
	@$(BIN)/python -m deploy.supply_chain --out build/sbom

audit: $(VENV)/.installed ## compare all lock files with the known vulnerabilities (asks the package index)
	@test -e .venv-audit/.installed || { $(PYTHON) -m venv .venv-audit && \
	    .venv-audit/bin/pip install -q --disable-pip-version-check "pip-audit>=2.10" && touch .venv-audit/.installed; }
	@for name in serve gpu ray export; do \
	    .venv-audit/bin/pip-audit -r constraints/$$name.txt --require-hashes --disable-pip --strict --progress-spinner off; done

# The first of these that works builds. SOURCE_DATE_EPOCH is the time of all files, so that a revision has one digest.
# PIP_CONF: a file of settings of pip, such as a mirror; it is in no layer. TARGET: service, bundled, scoring or export.
CONTAINER ?= $(shell for engine in docker podman buildah; do $$engine version >/dev/null 2>&1 && echo $$engine && break; done)
TARGET ?= service
IMAGE ?= ekiben$(if $(filter-out service,$(TARGET)),-$(TARGET))
PIP_CONF ?=
BUILD_FLAGS ?=
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUILD_IMAGE = $(or $(CONTAINER),$(error make container needs docker, podman or buildah)) build \
    $(if $(filter docker,$(CONTAINER)),--output type=docker$(COMMA)rewrite-timestamp=true,--format docker --timestamp $(SOURCE_DATE_EPOCH)) \
    $(if $(PIP_CONF),--secret id=pip$(COMMA)src=$(PIP_CONF)) $(BUILD_FLAGS) --target $(TARGET) --build-arg VERSION=$(VERSION) \
    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown)
COMMA := ,

container: container-cpu container-gpu ## build the images ekiben and ekiben-gpu; TARGET=scoring builds those for scoring
container-cpu: ## build deploy/Dockerfile; TARGET=service, bundled, scoring or export
	@$(BUILD_IMAGE) -t $(IMAGE):$(VERSION) -f deploy/Dockerfile .
container-gpu: ## build deploy/Dockerfile.gpu; TARGET=service, bundled or scoring
	@$(BUILD_IMAGE) -t $(IMAGE)-gpu:$(VERSION) -f deploy/Dockerfile.gpu .

playground: ## bundle the libraries of the playground again, and check the types of its scripts (needs npm)
	@bash service/http/playground/vendor/build.sh service/http/playground/assets --types

prove-container: export ## build the image twice, run it with limits, kill its workers, stop it under load; the same with the bento's; run the pod of the manifests (root, buildah, podman, runc, debootstrap, kubectl)
	@$(BIN)/python -m benchmarks.deploy.container
	@$(BIN)/python -m benchmarks.deploy.container --bento --stops 1
	@$(BIN)/python -m benchmarks.deploy.pod

check: $(VENV)/.installed ## check format, lint, types, import contracts and licences
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory -s sbom

format: $(VENV)/.installed ## format the sources and apply lint fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

site: $(VENV)/.installed ## build the documentation site in build/site; warnings are errors
	@$(BIN)/python -m tests.documentation_site

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

prove-install: export ## install the package with pip in a fresh environment, and serve from another folder (minutes)
	@$(BIN)/python -m benchmarks.deploy.install

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

prove-scoring: $(VENV)/.installed ## kill scoring jobs at 200 random moments, over all formats; score what the tools of data engineers write
	@$(BIN)/python -m benchmarks.scoring.kills --kills 200
	@$(BIN)/python -m benchmarks.scoring.tools

prove-frameworks: $(VENV)/.installed ## score inside of Ray Data, Spark (needs Java 17), Airflow and Dagster, serve inside of Ray Serve
	@for pair in ray-serve:ray[serve] spark:pyspark,pandas airflow:apache-airflow dagster:dagster; do \
	    name=$${pair%%:*}; test -e .venv-$$name/.installed || { $(PYTHON) -m venv .venv-$$name && \
	    .venv-$$name/bin/pip install -q --disable-pip-version-check "pip>=25.1" && \
	    .venv-$$name/bin/pip install -q --disable-pip-version-check $$(tr , ' ' <<< "$${pair#*:}") --group serve --group batch && \
	    touch .venv-$$name/.installed; }; done
	@$(BIN)/pytest -q tests/service/scoring/frameworks tests/deploy/test_ray_serve.py

AZURITE := build/azurite/node_modules/.bin/azurite-blob
prove-object-stores: $(VENV)/.installed ## run the tests of object stores on Azurite, too, which npm installs into build/azurite (minutes)
	@test -x $(AZURITE) || npm install --silent --no-audit --no-fund --prefix build/azurite azurite@3.35.0
	@$(BIN)/pytest -q $$(grep -rlE '\bstore: ObjectServer|object_servers' tests/service --include='test_*.py')

bench-scoring: export ## compare scoring of a million rows with other methods (minutes)
	@$(BIN)/python -m benchmarks.scoring

prove-tests: $(VENV)/.installed ## change one operator, constant or statement at a time; the tests of its module must fail (hours)
	@$(BIN)/python -m benchmarks.proof.tests

prove-slo: export ## find the highest rates of this service, Triton and FastAPI within 20 ms; check the benchmark by known delays (minutes)
	@$(BIN)/python -m benchmarks.slo.known_delays
	@$(BIN)/python -m benchmarks.slo.compare

prove-models: $(VENV)/.installed ## train every recipe on the real data sets in DATA=FOLDER and check the thresholds
	@test -d "$(DATA)" || { echo "make prove-models DATA=FOLDER"; exit 2; }
	@for name in $(RECIPES); do \
	    test -e runs-real/$$name/checkpoint.json || $(BIN)/python -m training $$name --out runs-real/$$name \
	        --data "$(DATA)/$$($(BIN)/python -m benchmarks.thresholds --data-of $$name)"; done
	@$(BIN)/python -m benchmarks.thresholds runs-real
