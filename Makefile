# Two targets do everything from nothing: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := $(PIP) --require-hashes --no-deps
JOBS ?= 2 # processes of the tests, of one thread each
COV ?= # COV=1: what of ptft and serving the tests run

.PHONY: demo test whole rehearse gpu e2e clients newest check types docs format clean help

help: ## list the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/  /'

# Every package by its hash, and no other: the locks are whole, so nothing is resolved. Torch is a
# CPU's where the machine has that wheel at hand, else the index's with the libraries of CUDA.
$(STAMP): pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer, not {sys.version}"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(LOCKED) -r requirements/torch-cpu.txt 2>/dev/null || $(LOCKED) -r requirements/torch.txt
	$(LOCKED) -r requirements/ci.txt
	$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check --disable-pip-version-check
	touch $@

demo: $(STAMP) ## pretrain, fine-tune, export, serve, ask: the whole pipeline on drawn scenes
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/speedrun.sh

test: $(STAMP) ## the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(if $(strip $(COV)),--cov --cov-report=term)

whole: $(STAMP) ## the tests that take minutes of a slow machine, too: every architecture, the image built
	PTFT_TEST_WHOLE=1 $(MAKE) --no-print-directory test

rehearse: $(STAMP) ## a GPU's mistakes without one: every kind of run on a second device that torch is made to see
	$(BIN)/python -m pytest tests/train/test_rehearsal*.py
	$(BIN)/python -m tests.bench rehearse

gpu: $(STAMP) ## on a GPU, less than eight minutes: its tests, training and serving beside others; into docs/results.md
	$(BIN)/python -m tests.gpu

clients: $(STAMP) ## environments of other clients of the model folder and the service (user's cache), and their tests
	$(BIN)/python -m tests.clients
	$(BIN)/python -m pytest tests/test_clients.py tests/serving/test_http_clients.py

e2e: $(STAMP) ## the chart on the cluster of KUBECONFIG, which may be used: docs/howto/rollout.md
	$(BIN)/python -m pytest tests/e2e -m e2e -rs

newest: ## what an upper bound keeps out: the newest open_clip, transformers, timm, ... and tests
	PYTHON=$(PYTHON) .ci/newest

check: $(STAMP) ## format, lint, types, layers, the chart's table, docs: exactly what CI runs before the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.charts.generated --check
	$(MAKE) --no-print-directory -j 2 types docs

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP) ## the docs as pages: build/docs/index.html; a broken link or reference is an error
	$(BIN)/python -m sphinx -W --keep-going --quiet docs build/docs

format: $(STAMP) ## format, mend what lint can mend, make the chart's table
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m tests.charts.generated

clean: ## forget the environment and what it built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
