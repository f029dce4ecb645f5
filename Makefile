# make demo and make test do everything on a machine that has Python 3.10 to 3.13, make and a
# compiler. What is installed is kept in .venv and not installed again until it changes.
#
#   make test PYTHON=python3.12          another interpreter
#   make test VENV=/somewhere/venv       another place for the environment
#   make test PYTEST_FLAGS='-k store'    other tests; JOBS=8 runs eight at a time
#   make bench BENCH_FLAGS='--official TSP'   compared with the original script, in a clone of its repository
#   make reproduce SCALE=small           another scale; REPRODUCE_FLAGS='--seeds 0,1,2' more seeds

ifndef PYTHON
PYTHON := $(firstword $(foreach p,python3 python3.11 python3.12 python3.13 python3.10,$(shell \
	$(p) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) and print("$(p)")' \
	2>/dev/null)) python3)
endif
VENV ?= .venv
DEMO ?= .demo
SCALE ?= tiny
REPRODUCTION ?= .reproduction
REPRODUCE_FLAGS ?=
PYTEST_FLAGS ?=
BENCH ?= .bench
BENCH_FLAGS ?=
JOBS ?= 2
FUZZ_SECONDS ?= 60

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMPS := $(VENV)/.tspcli

# Three words: interpreter, what is installed, which project. Asked for once, where needed.
KEYS = $(eval KEYS := $(shell $(PYTHON) tools/environment_key.py))$(KEYS)
INTERPRETER = $(word 1,$(KEYS))
ENVIRONMENT = $(word 2,$(KEYS))
PROJECT = $(word 3,$(KEYS))

.DEFAULT_GOAL := help
.PHONY: help audit fuzz faults install install-test demo reproduce test lint types pytest format wheel lock clean \
	bench bench-gpu

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# $(call install,STAMP,EXTRAS): the stamp is written last, so what stopped half way starts again.
# The environment of the tests has all that the other one has.
define install
	@set -eu; \
	test -n "$(ENVIRONMENT)"; \
	if [ ! -e "$(STAMPS)/$(INTERPRETER)" ]; then \
		$(PYTHON) -m venv --clear "$(VENV)"; \
		mkdir -p "$(STAMPS)"; touch "$(STAMPS)/$(INTERPRETER)"; \
	fi; \
	if [ ! -e "$(STAMPS)/$(1)-$(ENVIRONMENT)" ] && [ ! -e "$(STAMPS)/test-$(ENVIRONMENT)" ]; then \
		echo "Installing into $(VENV); torch with its CUDA parts takes a while and 6 GB."; \
		find "$(STAMPS)" -type f ! -name "*-$(ENVIRONMENT)" ! -name "$(INTERPRETER)" -delete; \
		$(PIP) install --quiet -c constraints.txt setuptools; \
		$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[$(2)]'; \
		echo "$(PROJECT)" > "$(STAMPS)/project"; \
		touch "$(STAMPS)/$(1)-$(ENVIRONMENT)"; \
	fi; \
	if [ "$$(cat "$(STAMPS)/project" 2>/dev/null)" != "$(PROJECT)" ]; then \
		$(PIP) install --quiet --no-deps --no-build-isolation -e .; \
		echo "$(PROJECT)" > "$(STAMPS)/project"; \
	fi
endef

install:  ## Make .venv and install the project there, with what pictures need
	$(call install,run,plots$(comma)view)

install-test:
	$(call install,test,parquet$(comma)plots$(comma)reproduce$(comma)torchcodec$(comma)train$(comma)ray$(comma)openvino$(comma)view$(comma)dev)
comma := ,

demo: install  ## Extract features of sample videos with pretrained I3D weights, and show them
	@tools/demo.sh "$(VENV)/bin" "$(DEMO)"

reproduce: install  ## Repeat the paper's experiment on rendered videos (half an hour on two cores)
	$(PY) -m reproduction --scale $(SCALE) --out "$(REPRODUCTION)" $(REPRODUCE_FLAGS)

test: audit lint types pytest  ## Install the test tools too, then lint, check types and run the tests

lint: install-test  ## ruff: rules and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: install-test  ## mypy
	$(PY) -m mypy

pytest: install-test  ## The tests alone
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal $(PYTEST_FLAGS)

audit: install-test  ## Ask the index for known vulnerabilities in what is pinned; says so if it cannot
	@$(PY) tools/audit.py

fuzz: install-test  ## Coverage-guided fuzzing of our parsers (needs atheris); FUZZ_SECONDS=60 each
	$(PY) tools/fuzz.py --seconds $(FUZZ_SECONDS)

faults: install-test  ## The long form of the fault tests; hours
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "slow and faults" -s tests

format: install-test  ## Let ruff format and repair what it can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

wheel: install-test  ## Build the wheel into dist/
	$(PY) -m build --wheel --no-isolation

bench: install-test  ## Measure speed against its roofs and targets, on the CPU (.bench/)
	@mkdir -p "$(BENCH)"
	$(PY) -m benchmarks --json "$(BENCH)/cpu.jsonl" --markdown "$(BENCH)/cpu.md" $(BENCH_FLAGS)

bench-gpu: install-test  ## Check and measure on a CUDA device, in under ten minutes (.bench/)
	@mkdir -p "$(BENCH)"
	$(PY) -m benchmarks.gpu --json "$(BENCH)/gpu.json" --markdown "$(BENCH)/gpu.md" $(BENCH_FLAGS)

lock:  ## Pin the newest versions (needs python3.10 to python3.13)
	$(PYTHON) tools/lock_constraints.py python3.10 python3.11 python3.12 python3.13

clean:  ## Remove the environment, the demo's output and what tools leave behind
	rm -rf "$(VENV)" "$(DEMO)" "$(BENCH)" "$(REPRODUCTION)" build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
