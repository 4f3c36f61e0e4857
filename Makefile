# Two commands need nothing but Python and pip: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# The build of torch, installed before everything else so that nothing else chooses one. On a GPU
# machine: make demo TORCH=torch
TORCH ?= torch==2.13.0
CONSTRAINTS ?= constraints/cpu.txt
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check -q
PYTEST = $(VENV)/bin/python -m pytest
WORKERS ?= 2

.PHONY: demo test test-slow test-browser check fix docs bench clean

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install "$(TORCH)"
	touch $@

$(VENV)/.lm: $(VENV)/.python pyproject.toml $(CONSTRAINTS)
	$(PIP) install -c $(CONSTRAINTS) -e ".[lm]"
	touch $@

$(VENV)/.dev: $(VENV)/.lm
	$(PIP) install -c $(CONSTRAINTS) -e ".[dev]"
	touch $@

demo: $(VENV)/.lm  ## align the shipped model and write runs/demo/report.html
	$(VENV)/bin/equilign demo --output-dir runs/demo --resume

test: $(VENV)/.dev  ## the default test suite
	$(PYTEST) -n $(WORKERS) -m "not gpu and not browser and not slow"

test-slow: $(VENV)/.dev  ## the main job with all defaults, checked
	$(PYTEST) -m slow

test-browser: $(VENV)/.dev  ## needs Debian's chromium at /usr/bin/chromium
	$(PYTEST) -m browser

check: $(VENV)/.dev  ## everything a change must pass
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(MAKE) test
	$(MAKE) docs

fix: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict -q

bench: $(VENV)/.dev
	$(VENV)/bin/python benchmarks/exact_bench.py
	$(VENV)/bin/python benchmarks/stackelberg_bench.py
	$(VENV)/bin/python benchmarks/play_bench.py
	$(VENV)/bin/python benchmarks/round_bench.py
	$(VENV)/bin/python benchmarks/step_bench.py
	$(VENV)/bin/python benchmarks/slhf_bench.py

clean:
	rm -rf $(VENV) build site dist .pytest_cache .mypy_cache .ruff_cache
