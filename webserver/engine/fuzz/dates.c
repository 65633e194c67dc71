/*
 * Arbitrary texts as HTTP dates, and arbitrary times written and read.
 *
 * sources: webserver/engine/dates.c
 *
 * Invariants: what is read is a time in the years 0 to 9999 and, from 1970 on, written and read again it is the same;
 * each time that is written is read as itself.
 */
#include <stdlib.h>
#include <string.h>

#include "dates.h"

#define YEAR_0 INT64_C(-62167219200)

static void must(int ok)
{
	if (!ok)
		abort();
}

static void there_and_back(int64_t seconds)
{
	char text[DATE_SIZE + 1];
	int64_t again;
	date_format(seconds, text);
	must(strlen(text) == DATE_SIZE);
	must(date_parse(text, DATE_SIZE, 0, &again));
	must(again == (seconds < 0 ? 0 : seconds > DATE_LAST ? DATE_LAST : seconds));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int64_t seconds, now = 0;
	if (size > 256)
		return 0;
	if (size >= sizeof now) {
		memcpy(&now, data, sizeof now);
		there_and_back(now);
		now %= DATE_LAST;
	}
	char *text = malloc(size > 0 ? size : 1);
	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	/* 23:59:60 on the last day is the one second after it. */
	if (date_parse(text, size, now, &seconds)) {
		must(seconds >= YEAR_0 && seconds <= DATE_LAST + 1);
		there_and_back(seconds);
	}
	free(text);
	return 0;
}
