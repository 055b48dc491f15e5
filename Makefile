# Two commands do everything: `make run` and `make test`. Both set up what they need in .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Processes that run tests side by side, each with a Signalbox of its own.
WORKERS ?= 2
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test check format setup setup-dev screenshots benchmark-serving conformance clean

run: setup
	@exec $(BIN)/signalbox up

test: setup-dev check
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry .
	$(BIN)/python -m control_plane.registry.migrate --check

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark-serving: setup-dev
	$(BIN)/python -m benchmarks.serving

conformance: setup-dev
	$(BIN)/python -m benchmarks.conformance

screenshots: setup-dev
	$(BIN)/python docs/screenshots.py

setup: $(VENV)/.runtime
setup-dev: $(VENV)/.development

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Signalbox needs Python 3.11 to 3.13; '$(PYTHON)' is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) && $(PIP) --version >/dev/null || { rm -rf $(VENV); \
	  echo "$(VENV) could not be made. On Debian or Ubuntu: apt install python3-venv. Then run make again."; exit 1; }

# torch first: what follows then finds it satisfied and brings no other build of it.
$(VENV)/.runtime: pyproject.toml constraints.txt serving_agent/contract/proto/build.py | $(BIN)/python
	@echo "Setting up $(VENV), a few minutes the first time: package tools ..."
	@$(PIP) install --quiet --upgrade --constraint constraints.txt pip setuptools wheel
	@echo "  torch ..."
	@$(PIP) install --quiet --constraint constraints.txt torch
	@echo "  Signalbox and what it needs ..."
	@$(PIP) install --quiet --constraint constraints.txt --group build
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable .
	@$(BIN)/python -m serving_agent.contract.proto.build
	@touch $@

$(VENV)/.development: $(VENV)/.runtime tests/system_packages.sh
	@echo "Setting up what the tests need ..."
	@$(PIP) install --quiet --constraint constraints.txt --group dev
	@sh tests/system_packages.sh $(BIN)/python
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
