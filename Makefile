# The front door.  `make` alone lists what there is.
#
#   PYTHON=python3.12   the interpreter to build for
#   WITHOUT="gdb cc"    test: deselect what needs these
#   ARGS="-k layout"    test: passed on to pytest

SHELL := bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=
WITHOUT ?=
PYPY ?= pypy3
JEMALLOC = wheels/jemalloc-sys
STAMPS = $(VENV)/stamps

say = @printf '\n==> %s\n' "$(1)"
deselect = $(foreach part,$(WITHOUT),--without $(part))
# Programs that are not Python's: `hosts` installs them, `test-hosts` is their run.
HOSTS = vim uwsgi apache node
apart = $(foreach part,$(HOSTS),--without $(part))

ALLOC_SOURCES = $(shell find src -name '*.py' -o -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.h') \
	pyproject.toml setup.py README.md
JEMALLOC_SOURCES = $(shell find $(JEMALLOC) -path '*/build' -prune -o -path '*/source' -prune -o \
	-path '*/tests' -prune -o -path '*/bench' -prune -o -path '*.egg-info' -prune -o -type f -print)

.PHONY: help demo test test-hosts hosts test-python test-pypy test-pyodide test-nightly sanitize fuzz test-jemalloc check check-jemalloc bench bench-rss bench-regression build examples clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: build ## build everything into .venv and run the main job on real input
	$(call say,the demo: $(BIN)/python examples/demo.py)
	@$(BIN)/python examples/demo.py $(ARGS)

test: build tools-test require-jemalloc ## the tests, against what `build` installed
	$(call say,the tests)
	@$(BIN)/python -m pytest tests -q $(deselect) $(apart) $(ARGS)

hosts: ## install the programs of `test-hosts`, as root on Debian
	@apt-get update -qq && apt-get install -y --no-install-recommends \
		gdb vim-nox uwsgi-core uwsgi-plugin-python3 apache2 libapache2-mod-wsgi-py3 \
		$$(command -v node >/dev/null || echo nodejs libnode-dev)

test-hosts: build tools-test require-jemalloc ## who owns the process, in gdb, vim, uWSGI, Apache and node
	$(call say,the tests in other programs: $(HOSTS))
	@$(BIN)/python -m pytest tests/embedding -q $(deselect) $(ARGS) \
		-m "needs_gdb$(foreach part,$(HOSTS), or needs_$(part))"

test-python: build tools-test ## the same tests on the pure-Python implementation
	$(call say,the tests on the pure-Python implementation)
	@ALLOC_IMPLEMENTATION=python $(BIN)/python -m pytest tests -q --implementation python $(deselect) $(apart) $(ARGS)

# Hours: 10,000 examples for each backend, and 500 for each adaptor over each of them.
NIGHTLY = tests/test_testing_backends.py tests/test_arena_invariants.py tests/test_decide.py \
	tests/test_layout.py tests/adaptors/test_conformance.py
test-nightly: build tools-test require-jemalloc ## the property tests with 10,000 examples, compiled and pure (hours)
	$(call say,the property tests at length)
	@$(BIN)/python -m pytest $(NIGHTLY) -v --hypothesis-profile=nightly -k 'not the_pure' $(deselect) $(ARGS)
	$(call say,the same on the pure-Python implementation)
	@ALLOC_IMPLEMENTATION=python $(BIN)/python -m pytest $(NIGHTLY) -v --hypothesis-profile=nightly \
		--implementation python $(deselect) $(ARGS)

# Not there: tests of the core, of embedding in CPython, and of other packages.
test-pypy: $(STAMPS)/pure ## the tests that apply, on PyPy with the pure wheel (PYPY=pypy3)
	@command -v $(PYPY) >/dev/null || \
		{ echo 'error: no $(PYPY) (Debian: apt-get install pypy3 pypy3-venv; else: make test-pypy PYPY=...)'; exit 1; }
	$(call say,a clean environment of $(PYPY) with the pure wheel)
	@rm -rf build/pypy
	@$(PYPY) -m venv build/pypy || { echo 'error: no virtual environment (Debian: apt-get install pypy3-venv)'; exit 1; }
	@build/pypy/bin/python -m pip install -q 'pytest>=8' 'hypothesis>=6.100' build/pure/pyalloc-*.whl
	$(call say,the tests on PyPy)
	@build/pypy/bin/python -m pytest tests -q --implementation python \
		$(foreach part,cpython cc gunicorn coverage memray pyspy pybind11 gevent gdb rich rust resvg browser,--without $(part)) \
		--ignore tests/embedding --ignore tests/test_exchange.py --ignore tests/test_blocks_document.py $(deselect) $(ARGS)

# The npm package is Pyodide itself; the wheels come from the package index.
PYODIDE = build/pyodide
test-pyodide: $(STAMPS)/pure $(PYODIDE)/stamp ## the contract and the kit, in Pyodide with the pure wheel (needs node)
	@rm -f $(PYODIDE)/wheels/pyalloc-* && cp build/pure/pyalloc-*.whl $(PYODIDE)/wheels
	$(call say,the tests in Pyodide)
	@node tests/pyodide/run.mjs $(PYODIDE)/node_modules/pyodide $(PYODIDE)/wheels tests \
		-q -p no:cacheprovider -c /dev/null --rootdir /tests --import-mode=importlib --implementation python \
		$(foreach part,processes threads loop proc,--without $(part)) $(deselect) \
		$(addprefix /tests/,$(PYODIDE_TESTS)) $(ARGS)

PYODIDE_TESTS = test_layout.py test_decide.py test_pure.py test_global.py test_semantics.py test_arena.py \
	test_arena_invariants.py test_testing_backends.py test_testing_failures.py

$(PYODIDE)/stamp: $(STAMPS)/venv Makefile
	@command -v npm >/dev/null && command -v node >/dev/null || \
		{ echo 'error: node 18 or newer and npm are needed (Debian: apt-get install nodejs npm)'; exit 1; }
	$(call say,Pyodide from npm - pytest and Hypothesis for it)
	@rm -rf $(PYODIDE) && mkdir -p $(PYODIDE)
	@npm install --silent --no-audit --no-fund --prefix $(PYODIDE) pyodide@314
	@$(BIN)/python -m pip download -qq -d $(PYODIDE)/wheels --only-binary :all: --platform any \
		--implementation py --abi none --python-version 3.14 'pytest>=8' 'hypothesis>=6.100'
	@touch $@

sanitize: build tools-test require-jemalloc ## ASan, UBSan, TSan, valgrind, GCC's analyzer (tests/fuzz)
	@$(MAKE) --no-print-directory -f tests/fuzz/fuzz.mk sanitize BIN=$(BIN) ARGS='$(ARGS)'

fuzz: build tools-test ## the C tables and the decision under fuzzers (SECONDS=300 each)
	@$(MAKE) --no-print-directory -f tests/fuzz/fuzz.mk fuzz BIN=$(BIN) $(if $(SECONDS),SECONDS=$(SECONDS))

test-jemalloc: build tools-test require-jemalloc ## the tests of the installed jemalloc-sys
	$(call say,the tests of jemalloc-sys)
	@$(BIN)/python -m pytest $(JEMALLOC)/tests -q $(ARGS)

.PHONY: test-cpython
test-cpython: build require-jemalloc ## CPython's own tests under install(), against stock (FULL=1: more of them)
	$(call say,CPython's own tests)
	@$(BIN)/python tests/cpython/run.py $(if $(FULL),--full) $(ARGS)

.PHONY: soak
soak: build tools-test require-jemalloc ## install() and uninstall() at random among forks and threads (SECONDS=3600, SEED=)
	$(call say,the soak)
	@$(BIN)/python tests/soak.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: test-numpy
test-numpy: build require-jemalloc ## NumPy's own core tests under install(), against stock (NumPy 2, and 1.26 below 3.13)
	$(call say,NumPy's own tests)
	@$(BIN)/python tests/numpy/run.py $(ARGS)

check: build tools-check tools-test ## lint, types, stubs, workflow files
	$(call say,lint)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint --max-line-length 100 src/alloc/*.pyx src/alloc/*.pxi src/alloc/*.pxd
	$(call say,types)
	@$(BIN)/mypy
	$(call say,stubs against the compiled modules)
	@$(BIN)/python -m mypy.stubtest $(patsubst src/alloc/%.pyx,alloc.%,$(wildcard src/alloc/*.pyx)) --concise \
		--allowlist tests/stubtest-allowlist.txt --ignore-unused-allowlist
	$(call say,workflow files)
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet .github/workflows

bench: build tools-bench ## the costs, against other libraries, as ratios (benchmarks/results)
	$(call say,the benchmarks)
	@$(BIN)/python benchmarks/run.py $(ARGS)

bench-rss: build tools-bench-rss ## memory kept, against other allocators and settings (QUICK=1: a few minutes)
	$(call say,the memory benchmark)
	@$(BIN)/python benchmarks/rss/run.py $(if $(QUICK),--quick) $(ARGS)

bench-regression: build ## instructions of fixed work against an older commit (ARGS="--against REF"; valgrind)
	@$(BIN)/python benchmarks/regression.py $(ARGS)

# With ARCH: compiled as the wheels are; a foreign one's programs run as
# JEMALLOC_TEST_PREFIX says, "qemu-aarch64-static -L TREE" for one.
check-jemalloc: $(if $(ARCH),tools-wheels,$(STAMPS)/venv) ## jemalloc's own tests on our builds of it (ARCH=x86_64; half an hour)
	$(call say,jemalloc's own tests)
	@$(if $(ARCH),JEMALLOC_SYS_HOST=$(ARCH)-linux-gnu CC="$(CROSS)" AR="$(CROSS) ar" NM=nm STRIP=true LDFLAGS=-s) \
		$(BIN)/python $(JEMALLOC)/tests/upstream.py $(ARGS)

CROSS = $(CURDIR)/$(BIN)/python $(CURDIR)/wheels/cross_cc.py $(ARCH)-linux-gnu.2.17

wheels: tools-wheels ## dist/: wheels for every CPython here, x86_64 and aarch64, and sdists; audited
	$(call say,the wheels)
	@$(BIN)/python wheels/build.py $(ARGS)
	@$(BIN)/python wheels/audit.py dist

test-wheels: tools-test ## what `make wheels` left in dist/, in clean environments
	$(call say,the wheels in clean environments)
	@$(BIN)/python -m pytest wheels/tests/test_installed.py wheels/tests/test_suite.py -q $(ARGS)

test-artefacts: tools-test ## the same as users meet it: sdist, PyPy, PyInstaller, pyarrow, torch ... (index)
	$(call say,what is in dist/ as users meet it)
	@$(BIN)/python -m pytest wheels/tests/test_artefacts.py -q $(ARGS)

test-wheels-debian11 test-wheels-aarch64: tools-test ## the fast suite on dist/ in a Debian tree, emulated (root)
	$(call say,the wheels in a tree: $(@:test-wheels-%=%))
	@$(BIN)/python wheels/tests/in_tree.py $(@:test-wheels-%=%) $(ARGS)

test-wheels-wine: tools-test ## the fast suite on the Windows wheels in dist/, in wine (wine64)
	$(call say,the Windows wheels in wine)
	@$(BIN)/python wheels/tests/in_wine.py $(ARGS)

wheels-cibuildwheel: tools-cibuildwheel ## the real cibuildwheel on the sdists in dist/, with podman (root)
	$(call say,cibuildwheel)
	@$(BIN)/python wheels/cibuildwheel_here.py $(ARGS)

build: $(STAMPS)/jemalloc $(STAMPS)/alloc ## jemalloc-sys and pyalloc, as wheels, into .venv

$(STAMPS)/venv:
	$(call say,virtual environment in $(VENV) for $(PYTHON))
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 9), sys.version' || \
		{ echo 'error: Python 3.9 or newer is needed: make PYTHON=...'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo 'error: no virtual environment (Debian: apt-get install python3-venv)'; exit 1; }
	@$(BIN)/python -m pip install -q --upgrade 'pip>=25.1' && $(BIN)/python -m pip install -q --group build
	@mkdir -p $(STAMPS) && touch $@

# A jemalloc that cannot be had is no error here: the package works without, the
# demo says so, and the tests fail with this text.
$(STAMPS)/jemalloc: $(STAMPS)/venv $(JEMALLOC_SOURCES)
	$(call say,jemalloc-sys: fetch the source - compile it - a few minutes the first time)
	@rm -rf build/wheels/jemalloc_sys-* $(STAMPS)/jemalloc.missing
	@mkdir -p build
	@if $(BIN)/python $(JEMALLOC)/fetch_source.py --dest $(JEMALLOC)/source && \
	    { $(BIN)/python -m pip wheel -v --no-deps --no-build-isolation -w build/wheels $(JEMALLOC) 2>&1 | \
	      tee build/jemalloc-sys.log | { grep --line-buffered -o 'jemalloc: .*' || true; }; } && \
	    $(BIN)/python -m pip install -q --no-deps --force-reinstall build/wheels/jemalloc_sys-*.whl; then \
	  echo "jemalloc-sys $$($(BIN)/python -c 'import jemalloc_sys; print(jemalloc_sys.__version__)') is installed"; \
	else \
	  tail -n 15 build/jemalloc-sys.log 2>/dev/null; \
	  echo 'WARNING: jemalloc-sys could not be built (above: why; build/jemalloc-sys.log). Going on with System alone.' | \
	    tee $(STAMPS)/jemalloc.missing; \
	fi
	@touch $@

$(STAMPS)/alloc: $(STAMPS)/venv $(ALLOC_SOURCES)
	$(call say,pyalloc: compile and install)
	@rm -rf build/wheels/pyalloc-* build/lib* build/bdist* src/*.egg-info
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w build/wheels .
	@$(BIN)/python -m pip install -q --no-deps --force-reinstall build/wheels/pyalloc-*.whl
	@$(BIN)/python -c 'import alloc; print("pyalloc is installed:", alloc.implementation, "implementation")'
	@touch $@

# Without the core, whatever the interpreter: py3-none-any.
$(STAMPS)/pure: $(STAMPS)/venv $(ALLOC_SOURCES)
	$(call say,pyalloc: the pure wheel)
	@rm -rf build/pure build/lib build/bdist* src/*.egg-info
	@ALLOC_CORE=none $(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w build/pure .
	@ls build/pure/pyalloc-*-py3-none-any.whl
	@touch $@

.PHONY: tools-test tools-check tools-bench tools-bench-rss tools-wheels tools-cibuildwheel wheels test-wheels test-artefacts \
	test-wheels-debian11 test-wheels-aarch64 test-wheels-wine wheels-cibuildwheel require-jemalloc
tools-test tools-check tools-bench tools-bench-rss tools-wheels tools-cibuildwheel: tools-%: $(STAMPS)/tools-%
$(STAMPS)/tools-%: $(STAMPS)/venv pyproject.toml
	$(call say,tools: $*)
	@$(BIN)/python -m pip install -q --group $*
	@touch $@

require-jemalloc: $(STAMPS)/jemalloc
	@if [ -e $(STAMPS)/jemalloc.missing ] && [ -z '$(filter jemalloc,$(WITHOUT))' ]; then \
	  cat $(STAMPS)/jemalloc.missing; \
	  echo 'error: the tests need jemalloc-sys; without it: make test WITHOUT=jemalloc'; exit 1; fi

clean: ## remove all that was built
	rm -rf $(VENV) build dist src/*.egg-info src/alloc/*.so src/alloc/_*.c \
		$(JEMALLOC)/build $(JEMALLOC)/src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
