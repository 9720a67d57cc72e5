# Each target works alone on a fresh clone: it makes the virtual environment, installs, and runs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-images test quick check clean

demo: .venv/demo
	$(BIN)/unmix demo --out unmix-demo --overwrite

demo-images: .venv/demo
	$(BIN)/unmix demo --images --out unmix-demo-images --overwrite

test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

quick: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal -m "not slow"

check: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv unmix-demo unmix-demo-images
