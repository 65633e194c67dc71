/*
 * What llhttp leaves to its user (RFC 9110 and 9112; numbers of sections in the comments), and filling the request.
 *
 * Every byte of the head is accounted for: between the texts that llhttp found there may be nothing but what the
 * grammar has there. So a bare LF, a bare CR, folding, or white space before a colon cannot pass, whatever llhttp makes
 * of it.
 */
#define _GNU_SOURCE
#include <string.h>
#include <strings.h>

#include "fields.h"
#include "http.h"
#include "http1.h"

static int refuse(int status, const char *text, const char **why)
{
	*why = text;
	return status;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_word(struct engine_text text, const char *lower, size_t size)
{
	return text.size == size && strncasecmp(text.data, lower, size) == 0;
}

/* Field values (5.5): no control character but the tab. Eight bytes at a time. */
static bool value_valid(struct engine_text value)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
	size_t i = 0;
	uint64_t suspects = 0;
	for (; i + 8 <= value.size; i += 8) {
		uint64_t word, del;
		memcpy(&word, value.data + i, 8);
		del = word ^ (0x7f * ones);
		suspects |= ((word - 0x20 * ones) & ~word & tops) | ((del - ones) & ~del & tops);
	}
	if (suspects == 0 && i == value.size)
		return true;
	for (i = suspects ? 0 : i; i < value.size; i++) {
		unsigned char c = (unsigned char)value.data[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

/* One field's line, from at: checks it, trims the value. Returns what follows the line, NULL when it is not valid. */
static const char *line_check(const char *at, const char *end, struct field *field)
{
	if (field->name.data != at)
		return NULL;
	at += field->name.size;
	if (at >= end || *at != ':')
		return NULL;
	for (at++; at < end && is_space(*at); at++)
		continue;
	if (field->value.size > 0) {
		if (field->value.data != at)
			return NULL;
		at += field->value.size;
		while (field->value.size > 0 && is_space(field->value.data[field->value.size - 1]))
			field->value.size--;
		while (at < end && is_space(*at))
			at++;
	}
	if (field->value.size == 0)
		field->value.data = ""; /* llhttp need not have said where an empty one lies */
	if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
		return NULL;
	return at + 2;
}

struct framing_fields {
	const struct field *host, *length, *coding, *expect;
	bool upgrade; /* to something that may be changed to */
};

static int lines_check(struct engine *e, const struct head *head, struct request *r, const char **why)
{
	static const char protocol[] = " HTTP/1.";
	const size_t size = sizeof(protocol) - 1;
	const char *at = head->target.data + head->target.size;
	if (head->target.size == 0 || head->target.data != head->method.data + head->method.size + 1)
		return refuse(
			400, "the request line is not a method, a target and a version, with one space between", why);
	if (head->target.size > e->limits.max_line)
		return refuse(414, "the request target is longer than max_line", why);
	if ((size_t)(head->end - at) < size + 3 || memcmp(at, protocol, size - 2) != 0)
		return refuse(at[0] == '\r' || at[0] == '\n' ? 505 : 400,
			"the request line does not end in HTTP/1.0 or HTTP/1.1", why);
	if (memcmp(at, protocol, size) != 0 || (at[size] != '0' && at[size] != '1'))
		return refuse(505, "the request's HTTP version is not 1.0 or 1.1", why);
	r->version = at[size] == '1' ? 11 : 10;
	at += size + 1;
	if (at[0] != '\r' || at[1] != '\n')
		return refuse(400, "a line does not end in CR LF", why);
	at += 2;
	for (uint32_t i = 0; i < head->count; i++) {
		const char *line = at;
		at = line_check(at, head->end, &head->fields[i]);
		if (at == NULL || !value_valid(head->fields[i].value))
			return refuse(400, "a field's line is not a name, a colon, a value and CR LF", why);
		if ((size_t)(at - line) > (size_t)e->limits.max_line + 2)
			return refuse(431, "a field is longer than max_line", why);
	}
	if (head->end - at != 2 || at[0] != '\r' || at[1] != '\n')
		return refuse(400, "the head does not end in an empty line", why);
	return 0;
}

/* True if a list has this word; its members may have parameters. */
static bool lists(struct engine_text list, const char *word)
{
	const char *member;

	for (size_t at = 0, size; (size = wire_next_protocol(list.data, list.size, &at, &member)) > 0;) {
		const char *end = memchr(member, ';', size);
		size_t name = end != NULL ? (size_t)(end - member) : size;
		while (name > 0 && is_space(member[name - 1]))
			name--;
		if (wire_is_word(member, name, word))
			return true;
	}
	return false;
}

/* Number the fields, leave out those nobody may see, note the ones that matter here. */
static int fields_fill(
	struct engine *e, const struct head *head, struct request *r, struct framing_fields *found, const char **why)
{
	const struct names *names = e->connections->http1->names;
	r->fields = request_alloc(r, (head->count + 1) * sizeof(*r->fields)); /* see host_of_target */
	if (r->fields == NULL)
		return refuse(500, "no memory for a request's fields", why);
	for (uint32_t i = 0; i < head->count; i++) {
		struct field *field = &r->fields[r->field_count];
		*field = head->fields[i];
		int number = name_known(names, field->name.data, field->name.size);
		if (number == FIELD_BAD)
			return refuse(400, "a field's name is not a token", why);
		if (number == FIELD_HIDDEN)
			continue;
		field->known = (uint16_t)number;
		r->field_count++;
		const struct field **slot = NULL;
		const char *twice = NULL;
		switch (number) {
		case WIRE_FIELD_HOST:
			slot = &found->host;
			twice = "Host comes twice";
			break;
		case WIRE_FIELD_CONTENT_LENGTH:
			slot = &found->length;
			twice = "Content-Length comes twice";
			break;
		case WIRE_FIELD_TRANSFER_ENCODING:
			slot = &found->coding;
			twice = "Transfer-Encoding comes twice";
			break;
		case WIRE_FIELD_EXPECT:
			slot = &found->expect;
			twice = "Expect comes twice";
			break;
		case WIRE_FIELD_TE:
			r->te_trailers |= r->version >= 11 && lists(field->value, "trailers");
			break;
		case WIRE_FIELD_UPGRADE:
			found->upgrade |= wire_offers(field->value.data, field->value.size);
			break;
		}
		if (slot == NULL)
			continue;
		if (*slot != NULL)
			return refuse(400, twice, why);
		*slot = field;
	}
	return 0;
}

static bool number_of(struct engine_text text, uint64_t *number)
{
	*number = 0;
	if (text.size == 0 || text.size > 18)
		return false;
	for (size_t i = 0; i < text.size; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		*number = *number * 10 + (uint64_t)(text.data[i] - '0');
	}
	return true;
}

/* Message body length (9112, 6.3). */
static int framing_fill(const struct framing_fields *found, struct request *r, const char **why)
{
	if (found->coding != NULL) {
		if (found->length != NULL)
			return refuse(400, "Content-Length comes beside Transfer-Encoding", why);
		if (r->version < 11)
			return refuse(400, "Transfer-Encoding in a request of HTTP/1.0", why);
		if (!is_word(found->coding->value, "chunked", 7))
			return refuse(501, "a transfer coding other than chunked", why);
		r->chunked = r->has_body = true;
		r->content_length = UINT64_MAX;
	} else if (found->length != NULL) {
		if (!number_of(found->length->value, &r->content_length))
			return refuse(400, "Content-Length is not a number", why);
		r->has_body = r->content_length > 0;
	}
	r->body_done = !r->has_body;
	if (found->expect != NULL && r->version >= 11) {
		if (!is_word(found->expect->value, "100-continue", 12))
			return refuse(417, "an expectation other than 100-continue", why);
		r->expect = r->has_body;
	}
	r->continued = !r->expect;
	return 0;
}

/* An application that asks for the Host field must not hear another name than the one the request was routed by: links
   in mails, and caches, are made of it (9112, 3.2.2: the field that came is ignored). */
static void host_of_target(const struct framing_fields *found, struct engine_text authority, struct request *r)
{
	if (found->host != NULL)
		r->fields[found->host - r->fields].value = authority;
	else if (r->field_count < WIRE_FIELDS)
		r->fields[r->field_count++] = (struct field){TEXT("Host"), authority, WIRE_FIELD_HOST};
}

static int host_fill(
	const struct framing_fields *found, struct engine_text authority, struct request *r, const char **why)
{
	struct engine_text name;
	r->host = r->server_name = (struct engine_text){"", 0};
	if (found->host == NULL) {
		if (r->version >= 11)
			return refuse(400, "Host is missing", why);
	} else {
		r->host = found->host->value;
		if (r->host.size > 0 ? !authority_valid(r->host, &name) : r->version >= 11)
			return refuse(400, "Host is not a host with or without a port", why);
	}
	if (authority.data != NULL) { /* the absolute form wins (9112, 3.2.2) */
		r->host = authority;
		if (!authority_valid(authority, &name))
			return refuse(400, "the target's authority is not a host with or without a port", why);
		host_of_target(found, authority, r);
	}
	if (r->host.size == 0)
		return 0;
	char *lower = request_alloc(r, name.size);
	if (lower == NULL)
		return refuse(500, "no memory for a request", why);
	for (size_t i = 0; i < name.size; i++)
		lower[i] = name.data[i] >= 'A' && name.data[i] <= 'Z' ? (char)(name.data[i] | 0x20) : name.data[i];
	r->server_name = (struct engine_text){lower, name.size};
	return 0;
}

static int path_fill(struct engine_text raw, struct request *r, const char **why)
{
	if (target_path_is_plain(raw)) {
		r->path = raw;
		return 0;
	}
	char *room = request_alloc(r, raw.size);
	if (room == NULL)
		return refuse(500, "no memory for a request's path", why);
	return target_path(raw, room, &r->path, why);
}

int head_fill(struct engine *e, const struct head *head, struct request *r, const char **why)
{
	struct framing_fields found = {0};
	struct target parts;
	int status;
	r->method = head->method;
	r->target = head->target;
	r->is_head = text_is(r->method, "HEAD", 4);
	if ((status = lines_check(e, head, r, why)) != 0 || (status = fields_fill(e, head, r, &found, why)) != 0 ||
		(status = framing_fill(&found, r, why)) != 0 || (status = target_split(r->target, &parts, why)) != 0 ||
		(status = host_fill(&found, parts.authority, r, why)) != 0)
		return status;
	r->query = parts.query;
	if (text_is(parts.path, "*", 1)) {
		if (!text_is(r->method, "OPTIONS", 7))
			return refuse(400, "the target * is for OPTIONS", why);
		r->path = parts.path;
	} else if ((status = path_fill(parts.path, r, why)) != 0) {
		return status;
	}
	bool close = head->flags & F_CONNECTION_CLOSE;
	r->keep_alive = !close && (r->version >= 11 || (head->flags & F_CONNECTION_KEEP_ALIVE));
	/* Beside a body it is passed over: where the one ended and the other began would be anybody's guess. */
	r->upgrade = found.upgrade && (head->flags & F_CONNECTION_UPGRADE) && r->version >= 11 && !r->has_body &&
		     !r->is_head;
	return 0;
}
