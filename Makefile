# ptrack: block-level change tracking for PostgreSQL

# The one place that the version is written down in is the control file.
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(dir $(firstword $(MAKEFILE_LIST)))ptrack.control)

MODULE_big = ptrack
OBJS = \
	src/backup_api.o \
	src/backup_list.o \
	src/backup_progress.o \
	src/backup_read.o \
	src/chain.o \
	src/change_gather.o \
	src/change_merge.o \
	src/change_query.o \
	src/changed_segments.o \
	src/common/summary_format.o \
	src/engine.o \
	src/hooks.o \
	src/merge_plan.o \
	src/page_reader.o \
	src/ptrack_api.o \
	src/ptrack_map.o \
	src/publish.o \
	src/relation_files.o \
	src/scan_progress.o \
	src/summary_store.o \
	src/tidy.o \
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

TAP_TESTS = 1

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
