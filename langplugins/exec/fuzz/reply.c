/*
 * Any bytes as what a program answers, in pieces of any size, to GET or HEAD. However they are cut, the same heads,
 * fields, body and trailers come out, and the same end; texts lie within their limits; a body is as long as was said;
 * after a mistake nothing comes.
 *
 * sources: langplugins/exec/reply.c /usr/share/llhttp/api.c /usr/share/llhttp/http.c /usr/share/llhttp/llhttp.c
 * flags: -DLLHTTP_STRICT_MODE=1
 *
 * The first byte says how the stream is cut, the second whether the request was HEAD and whether the connection ends.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	uint64_t sum;	/* of all heads and trailers, in order */
	uint64_t body;	/* of its bytes */
	size_t length;	/* of the body */
	unsigned heads; /* final ones */
	enum reply_event last;
};

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void mix(uint64_t *sum, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		*sum = (*sum ^ (uint8_t)data[i]) * 1099511628211u;
	*sum = (*sum ^ size) * 1099511628211u;
}

static void note_fields(struct seen *seen, const struct reply *reply)
{
	must(reply->count <= REPLY_FIELDS && reply->text_size <= REPLY_TEXT);
	for (unsigned i = 0; i < reply->count; i++) {
		const struct reply_field *field = &reply->field[i];
		must(field->name_size > 0 && field->name + field->name_size <= reply->text_size);
		must(field->value_size == 0 || field->value + field->value_size <= reply->text_size);
		mix(&seen->sum, reply->text + field->name, field->name_size);
		mix(&seen->sum, reply->text + field->value, field->value_size);
	}
}

static void note(struct seen *seen, const struct reply *reply, enum reply_event event)
{
	const char digits[] = {(char)event, (char)reply->status, (char)(reply->status >> 8), reply->keep};

	seen->last = event;
	switch (event) {
	case REPLY_INTERIM:
		must(reply->status >= 100 && reply->status < 200 && reply->status != 101);
		break;
	case REPLY_SWITCH:
		must(reply->status == 101);
		break;
	case REPLY_HEAD:
		must(reply->status >= 200 && ++seen->heads == 1);
		break;
	case REPLY_BODY:
		must(seen->heads == 1 && !reply->to_head && reply->size > 0);
		for (size_t i = 0; i < reply->size; i++)
			seen->body = (seen->body ^ (uint8_t)reply->data[i]) * 1099511628211u;
		seen->length += reply->size;
		return;
	case REPLY_END:
		must(seen->heads == 1);
		if (!reply->in_body)
			return;
		break;
	case REPLY_BAD:
		must(reply->wrong != NULL);
		return;
	case REPLY_MORE:
		return;
	}
	mix(&seen->sum, digits, event == REPLY_END ? 1 : sizeof(digits));
	if (event != REPLY_END) {
		must(reply->reason_size <= reply->text_size);
		mix(&seen->sum, reply->text, reply->reason_size);
	}
	note_fields(seen, reply);
}

static struct seen run(struct reply *reply, const char *data, size_t size, size_t cut, bool to_head, bool ends)
{
	struct seen seen = {14695981039346656037u, 14695981039346656037u, 0, 0, REPLY_MORE};

	reply_begin(reply, to_head);
	for (size_t at = 0; at < size;) {
		size_t part = cut && cut < size - at ? cut : size - at, used = 0;
		/* A copy of its own, so that reading beyond it is seen. */
		char *piece = malloc(part);
		must(piece != NULL);
		memcpy(piece, data + at, part);
		for (size_t done = 0; done < part;) {
			enum reply_event event = reply_take(reply, piece + done, part - done, &used);
			must(used <= part - done);
			done += used;
			must(event != REPLY_MORE || done == part);
			note(&seen, reply, event);
			if (event == REPLY_END || event == REPLY_BAD || event == REPLY_SWITCH)
				break;
		}
		free(piece);
		if (seen.last == REPLY_END || seen.last == REPLY_BAD || seen.last == REPLY_SWITCH)
			return seen;
		at += part;
	}
	/* An event without bytes may be due: the end of a body that is none. */
	size_t used = 0;
	if (seen.last == REPLY_HEAD || seen.last == REPLY_BODY)
		note(&seen, reply, reply_take(reply, "", 0, &used));
	if (ends && seen.last != REPLY_END)
		note(&seen, reply, reply_finish(reply));
	return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct reply reply;

	if (!reply.text)
		must(reply_open(&reply) == 0);
	if (size < 2)
		return 0;
	const char *stream = (const char *)data + 2;
	bool to_head = data[1] & 1, ends = data[1] & 2;
	struct seen whole = run(&reply, stream, size - 2, 0, to_head, ends);
	struct seen pieces = run(&reply, stream, size - 2, 1 + data[0] % 40, to_head, ends);
	must(whole.sum == pieces.sum && whole.heads == pieces.heads);
	must((whole.last == REPLY_BAD) == (pieces.last == REPLY_BAD));
	must((whole.last == REPLY_END) == (pieces.last == REPLY_END));
	must(whole.length == pieces.length && whole.body == pieces.body);
	return 0;
}
