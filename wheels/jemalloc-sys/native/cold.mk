# Read after jemalloc's own Makefile.  What no malloc or free comes through, or only to
# start or to ask the system, is compiled for size: ctl.c alone is a third of the library at
# -O3.  Its pages count to every process that loads it.  Names that a version does not have
# are ignored.
COLD := background_thread base bin_info buf_writer ckh conf ctl decay ehooks exp_grow extent_dss \
	fxp hook hpa hpdata inspect malloc_io pa_extra pages prof prof_data prof_log prof_recent \
	prof_stack_range prof_stats prof_sys psset safety_check san sc sec stats sz \
	thread_event_registry tsd witness
$(foreach kind,pic.o o jet.o,$(COLD:%=src/%.$(kind))): override CFLAGS += -Os
