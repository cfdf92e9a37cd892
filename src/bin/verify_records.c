/*
 * verify_records.c
 *		Are the records of a range of WAL as they were written?
 *
 * What is looked at, the lengths, links and checksums of records and where pages
 * continue them, is the same in every major from 15 to 18; what records mean is
 * not looked at.
 */
#include "postgres_fe.h"

#include "access/rmgr.h"
#include "catalog/pg_control.h"
#include "verify_records.h"

static bool
bad(RecordsCheck *check, const char *problem)
{
	check->state = RECORDS_BAD;
	check->problem = problem;
	return false;
}

/*
 * Begins with a range, which may be nonsense.
 */
void
records_check_begin(RecordsCheck *check, const WalRange *range)
{
	memset(check, 0, sizeof(*check));
	check->range = *range;
	check->next = range->start - range->start % XLOG_BLCKSZ;
	check->record = range->start;
	if (range->start >= range->end)
		check->state = RECORDS_GOOD;
	else if (range->start % MAXIMUM_ALIGNOF != 0)
		bad(check, "no record can begin there");
}

/* Begins the record at that place of a page, which has room for its length. */
static bool
begin_record(RecordsCheck *check, const char *data, XLogRecPtr address)
{
	check->record = address;
	check->got = 0;
	INIT_CRC32C(check->crc);
	memcpy(&check->len, data, sizeof(check->len));
	if (check->len < SizeOfXLogRecord)
		return bad(check, "its length is less than that of a header");
	return true;
}

static void
take_part(RecordsCheck *check, const char *data, uint32 len)
{
	if (check->got < SizeOfXLogRecord)
	{
		uint32		part = Min(len, SizeOfXLogRecord - check->got);

		memcpy(check->header + check->got, data, part);
		check->got += part;
		data += part;
		len -= part;
	}
	COMP_CRC32C(check->crc, data, len);
	check->got += len;
}

/* All of it has come. */
static bool
end_record(RecordsCheck *check, XLogRecord *header)
{
	memcpy(header, check->header, SizeOfXLogRecord);
	COMP_CRC32C(check->crc, check->header, offsetof(XLogRecord, xl_crc));
	FIN_CRC32C(check->crc);
	if (!EQ_CRC32C(check->crc, header->xl_crc))
		return bad(check, "its checksum does not match its contents");
	if (check->before != 0 && header->xl_prev != check->before)
		return bad(check, "its link to the record before it is wrong");
	check->before = check->record;
	check->len = 0;
	return true;
}

/* After such a record, the rest of the segment is empty. */
static bool
is_switch(const XLogRecord *header)
{
	return header->xl_rmid == RM_XLOG_ID && (header->xl_info & ~XLR_INFO_MASK) == XLOG_SWITCH;
}

/* Does the page go on with what the one before it ended with? */
static bool
check_continued(RecordsCheck *check, const XLogPageHeaderData *page)
{
	bool		continues = (page->xlp_info & XLP_FIRST_IS_CONTRECORD) != 0;

	/* The server stopped inside of a record, and began anew with another one. */
	if ((page->xlp_info & XLP_FIRST_IS_OVERWRITE_CONTRECORD) != 0)
		check->len = 0;
	if (check->len == 0 && continues)
		return bad(check, "it is followed by the rest of one that did not begin");
	if (check->len != 0 && (!continues || page->xlp_rem_len != check->len - check->got))
		return bad(check, "it is not continued on the next page");
	return true;
}

static uint32
header_len(const XLogPageHeaderData *page)
{
	return (page->xlp_info & XLP_LONG_HEADER) ? SizeOfXLogLongPHD : SizeOfXLogShortPHD;
}

/*
 * The records of a page, from that place of it on.  Sets next if pages after it
 * are to be skipped.
 */
static bool
check_records(RecordsCheck *check, const char *page, XLogRecPtr address, uint32 at,
			  uint32 segment_size)
{
	while (at < XLOG_BLCKSZ && (check->len != 0 || address + at < check->range.end))
	{
		XLogRecord	header;
		uint32		part;

		if (check->len == 0 && !begin_record(check, page + at, address + at))
			return false;
		part = Min(check->len - check->got, XLOG_BLCKSZ - at);
		take_part(check, page + at, part);
		at = MAXALIGN(at + part);
		if (check->got < check->len)
			continue;
		if (!end_record(check, &header))
			return false;
		if (is_switch(&header))
		{
			check->next = address - address % segment_size + segment_size;
			break;
		}
	}
	return true;
}

static void
check_page(RecordsCheck *check, const char *page, XLogRecPtr address, uint32 segment_size)
{
	XLogPageHeaderData header;
	uint32		at;

	memcpy(&header, page, sizeof(header));
	at = header_len(&header);
	check->next = address + XLOG_BLCKSZ;
	if (address <= check->range.start)
		at = Max(at, (uint32) (check->range.start - address));
	else if (!check_continued(check, &header))
		return;
	if (check_records(check, page, address, at, segment_size) && check->next >= check->range.end)
	{
		check->state = RECORDS_GOOD;
		if (check->len != 0)
			bad(check, "it ends after the WAL that is needed");
	}
}

/*
 * More pages, whose headers are known to be right, of one segment.
 */
void
records_check_pages(RecordsCheck *check, const char *pages, size_t len, XLogRecPtr address,
					uint32 segment_size)
{
	for (size_t at = 0; at + XLOG_BLCKSZ <= len && check->state == RECORDS_MORE; at += XLOG_BLCKSZ)
	{
		if (address + at == check->next)
			check_page(check, pages + at, address + at, segment_size);
		else if (address + at > check->next)
			check->state = RECORDS_UNKNOWN;
	}
}
