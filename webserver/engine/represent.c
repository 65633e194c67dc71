/*
 * A file's content as an answer: what the request's conditions and ranges make of it.
 *
 * Whether the conditions hold is said by conditions.c, which ranges it wants by ranges.c; several ranges are put
 * together in parts.c. Whose fields go along, the file's own or also those of an application that named the file, is
 * the caller's to say.
 */
#include <stdio.h>
#include <strings.h>

#include "conditions.h"
#include "fields.h"
#include "static.h"

int represent_bytes(struct request *r, struct file *f, uint64_t offset, uint64_t size)
{
	struct engine_text content = file_content(f);
	if (r->is_head || size == 0)
		return 0;
	if (content.data != NULL)
		return reply_static(r, content.data + offset, (size_t)size, f);
	return reply_file(r, f, offset, size);
}

static bool begins(struct engine_text name, const char *lower, size_t size)
{
	return name.size >= size && strncasecmp(name.data, lower, size) == 0;
}

struct field *represent_fields(struct request *r, const struct representation *is, struct engine_text type)
{
	struct field *fields = request_alloc(r, (is->count + 1) * sizeof *fields);
	if (fields == NULL) {
		answer_status(r, 503, "no memory for an answer's fields", 1);
		return NULL;
	}
	memcpy(fields, is->fields, is->count * sizeof *fields);
	for (size_t i = 0; i < is->count; i++)
		if (fields[i].name.size == 12 && begins(fields[i].name, "content-type", 12))
			fields[i].value = type;
	return fields;
}

static void send_whole(struct request *r, const struct representation *is)
{
	if (reply_begin(r, is->status, is->reason, is->fields, is->count, is->file->size, 0) == 0 &&
		represent_bytes(r, is->file, 0, is->file->size) == 0)
		reply_end(r);
}

/* An answer without content. */
static void send_head(struct request *r, int status, const struct field *fields, size_t count, uint64_t length)
{
	if (reply_begin(r, status, TEXT(""), fields, count, length, 0) == 0)
		reply_end(r);
}

/* RFC 9110, section 15.4.5: what describes the content stays away, what says which it is goes along. */
static void send_not_modified(struct request *r, const struct representation *is)
{
	struct field *fields = represent_fields(r, is, is->type);
	size_t count = 0;
	if (fields == NULL)
		return;
	for (size_t i = 0; i < is->count; i++) {
		bool location = fields[i].name.size == 16 && begins(fields[i].name, "content-location", 16);
		if (location || !(begins(fields[i].name, "content-", 8) || begins(fields[i].name, "accept-ranges", 13)))
			fields[count++] = fields[i];
	}
	send_head(r, 304, fields, count, UINT64_MAX);
}

static void send_range(struct request *r, const struct representation *is, struct range range)
{
	char text[80];
	struct field *fields = represent_fields(r, is, is->type);
	if (fields == NULL)
		return;
	int size = snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)range.first,
		(unsigned long long)(range.first + range.size - 1), (unsigned long long)is->file->size);
	fields[is->count] = (struct field){TEXT("Content-Range"), {text, (size_t)size}, 0};
	if (reply_begin(r, 206, TEXT(""), fields, is->count + 1, range.size, 0) == 0 &&
		represent_bytes(r, is->file, range.first, range.size) == 0)
		reply_end(r);
}

static void send_unsatisfiable(struct request *r, const struct file *f)
{
	char text[40];
	int size = snprintf(text, sizeof text, "bytes */%llu", (unsigned long long)f->size);
	struct field field = {TEXT("Content-Range"), {text, (size_t)size}, 0};
	log_entry(request_engine(r), LOG_LEVEL_NOTICE, r,
		"416: no range of the request lies within the %llu bytes of %s", (unsigned long long)f->size,
		logged(f->text, f->path_size).text);
	send_head(r, 416, &field, 1, 0);
}

/* ---- what the request asks of the file */

struct asked {
	bool conditional; /* any precondition is there: most requests have none */
	struct conditions conditions;
	struct engine_text range;
	unsigned ranges;
};

static void collect_line(struct engine_text *lines, size_t *count, struct engine_text line)
{
	if (*count < CONDITION_LINES)
		lines[*count] = line;
	++*count;
}

/* A field that must stand alone but comes twice says nothing. */
static void collect_single(struct engine_text *single, unsigned *count, struct engine_text value)
{
	*single = (*count)++ == 0 ? value : (struct engine_text){NULL, 0};
}

/* One pass over the fields. */
static void collect(const struct request *r, struct asked *a)
{
	unsigned modified = 0, unmodified = 0, if_range = 0;
	struct conditions *c = &a->conditions;
	a->conditional = false;
	a->range.data = c->if_range.data = c->if_modified_since.data = c->if_unmodified_since.data = NULL;
	a->ranges = 0;
	c->if_match_count = c->if_none_match_count = 0;
	for (uint32_t i = 0; i < r->field_count; i++) {
		struct engine_text value = r->fields[i].value;
		switch (r->fields[i].known) {
		case WIRE_FIELD_IF_MATCH:
			collect_line(c->if_match, &c->if_match_count, value);
			break;
		case WIRE_FIELD_IF_NONE_MATCH:
			collect_line(c->if_none_match, &c->if_none_match_count, value);
			break;
		case WIRE_FIELD_IF_MODIFIED_SINCE:
			collect_single(&c->if_modified_since, &modified, value);
			break;
		case WIRE_FIELD_IF_UNMODIFIED_SINCE:
			collect_single(&c->if_unmodified_since, &unmodified, value);
			break;
		case WIRE_FIELD_IF_RANGE:
			collect_single(&c->if_range, &if_range, value);
			break;
		case WIRE_FIELD_RANGE:
			collect_single(&a->range, &a->ranges, value);
			continue;
		default:
			continue;
		}
		a->conditional = true;
	}
}

static void send_ranges(struct request *r, const struct representation *is, struct engine_text value)
{
	struct range ranges[RANGES_MAX];
	size_t count;
	switch (ranges_parse(value.data, value.size, is->file->size, ranges, &count)) {
	case RANGES_WHOLE:
		send_whole(r, is);
		return;
	case RANGES_UNSATISFIABLE:
		send_unsatisfiable(r, is->file);
		return;
	case RANGES_PARTS:
		if (count == 1)
			send_range(r, is, ranges[0]);
		else
			parts_send(r, is, ranges, count);
	}
}

void represent(struct request *r, const struct representation *is)
{
	struct asked a;
	char why[LOGGED + 128];
	const struct file *f = is->file;
	enum condition_result result = CONDITION_PROCEED;
	/* Conditions are about what 200 would bring (RFC 9110, section 13.2.1), and these about GET and HEAD. */
	if (is->status != 200 || !(r->is_head || text_is(r->method, "GET", 3))) {
		send_whole(r, is);
		return;
	}
	collect(r, &a);
	if (a.conditional) {
		struct validators v = {is->etag, is->modified, request_engine(r)->now_wall};
		result = conditions_check(&a.conditions, &v);
	}
	switch (result) {
	case CONDITION_NOT_MODIFIED:
		send_not_modified(r, is);
		return;
	case CONDITION_FAILED:
		snprintf(why, sizeof why, "%s is not as the request's If-Match or If-Unmodified-Since wants it",
			logged(f->text, f->path_size).text);
		answer_status(r, 412, why, 0);
		return;
	case CONDITION_WHOLE:
	case CONDITION_PROCEED:
		/* Range is defined for GET only (RFC 9110 section 14.2). */
		if (result == CONDITION_WHOLE || a.range.data == NULL || r->is_head)
			send_whole(r, is);
		else
			send_ranges(r, is, a.range);
	}
}
