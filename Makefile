# `make demo` and `make test` do all their own set-up: Python >= 3.11 and make are enough.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check docs slurm bench chaos thousand clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# Trains six targets on handwritten digits on the CPU, two at a time, and compares them.
demo: .venv/installed
	$(BIN)/diffexp train experiment=quick
	$(BIN)/diffexp report quick

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist worksteal

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

# The documentation site, into site/: open site/index.html. Broken links and references are errors.
docs: .venv/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Sweeps on a real SLURM, started here and ended again: minutes, as root, with Debian's packages; skipped without.
slurm: .venv/installed
	tests/slurm/install.sh
	DIFFEXP_TEST_SLURM=1 $(BIN)/python -m pytest -rs tests/slurm

# Ratios measured in one run: a training step against a bare loop, start-up and report times.
bench: .venv/installed
	$(BIN)/python tools/benchmarks.py

# Kills runs at bad moments, repeats their command, and compares them with an undisturbed one; then tries 300 random
# command lines.
chaos: .venv/installed
	$(BIN)/python tools/chaos.py
	$(BIN)/python tools/fuzz_configurations.py --examples 300

# Sweeps a thousand trivial jobs, a tenth of which crash, and counts them: minutes.
thousand: .venv/installed
	$(BIN)/python tools/thousand.py

clean:
	rm -rf .venv build dist site .pytest_cache .ruff_cache
