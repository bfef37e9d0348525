# make demo | test | lint | docs | bench | gpu; each makes the environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
bin := $(VENV)/bin

.PHONY: demo test lint format docs docs-links bench gpu tables clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(bin)/python tools/demo.py

test: $(VENV)/installed
	$(bin)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/installed
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/codespell
	$(bin)/mypy
	$(bin)/pylint vik_mm vik_mm_cli tools benchmarks
	$(bin)/python tools/analysis_tools/make_tables.py --check

format: $(VENV)/installed
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

tables: $(VENV)/installed
	$(bin)/python tools/analysis_tools/make_tables.py

# Each build reads all pages: Sphinx would not repeat the warnings of pages that have not changed, and pass.
docs: $(VENV)/docs-installed
	$(bin)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo 'open build/docs/index.html'

# Links to other sites; it needs the internet.
docs-links: $(VENV)/docs-installed
	$(bin)/sphinx-build --quiet --fail-on-warning --keep-going -b linkcheck docs build/docs-links

bench: $(VENV)/installed
	$(bin)/python -W ignore benchmarks/bench.py small

# On one GPU, about 25 minutes; what is done is kept. GPU_ARGS='--time 9m' does a part.
gpu: $(VENV)/installed
	$(bin)/python benchmarks/gpu.py $(GPU_ARGS)

# uv resolves and unpacks the stack in half a minute, where pip takes several.
$(VENV)/installed: pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else \
	    f"error: Python 3.10 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(bin)/uv pip install --quiet --python $(bin)/python -c constraints.txt -e '.[onedl,dev]'
	touch $@

$(VENV)/docs-installed: $(VENV)/installed
	$(bin)/uv pip install --quiet --python $(bin)/python -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
