# Everything runs in .venv, made from requirements.lock (with requirements-dev.lock what tests and develops it);
# nothing has to be activated.
.DEFAULT_GOAL := help
.PHONY: help setup tex docs demo report report-cpu test twice chaos simulation fuzz vulnerabilities mutants verify bench growth terminal graphs lock format clean
SHELL := /bin/bash
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
READY := .venv/.ready
DEV := .venv/.ready-dev
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH"
SNAKEMAKE := $(RUN) snakemake --cores $(CORES)

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) tex ## Make .venv from the lock file, and a TeX engine where none is (TEX=no: none is installed)

# $(call install,LOCK): uv names what is large, and in a terminal shows how far it is.
# It trusts the certificates that the system trusts, as pip does.
define install
	@echo "Installing the packages of $(1) into .venv: about 6 GB, nearly all of it PyTorch with its GPU libraries"
	@VIRTUAL_ENV=.venv .venv/bin/uv pip sync --system-certs --compile-bytecode --require-hashes $(1)
	@VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
endef

# uv itself comes from the lock, so its hash is checked like every other.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}: make PYTHON=python3.11")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock
	@.venv/bin/python -m pip install --quiet --require-hashes --requirement .venv/uv.lock
	$(call install,requirements.lock)
	@touch $@

# Each time, since who had none installed may want one by now; it takes no time where there is one.
tex: $(READY)
	@workflow/scripts/ensure-tex

$(DEV): $(READY) requirements-dev.lock
	$(call install,requirements-dev.lock)
	@touch $@

demo: $(READY) tex ## The whole pipeline on embedded data, a few minutes: results/demo/report.pdf
	@$(SNAKEMAKE) --configfile config/demo.yaml -- report

report: $(READY) tex ## The real study: results/cifar10/report.pdf and report.html (hours without a GPU; see report-cpu)
	@$(SNAKEMAKE) -- report

report-cpu: $(READY) tex ## The same with one seed of each VGG, for a machine without a GPU
	@$(SNAKEMAKE) --configfile config/cpu.yaml -- report

test: $(DEV) tex ## Format, lint, types, layers, then all tests
	@$(RUN) ruff format --check src tests benchmarks docs
	@$(RUN) ruff check src tests benchmarks docs
	@$(RUN) snakefmt --check --compact-diff Snakefile workflow
	@$(RUN) mypy
	@$(RUN) lint-imports > .venv/layers.log || { cat .venv/layers.log; exit 1; }
	@$(RUN) snakemake --lint --configfile config/demo.yaml
	@$(RUN) pytest -n $(CORES) --dist loadscope --no-loadscope-reorder

twice: demo ## Build the demo a second time in another folder and compare the bytes
	@$(RUN) workflow/scripts/build-twice

mutants: $(DEV) ## Mutate the equations' code, their LaTeX and a sample of all else that computes a number; each must die (docs/mutants*.md)
	@$(RUN) python tests/mutation/mutate.py equations
	@$(RUN) python tests/mutation/mutate_displays.py
	@$(RUN) python tests/mutation/mutate.py sample

STUDY ?= cifar10-jpeg
verify: $(READY) ## Recompute every digest of a study, offline; with REFERENCE=DIR, compare with that study: make verify STUDY=demo
	@$(RUN) cifar-report verify --results results/$(STUDY) $(if $(REFERENCE),--reference $(REFERENCE))

vulnerabilities: $(DEV) ## Look the locked packages up in the databases of known vulnerabilities (needs a network)
	@$(RUN) pip-audit --strict --require-hashes --disable-pip --requirement requirements-dev.lock

chaos: $(DEV) ## Kill a small study 200 times at random; it must end the same (benchmarks/chaos.json)
	@$(RUN) python tests/chaos.py

simulation: $(DEV) ## How often verdicts are wrong: 10,000 simulated studies a case (benchmarks/verdicts.json; minutes)
	@$(RUN) python tests/simulate_verdicts.py

fuzz: $(DEV) ## The long property tests: 10,000 configurations, 30 of them trained, and 2,500 damaged files (minutes)
	@HYPOTHESIS_PROFILE=fuzz $(RUN) pytest -s tests/test_fuzz.py tests/test_damage.py

bench: $(DEV) ## Measure speed and memory against peers and limits on this processor: benchmarks/records/, docs/bench.svg
	@$(RUN) python benchmarks/bench.py $(BENCH)

growth: $(DEV) ## Cost against seeds, variants, images and cores: docs/growth.svg
	@$(RUN) python benchmarks/growth.py

terminal: $(DEV) ## Record what a terminal shows while a small study runs: docs/terminal.svg
	@$(RUN) python docs/examples/record_terminal.py docs/terminal.svg

graphs: $(DEV) ## Draw the rules and what is made from what (needs Graphviz): docs/rulegraph.svg, docs/dataflow.svg
	@$(RUN) python docs/examples/draw_graphs.py

docs: $(DEV) ## Build the documentation: site/index.html
	@$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

LOCK := uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-annotate --no-header --quiet
lock: ## Resolve the lock files anew, keeping what is locked where it still fits
	@$(RUN) $(LOCK) --group install --output-file requirements.lock
	@$(RUN) $(LOCK) --group install --group dev --constraint requirements.lock --output-file requirements-dev.lock

format: $(DEV) ## Format Python and Snakemake files
	@$(RUN) ruff format src tests benchmarks docs
	@$(RUN) ruff check --fix src tests benchmarks docs
	@$(RUN) snakefmt Snakefile workflow

clean: ## Remove the environment; results and downloads stay
	@rm -rf .venv .snakemake
