# `make` lists the targets. Each one that needs an environment creates it in .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# Without Python's warnings: setuptools warns of every editable installation.
PIP_INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet

# One thread per test process: the processes share the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

# Tests and commands start hundreds of processes, which import the same modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help train lecture figures test test-slow test-oracle test-gpu test-installs benchmark benchmark-ranks benchmark-gpu benchmark-smoke check-kernels docs lint format wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

train: $(VENV)/.gpu ## train the default network on handwritten digits; model and history go to runs/digits
	$(BIN)/gpunet train digits --compare-sklearn

lecture: $(VENV)/.lecture ## run every experiment of the lecture: figures and one page in runs/lecture
	$(BIN)/gpunet lecture all --out runs/lecture

figures: lecture ## the same, and write what docs/lecture.md takes from the experiments: table, figures, corrections
	$(BIN)/python -m gpunet.lecture.document docs/lecture.md --figures runs/lecture

test: $(VENV)/.dev ## run the tests, but for those that make test-slow runs
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) -m "not oracle and not gpu and not slow"

test-slow: $(VENV)/.dev ## run the tests that prove the others, and those that repeat them in a second form
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) -m "slow and not oracle and not gpu"

test-oracle: $(VENV)/.peers ## compare with PyTorch: values, gradients, trajectories; and with the benchmarks' peers
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) -m oracle

# With PYTHON=..., that interpreter is used as it is and nothing is installed: it needs CuPy, NumPy and pytest, to which
# the settings of plugins are unknown: without addopts they are no errors.
GPU_TESTS := tests/kernels tests/backends/cuda
GPU_PYTEST := -m pytest -m gpu -o addopts=-ra -o filterwarnings=default -p no:cacheprovider $(GPU_TESTS)

test-gpu: $(if $(filter command line environment,$(origin PYTHON)),,$(VENV)/.dev $(VENV)/.gpu) ## run the kernel tests on a GPU; PYTHON=python3 installs nothing
	$(if $(filter command line environment,$(origin PYTHON)),PYTHONPATH=. $(PYTHON),$(BIN)/python) $(GPU_PYTEST)

test-installs: $(VENV)/.dev ## wheel and source distribution in clean environments, oldest and newest packages; VERSIONS='3.10 3.14'
	$(PIP_INSTALL) uv
	$(BIN)/python tests/check_installs.py $(VERSIONS)

BENCHMARK = -m benchmarks --results $(or $(RESULTS),benchmarks/results)

benchmark: $(VENV)/.peers $(if $(MKL),$(VENV)/.mkl) ## time gpunet and its peers on this CPU, in ten to fifteen minutes; MKL=1 with MKL too; ARGS='-k batch_norm' for a part
	$(BIN)/python $(BENCHMARK) $(ARGS)

benchmark-ranks: $(VENV)/.dev ## time two processes beside two threads, in ten minutes; ARGS='--configurations ae' for a part
	$(PIP_INSTALL) -e '.[mpi]'
	$(BIN)/python -m benchmarks.ranks docs/performance.md $(ARGS)

# Each run ends after MINUTES; the next one goes on where it stopped, until every case has its rows.
MINUTES ?= 7
benchmark-gpu: $(if $(filter command line environment,$(origin PYTHON)),,$(VENV)/.peers $(VENV)/.gpu) ## the same on a GPU, in parts of MINUTES=7; PYTHON=python3 installs nothing
	$(if $(filter command line environment,$(origin PYTHON)),PYTHONPATH=. $(PYTHON),$(BIN)/python) $(BENCHMARK) \
		--device cuda --resume --minutes $(MINUTES) $(ARGS)

benchmark-smoke: $(VENV)/.peers ## run every benchmark once, small, to see that none is broken
	$(BIN)/python -m pytest benchmarks -q --benchmark-disable -p no:cacheprovider
	$(BIN)/python -m benchmarks --smoke $(ARGS)

check-kernels: $(VENV)/.dev ## compile every kernel for sm_75 to sm_120, without a GPU; QUICK=1 takes half of the time
	$(BIN)/gpunet kernels check --sass $(if $(QUICK),--quick)

docs: $(VENV)/.docs ## build the documentation in build/docs/html; a warning, also of a link that leads nowhere, is an error
	rm -rf docs/api/generated build/docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir build/docs/doctrees docs build/docs/html

lint: $(VENV)/.dev ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.dev ## build a wheel in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove the environment and everything that was built; runs/ stays
	rm -rf $(VENV) build dist docs/api/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "gpunet needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip
	@touch $@

$(VENV)/.cli: $(VENV)/.created pyproject.toml
	$(PIP_INSTALL) --editable '.[cli]'
	@touch $@

$(VENV)/.lecture: $(VENV)/.created pyproject.toml
	$(PIP_INSTALL) --editable '.[cli,plot]'
	@touch $@

# The CuPy that fits the driver, where there is an NVIDIA GPU.
$(VENV)/.gpu: $(VENV)/.cli
	@extra=$$($(BIN)/python -c 'from gpunet.backends.devices.probe import probe_gpu; print(probe_gpu().extra or "")'); \
	if [ -n "$$extra" ]; then echo "installing CuPy ($$extra)"; $(PIP_INSTALL) --editable ".[$$extra]"; fi
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.oracle: $(VENV)/.dev
	$(PIP_INSTALL) --editable '.[dev,oracle]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(PIP_INSTALL) --editable '.[dev,docs]'
	@touch $@

# PyTorch, JAX and Keras too; and MKL, which is large.
$(VENV)/.peers: $(VENV)/.oracle
	$(PIP_INSTALL) --editable '.[dev,peers]'
	@touch $@

$(VENV)/.mkl: $(VENV)/.peers
	$(PIP_INSTALL) --editable '.[dev,peers,mkl]'
	@touch $@
