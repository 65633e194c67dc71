/*
 * rack.errors: whole lines go to the group's error log, with the id of the request that the thread runs. One object
 * serves all requests; what an application's own thread writes belongs to none.
 */
#include <string.h>

#include "plugin.h"

static const rb_data_type_t errors_type = {
	"Webserver::Errors",
	{NULL, RUBY_NEVER_FREE, NULL, NULL, {NULL}},
	NULL,
	NULL,
	RUBY_TYPED_FREE_IMMEDIATELY | RUBY_TYPED_WB_PROTECTED,
};

static void log_text(struct langplugin_call *call, const char *text, size_t size)
{
	the_plugin->host->log(call, LP_NOTICE, text, size);
}

static VALUE with_partial(struct thread *thread, VALUE text)
{
	if (NIL_P(thread->partial))
		return text;
	VALUE whole = rb_str_buf_append(thread->partial, text);
	thread->partial = Qnil;
	return whole;
}

static void write_text(VALUE text)
{
	struct thread *thread = current_thread && current_thread->call ? current_thread : NULL;

	if (thread)
		text = with_partial(thread, text);
	const char *at = RSTRING_PTR(text);
	size_t size = (size_t)RSTRING_LEN(text);
	const char *end = memrchr(at, '\n', size);
	/* Without a request there is nobody who would end the line. */
	size_t whole = thread ? (end ? (size_t)(end - at) + 1 : 0) : size;
	if (whole)
		log_text(thread ? thread->call : NULL, at, whole);
	if (whole < size)
		thread->partial = rb_str_new(at + whole, (long)(size - whole));
	RB_GC_GUARD(text);
}

static VALUE errors_write(int argc, VALUE *argv, VALUE self)
{
	long written = 0;

	(void)self;
	for (int i = 0; i < argc; i++) {
		VALUE text = rb_obj_as_string(argv[i]);
		written += RSTRING_LEN(text);
		write_text(text);
	}
	return LONG2NUM(written);
}

static VALUE errors_append(VALUE self, VALUE text)
{
	write_text(rb_obj_as_string(text));
	return self;
}

static VALUE errors_flush(VALUE self)
{
	if (current_thread && current_thread->call)
		errors_end(current_thread);
	return self;
}

void errors_end(struct thread *thread)
{
	VALUE partial = thread->partial;

	thread->partial = Qnil;
	if (!NIL_P(partial))
		log_text(thread->call, RSTRING_PTR(partial), (size_t)RSTRING_LEN(partial));
	RB_GC_GUARD(partial);
}

/* puts and printf come from Ruby's own: they call write and <<. */
void errors_define(struct plugin *plugin, VALUE module)
{
	VALUE class = rb_define_class_under(module, "Errors", rb_cObject);

	rb_undef_alloc_func(class);
	rb_define_method(class, "write", errors_write, -1);
	rb_define_method(class, "<<", errors_append, 1);
	rb_define_method(class, "flush", errors_flush, 0);
	rb_define_method(class, "puts", rb_io_puts, -1);
	rb_define_method(class, "print", rb_io_print, -1);
	rb_define_method(class, "printf", rb_io_printf, -1);
	plugin->errors = rb_data_typed_object_wrap(class, NULL, &errors_type);
}
