# Every target sets itself up: the first one creates .venv and installs, later ones start at once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# PyTorch, Keras and TensorFlow are no part of vae_jax: the benchmark has an environment of its own.
BENCHMARK_VENV ?= .venv-benchmark
ARGS ?=

.PHONY: help setup mnist test coverage test-slow test-faults check check-device results benchmark docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed-dev  ## Create .venv with everything, tests and linters too

mnist: $(VENV)/.installed  ## Train a 2-D VAE, evaluate and draw it; ARGS="--latent-dim 5" adds flags
	@$(BIN)/python -m experiments.mnist --latent-dim 2 $(ARGS)

test: $(VENV)/.installed-dev  ## Run the tests
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

coverage: $(VENV)/.installed-dev  ## Run the tests, a quarter slower, and show what they do not reach; 90% is the least
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90 $(ARGS)

test-slow: $(VENV)/.installed-dev  ## Run the long tests: real MNIST, minutes; and the formulas as XLA optimises them
	@$(BIN)/python -m pytest -m slow $(ARGS)
	@$(BIN)/python -m pytest --optimised tests/models \
		-k "convolutions or distributions or numerics or objectives or (battery and mlp)" $(ARGS)

test-faults: $(VENV)/.installed-dev  ## Kill runs, damage checkpoints, fill disks, soak: half an hour
	@$(BIN)/python -m pytest -m "slow or not slow" -s tests/faults $(ARGS)
	@$(BIN)/python tests/faults/soak.py

check: $(VENV)/.installed-dev  ## Check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

check-device: $(VENV)/.installed-dev  ## Test and time it on this machine's GPU, TPU or CPU, in nine minutes; writes runs/device
	@$(BIN)/python -m experiments.check_device $(ARGS)

results: $(VENV)/.installed-dev  ## Train the runs and studies of the README's tables (what is finished is kept) and write them
	@$(BIN)/python -m experiments.results $(ARGS)

benchmark: $(BENCHMARK_VENV)/.installed  ## Measure speed beside PyTorch, Keras and Flax, in an environment of its own; ARGS="--quick"
	@$(BENCHMARK_VENV)/bin/python -m experiments.benchmark $(ARGS)

docs: $(VENV)/.installed-docs  ## Run the lessons and build the site; ARGS="serve" shows it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build --strict)

clean:  ## Remove .venv, .venv-benchmark and caches; runs/ stays
	rm -rf $(VENV) $(BENCHMARK_VENV) .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python $(BENCHMARK_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vae_jax needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1). Use: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-docs

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@ $(VENV)/.installed

$(BENCHMARK_VENV)/.installed: pyproject.toml constraints.txt constraints-benchmark.txt | $(BENCHMARK_VENV)/bin/python
	$(BENCHMARK_VENV)/bin/python -m pip install --quiet --constraint constraints.txt \
		--constraint constraints-benchmark.txt --editable '.[benchmark]'
	@touch $@
