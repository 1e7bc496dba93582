# Everything runs in .venv, made from requirements.lock; nothing has to be activated.
.DEFAULT_GOAL := help
.PHONY: help setup demo test report report-cpu verify lock format clean
SHELL := /bin/bash
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
READY := .venv/.ready
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH"
SNAKEMAKE := $(RUN) snakemake --cores $(CORES)

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## Make .venv from the lock file, and a TeX engine where none is

# uv itself comes from the lock, so its hash is checked like every other.
$(READY): requirements.lock pyproject.toml workflow/scripts/ensure-tex
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}: make PYTHON=python3.11")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock
	@.venv/bin/python -m pip install --quiet --require-hashes --requirement .venv/uv.lock
	@VIRTUAL_ENV=.venv .venv/bin/uv pip sync --quiet --require-hashes requirements.lock
	@VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@workflow/scripts/ensure-tex
	@touch $@
