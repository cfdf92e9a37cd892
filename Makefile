# ptrack: block-level change tracking for PostgreSQL

# The one place that the version is written down in is the control file.
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(dir $(firstword $(MAKEFILE_LIST)))ptrack.control)

MODULE_big = ptrack
OBJS = \
	src/arguments.o \
	src/backup_api.o \
	src/backup_list.o \
	src/backup_progress.o \
	src/backup_read.o \
	src/chain.o \
	src/change_gather.o \
	src/change_merge.o \
	src/change_query.o \
	src/changed_forks.o \
	src/changed_segments.o \
	src/common/summary_format.o \
	src/coverage_start.o \
	src/engine.o \
	src/hooks.o \
	src/lineage.o \
	src/map_cycles.o \
	src/map_mark.o \
	src/map_snapshot.o \
	src/merge_plan.o \
	src/page_reader.o \
	src/ptrack_api.o \
	src/ptrack_map.o \
	src/publish.o \
	src/relation_files.o \
	src/report_api.o \
	src/scan_progress.o \
	src/server_start.o \
	src/stat_api.o \
	src/statistics.o \
	src/summary_store.o \
	src/tidy.o \
	src/wait_events.o \
	src/wal_fill.o \
	src/wal_follow.o \
	src/wal_reader.o \
	src/wal_records.o \
	src/wal_scan.o \
	src/wal_slot.o \
	src/worker.o
PG_CPPFLAGS = -I$(srcdir)/src -DPTRACK_VERSION='"$(EXTVERSION)"'
PGFILEDESC = "ptrack - block-level change tracking"

EXTENSION = ptrack
DATA = sql/ptrack--$(EXTVERSION).sql
DATA_built = sql/ptrack--2.4--$(EXTVERSION).sql

TAP_TESTS = 1

ifneq ($(MAKECMDGOALS),dist)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# From the older extension of this name: what it had goes, and all of ours comes.
sql/ptrack--2.4--$(EXTVERSION).sql: sql/from-2.4.sql sql/ptrack--$(EXTVERSION).sql
	$(MKDIR_P) $(@D)
	cat $< >$@
	sed '/^\\echo/d' $(word 2, $^) >>$@
else
# A release's archives, of what is committed, which takes no PostgreSQL.  PGXN wants
# versions of three numbers.
DIST = ptrack-$(EXTVERSION)

.PHONY: dist
dist:
	@test "$$(grep -cF -e '"version": "$(EXTVERSION).0"' -e '"sql/ptrack--$(EXTVERSION).sql"' META.json)" = 3 || \
		{ echo 'META.json is of another version than ptrack.control, $(EXTVERSION)' >&2; exit 1; }
	git archive --prefix=$(DIST)/ --output=$(DIST).tar.gz HEAD
	git archive --prefix=$(DIST)/ --output=$(DIST).zip HEAD
endif
