/* What the environment has to call: rack.early_hints, trailers, and whether anybody still waits for the answer. */
#include "plugin.h"

static const rb_data_type_t hints_type = TICKET_TYPE("Webserver::EarlyHints");
static const rb_data_type_t cancelled_type = TICKET_TYPE("Webserver::Cancelled");
static const rb_data_type_t trailers_type = TICKET_TYPE("Webserver::Trailers");
static VALUE hints_class, cancelled_class, trailers_class;

struct hints {
	size_t count;
	int result;
};

static int send_hints(struct thread *thread, void *argument)
{
	struct hints *hints = argument;

	return hints->result = thread->host->inform(thread->call, 103, thread->fields, hints->count);
}

/* SPEC 3: headers, as an answer's. Those of a client that has gone are nobody's: not an error. */
static VALUE hints_call(VALUE self, VALUE headers)
{
	struct thread *thread = ticket_thread(self, &hints_type);
	struct answer_special special;
	bool has_length;

	if (!thread || thread->responded || thread->hijacked)
		rb_raise(rb_eIOError, "rack.early_hints: the answer has begun");
	call_turn(thread);
	struct hints hints = {answer_fields(thread, headers, false, &special, &has_length), LP_AGAIN};
	if (hints.count == 0)
		return Qnil;
	while (call_wait(thread, send_hints, &hints) == LP_AGAIN)
		rb_thread_check_ints();
	if (hints.result == LP_INVALID)
		answer_refused(thread, 103, hints.count);
	RB_GC_GUARD(headers);
	return Qnil;
}

static VALUE cancelled_call(VALUE self)
{
	struct thread *thread = ticket_thread(self, &cancelled_type);

	return !thread || thread->host->cancelled(thread->call) ? Qtrue : Qfalse;
}

void trailers_set(struct thread *thread)
{
	struct answer_special special;
	int64_t left = thread->left;
	bool has_length;
	size_t count = answer_fields(thread, thread->trailers, false, &special, &has_length);

	thread->left = left;
	if (thread->host->trailers(thread->call, thread->fields, count) == LP_INVALID)
		rb_raise(rb_eArgError, "not valid trailers: %+" PRIsVALUE, thread->trailers);
}

/* Headers to be sent behind the body; before the answer is returned, or while its body is made. */
static VALUE trailers_call(VALUE self, VALUE headers)
{
	struct thread *thread = ticket_thread(self, &trailers_type);

	if (!thread || thread->ended || thread->hijacked)
		rb_raise(rb_eIOError, "webserver.trailers: the answer is over");
	call_turn(thread);
	thread->trailers = headers;
	if (thread->responded)
		trailers_set(thread);
	return Qnil;
}

void callables_define(VALUE module)
{
	hints_class = rb_define_class_under(module, "EarlyHints", rb_cObject);
	rb_undef_alloc_func(hints_class);
	rb_define_method(hints_class, "call", hints_call, 1);
	cancelled_class = rb_define_class_under(module, "Cancelled", rb_cObject);
	rb_undef_alloc_func(cancelled_class);
	rb_define_method(cancelled_class, "call", cancelled_call, 0);
	trailers_class = rb_define_class_under(module, "Trailers", rb_cObject);
	rb_undef_alloc_func(trailers_class);
	rb_define_method(trailers_class, "call", trailers_call, 1);
}

VALUE callable_early_hints(const struct thread *thread)
{
	return ticket_new(hints_class, &hints_type, thread);
}

VALUE callable_cancelled(const struct thread *thread)
{
	return ticket_new(cancelled_class, &cancelled_type, thread);
}

VALUE callable_trailers(const struct thread *thread)
{
	return ticket_new(trailers_class, &trailers_type, thread);
}
