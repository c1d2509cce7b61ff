# Sanitizers, static analysis and fuzzing; called by the main Makefile, from the root.
#
# The core under ASan and UBSan runs a fixed part of the tests.  Left out: what asks
# which malloc this is, or how much it holds, because then it is ASan's; and what
# provokes a fault, because ASan reports it first.

SHELL := bash
.SHELLFLAGS := -o pipefail -c

BIN ?= .venv/bin
CC = gcc
CLANG ?= clang
SECONDS ?= 300
OUT = build/fuzz
HERE = tests/fuzz
HEADERS = $(wildcard src/alloc/_c/*.h src/alloc/include/alloc/*.h) $(HERE)/tables.h
COMPILE = -g -Wall -Wextra -Wno-unused-function -Isrc/alloc -Isrc/alloc/include -I$(HERE)
UB = -fsanitize=undefined -fno-sanitize-recover=undefined

say = @printf '\n==> %s\n' "$(1)"
need = @command -v $(1) >/dev/null || { echo 'error: no $(1) (Debian: apt-get install $(2))'; exit 1; }

.PHONY: sanitize analyzer asan corpus threads valgrind musl fuzz
sanitize: analyzer corpus threads valgrind asan

$(OUT):
	@mkdir -p $@

# --- the headers, read by GCC's analyzer: every function, called or not -----------------
analyzer: | $(OUT)
	$(call need,$(CC),gcc)
	$(call say,the GCC analyzer over the headers)
	@for header in $(patsubst src/alloc/include/%,%,$(patsubst src/alloc/%,%,$(wildcard src/alloc/_c/*.h src/alloc/include/alloc/*.h))); do \
	  printf '%s\n' '#include <Python.h>' '#define ALLOC_TABLE_ONLY 1' '#include "_c/system.h"' \
	    '#include "_c/jemalloc.h"' "#include \"$$header\"" > $(OUT)/one.c; \
	  $(CC) -O1 -g -fanalyzer -fkeep-static-functions -fkeep-inline-functions -Isrc/alloc -Isrc/alloc/include \
	    -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])') \
	    -c -o /dev/null $(OUT)/one.c 2> $(OUT)/analyzer.txt || { cat $(OUT)/analyzer.txt; exit 1; }; \
	  if grep -q 'Wanalyzer' $(OUT)/analyzer.txt; then echo "$$header"; cat $(OUT)/analyzer.txt; exit 1; fi; \
	done; echo nothing found

# --- the C tables: the committed corpus under ASan and UBSan, threads under TSan ---------
$(OUT)/corpus: $(HERE)/table.c $(HEADERS) | $(OUT)
	@$(CC) $(COMPILE) -O1 -DSTANDALONE -fsanitize=address $(UB) $< -o $@

$(OUT)/plain: $(HERE)/table.c $(HEADERS) | $(OUT)
	@$(CC) $(COMPILE) -O1 -DSTANDALONE $< -o $@

$(OUT)/threads: $(HERE)/threads.c $(HEADERS) | $(OUT)
	@$(CC) $(COMPILE) -O1 -fsanitize=thread $< -o $@ -pthread

corpus: $(OUT)/corpus
	$(call say,the fuzzer's corpus on the C tables - ASan and UBSan)
	@$(OUT)/corpus $(HERE)/corpus/table/* 2> $(OUT)/corpus.log || \
		{ grep -v 'failed to allocate' $(OUT)/corpus.log; exit 1; }

threads: $(OUT)/threads
	$(call say,threads on the C tables - TSan)
	@TSAN_OPTIONS=halt_on_error=1:exitcode=9 setarch -R $(OUT)/threads

# --- the C tables over musl's malloc, under musl's loader: not part of `sanitize` --------
musl: | $(OUT)
	$(call need,musl-gcc,musl-tools)
	$(call say,the C tables on musl: the corpus and threads)
	@musl-gcc $(COMPILE) -O1 -DSTANDALONE $(HERE)/table.c -o $(OUT)/musl-table
	@musl-gcc $(COMPILE) -O1 $(HERE)/threads.c -o $(OUT)/musl-threads -pthread
	@$(OUT)/musl-table $(HERE)/corpus/table/* && $(OUT)/musl-threads

# Undefined values are looked for in C only: CPython 3.11 computes with them itself
# (_PyLong_FromByteArray), and what it derives from them shows everywhere.
valgrind: $(OUT)/plain
	$(call need,valgrind,valgrind)
	$(call say,valgrind: the corpus - then the compiled allocators through Python)
	@valgrind -q --error-exitcode=9 --leak-check=full $(OUT)/plain $(HERE)/corpus/table/*
	@PYTHONMALLOC=malloc valgrind -q --error-exitcode=9 --leak-check=no --undef-value-errors=no \
		--suppressions=$(HERE)/valgrind.supp $(BIN)/python -X faulthandler $(HERE)/used.py

# --- the compiled core under ASan and UBSan ---------------------------------------------
ASAN = build/asan
ASAN_TESTS = tests/test_semantics.py tests/test_global.py tests/test_jemalloc.py tests/test_exchange.py \
	tests/test_testing_backends.py tests/capi tests/ledger/test_control.py tests/adaptors/test_adaptors.py \
	tests/adaptors/test_regions.py tests/adaptors/test_sampled.py tests/adaptors/test_conformance.py \
	tests/adaptors/test_cycles.py
NOT_UNDER_ASAN = ulimit or preloaded or interposes or corpus or faults or another_handler or the_pure_implementation or guard_pages

$(ASAN)/stamp: setup.py $(HEADERS) $(wildcard src/alloc/*.pyx src/alloc/*.pxi src/alloc/*.pxd src/alloc/*.py src/alloc/*/*.py)
	$(call say,the core with ASan and UBSan)
	@rm -rf $(ASAN)
	@mkdir -p $(ASAN)
	@ALLOC_CORE=require LDFLAGS='-fsanitize=address,undefined' \
		ALLOC_CFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=address -Wno-unused-function $(UB)' \
		$(BIN)/python setup.py -q build --build-base $(ASAN)/obj --build-lib $(ASAN)/lib > $(ASAN)/log 2>&1 || \
		{ tail -n 30 $(ASAN)/log; exit 1; }
	@touch $@

asan: $(ASAN)/stamp
	$(call say,a fixed part of the tests under ASan and UBSan)
	@LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	PYTHONMALLOC=malloc PYTHONPATH=$(ASAN)/lib \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:quarantine_size_mb=8 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	$(BIN)/python -X faulthandler -m pytest -q -p no:cacheprovider $(ASAN_TESTS) -k 'not ($(NOT_UNDER_ASAN))' $(ARGS)

# --- fuzzing: SECONDS for each of the two -------------------------------------------------
$(OUT)/table: $(HERE)/table.c $(HEADERS) | $(OUT)
	$(call need,$(CLANG),clang)
	@$(CLANG) $(COMPILE) -O1 -fsanitize=fuzzer,address $(UB) $< -o $@

# What is new goes to build/fuzz; see README.md for what to commit of it.
fuzz: $(OUT)/table
	@mkdir -p $(OUT)/new-table $(OUT)/new-decision
	$(call say,$(SECONDS) seconds of libFuzzer on the C tables)
	@$(OUT)/table -max_total_time=$(SECONDS) -max_len=1500 -print_final_stats=1 -artifact_prefix=$(OUT)/ \
		$(OUT)/new-table $(HERE)/corpus/table 2>&1 | tee $(OUT)/table.log | \
		{ grep -E 'ERROR|broken|runtime error|SUMMARY|^stat::number|Test unit' || true; }
	$(call say,$(SECONDS) seconds of atheris on the decision)
	@$(BIN)/python -m pip install -q atheris
	@$(BIN)/python $(HERE)/decision.py -max_total_time=$(SECONDS) -len_control=0 -max_len=2000 \
		-artifact_prefix=$(OUT)/ $(OUT)/new-decision $(HERE)/corpus/decision 2>&1 | tee $(OUT)/decision.log | \
		{ grep -E 'ERROR|Error|SUMMARY|^Done|Test unit' || true; }
