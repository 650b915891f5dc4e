# The verbs of this repository. `make demo` and `make test` work on a fresh clone and need nothing
# but make and Python 3.11 or later; the first call makes .venv and installs into it.
#
#   make demo TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
#       takes the CPU build of PyTorch. On Linux, pip's own choice is a CUDA build of gigabytes;
#       make says so before it downloads one. On macOS there is nothing to choose.
#   make demo DEMO_ARGS="--seed 2"      further arguments for the demo
#   make test PYTHON=python3.12         another interpreter (after `make clean`)
#   make chaos CHAOS_ARGS="--minutes 3 --faults 40"  a shorter chaos run
#   make unit PYTEST_ARGS="-k diff -x"  further arguments for pytest
#   make soak SOAK_ARGS="--minutes 4"   a shorter soak; OUTAGE_ARGS likewise for `make outage`
#   make bench-models MODELS_ARGS="--parts speed,identity"   a part of the figures of model versions
#   make bench-learning LEARNING_ARGS="--cases ppo_cartpole --resume"   a part of the comparison
#   make fuzz FUZZ_ARGS="--seconds 60 --target ledger"   arguments of the fuzz campaign

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo "$$p" && break; done)
VENV ?= .venv
TORCH_INDEX_URL ?=
DEMO_ARGS ?=
CHAOS_ARGS ?=
PYTEST_ARGS ?=
SOAK_ARGS ?=
OUTAGE_ARGS ?=
LEARNING_ARGS ?=
MODELS_ARGS ?=
FUZZ_ARGS ?= --seconds 20
# Three workers suit two cores, since many tests wait for processes or answers; with more the learning
# tests, which train, only slow each other down.
PYTEST_WORKERS ?= 3

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL))
# One thread a process: the networks are small, and tests, workers and agents share the cores.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test setup lint fmt types imports unit integration fault learn fuzz proto all-tests \
	wheel compose-test bench bench-learning bench-models outage soak chaos clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile
	@echo
	@echo "verbs: demo test | setup lint fmt types imports unit integration fault learn wheel |"
	@echo "       compose-test (needs Docker) bench bench-learning bench-models outage soak"
	@echo "       chaos fuzz proto clean"

# Lunar Lander learns through Redis streams: embedded broker, dispatcher, worker, application.
demo: $(VENV)/.installed-run
	$(BIN)/rl4sys-stream demo lunar_lander $(DEMO_ARGS)

# Everything that CI runs, cheapest first.
test: lint types imports all-tests wheel
	@echo "make test: all passed"

setup: $(VENV)/.installed-dev

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos

fmt: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

all-tests: $(VENV)/.installed-dev
	$(PYTEST)

unit: $(VENV)/.installed-dev
	$(PYTEST) tests/unit

integration: $(VENV)/.installed-dev
	$(PYTEST) tests/integration

fault: $(VENV)/.installed-dev
	$(PYTEST) tests/fault

learn: $(VENV)/.installed-dev
	$(PYTEST) tests/learning

# The Python of clients/proto, into the package; a test holds it against the source.
proto: $(VENV)/.installed-dev
	$(BIN)/python -m grpc_tools.protoc -I clients/proto --python_out=rl4sys_stream/wire \
	  --pyi_out=rl4sys_stream/wire rl4sys_stream.proto

# Hostile bytes against every decoder, guided by coverage; docs/fuzzing.md. Linux on x86-64 only.
fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz.campaign --keep $(FUZZ_ARGS)

# The wheel, not the tree: what `pip install rl4sys-stream` without extras gives.
wheel: $(VENV)/.installed-dev
	$(BIN)/python tests/packaging/check_wheel.py

# Builds the images and runs docker-compose.yml; needs a Docker engine, so it is not in `make test`.
compose-test:
	tests/compose/compose_test.sh

# All but those that have verbs of their own, because they run for many minutes.
bench: $(VENV)/.installed-dev
	@set -e; for file in $(filter-out %/outage.py %/soak.py,$(wildcard benchmarks/[a-z]*.py)); do \
	  echo "== $$file"; $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)"; done

# Steps and seconds until each algorithm has learned, beside Stable-Baselines3; hours for all cases.
bench-learning: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.learning $(LEARNING_ARGS)

# What a model version costs: bytes in training runs, time of the codec, exactness in three languages,
# and the time until agents act by it. About an hour; needs g++.
bench-models: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.models $(MODELS_ARGS)

# The decision path while the broker is away for a minute, twice; then the same with the application
# killed in between. About 11 minutes.
outage: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.outage $(OUTAGE_ARGS)
	$(BIN)/python -m benchmarks.outage --kill $(OUTAGE_ARGS)

# Memory of agent, worker and broker at full speed, for 30 minutes.
soak: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.soak $(SOAK_ARGS)

# 200 faults in 20 minutes against real processes, and a control that must fail (Linux). Writes the
# report into docs/chaos; exits with 1 if anything was lost or trained twice.
chaos: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.chaos $(CHAOS_ARGS)

# Keeps runs/ and .rl4sys-stream/: results and a broker's data are not ours to delete.
clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
	  .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n "$(PYTHON)" || { \
	  echo "Found no Python 3.11, 3.12 or 3.13; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed-run: $(VENV)/.made pyproject.toml constraints.txt
	@# Only other indexes than the default one offer versions like 2.13.0+cpu, which pip prefers.
	@if [ "$$(uname -s)" = Linux ] && [ -z "$(TORCH_INDEX_URL)" ] \
	  && ! $(BIN)/python -c 'import torch' 2>/dev/null \
	  && ! $(PIP) index versions torch 2>/dev/null \
	    | grep -qF "$$(sed -n 's/^torch==//p' constraints.txt)+cpu"; then \
	  echo; \
	  echo "  PyTorch: on this machine pip chooses the CUDA build, a download of several gigabytes."; \
	  echo "  The CPU build (about 200 MB) is enough for everything here. To take that one, run"; \
	  echo "      make $(MAKECMDGOALS) TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu"; \
	  if [ -t 1 ]; then echo "  Ctrl-C stops; the CUDA build follows in 15 seconds."; sleep 15; fi; \
	  echo; \
	fi
	$(PIP) install --progress-bar on -c constraints.txt $(TORCH_INDEX) -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-run
	$(PIP) install --quiet -c constraints.txt --group dev
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	$(PIP) install --quiet -c constraints.txt --group fuzz
	@touch $@
