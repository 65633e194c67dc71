/*
 * The stream that a Rack 3 body, one that has call() and no each(), reads the request from and writes the answer to. It
 * is closed when call() returns. Each write is on its way when it returns, as from a socket.
 */
#include "plugin.h"

static const rb_data_type_t stream_type = TICKET_TYPE("Webserver::Stream");
static VALUE stream_class;

static struct thread *find(VALUE self)
{
	struct thread *thread = ticket_thread(self, &stream_type);

	return thread && thread->streaming ? thread : NULL;
}

static struct thread *check(VALUE self)
{
	struct thread *thread = find(self);

	if (!thread)
		rb_raise(rb_eIOError, "closed stream");
	call_turn(thread);
	return thread;
}

static struct thread *check_write(VALUE self)
{
	struct thread *thread = check(self);

	if (thread->ended)
		rb_raise(rb_eIOError, "not opened for writing");
	return thread;
}

static void write_one(struct thread *thread, VALUE data)
{
	VALUE text = rb_obj_as_string(data);

	if (!body_write(thread, text, true) && thread->gone)
		rb_raise(rb_const_get(rb_mErrno, rb_intern("EPIPE")), "the client went away");
}

static VALUE stream_write(int argc, VALUE *argv, VALUE self)
{
	struct thread *thread = check_write(self);
	long written = 0;

	for (int i = 0; i < argc; i++) {
		VALUE text = rb_obj_as_string(argv[i]);
		write_one(thread, text);
		written += RSTRING_LEN(text);
	}
	return LONG2NUM(written);
}

static VALUE stream_append(VALUE self, VALUE data)
{
	write_one(check_write(self), data);
	return self;
}

static VALUE stream_flush(VALUE self)
{
	body_flush(check_write(self));
	return self;
}

static VALUE stream_read(int argc, VALUE *argv, VALUE self)
{
	struct thread *thread = check(self);

	if (thread->input.closed)
		rb_raise(rb_eIOError, "not opened for reading");
	return input_read(thread, argc, argv);
}

static VALUE stream_read_partial(int argc, VALUE *argv, VALUE self)
{
	struct thread *thread = check(self);

	if (thread->input.closed)
		rb_raise(rb_eIOError, "not opened for reading");
	return input_read_partial(thread, argc, argv);
}

static VALUE stream_close_read(VALUE self)
{
	struct thread *thread = find(self);

	if (thread)
		thread->input.closed = true;
	return Qnil;
}

static VALUE stream_close_write(VALUE self)
{
	struct thread *thread = find(self);

	/* A tunnel's other direction goes on only as long as this one. */
	if (thread && !thread->ended)
		body_end(thread);
	return Qnil;
}

static VALUE stream_close(VALUE self)
{
	struct thread *thread = find(self);

	if (thread) {
		stream_close_write(self);
		thread->input.closed = true;
		thread->streaming = false;
	}
	return Qnil;
}

static VALUE stream_is_closed(VALUE self)
{
	return find(self) ? Qfalse : Qtrue;
}

void stream_define(VALUE module)
{
	stream_class = rb_define_class_under(module, "Stream", rb_cObject);
	rb_undef_alloc_func(stream_class);
	rb_define_method(stream_class, "write", stream_write, -1);
	rb_define_method(stream_class, "<<", stream_append, 1);
	rb_define_method(stream_class, "flush", stream_flush, 0);
	rb_define_method(stream_class, "read", stream_read, -1);
	rb_define_method(stream_class, "_read_partial", stream_read_partial, -1);
	rb_define_method(stream_class, "close_read", stream_close_read, 0);
	rb_define_method(stream_class, "close_write", stream_close_write, 0);
	rb_define_method(stream_class, "close", stream_close, 0);
	rb_define_method(stream_class, "closed?", stream_is_closed, 0);
}

VALUE stream_of(struct thread *thread)
{
	return ticket_new(stream_class, &stream_type, thread);
}
