/*
 * Arbitrary Range fields for files of arbitrary sizes.
 *
 * sources: webserver/engine/ranges.c
 *
 * Invariants: at most RANGES_MAX ranges, none empty, each within the file, together no longer than the file; neighbours
 * in the list neither touch nor overlap; ranges come out only with 206.
 */
#include <stdlib.h>
#include <string.h>

#include "ranges.h"

static void must(int ok)
{
	if (!ok)
		abort();
}

static void check(const char *value, size_t value_size, uint64_t size)
{
	struct range ranges[RANGES_MAX];
	size_t count = 0;
	uint64_t sum = 0;
	enum ranges_result result = ranges_parse(value, value_size, size, ranges, &count);
	must(count <= RANGES_MAX);
	if (result != RANGES_PARTS)
		return;
	must(count > 0);
	for (size_t i = 0; i < count; i++) {
		must(ranges[i].size > 0 && ranges[i].size <= size && ranges[i].first <= size - ranges[i].size);
		must(ranges[i].size <= size - sum);
		sum += ranges[i].size;
		if (i > 0)
			must(ranges[i].first > ranges[i - 1].first + ranges[i - 1].size ||
				ranges[i].first + ranges[i].size < ranges[i - 1].first);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first eight bytes are the file's size, the rest follows "bytes=", and stands alone once. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t file;
	if (size < sizeof file || size > 4096)
		return 0;
	memcpy(&file, data, sizeof file);
	size -= sizeof file;
	char *value = malloc(size + 6); /* exactly as long as it says, so that reading further is seen */
	if (value == NULL)
		return 0;
	memcpy(value, "bytes=", 6);
	memcpy(value + 6, data + sizeof file, size);
	check(value, size + 6, file);
	check(value, size + 6, file % 64);
	memmove(value, value + 6, size);
	check(value, size, file);
	free(value);
	return 0;
}
