/*
 * llhttp and what it is asked: where the texts of a head lie.
 *
 * llhttp knows methods by a table and refuses others, but a method it has never heard of is for the application to
 * judge. So the method is read here, and llhttp starts behind it, in the state it has after "POST ". (No method but
 * CONNECT changes how a request is framed, and CONNECT is refused before.)
 */
#include <stdlib.h>
#include <string.h>

#include "http1.h"

static int refuse(struct head *head, int status, const char *why)
{
	head->status = status;
	head->why = why;
	return HPE_USER;
}

static int on_url(llhttp_t *parser, const char *at, size_t size)
{
	struct head *head = parser->data;
	if (head->target.data == NULL)
		head->target.data = at;
	head->target.size = (size_t)(at + size - head->target.data);
	return 0;
}

static int on_field(llhttp_t *parser, const char *at, size_t size)
{
	struct head *head = parser->data;
	if (head->count >= head->limit)
		return refuse(head, 431, "the head has more fields than max_fields");
	head->fields[head->count++] = (struct field){.name = {at, size}};
	return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t size)
{
	struct head *head = parser->data;
	struct field *field = &head->fields[head->count - 1];
	if (field->value.data != NULL && field->value.data + field->value.size != at)
		return refuse(head, 400, "a field is folded over more than one line");
	if (field->value.data == NULL)
		field->value.data = at;
	field->value.size += size;
	return 0;
}

static int on_head(llhttp_t *parser)
{
	/* An upgrade that nobody has agreed to changes nothing: what follows is the next request. */
	parser->upgrade = 0;
	return HPE_PAUSED;
}

struct http1 *http1_make(void)
{
	struct http1 *h = calloc(1, sizeof(*h));
	if (h == NULL)
		return NULL;
	h->names = names_make();
	if (h->names == NULL) {
		free(h);
		return NULL;
	}
	llhttp_settings_init(&h->whole);
	h->whole.on_url = on_url;
	h->whole.on_header_field = on_field;
	h->whole.on_header_value = on_value;
	h->whole.on_headers_complete = on_head;
	llhttp_settings_init(&h->partly);
	h->partly.on_headers_complete = on_head;
	llhttp_init(&h->fresh, HTTP_REQUEST, &h->whole);
	llhttp_execute(&h->fresh, "POST ", 5);
	h->head.fields = h->fields;
	return h;
}

void http1_free(struct http1 *h)
{
	if (h == NULL)
		return;
	names_free(h->names);
	free(h);
}

/* What a llhttp error means. */
static int refuse_parsed(struct head *head, const llhttp_t *parser)
{
	if (head->status != 0)
		return head->status;
	switch (llhttp_get_errno(parser)) {
	case HPE_INVALID_VERSION:
		refuse(head, 505, "the request's HTTP version is not 1.0 or 1.1");
		break;
	case HPE_INVALID_CONSTANT:
		refuse(head, 400, "the request line does not end in HTTP/1.0 or HTTP/1.1");
		break;
	case HPE_UNEXPECTED_CONTENT_LENGTH:
		refuse(head, 400, "Content-Length comes twice, or beside Transfer-Encoding");
		break;
	case HPE_INVALID_CONTENT_LENGTH:
		refuse(head, 400, "Content-Length is not a number");
		break;
	case HPE_INVALID_TRANSFER_ENCODING:
		refuse(head, 400, "Transfer-Encoding does not end in chunked");
		break;
	case HPE_INVALID_HEADER_TOKEN:
		refuse(head, 400, "a field's name or value has a character that is not allowed");
		break;
	case HPE_INVALID_URL:
		refuse(head, 400, "the request target has a character that is not allowed");
		break;
	default:
		refuse(head, 400, "the request's head is not HTTP/1.1");
	}
	return head->status;
}

/* The method and the space behind it. 0: go on at *at. HEAD_PARTLY is not told from it: *at is NULL then. */
static int read_method(struct head *head, const char *data, size_t size, const char **at)
{
	size_t n = 0;
	*at = NULL;
	while (n < size && n <= METHOD_LONGEST && token_characters[(unsigned char)data[n]])
		n++;
	if (n > METHOD_LONGEST) {
		refuse(head, 501, "the method's name is too long");
		return 501;
	}
	if (n == size)
		return 0;
	if (n == 0 && data[0] == 0x16) {
		refuse(head, 400, "the client speaks TLS where plain HTTP is expected");
		return 400;
	}
	if (n == 0 || data[n] != ' ') {
		refuse(head, 400, "the request line does not begin with a method and a space");
		return 400;
	}
	head->method = (struct engine_text){data, n};
	if (text_is(head->method, "CONNECT", 7)) {
		refuse(head, 501, "CONNECT asks for a tunnel, and this is no proxy");
		return 501;
	}
	*at = data + n + 1;
	return 0;
}

static bool parsed_whole(llhttp_t *parser, const char *data, size_t size)
{
	return llhttp_execute(parser, data, size) == HPE_PAUSED;
}

/* The request line, without its LF, while the rest of the head is not here. HTTP/0.9 has no version and nothing behind
   the line, so waiting for more would be in vain. */
static bool request_line_ends_well(struct head *head, const char *line, size_t size)
{
	static const char version[] = " HTTP/1.x\r";
	const size_t end = sizeof(version) - 1;
	if (size >= end && memcmp(line + size - end, version, end - 2) == 0 && line[size - 1] == '\r')
		return true;
	const char *first = memchr(line, ' ', size);
	const char *second = first != NULL ? memchr(first + 1, ' ', (size_t)(line + size - first - 1)) : NULL;
	if (size == 0 || line[size - 1] != '\r')
		refuse(head, 400, "a line does not end in CR LF");
	else if (second != NULL && ((size_t)(line + size - second) < 6 || memcmp(second, " HTTP/", 6) != 0))
		refuse(head, 400, "the request line does not end in HTTP/1.0 or HTTP/1.1");
	else
		refuse(head, 505, "the request's HTTP version is not 1.0 or 1.1");
	return false;
}

/* The head is not whole. Is it wrong, or too large, already? */
static int head_partly(struct connection *c, struct head *head)
{
	const struct engine_limits *limits = &c->engine->limits;
	const char *data = c->in.data + c->in.start;
	size_t size = c->in.end - c->in.start, line = limits->max_line + METHOD_LONGEST + 16;
	c->in.at = c->in.end;
	const char *end = memchr(data, '\n', size < line ? size : line);
	if (end != NULL && !request_line_ends_well(head, data, (size_t)(end - data)))
		return head->status;
	if (end == NULL && size >= line) {
		refuse(head, 414, "the request target is longer than max_line");
		return 414;
	}
	if (size >= limits->max_head) {
		refuse(head, 431, "the request's head is larger than max_head");
		return 431;
	}
	return HEAD_PARTLY;
}

int http1_head(struct connection *c, struct head **result)
{
	struct http1 *h = c->engine->connections->http1;
	struct head *head = &h->head;
	struct input *in = &c->in;
	llhttp_t parser;
	*result = head;
	head->status = 0;
	head->count = 0;
	head->limit = c->engine->limits.max_fields < WIRE_FIELDS ? c->engine->limits.max_fields : WIRE_FIELDS;
	head->method = head->target = (struct engine_text){NULL, 0};

	/* Empty lines before a request are to be forgiven (RFC 9112, section 2.2). */
	while (in->end - in->start >= 2 && in->data[in->start] == '\r' && in->data[in->start + 1] == '\n')
		in->start += 2;
	const char *data = in->data + in->start;
	size_t size = in->end - in->start;
	if (size == 0 || (size == 1 && data[0] == '\r')) {
		in->at = in->end;
		return HEAD_PARTLY;
	}
	const char *at;
	int status = read_method(head, data, size, &at);
	if (status != 0)
		return status;
	if (at == NULL)
		return head_partly(c, head);

	if (c->head_partly) {
		size_t seen = in->at;
		if (!parsed_whole(&c->parser, in->data + seen, in->end - seen)) {
			if (llhttp_get_errno(&c->parser) != HPE_OK)
				return refuse_parsed(head, &c->parser);
			return head_partly(c, head);
		}
	}
	parser = h->fresh;
	parser.data = head;
	if (!parsed_whole(&parser, at, (size_t)(in->data + in->end - at))) {
		if (llhttp_get_errno(&parser) != HPE_OK)
			return refuse_parsed(head, &parser);
		c->parser = parser;
		c->parser.settings = &h->partly;
		c->parser.data = NULL;
		c->head_partly = true;
		return head_partly(c, head);
	}
	head->begin = data;
	head->end = llhttp_get_error_pos(&parser);
	head->flags = parser.flags;
	in->at = (size_t)(head->end - in->data);
	c->head_partly = false;
	if ((size_t)(head->end - data) > c->engine->limits.max_head) {
		refuse(head, 431, "the request's head is larger than max_head");
		return 431;
	}
	return HEAD_WHOLE;
}
