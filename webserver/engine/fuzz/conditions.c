/*
 * Arbitrary preconditions against a file.
 *
 * sources: webserver/engine/conditions.c webserver/engine/dates.c
 *
 * Invariants: without If-Match and If-Unmodified-Since nothing fails; without If-None-Match and If-Modified-Since
 * nothing is unmodified; without If-Range Range counts; what a list holds by strong comparison it holds by weak
 * comparison.
 */
#include <stdlib.h>
#include <string.h>

#include "conditions.h"

#define FIELDS 5

static void must(int ok)
{
	if (!ok)
		abort();
}

static char *copies[2 * CONDITION_LINES + FIELDS];
static size_t copied;

/* A field's value is cut off the input: its size, then that many bytes, in a block of its own. */
static struct engine_text cut(const uint8_t **data, size_t *size)
{
	struct engine_text none = {NULL, 0};
	if (*size == 0)
		return none;
	size_t length = **data;
	++*data;
	--*size;
	if (length > *size)
		length = *size;
	char *value = malloc(length > 0 ? length : 1);
	if (value == NULL)
		return none;
	memcpy(value, *data, length);
	copies[copied++] = value;
	*data += length;
	*size -= length;
	return (struct engine_text){value, length};
}

static void add_line(struct engine_text *lines, size_t *count, struct engine_text line)
{
	if (line.data != NULL)
		lines[(*count)++] = line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte says which fields there are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char etag[] = "\"18c-a\"";
	struct validators v = {{etag, sizeof etag - 1}, 1000000000, 1000000000};
	struct conditions c = {.if_match_count = 0};
	if (size < 2 || size > 1024)
		return 0;
	unsigned fields = data[0];
	v.now += data[1] & 1;
	data += 2;
	size -= 2;
	copied = 0;
	if (fields & 1)
		add_line(c.if_match, &c.if_match_count, cut(&data, &size));
	if (fields & 2)
		add_line(c.if_none_match, &c.if_none_match_count, cut(&data, &size));
	if (fields & 4)
		c.if_unmodified_since = cut(&data, &size);
	if (fields & 8)
		c.if_modified_since = cut(&data, &size);
	if (fields & 16)
		c.if_range = cut(&data, &size);
	if (fields & 32)
		add_line(c.if_none_match, &c.if_none_match_count, cut(&data, &size));
	enum condition_result result = conditions_check(&c, &v);
	if (c.if_match_count == 0 && c.if_unmodified_since.data == NULL)
		must(result != CONDITION_FAILED);
	if (c.if_none_match_count == 0 && c.if_modified_since.data == NULL)
		must(result != CONDITION_NOT_MODIFIED);
	if (c.if_range.data == NULL)
		must(result != CONDITION_WHOLE);
	for (size_t i = 0; i < c.if_none_match_count; i++)
		if (etag_list_has(c.if_none_match[i], v.etag, false))
			must(etag_list_has(c.if_none_match[i], v.etag, true));
	while (copied > 0)
		free(copies[--copied]);
	return 0;
}
