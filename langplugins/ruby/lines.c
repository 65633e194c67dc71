/* Lines of rack.input. */
#include <string.h>

#include "plugin.h"

static ID id_chomp, id_chomp_it;

/* The held bytes at the reader's position; fetches some if there are none. 0: the end. */
size_t input_peek(struct thread *thread, char *block, size_t size, const char **at)
{
	struct input *input = &thread->input;

	*at = block;
	for (;;) {
		if (!NIL_P(input->whole)) {
			*at = RSTRING_PTR(input->whole) + input->at;
			return (size_t)RSTRING_LEN(input->whole) - (size_t)input->at;
		}
		if (input->store.fd < 0 && input->at - input->store.base < input->store.size) {
			*at = input->store.memory + (input->at - input->store.base);
			return (size_t)(input->store.size - (input->at - input->store.base));
		}
		ssize_t got = store_read(&input->store, input->at, block, size);
		if (got < 0)
			rb_sys_fail("rack.input");
		if (got > 0 || !input_hold(thread))
			return (size_t)got;
	}
}

/* A line and its end, up to `limit` bytes (-1: any). Qnil at the end. */
static VALUE line(struct thread *thread, VALUE separator, long limit)
{
	VALUE result = Qnil;
	char block[4096];
	const char *at;
	long ends = RSTRING_LEN(separator);
	char last = RSTRING_PTR(separator)[ends - 1];

	for (;;) {
		size_t size = input_peek(thread, block, sizeof(block), &at);
		if (size == 0)
			return result;
		if (NIL_P(result))
			result = rb_str_buf_new(0);
		if (limit >= 0 && size > (size_t)(limit - RSTRING_LEN(result)))
			size = (size_t)(limit - RSTRING_LEN(result));
		const char *end = memchr(at, last, size);
		if (end)
			size = (size_t)(end - at) + 1;
		rb_str_cat(result, at, (long)size);
		thread->input.at += size;
		if (limit >= 0 && RSTRING_LEN(result) == limit)
			return result;
		if (end && RSTRING_LEN(result) >= ends &&
			memcmp(RSTRING_END(result) - ends, RSTRING_PTR(separator), (size_t)ends) == 0)
			return result;
	}
}

/* gets, gets(separator), gets(limit), gets(separator, limit), with chomp: true. A separator of nil is all. */
static VALUE input_gets(int argc, VALUE *argv, VALUE self)
{
	struct thread *thread = input_thread(self);
	VALUE separator = rb_rs, second = Qnil, options = Qnil;
	long limit = -1;

	if (argc > 0) {
		argc = rb_scan_args(argc, argv, "02:", &separator, &second, &options);
		if (argc == 1 && !NIL_P(separator) && !RB_TYPE_P(separator, T_STRING)) {
			second = separator;
			separator = rb_rs;
		} else if (argc == 0) {
			separator = rb_rs;
		}
		if (!NIL_P(second))
			limit = NUM2LONG(second);
		if (!NIL_P(separator))
			StringValue(separator);
	}
	if (limit == 0)
		return rb_str_new(NULL, 0);
	VALUE result;
	if (NIL_P(separator)) {
		result = input_bytes(thread, limit < 0 ? -1 : limit, Qnil, false);
		if (RSTRING_LEN(result) == 0)
			result = Qnil;
	} else {
		result = line(thread, RSTRING_LEN(separator) ? separator : rb_str_new_cstr("\n\n"), limit);
	}
	if (!NIL_P(options) && !NIL_P(result) && RTEST(rb_hash_lookup(options, ID2SYM(id_chomp))))
		rb_funcall(result, id_chomp_it, 1, NIL_P(separator) ? rb_rs : separator);
	return result;
}

void lines_define(VALUE class)
{
	id_chomp = rb_intern("chomp");
	id_chomp_it = rb_intern("chomp!");
	rb_define_method(class, "gets", input_gets, -1);
}
