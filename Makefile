# `make setup` creates .venv with everything; all other targets set it up first where needed.
# The interpreter can be named: make setup PYTHON=/path/to/python3.11

# Empty: python3.11, or else a python3 of 3.10 to 3.12 (tools/setup_environment.sh looks for it).
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := mmforget tools tests configs demo setup.py
export PYTHON VENV
# For all of the tests what a run sets for itself: see mmforget/engine/host_memory.py.
test test-slow: export MALLOC_MMAP_THRESHOLD_ = 4294967296
test test-slow: export MALLOC_TRIM_THRESHOLD_ = 8589934592
test test-slow: export MALLOC_TOP_PAD_ = 268435456

# One process per core, each with one thread: tests are short of work for more.
TESTS = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
test test-slow: export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-fewshot test test-slow lint

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1|\2/p' Makefile | awk -F '|' '{printf "%-20s %s\n", $$1, $$2}'

setup: ## create or update .venv (the first time compiles mmcv, about 13 minutes on two cores)
	@tools/setup_environment.sh

demo: setup ## forget classes of the embedded Garments detector, one request after another
	$(BIN)/python tools/demo.py

demo-fewshot: setup ## the same with only a few images per class
	$(BIN)/python tools/demo.py --few-shot

test: setup ## the quick tests
	$(TESTS) -m "not slow"

test-slow: setup ## the tests that train
	$(TESTS) -m slow --durations=15

lint: setup ## style and format
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
