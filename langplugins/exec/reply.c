/*
 * A program's answer. See reply.h.
 *
 * llhttp is stopped (HPE_PAUSED) in the callback of each event, so that one call brings one event and the caller can
 * leave what follows in its buffer until the client has taken what came before.
 */
#include "reply.h"

#include <stdlib.h>
#include <string.h>

static int stop(struct reply *reply, enum reply_event event)
{
	reply->event = event;
	return HPE_PAUSED;
}

static int wrong(struct reply *reply, const char *why)
{
	reply->wrong = why;
	reply->event = REPLY_BAD;
	return HPE_USER;
}

static int add(struct reply *reply, const char *at, size_t size)
{
	if (size > REPLY_TEXT - reply->text_size)
		return wrong(reply, reply->in_body ? "its trailers are too large" : "its head is too large");
	memcpy(reply->text + reply->text_size, at, size);
	reply->text_size += size;
	return 0;
}

static struct reply_field *current(struct reply *reply)
{
	return &reply->field[reply->count];
}

static int on_begin(llhttp_t *parser)
{
	struct reply *reply = parser->data;

	reply->text_size = reply->reason_size = 0;
	reply->count = 0;
	*current(reply) = (struct reply_field){0};
	reply->in_body = false;
	return 0;
}

static int on_reason(llhttp_t *parser, const char *at, size_t size)
{
	struct reply *reply = parser->data;

	reply->reason_size += size;
	return add(reply, at, size);
}

static int on_name(llhttp_t *parser, const char *at, size_t size)
{
	struct reply *reply = parser->data;

	if (reply->count == REPLY_FIELDS)
		return wrong(reply, "it has too many fields");
	if (current(reply)->name_size == 0)
		current(reply)->name = reply->text_size;
	current(reply)->name_size += size;
	return add(reply, at, size);
}

static int on_value(llhttp_t *parser, const char *at, size_t size)
{
	struct reply *reply = parser->data;

	if (current(reply)->value_size == 0)
		current(reply)->value = reply->text_size;
	current(reply)->value_size += size;
	return add(reply, at, size);
}

/* RFC 9110, section 5.5: spaces around a value are not part of it. */
static int on_value_end(llhttp_t *parser)
{
	struct reply *reply = parser->data;
	struct reply_field *field = current(reply);

	while (field->value_size > 0 && (reply->text[field->value + field->value_size - 1] == ' ' ||
						reply->text[field->value + field->value_size - 1] == '\t'))
		field->value_size--;
	if (field->name_size == 0)
		return wrong(reply, "a field has no name");
	if (++reply->count < REPLY_FIELDS)
		*current(reply) = (struct reply_field){0};
	return 0;
}

static int on_head(llhttp_t *parser)
{
	struct reply *reply = parser->data;

	reply->status = parser->status_code;
	/* RFC 9112, section 6.3: these have no body whatever their fields say. */
	if (reply->to_head || reply->status < 200 || reply->status == 204 || reply->status == 304)
		parser->flags |= F_SKIPBODY;
	reply->keep = llhttp_should_keep_alive(parser) != 0;
	reply->close_delimited = llhttp_message_needs_eof(parser) != 0;
	if (reply->status < 100)
		return wrong(reply, "its status is no HTTP status");
	if (reply->status == 101)
		return stop(reply, REPLY_SWITCH);
	return stop(reply, reply->status < 200 ? REPLY_INTERIM : REPLY_HEAD);
}

static int on_body(llhttp_t *parser, const char *at, size_t size)
{
	struct reply *reply = parser->data;

	if (size == 0)
		return 0; /* nothing was given, in the middle of a body */
	reply->data = at;
	reply->size = size;
	return stop(reply, REPLY_BODY);
}

static int on_end(llhttp_t *parser)
{
	struct reply *reply = parser->data;

	return parser->status_code < 200 ? 0 : stop(reply, REPLY_END);
}

int reply_open(struct reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	reply->text = malloc(REPLY_TEXT);
	llhttp_settings_init(&reply->callbacks);
	reply->callbacks.on_message_begin = on_begin;
	reply->callbacks.on_status = on_reason;
	reply->callbacks.on_header_field = on_name;
	reply->callbacks.on_header_value = on_value;
	reply->callbacks.on_header_value_complete = on_value_end;
	reply->callbacks.on_headers_complete = on_head;
	reply->callbacks.on_body = on_body;
	reply->callbacks.on_message_complete = on_end;
	return reply->text ? 0 : -1;
}

void reply_close(struct reply *reply)
{
	free(reply->text);
	reply->text = NULL;
}

void reply_begin(struct reply *reply, bool to_head)
{
	llhttp_init(&reply->parser, HTTP_RESPONSE, &reply->callbacks);
	reply->parser.data = reply;
	reply->to_head = to_head;
	reply->in_body = reply->keep = reply->close_delimited = false;
	reply->status = 0;
	reply->count = 0;
	reply->field[0] = (struct reply_field){0};
	reply->text_size = reply->reason_size = reply->head_bytes = 0;
	reply->wrong = NULL;
	reply->event = REPLY_MORE;
}

/* What llhttp calls its errors is for its authors; the reason is a sentence. */
static enum reply_event bad(struct reply *reply)
{
	if (!reply->wrong)
		reply->wrong = reply->parser.reason && *reply->parser.reason ? reply->parser.reason
									     : "it is not HTTP/1";
	return reply->event = REPLY_BAD;
}

enum reply_event reply_take(struct reply *reply, const char *data, size_t size, size_t *used)
{
	*used = 0;
	if (reply->event == REPLY_BAD)
		return REPLY_BAD;
	if (reply->event == REPLY_HEAD) {
		/* Its texts have been taken: what comes now are trailers. */
		reply->in_body = true;
		reply->text_size = 0;
		reply->count = 0;
		reply->field[0] = (struct reply_field){0};
	}
	reply->event = REPLY_MORE;
	llhttp_resume(&reply->parser);
	enum llhttp_errno error = llhttp_execute(&reply->parser, data, size);
	if (error == HPE_PAUSED)
		*used = (size_t)(llhttp_get_error_pos(&reply->parser) - data);
	else if (error == HPE_OK)
		*used = size;
	else
		return bad(reply);
	/* Bytes that llhttp passes over (empty lines, chunk extensions, folds) are kept nowhere, and must end too. */
	reply->head_bytes = reply->event == REPLY_MORE ? reply->head_bytes + *used : 0;
	if (reply->head_bytes > 2 * REPLY_TEXT) {
		reply->wrong = "it goes on and on without a head or a body";
		return bad(reply);
	}
	return reply->event;
}

enum reply_event reply_finish(struct reply *reply)
{
	if (reply->event == REPLY_BAD)
		return REPLY_BAD;
	reply->event = REPLY_MORE;
	llhttp_resume(&reply->parser);
	enum llhttp_errno error = llhttp_finish(&reply->parser);
	if (reply->event == REPLY_END)
		return REPLY_END;
	if (error == HPE_OK || !reply->wrong)
		reply->wrong = "the connection ended before its end";
	return bad(reply);
}
