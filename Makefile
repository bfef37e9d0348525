# make demo | test | lint | bench; each makes the environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
bin := $(VENV)/bin

.PHONY: demo test lint format bench readme clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(bin)/python tools/demo.py

test: $(VENV)/installed
	$(bin)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/installed
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/python tools/analysis_tools/make_readme.py --check

format: $(VENV)/installed
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

readme: $(VENV)/installed
	$(bin)/python tools/analysis_tools/make_readme.py

bench: $(VENV)/installed
	$(bin)/python -W ignore benchmarks/bench.py small

# uv resolves and unpacks the stack in half a minute, where pip takes several.
$(VENV)/installed: pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else \
	    f"error: Python 3.10 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(bin)/uv pip install --quiet --python $(bin)/python -c constraints.txt -e '.[onedl,dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
