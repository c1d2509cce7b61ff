# Read after jemalloc's own Makefile.  What no malloc or free comes through is compiled for
# size: ctl.c alone is a third of the library at -O3.  Its pages count to every process
# that loads it.  Names that a version does not have are ignored.
COLD := background_thread buf_writer ckh conf ctl hpa hpdata inspect malloc_io prof_data \
	prof_log prof_recent prof_stack_range prof_stats prof_sys psset san sec stats
$(foreach kind,pic.o o jet.o,$(COLD:%=src/%.$(kind))): override CFLAGS += -Os
