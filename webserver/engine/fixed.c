/* Answers that Python registered once and decisions name by number: see fixed.h. */
#include "fixed.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"

struct fixed {
	int status;
	struct file *body; /* counted: answers on their way keep it when the number gets another answer */
	size_t count;
	struct field fields[];
};

struct fixed_answers {
	struct fixed **by_id;
	uint32_t size;
};

struct fixed_answers *fixed_new(void)
{
	return calloc(1, sizeof(struct fixed_answers));
}

static void fixed_free(struct fixed *fixed)
{
	if (fixed == NULL)
		return;
	file_unref(fixed->body);
	free(fixed);
}

void fixed_delete(struct fixed_answers *all)
{
	if (all == NULL)
		return;
	for (uint32_t i = 0; i < all->size; i++)
		fixed_free(all->by_id[i]);
	free(all->by_id);
	free(all);
}

bool fixed_known(const struct fixed_answers *all, uint32_t id)
{
	return id < all->size && all->by_id[id] != NULL;
}

static bool is_token(struct engine_text t)
{
	static const char others[] = "!#$%&'*+-.^_`|~"; /* RFC 9110 section 5.6.2 */
	for (size_t i = 0; i < t.size; i++) {
		unsigned char c = (unsigned char)t.data[i];
		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
			continue;
		if (c == 0 || strchr(others, c) == NULL)
			return false;
	}
	return t.size > 0;
}

static bool is_value(struct engine_text t)
{
	for (size_t i = 0; i < t.size; i++) {
		unsigned char c = (unsigned char)t.data[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static struct fixed *make(int status, const struct engine_field *fields, size_t count, struct engine_text body)
{
	size_t texts = 0;
	for (size_t i = 0; i < count; i++)
		texts += fields[i].name.size + fields[i].value.size;
	struct fixed *fixed = calloc(1, sizeof *fixed + count * sizeof *fixed->fields + texts);
	if (fixed == NULL)
		return NULL;
	fixed->body = file_hold(body.data, body.size);
	if (fixed->body == NULL) {
		free(fixed);
		return NULL;
	}
	fixed->status = status;
	fixed->count = count;
	char *at = (char *)(fixed->fields + count);
	for (size_t i = 0; i < count; i++) {
		struct engine_text *to[2] = {&fixed->fields[i].name, &fixed->fields[i].value};
		struct engine_text from[2] = {fields[i].name, fields[i].value};
		for (int half = 0; half < 2; half++) {
			if (from[half].size > 0)
				memcpy(at, from[half].data, from[half].size);
			*to[half] = (struct engine_text){at, from[half].size};
			at += from[half].size;
		}
	}
	return fixed;
}

int fixed_set(struct fixed_answers *all, uint32_t id, int status, const struct engine_field *fields, size_t count,
	struct engine_text body)
{
	bool bodyless = status == 204 || status == 304;
	if (id >= FIXED_IDS || status < 200 || status > 599 || count > FIXED_FIELDS || (bodyless && body.size > 0))
		return ENGINE_INVALID;
	for (size_t i = 0; i < count; i++)
		if (!is_token(fields[i].name) || !is_value(fields[i].value))
			return ENGINE_INVALID;
	if (id >= all->size) {
		uint32_t size = all->size == 0 ? 8 : all->size;
		while (size <= id)
			size *= 2;
		struct fixed **larger = realloc(all->by_id, size * sizeof *larger);
		if (larger == NULL)
			return ENGINE_SYSTEM;
		memset(larger + all->size, 0, (size - all->size) * sizeof *larger);
		all->by_id = larger;
		all->size = size;
	}
	struct fixed *fixed = make(status, fields, count, body);
	if (fixed == NULL)
		return ENGINE_SYSTEM;
	fixed_free(all->by_id[id]);
	all->by_id[id] = fixed;
	return ENGINE_OK;
}

static void ignore_body(struct request *r, const char *data, size_t size, bool last)
{
	(void)r, (void)data, (void)size, (void)last;
}

static void ignore_room(struct request *r, size_t queued)
{
	(void)r, (void)queued;
}

static void ignore_end(struct request *r, bool complete)
{
	(void)r, (void)complete;
}

const struct backend whole_backend = {
	.name = "whole",
	.body = ignore_body,
	.written = ignore_room,
	.release = ignore_end,
};

void fixed_answer(struct request *r, const struct fixed_answers *all, uint32_t id)
{
	if (!fixed_known(all, id)) {
		answer_status(r, 500, "a decision names a fixed answer that is not registered", 0);
		return;
	}
	const struct fixed *fixed = all->by_id[id];
	struct engine_text body = file_content(fixed->body);
	if (!request_take(r, &whole_backend, NULL))
		return;
	if (reply_begin(r, fixed->status, TEXT(""), fixed->fields, fixed->count, body.size, 0) < 0)
		return;
	if (!r->is_head && body.size > 0 && reply_static(r, body.data, body.size, fixed->body) < 0)
		return;
	reply_end(r);
}
