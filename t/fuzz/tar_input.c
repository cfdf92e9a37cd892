/*
 * tar_input.c
 *		Fuzzing of the reader of archives: any bytes whatever.
 *
 * The input is an archive, compressed or not.  It is read as it is, and once more
 * with the checksums of its headers made right.
 *
 * What must hold, besides that nothing is read out of bounds:
 *
 * - names do not lead out of the backup, and none comes twice; links are only
 *   where those of tablespaces are;
 * - what is read of a file is what is at the offset that is said to have it; and
 *   it is as long as is said;
 * - what is bad has a problem, and nothing comes after it.
 */
#include "postgres_fe.h"

#include "bin/paths.h"
#include "bin/tar_input.h"
#include "harness.h"

#define BLOCK			512
#define MAGIC_AT		257
#define SUM_AT			148
#define SUM_LEN			8

/* Of data that can be of any length, sparse or compressed, no more is read. */
#define READ_MAX		(1024 * 1024)

#define MAX_NAMES		256

static void
check_data(TarInput *input, const TarMember *member, const uint8_t *data, size_t size)
{
	static char buffer[1000];
	uint64		len = 0;
	ssize_t		got = 0;

	while (len < READ_MAX && (got = tar_input_read(input, buffer, sizeof(buffer))) > 0)
	{
		REQUIRE(got <= (ssize_t) sizeof(buffer));
		REQUIRE(len + got <= member->size);
		if (member->data_offset >= 0)
			REQUIRE(memcmp(buffer, data + member->data_offset + len, got) == 0);
		len += got;
	}
	if (got == 0)
		REQUIRE(len == member->size);
	if (got < 0)
		REQUIRE(tar_input_problem(input)[0] != '\0');
}

static void
check_member(const TarMember *member, size_t size, const char *prefix)
{
	REQUIRE(path_is_safe(member->path));
	REQUIRE(strncmp(member->path, prefix, strlen(prefix)) == 0);
	if (member->type == TAR_FILE && member->data_offset >= 0)
	{
		REQUIRE(member->data_offset % BLOCK == 0);
		REQUIRE((uint64) member->data_offset + member->size <= size);
	}
	if (member->type == TAR_LINK)
	{
		REQUIRE(member->target[0] != '\0');
		REQUIRE(strncmp(member->path, "pg_tblspc/", 10) == 0);
		REQUIRE(strchr(member->path + 10, '/') == NULL);
	}
	else
		REQUIRE(member->target[0] == '\0');
}

static void
read_archive(const uint8_t *data, size_t size, const char *prefix, bool read_all)
{
	static char names[MAX_NAMES][MAXPGPATH];
	TarInput   *input = tar_input_open_memory(data, size, prefix);
	TarMember	member;
	TarResult	result;
	int			nnames = 0;

	while ((result = tar_input_next(input, &member)) == TAR_MEMBER)
	{
		check_member(&member, size, prefix);
		for (int i = 0; i < nnames; i++)
			REQUIRE(strcmp(names[i], member.path) != 0);
		if (nnames < MAX_NAMES)
			strlcpy(names[nnames++], member.path, MAXPGPATH);
		if (member.type == TAR_FILE && read_all)
			check_data(input, &member, data, size);
	}
	REQUIRE((result == TAR_BAD) == (tar_input_problem(input)[0] != '\0'));
	if (result == TAR_BAD)
		REQUIRE(tar_input_next(input, &member) == TAR_BAD);
	tar_input_close(input);
}

/* Makes the checksums of what look like headers right. */
static void
mend(uint8_t *data, size_t size)
{
	for (size_t at = 0; at + BLOCK <= size; at += BLOCK)
	{
		unsigned	sum = 0;

		if (memcmp(data + at + MAGIC_AT, "ustar", 5) != 0)
			continue;
		memset(data + at + SUM_AT, ' ', SUM_LEN);
		for (size_t i = 0; i < BLOCK; i++)
			sum += data[at + i];
		snprintf((char *) data + at + SUM_AT, SUM_LEN - 1, "%06o", sum);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t    *mended = malloc(size + 1);

	memcpy(mended, data, size);
	mend(mended, size);
	read_archive(mended, size, "", true);
	read_archive(mended, size, "pg_tblspc/1/", false);
	if (memcmp(mended, data, size) != 0)
		read_archive(data, size, "", true);
	free(mended);
	return 0;
}
