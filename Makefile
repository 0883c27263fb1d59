# Everything a clone needs: Python 3.11 or newer, and make. All that it writes stays inside the clone:
# packages in .venv, downloads and scratch files in .cache.

PYTHONS := python3.11 python3.12 python3.13 python3
BIN := .venv/bin

export PATH := $(CURDIR)/$(BIN):$(PATH)
export TMPDIR := $(CURDIR)/.cache/tmp
export XDG_CACHE_HOME := $(CURDIR)/.cache
export XDG_CONFIG_HOME := $(CURDIR)/.cache/config
export XDG_DATA_HOME := $(CURDIR)/.cache/data
export HF_HOME := $(CURDIR)/.cache/huggingface
export NPM_CONFIG_CACHE := $(CURDIR)/.cache/npm
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_USE_PEP517 := 1
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
# What is installed is compiled where it is first imported: all of it would take a minute, and not keeping that, as many
# containers ask, twenty seconds of each start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test test-fast lint format proto check-proto lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BIN)/.ready ## play a small story through a server of its own, and show what comes out
	@$(BIN)/penchant demo

serve: $(BIN)/.ready ## run the server on 127.0.0.1:50051, its data in ./penchant-data
	@$(BIN)/penchant serve

test: $(BIN)/.ready-dev ## run every test
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-fast: $(BIN)/.ready-dev ## run the tests that take no more than a few seconds each
	@$(BIN)/python -m pytest -m "not slow"

lint: $(BIN)/.ready-dev check-proto ## check style, types and the contract
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/buf lint

format: $(BIN)/.ready-dev ## rewrite the code in the project's style
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

proto: $(BIN)/.ready-dev ## generate code from proto/
	@$(BIN)/python scripts/generate.py

check-proto: $(BIN)/.ready-dev ## check that generated code is fresh and that the contract still holds
	$(BIN)/python scripts/generate.py --check

lock: $(BIN)/.ready-dev ## pin the newest packages that pyproject.toml allows
	@echo "Resolving every package; a few minutes."
	@$(BIN)/python scripts/lock.py

clean: ## remove everything that make wrote, but not ./penchant-data
	@rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip works by one core, so parts of a lock are installed side by side. Each is looked through once more as a whole: other
# systems need what no lock names, as torch does where it comes for CUDA.
INSTALL = grep -v '^\#' $< | xargs -P 2 -n 20 $(BIN)/python -m pip install --quiet --no-compile --no-deps

# A stamp says that the environment matches the locks; it is inside .venv, so removing that is enough to start afresh.

.cache/tmp:
	@mkdir -p $@

$(BIN)/python: | .cache/tmp
	@rm -rf .venv
	@for python in $(PYTHONS); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "Creating .venv with $$($$python --version); a few seconds."; \
	  $$python -m venv .venv && exit 0; \
	  rm -rf .venv; \
	  echo "$$python can't create virtual environments; it needs its venv module (on Debian: python3-venv)." >&2; exit 1; \
	done; \
	echo "Python 3.11 or newer is needed, and none of these is: $(PYTHONS)." >&2; exit 1

$(BIN)/.ready: requirements.lock pyproject.toml | $(BIN)/python .cache/tmp
	@echo "Installing what Penchant runs on (requirements.lock); the first time 1 to 5 minutes."
	@$(INSTALL)
	@$(BIN)/python -m pip install --quiet --no-compile --no-build-isolation --requirement $< --editable .
	@touch $@

$(BIN)/.ready-dev: requirements-dev.lock $(BIN)/.ready
	@echo "Installing what developing adds (requirements-dev.lock); the first time about a minute."
	@$(INSTALL)
	@$(BIN)/python -m pip install --quiet --no-compile --requirement $<
	@touch $@
