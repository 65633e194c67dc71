/* The Range field (RFC 9110 section 14). Pure functions. */
#ifndef WEBSERVER_ENGINE_RANGES_H
#define WEBSERVER_ENGINE_RANGES_H

#include <stddef.h>
#include <stdint.h>

/*
 * More are ignored and the whole file is sent, as section 14.2 allows: every range costs a head of its own and a system
 * call, and no client that resumes or seeks asks for many. 32 is more than readers of PDF files are seen to ask for.
 */
#define RANGES_MAX 32

struct range {
	uint64_t first, size; /* size > 0 */
};

enum ranges_result {
	RANGES_WHOLE = 0,	 /* no ranges that are understood or wanted: the whole file, 200 */
	RANGES_PARTS = 1,	 /* 206 */
	RANGES_UNSATISFIABLE = 2 /* 416 */
};

/*
 * value is the field's, size the file's. Ranges come out as asked for, in that order; neighbours in the list that touch
 * or overlap are joined. Whole: another unit, wrong syntax, an empty file, too many, or all together longer than the
 * file (only an attack, or a client that is better served with all of it, asks for that).
 */
enum ranges_result ranges_parse(
	const char *value, size_t value_size, uint64_t size, struct range *ranges, size_t *count);

#endif
