PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that share the tests, with one thread each.
JOBS ?= 2

.PHONY: demo models test coverage lint docs nightly clean

# One environment; the stamp says which extra is in it. The constraints file keeps the CPU build of
# torch, where an open range would fetch several gigabytes of CUDA packages.
$(VENV)/.demo $(VENV)/.models $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python benchmarks/demo.py --out demo_output

# Pretrained transformers for tests and benchmarks, into models/; nothing is done twice.
models: $(VENV)/.models
	$(BIN)/python benchmarks/make_models.py

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# Which lines the tests reach; counting them takes half as long again as the tests.
coverage: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --cov=skact --cov-report=term:skip-covered \
		--cov-fail-under=95

lint: $(VENV)/.test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -b html docs docs/_build/html

# What takes too long for every change: the oldest versions allowed, and the release as users get it.
nightly: $(VENV)/.test
	.ci/nightly

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build demo_output
