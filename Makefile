PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that share the tests, with one thread each.
JOBS ?= 2

.PHONY: demo models test coverage lint docs site release-check nightly results clean

# One environment; the stamp says which extra is in it. constraints.txt says what it is for.
$(VENV)/.demo $(VENV)/.models $(VENV)/.test $(VENV)/.docs $(VENV)/.site: $(VENV)/.%: pyproject.toml constraints.txt
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

# Which lines all tests reach, those of the night too; counting them takes half as long again.
coverage: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "" --cov=skact --cov-report=term:skip-covered \
		--cov-fail-under=95

lint: $(VENV)/.test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# The site. A warning fails, and so does a link that leads nowhere or a file from elsewhere.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -E -W --keep-going -b html docs docs/_build/html
	$(BIN)/python -m pytest .ci/test_site.py -k "not browser"

# The same in a headless browser, if one is there.
site: $(VENV)/.site docs
	$(BIN)/python -m pytest .ci/test_site.py -k browser -rs

# The release: built, installed and tried with every Python that is here.
release-check:
	.ci/release

# What takes too long for every change, in parts: `make nightly PARTS=release`; all without a name.
nightly: $(VENV)/.test
	.ci/nightly $(PARTS)

# All files of benchmarks/results, from committed code; hours. Called again it goes on where it was.
# `make results DATA=folder ONLY="paper_goemotions_minilm thresholds"`; without ONLY all of them.
DATA ?= data
results: models
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/make_results.py --data $(DATA) \
		$(if $(GROUP),--group $(GROUP)) $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/gallery docs/reference demo_output
