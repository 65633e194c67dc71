/* One request: call the application, send what it returns, and clean up whatever happens. */
#include <errno.h>
#include <string.h>

#include "plugin.h"

static ID id_call, id_close;

/* ---- the host without Ruby's lock */

struct waiting {
	struct thread *thread;
	waiting_function *function;
	void *argument;
	int result;
	bool done;
};

static void *wait_without_lock(void *argument)
{
	struct waiting *waiting = argument;

	waiting->result = waiting->function(waiting->thread, waiting->argument);
	waiting->done = true;
	return NULL;
}

static void unblock(void *argument)
{
	struct thread *thread = argument;

	thread->host->interrupt(thread->call);
}

int call_wait(struct thread *thread, waiting_function *function, void *argument)
{
	struct waiting waiting = {thread, function, argument, LP_AGAIN, false};

	/* Free, since nobody is in the host; taken under Ruby's lock, so that nobody slips in between. */
	rb_mutex_lock(thread->turn);
	thread->waiting = true;
	/* Does not raise; nor does it call the function if something is to be raised, which the caller sees to. */
	rb_thread_call_without_gvl2(wait_without_lock, &waiting, unblock, thread);
	thread->waiting = false;
	rb_mutex_unlock(thread->turn);
	return waiting.result;
}

void call_turn(struct thread *thread)
{
	while (thread->waiting) {
		rb_mutex_lock(thread->turn);
		rb_mutex_unlock(thread->turn);
	}
}

/* ---- tickets */

/* Odd, so that it looks like no pointer; a slot's number below the request's. */
static uintptr_t ticket_of(const struct thread *thread)
{
	return (uintptr_t)(thread->serial << 9 | (uint64_t)thread->number << 1 | 1);
}

VALUE ticket_new(VALUE class, const rb_data_type_t *type, const struct thread *thread)
{
	return rb_data_typed_object_wrap(class, (void *)ticket_of(thread), type);
}

struct thread *ticket_thread(VALUE ticket, const rb_data_type_t *type)
{
	uintptr_t number = (uintptr_t)rb_check_typeddata(ticket, type);
	struct thread *thread = &the_plugin->threads[number >> 1 & 0xff];

	return thread->call && ticket_of(thread) == number ? thread : NULL;
}

/* ---- the request */

static void answer_error(struct thread *thread, int status)
{
	thread->host->fail(thread->call, status);
	thread->responded = true;
}

static VALUE serve(VALUE argument)
{
	struct thread *thread = (struct thread *)argument;
	VALUE application = thread->plugin->callable;

	if (NIL_P(application)) {
		application = load_requested(thread->plugin, thread->host->request(thread->call));
		if (application == INT2FIX(404) || application == INT2FIX(403)) {
			answer_error(thread, FIX2INT(application));
			return Qnil;
		}
	}
	VALUE env = thread->env = environ_of(thread);
	answer_send(thread, rb_funcallv(application, id_call, 1, &env));
	return Qnil;
}

static VALUE check_interrupts(VALUE unused)
{
	rb_thread_check_ints();
	return unused;
}

/*
 * What others have raised in this thread is for a request that is over, or has not begun: Timeout and others of its
 * kind see to it that it does not come too late, Thread#kill of every thread that there is does not. Must be empty when
 * the lock is given away: Ruby would raise it in the host's frames.
 */
static void shake_off(struct thread *thread)
{
	static const char text[] = "something was raised in a slot's thread between two requests; it goes on";
	int state;

	while (RB_UNLIKELY(rb_thread_interrupted(thread->ruby))) {
		protect(check_interrupts, Qnil, &state);
		if (state) {
			rb_set_errinfo(Qnil);
			thread->host->log(NULL, LP_WARNING, text, sizeof(text) - 1);
		}
	}
}

static void tell_gone(struct thread *thread)
{
	static const char text[] = "the client went away before its request or its answer was complete";

	if (!thread->told_gone)
		thread->host->log(thread->call, LP_NOTICE, text, sizeof(text) - 1);
	thread->told_gone = true;
}

static bool is_lost_connection(VALUE error)
{
	VALUE reset = rb_const_get(rb_mErrno, rb_intern("ECONNRESET"));
	VALUE pipe = rb_const_get(rb_mErrno, rb_intern("EPIPE"));

	return RTEST(rb_obj_is_kind_of(error, reset)) || RTEST(rb_obj_is_kind_of(error, pipe));
}

static VALUE failed(struct thread *thread)
{
	VALUE error = load_error();

	call_turn(thread);
	/* A client that goes away in the middle of its request is no mistake of the application's. */
	if (thread->host->cancelled(thread->call) && !NIL_P(error) && is_lost_connection(error))
		tell_gone(thread);
	else
		load_report(thread->plugin, thread->call, error, NULL, 0);
	if (!thread->hijacked)
		answer_error(thread, 500);
	return error;
}

/* ---- after the answer */

struct after {
	struct thread *thread;
	VALUE list, arguments[4];
	int count;
	long at;
};

static VALUE call_one(VALUE argument)
{
	struct after *after = (struct after *)argument;

	return rb_funcallv(RARRAY_AREF(after->list, after->at), id_call, after->count, after->arguments);
}

static void guarded(struct thread *thread, VALUE (*function)(VALUE argument), void *argument)
{
	int state;

	protect(function, (VALUE)argument, &state);
	if (state)
		load_report(thread->plugin, thread->call, load_error(), NULL, 0);
}

static bool has_some(VALUE list)
{
	return RB_TYPE_P(list, T_ARRAY) && RARRAY_LEN(list) > 0;
}

static VALUE close_body(VALUE argument)
{
	struct thread *thread = (struct thread *)argument;
	VALUE body = thread->body;

	thread->body = Qnil;
	return rb_funcallv(body, id_close, 0, NULL);
}

static VALUE wants_close(VALUE argument)
{
	return rb_respond_to((VALUE)argument, id_close) ? Qtrue : Qfalse;
}

/* Has no close(), and is what most applications return. */
static bool is_plain_array(VALUE body)
{
	return RB_TYPE_P(body, T_ARRAY) && RBASIC_CLASS(body) == rb_cArray;
}

/* The application's own clean-up: nobody waits for it. */
static void settle(struct thread *thread, VALUE error)
{
	int state;
	bool closes = !NIL_P(thread->body) && !is_plain_array(thread->body) &&
		      protect(wants_close, thread->body, &state) == Qtrue;
	struct after reply = {thread, Qnil, {Qnil}, 0, 0}, finished = reply;

	if (!NIL_P(thread->env)) {
		reply.list = environ_after_reply(thread->env);
		finished.list = environ_response_finished(thread->env);
	}
	if (!closes && !has_some(reply.list) && !has_some(finished.list))
		return;
	if (!thread->hijacked)
		body_end(thread);
	if (closes)
		guarded(thread, close_body, thread);
	for (; has_some(reply.list) && reply.at < RARRAY_LEN(reply.list); reply.at++)
		guarded(thread, call_one, &reply);
	/* SPEC 3: (env, status, headers, error), the last of them first. */
	finished.arguments[0] = thread->env;
	finished.arguments[1] = NIL_P(error) ? thread->status : Qnil;
	finished.arguments[2] = NIL_P(error) ? thread->headers : Qnil;
	finished.arguments[3] = error;
	finished.count = 4;
	if (has_some(finished.list))
		for (finished.at = RARRAY_LEN(finished.list) - 1; finished.at >= 0; finished.at--)
			guarded(thread, call_one, &finished);
	RB_GC_GUARD(error);
}

static void begin(struct thread *thread, struct langplugin_call *call)
{
	/* Before the call is there: a ticket of the last request must not be good for this one. */
	thread->serial++;
	thread->call = call;
	thread->env = thread->body = thread->kept = thread->trailers = thread->status = thread->headers = Qnil;
	thread->left = -1;
	thread->responded = thread->no_body = thread->gone = thread->ended = thread->hijacked = false;
	thread->streaming = thread->told_gone = thread->chunked = false;
	thread->chunk.state = 0;
	thread->chunk.left = 0;
}

static VALUE run_guarded(VALUE argument)
{
	struct thread *thread = (struct thread *)argument;
	int state;

	protect(serve, argument, &state);
	VALUE error = state ? failed(thread) : Qnil;
	settle(thread, error);
	/* From here on the request is this thread's alone. */
	call_turn(thread);
	if (thread->gone)
		tell_gone(thread);
	errors_end(thread);
	return Qnil;
}

static void *run(void *call)
{
	struct thread *thread = current_thread;
	int state;

	shake_off(thread);
	begin(thread, call);
	protect(run_guarded, (VALUE)thread, &state);
	/* While it cleaned up: killed, most likely. */
	if (state) {
		load_report(thread->plugin, thread->call, load_error(), NULL, 0);
		if (!thread->ended)
			thread->host->abort(thread->call);
	}
	input_end(thread);
	thread->env = thread->body = thread->kept = thread->trailers = thread->status = thread->headers =
		thread->partial = Qnil;
	thread->call = NULL;
	shake_off(thread);
	return NULL;
}

int request_run(struct thread *thread, struct langplugin_call *call)
{
	(void)thread;
	rb_thread_call_with_gvl(run, call);
	return LP_DONE;
}

void request_define(void)
{
	id_call = rb_intern("call");
	id_close = rb_intern("close");
}
