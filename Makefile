# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: help demo test check benchmarks lock clean

help:
	@echo "make demo        the whole path on drawn photographs, offline (minutes)"
	@echo "make test        set up and run the tests"
	@echo "make check       format, lint, types, import floors"
	@echo "make benchmarks  measure what the documents claim"
	@echo "make lock        resolve pyproject.toml into requirements.lock anew"

# A checksum rather than the file's date: a fresh checkout or a touched file installs nothing again.
$(STAMP): requirements.lock pyproject.toml scripts/setup
	@scripts/setup "$(PYTHON)" "$(VENV)"

demo: $(STAMP)
	$(VENV)/bin/predilect demo

test: $(STAMP)
	scripts/test

check: $(STAMP)
	scripts/check

benchmarks: $(STAMP)
	$(VENV)/bin/python -m pytest -o addopts= -o python_files='bench_*.py' benchmarks --benchmark-only

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--extra dev pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
