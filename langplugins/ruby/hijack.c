/*
 * rack.hijack: the application gets one end of a socket pair and answers by hand; the host reads what it writes there
 * and sends that on. Full: from the beginning. Partial: after a head that is written here. In both cases the socket is
 * the application's, which may use and close it on any thread, long after its call has returned.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "plugin.h"

static const rb_data_type_t hijack_type = TICKET_TYPE("Webserver::Hijack");
static VALUE hijack_class;

static VALUE take_over(struct thread *thread)
{
	call_turn(thread);
	int fd = thread->host->take_over(thread->call);

	if (fd < 0)
		rb_sys_fail("rack.hijack");
	thread->hijacked = true;
	VALUE number = INT2FIX(fd);
	return load_call(thread->plugin, "hijacked", 1, &number);
}

/* SPEC: gives the socket, also as rack.hijack_io; a second call the same. */
static VALUE hijack_call(VALUE self)
{
	struct thread *thread = ticket_thread(self, &hijack_type);

	if (!thread)
		rb_raise(rb_eIOError, "rack.hijack of a request that is over");
	VALUE name = rb_interned_str_cstr("rack.hijack_io");
	if (thread->hijacked)
		return rb_hash_lookup(thread->env, name);
	if (thread->responded)
		rb_raise(rb_eIOError, "rack.hijack: the answer has begun");
	VALUE socket = take_over(thread);
	rb_hash_aset(thread->env, name, socket);
	return socket;
}

void hijack_define(VALUE module)
{
	hijack_class = rb_define_class_under(module, "Hijack", rb_cObject);
	rb_undef_alloc_func(hijack_class);
	rb_define_method(hijack_class, "call", hijack_call, 0);
}

VALUE callable_hijack(const struct thread *thread)
{
	return ticket_new(hijack_class, &hijack_type, thread);
}

static void append_field(VALUE head, struct langplugin_field field)
{
	if (memchr(field.value.data, '\r', field.value.size) || memchr(field.name.data, ':', field.name.size))
		rb_raise(rb_eArgError, "not a header: %+" PRIsVALUE, bytes(field.name));
	rb_str_cat(head, field.name.data, (long)field.name.size);
	rb_str_cat(head, ": ", 2);
	rb_str_cat(head, field.value.data, (long)field.value.size);
	rb_str_cat(head, "\r\n", 2);
}

void hijack_answer(struct thread *thread, int status, VALUE hijack)
{
	struct answer_special special;
	bool has_length;

	if (!thread->host->take_over)
		rb_raise(rb_eNotImpError, "rack.hijack is not supported here");
	/* The connection's fields too: an upgrade is told by them. */
	size_t count = answer_fields(thread, thread->headers, status == 101, &special, &has_length);
	VALUE head = rb_sprintf("HTTP/1.1 %d \r\n", status);
	for (size_t i = 0; i < count; i++)
		append_field(head, thread->fields[i]);
	rb_str_cat(head, "\r\n", 2);
	VALUE arguments[] = {take_over(thread), head, hijack};
	/* On a thread of its own: it may write more than the socket holds, and this one has to carry that away. */
	load_call(thread->plugin, "partial", 3, arguments);
}
