/*
 * Status and headers. Rack 2 has several values of one name as lines of one string, Rack 3 as an array; both are taken,
 * whichever is loaded. What belongs to the connection is the server's: applications that set it mean well and are not
 * refused, and a body that they have chunked themselves is sent without its chunks.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plugin.h"

struct head {
	struct thread *thread;
	size_t count;
	bool keep_connection, has_length;
	struct answer_special *special;
};

static bool named(struct langplugin_text name, const char *word, size_t size)
{
	return name.size == size && strncasecmp(name.data, word, size) == 0;
}
#define NAMED(name, literal) named(name, literal, sizeof(literal) - 1)

static bool is_connection_field(struct langplugin_text name)
{
	return NAMED(name, "connection") || NAMED(name, "keep-alive") || NAMED(name, "transfer-encoding") ||
	       NAMED(name, "upgrade") || NAMED(name, "te") || NAMED(name, "trailer") || NAMED(name, "proxy-connection");
}

/* -1: not a length, which is for the host to say. */
static int64_t number_of(struct langplugin_text text)
{
	int64_t number = 0;

	for (size_t i = 0; i < text.size; i++) {
		if (text.data[i] < '0' || text.data[i] > '9' || i > 17)
			return -1;
		number = number * 10 + (text.data[i] - '0');
	}
	return text.size ? number : -1;
}

/* A string of our own making lives as long as the head is looked at. */
static VALUE keep(struct thread *thread, VALUE string)
{
	if (NIL_P(thread->kept))
		thread->kept = rb_ary_new();
	rb_ary_push(thread->kept, string);
	return string;
}

static VALUE text_of(struct thread *thread, VALUE value)
{
	return RB_TYPE_P(value, T_STRING) ? value : keep(thread, rb_obj_as_string(value));
}

static void add(struct head *head, struct langplugin_text name, struct langplugin_text value)
{
	struct thread *thread = head->thread;

	if (head->count == thread->field_room) {
		size_t room = thread->field_room ? thread->field_room * 2 : 32;
		/* Not Ruby's: its collector may move the strings that have been looked at. */
		struct langplugin_field *fields = realloc(thread->fields, room * sizeof(*fields));
		if (!fields)
			rb_memerror();
		thread->fields = fields;
		thread->field_room = room;
	}
	/* Its own word counts more than our sum. */
	if (NAMED(name, "content-length")) {
		head->has_length = true;
		thread->left = number_of(value);
	}
	thread->fields[head->count++] = (struct langplugin_field){name, value};
}

static void add_lines(struct head *head, struct langplugin_text name, VALUE string)
{
	const char *at = RSTRING_PTR(string), *end = RSTRING_END(string);
	const char *line = memchr(at, '\n', (size_t)(end - at));

	if (!line) {
		add(head, name, (struct langplugin_text){at, (size_t)(end - at)});
		return;
	}
	for (; at < end; at = line + 1) {
		line = memchr(at, '\n', (size_t)(end - at));
		if (!line)
			line = end;
		if (line > at)
			add(head, name, (struct langplugin_text){at, (size_t)(line - at)});
	}
}

/* Headers that are for the server. */
static void take_special(struct head *head, struct langplugin_text name, VALUE value)
{
	if (NAMED(name, "rack.hijack"))
		head->special->hijack = value;
	else if (NAMED(name, "rack.protocol"))
		head->special->protocol = value;
}

static int take_header(VALUE key, VALUE value, VALUE argument)
{
	struct head *head = (struct head *)argument;
	VALUE string = text_of(head->thread, key);
	struct langplugin_text name = {RSTRING_PTR(string), (size_t)RSTRING_LEN(string)};

	if (name.size > 5 && strncasecmp(name.data, "rack.", 5) == 0) {
		take_special(head, name, value);
		return ST_CONTINUE;
	}
	if (NIL_P(value) || NAMED(name, "status"))
		return ST_CONTINUE;
	if (!head->keep_connection && is_connection_field(name)) {
		if (NAMED(name, "transfer-encoding")) {
			VALUE coding = text_of(head->thread, value);
			head->thread->chunked = RSTRING_LEN(coding) == 7 &&
						strncasecmp(RSTRING_PTR(coding), "chunked", 7) == 0;
		}
		return ST_CONTINUE;
	}
	if (RB_TYPE_P(value, T_ARRAY)) {
		for (long i = 0; i < RARRAY_LEN(value); i++)
			add_lines(head, name, text_of(head->thread, RARRAY_AREF(value, i)));
	} else {
		add_lines(head, name, text_of(head->thread, value));
	}
	return ST_CONTINUE;
}

static VALUE take_pair(RB_BLOCK_CALL_FUNC_ARGLIST(pair, argument))
{
	(void)pair;
	(void)blockarg;
	if (argc == 1 && RB_TYPE_P(argv[0], T_ARRAY) && RARRAY_LEN(argv[0]) == 2)
		take_header(RARRAY_AREF(argv[0], 0), RARRAY_AREF(argv[0], 1), argument);
	else if (argc == 2)
		take_header(argv[0], argv[1], argument);
	else
		rb_raise(rb_eTypeError, "headers: each must yield names and values");
	return Qnil;
}

size_t answer_fields(
	struct thread *thread, VALUE headers, bool keep_connection, struct answer_special *special, bool *has_length)
{
	struct head head = {thread, 0, keep_connection, false, special};

	special->hijack = special->protocol = Qnil;
	thread->left = -1;
	if (RB_TYPE_P(headers, T_HASH))
		rb_hash_foreach(headers, take_header, (VALUE)&head);
	else if (!NIL_P(headers))
		rb_block_call(headers, rb_intern("each"), 0, NULL, take_pair, (VALUE)&head);
	*has_length = head.has_length;
	return head.count;
}

int answer_status(VALUE status)
{
	int number = RB_FIXNUM_P(status) ? FIX2INT(status) : NUM2INT(rb_funcall(status, rb_intern("to_i"), 0));

	if (number < 100 || number > 999)
		rb_raise(rb_eArgError, "the status must be a number from 100 to 999, not %+" PRIsVALUE, status);
	return number;
}

/* Which of the fields the host did not take, and why, for the author of the application. */
void answer_refused(struct thread *thread, int status, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct langplugin_text name = thread->fields[i].name, value = thread->fields[i].value;
		VALUE both = rb_ary_new_from_args(2, bytes(name), bytes(value));
		for (size_t k = 0; k < value.size; k++)
			if (((unsigned char)value.data[k] < 0x20 && value.data[k] != '\t') || value.data[k] == 0x7f)
				rb_raise(rb_eArgError, "a control character in the header %+" PRIsVALUE, both);
		for (size_t k = 0; k < name.size; k++)
			if (name.data[k] <= ' ' || strchr("\"(),/:;<=>?@[\\]{}\x7f", name.data[k]))
				rb_raise(rb_eArgError, "not a header's name: %+" PRIsVALUE, both);
		if (name.size == 0)
			rb_raise(rb_eArgError, "a header without a name: %+" PRIsVALUE, both);
		if (NAMED(name, "content-length") && number_of(value) < 0)
			rb_raise(rb_eArgError, "not a length: %+" PRIsVALUE, both);
	}
	rb_raise(rb_eArgError, "not a valid answer: status %d, %lu headers", status, (unsigned long)count);
}

/* Fields are laid out already. */
static void respond(struct thread *thread, int status, size_t count, int64_t length)
{
	call_turn(thread);
	int result = thread->host->respond(
		thread->call, status, (struct langplugin_text){"", 0}, thread->fields, count, length);

	if (result == LP_INVALID)
		answer_refused(thread, status, count);
	thread->responded = true;
	thread->no_body = status == 204 || status == 304 || thread->host->request(thread->call)->head;
	if (thread->no_body)
		thread->left = -1;
	if (result == LP_GONE)
		thread->gone = true;
	else if (!NIL_P(thread->trailers))
		trailers_set(thread);
}

void answer_head(struct thread *thread, int status, size_t count, bool has_length, int64_t length)
{
	if (status < 200)
		rb_raise(rb_eArgError, "%d is not a final status", status);
	if (thread->chunked || !NIL_P(thread->trailers))
		length = -1;
	respond(thread, status, count, has_length || thread->host->request(thread->call)->head ? -1 : length);
}

/* An upgrade to what the client has asked for: SPEC 3, rack.protocol. The body is the tunnel. */
static void upgrade(struct thread *thread, size_t count, VALUE protocol)
{
	struct head head = {thread, count, true, false, NULL};
	VALUE name = text_of(thread, protocol);

	add(&head, (struct langplugin_text){"upgrade", 7},
		(struct langplugin_text){RSTRING_PTR(name), (size_t)RSTRING_LEN(name)});
	thread->left = -1;
	respond(thread, 101, head.count, -1);
	thread->streaming = true;
}

void answer_send(struct thread *thread, VALUE response)
{
	VALUE parts = rb_check_array_type(response);
	struct answer_special special;
	bool has_length;

	if (thread->hijacked) {
		/* SPEC: whatever it is, it is ignored; what it holds is closed all the same. */
		if (!NIL_P(parts) && RARRAY_LEN(parts) == 3)
			thread->body = RARRAY_AREF(parts, 2);
		return;
	}
	if (NIL_P(parts) || RARRAY_LEN(parts) != 3)
		rb_raise(rb_eTypeError,
			"the application must return an array of status, headers and body, not %+" PRIsVALUE,
			NIL_P(parts) ? rb_obj_class(response) : parts);
	thread->status = RARRAY_AREF(parts, 0);
	thread->headers = RARRAY_AREF(parts, 1);
	thread->body = RARRAY_AREF(parts, 2);
	int status = answer_status(thread->status);
	size_t count = answer_fields(thread, thread->headers, false, &special, &has_length);
	if (!NIL_P(special.hijack)) {
		hijack_answer(thread, status, special.hijack);
		return;
	}
	if (!NIL_P(special.protocol))
		upgrade(thread, count, special.protocol);
	body_send(thread, status, count, has_length);
	RB_GC_GUARD(parts);
}
