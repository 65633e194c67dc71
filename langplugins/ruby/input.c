/*
 * rack.input: the request's body, read as it comes, and not one byte of it before it is asked for. SPEC 2 wants it to
 * be rewindable, so what has been read is kept; for Rack 3, which does not, it is let go. What is not needed often is
 * written in Ruby: streams.rb.
 */
#include <errno.h>
#include <ruby/encoding.h>
#include <string.h>

#include "plugin.h"

#define DIRECT (64 << 20) /* a body up to this size may be kept as the string that the application gets */

static const rb_data_type_t input_type = TICKET_TYPE("Webserver::Input");
static VALUE input_class, rewindable_class;

enum { MORE_LATER = -2 }; /* of take(): nothing is there at present */

struct thread *input_thread(VALUE self)
{
	struct thread *thread = ticket_thread(self, &input_type);

	if (!thread)
		rb_raise(rb_eIOError, "rack.input of a request that is over");
	if (thread->input.closed)
		rb_raise(rb_eIOError, "rack.input is closed");
	call_turn(thread);
	if (thread->input.lost)
		rb_raise(rb_eIOError, "rack.input: a read of all of it was interrupted");
	return thread;
}

RBIMPL_ATTR_NORETURN() static void gone(struct thread *thread)
{
	thread->gone = true;
	rb_raise(rb_const_get(rb_mErrno, rb_intern("ECONNRESET")), "before the request was complete");
}

/* What the host said: bytes, 0 at the end, MORE_LATER. */
static ssize_t came(struct thread *thread, ssize_t got)
{
	struct input *input = &thread->input;

	/* LP_INVALID: the answer is complete, and what is left of the body is nobody's. */
	if (got == 0 || got == LP_INVALID) {
		input->ended = true;
		return 0;
	}
	if (got == LP_AGAIN)
		return MORE_LATER;
	if (got < 0)
		gone(thread);
	input->taken += (uint64_t)got;
	return got;
}

struct wait {
	char *to;
	size_t room;
	ssize_t got;
};

static int wait_for_part(struct thread *thread, void *argument)
{
	struct wait *wait = argument;

	wait->got = thread->host->read(thread->call, wait->to, wait->room, 0);
	return 0;
}

/* The next part, waited for without Ruby's lock, into what is kept. False: the end. */
bool input_hold(struct thread *thread)
{
	struct input *input = &thread->input;
	struct wait wait;
	ssize_t got = 0;

	while (!input->ended && got <= 0) {
		wait.to = store_room(&input->store, input->rewinds, &wait.room);
		if (!wait.to)
			rb_sys_fail("rack.input");
		wait.got = thread->host->read(thread->call, wait.to, wait.room, LP_NOWAIT);
		bool waits = wait.got == LP_AGAIN;
		if (waits)
			call_wait(thread, wait_for_part, &wait);
		got = came(thread, wait.got);
		if (got > 0 && store_filled(&input->store, (size_t)got))
			rb_sys_fail("rack.input");
		if (waits)
			rb_thread_check_ints();
	}
	return got > 0;
}

/* Bytes at the reader's position that are there already. */
static ssize_t take_held(struct input *input, char *to, size_t size)
{
	if (!NIL_P(input->whole)) {
		size_t left = (size_t)RSTRING_LEN(input->whole) - (size_t)input->at;
		if (size > left)
			size = left;
		memcpy(to, RSTRING_PTR(input->whole) + input->at, size);
		return (ssize_t)size;
	}
	ssize_t got = store_read(&input->store, input->at, to, size);
	if (got < 0)
		rb_sys_fail("rack.input");
	return got;
}

/* As much as is there, without waiting: > 0, 0 at the end, MORE_LATER. */
static ssize_t take(struct thread *thread, char *to, size_t size, bool direct)
{
	struct input *input = &thread->input;
	ssize_t got = take_held(input, to, size);

	if (got == 0 && !input->ended) {
		bool straight = direct || !input->rewinds || input->store.fd >= 0;
		if (straight) {
			got = came(thread, thread->host->read(thread->call, to, size, LP_NOWAIT));
			if (got > 0 && !input->rewinds)
				input->store.base = input->at + (uint64_t)got, input->store.size = 0;
			else if (got > 0 && !direct && store_append(&input->store, to, (size_t)got))
				rb_sys_fail("rack.input");
		} else {
			size_t room;
			char *at = store_room(&input->store, true, &room);
			if (!at)
				rb_sys_fail("rack.input");
			/* To a file from now on: the next turn. */
			if (input->store.fd >= 0)
				return take(thread, to, size, direct);
			got = came(thread, thread->host->read(thread->call, at, room, LP_NOWAIT));
			if (got > 0) {
				store_filled(&input->store, (size_t)got);
				got = take_held(input, to, size);
			}
		}
	}
	if (got > 0)
		input->at += (uint64_t)got;
	return got;
}

/* The reader is at the end, as far as is known: no need to ask for more, nor for room for it. */
static bool complete(const struct input *input)
{
	if (input->at < input->taken)
		return false;
	return input->ended || (input->length >= 0 && input->at == (uint64_t)input->length);
}

/* limit -1: to the end. into: a string to fill, or Qnil. */
VALUE input_bytes(struct thread *thread, int64_t limit, VALUE into, bool partial)
{
	struct input *input = &thread->input;
	size_t left = input->length >= 0 ? (size_t)input->length - (size_t)input->at : 65536, have = 0;
	size_t wanted = limit < 0 ? SIZE_MAX : (size_t)limit;
	/* Read in one go: the string itself is what is kept. */
	bool direct = input->rewinds && NIL_P(into) && input->length >= 0 && input->length <= DIRECT && !partial &&
		      input->taken == 0 && wanted >= (size_t)input->length;
	/* A size that the client never said is not believed before the bytes are there. */
	size_t room = input->length >= 0 && wanted > left ? left : wanted;

	if (room > 1 << 20)
		room = 1 << 20;
	input->lost = direct;
	if (NIL_P(into)) {
		into = rb_str_buf_new((long)room);
	} else {
		rb_str_modify(into);
		rb_str_set_len(into, 0);
		rb_str_modify_expand(into, (long)room);
		rb_enc_associate(into, rb_ascii8bit_encoding());
	}
	while (have < wanted && !(have && complete(input))) {
		size_t capacity = rb_str_capacity(into);
		if (have == capacity) {
			rb_str_modify_expand(into, (long)(have < 65536 ? 65536 : have));
			continue;
		}
		size_t size = capacity - have < wanted - have ? capacity - have : wanted - have;
		ssize_t got = take(thread, RSTRING_PTR(into) + have, size, direct);
		if (got == MORE_LATER && direct) {
			/* Nobody else has the string yet. */
			struct wait wait = {RSTRING_PTR(into) + have, size, LP_AGAIN};
			call_wait(thread, wait_for_part, &wait);
			got = came(thread, wait.got);
			if (got == MORE_LATER) {
				rb_thread_check_ints();
				continue;
			}
			input->at += (uint64_t)got;
		} else if (got == MORE_LATER) {
			if (partial && have)
				break;
			/* Meanwhile the string is anybody's. */
			rb_str_set_len(into, (long)have);
			input_hold(thread);
			rb_str_modify(into);
			if ((size_t)RSTRING_LEN(into) != have)
				rb_raise(rb_eIOError, "the buffer was changed while rack.input was read into it");
			continue;
		}
		if (got == 0)
			break;
		have += (size_t)got;
		rb_str_set_len(into, (long)have);
		if (partial)
			break;
	}
	rb_str_set_len(into, (long)have);
	if (direct && have)
		input->whole = rb_str_new_frozen(into);
	input->lost = false;
	return into;
}

/* IO#read: nil at the end if a length was given, "" if not. */
VALUE input_read(struct thread *thread, int argc, VALUE *argv)
{
	VALUE length, into;

	rb_scan_args(argc, argv, "02", &length, &into);
	if (!NIL_P(into))
		StringValue(into);
	if (NIL_P(length))
		return input_bytes(thread, -1, into, false);
	int64_t limit = NUM2LL(length);
	if (limit < 0)
		rb_raise(rb_eArgError, "negative length %lld given", (long long)limit);
	VALUE result = input_bytes(thread, limit, into, false);
	return RSTRING_LEN(result) == 0 && limit > 0 ? Qnil : result;
}

/* IO#readpartial, but nil at the end. */
VALUE input_read_partial(struct thread *thread, int argc, VALUE *argv)
{
	VALUE length, into;

	rb_scan_args(argc, argv, "11", &length, &into);
	int64_t limit = NUM2LL(length);
	if (limit < 0)
		rb_raise(rb_eArgError, "negative length %lld given", (long long)limit);
	if (!NIL_P(into))
		StringValue(into);
	VALUE result = input_bytes(thread, limit, into, true);
	return RSTRING_LEN(result) == 0 && limit > 0 ? Qnil : result;
}

static VALUE input_read_method(int argc, VALUE *argv, VALUE self)
{
	return input_read(input_thread(self), argc, argv);
}

static VALUE input_read_partial_method(int argc, VALUE *argv, VALUE self)
{
	return input_read_partial(input_thread(self), argc, argv);
}

static VALUE input_rewind(VALUE self)
{
	input_thread(self)->input.at = 0;
	return INT2FIX(0);
}

static VALUE input_position(VALUE self)
{
	return ULL2NUM(input_thread(self)->input.at);
}

static VALUE input_at_end(VALUE self)
{
	struct thread *thread = input_thread(self);
	char block[1];
	const char *at;

	return complete(&thread->input) || input_peek(thread, block, sizeof(block), &at) == 0 ? Qtrue : Qfalse;
}

static VALUE input_close(VALUE self)
{
	struct thread *thread = ticket_thread(self, &input_type);

	if (thread)
		thread->input.closed = true;
	return Qnil;
}

static VALUE input_is_closed(VALUE self)
{
	struct thread *thread = ticket_thread(self, &input_type);

	return thread && !thread->input.closed ? Qfalse : Qtrue;
}

/* The length that the client has announced, or nil. */
static VALUE input_length(VALUE self)
{
	struct thread *thread = input_thread(self);

	return thread->input.length >= 0 ? LL2NUM(thread->input.length) : Qnil;
}

void input_define(VALUE module)
{
	input_class = rb_define_class_under(module, "Input", rb_cObject);
	rb_undef_alloc_func(input_class);
	rb_define_method(input_class, "read", input_read_method, -1);
	rb_define_method(input_class, "_read_partial", input_read_partial_method, -1);
	lines_define(input_class);
	rb_define_method(input_class, "pos", input_position, 0);
	rb_define_method(input_class, "eof?", input_at_end, 0);
	rb_define_method(input_class, "close", input_close, 0);
	rb_define_method(input_class, "closed?", input_is_closed, 0);
	rb_define_method(input_class, "_length", input_length, 0);
	rewindable_class = rb_define_class_under(module, "RewindableInput", input_class);
	rb_define_method(rewindable_class, "rewind", input_rewind, 0);
}

VALUE input_of(struct thread *thread)
{
	struct input *input = &thread->input;
	const struct langplugin_request *request = thread->host->request(thread->call);

	input->length = request->content_length;
	input->at = input->taken = 0;
	input->ended = input->closed = input->lost = false;
	input->rewinds = thread->plugin->rewinds;
	input->whole = Qnil;
	store_begin(&input->store);
	if ((request->content_length == 0 || (request->content_length < 0 && !request->chunked)) &&
		!request->upgrade.size) {
		input->ended = true;
		return thread->plugin->no_input;
	}
	return ticket_new(input->rewinds ? rewindable_class : input_class, &input_type, thread);
}

void input_end(struct thread *thread)
{
	thread->input.whole = Qnil;
	store_end(&thread->input.store);
}
