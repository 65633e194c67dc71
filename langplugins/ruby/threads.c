/*
 * Ruby's threads. Each slot is one, made by Ruby; its life is one call of host->slot() without Ruby's lock. The
 * process's main thread has no slot: it is where Ruby runs handlers of signals and collects child processes, and it
 * must be able to at any time, not only when a request comes. It sleeps on a descriptor until a slot has ended or
 * stacks are wanted.
 */
#include <errno.h>
#include <ruby/io.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "plugin.h"

#define EXIT_THREADS 41 /* HOST_EXIT_SYSTEM */

_Thread_local struct thread *current_thread;

void thread_mark(struct thread *thread)
{
	rb_gc_mark(thread->ruby);
	rb_gc_mark(thread->common);
	rb_gc_mark(thread->turn);
	for (int i = 0; i < REMEMBERED; i++)
		rb_gc_mark(thread->last[i]);
	for (int i = 0; i < NAMES; i++)
		rb_gc_mark(thread->names[i]);
	for (unsigned i = 0; thread->seen && i < thread->host->known_count; i++)
		rb_gc_mark(thread->seen[i]);
	rb_gc_mark(thread->env);
	rb_gc_mark(thread->body);
	rb_gc_mark(thread->kept);
	rb_gc_mark(thread->trailers);
	rb_gc_mark(thread->status);
	rb_gc_mark(thread->headers);
	rb_gc_mark(thread->partial);
	rb_gc_mark(thread->input.whole);
}

static void make(struct plugin *plugin, struct thread *thread, unsigned number)
{
	thread->plugin = plugin;
	thread->host = plugin->host;
	thread->number = number;
	thread->ruby = thread->env = thread->body = thread->kept = thread->status = thread->headers = Qnil;
	thread->partial = thread->trailers = thread->input.whole = Qnil;
	for (int i = 0; i < REMEMBERED; i++)
		thread->last[i] = Qnil;
	for (int i = 0; i < NAMES; i++)
		thread->names[i] = Qnil;
	thread->common = rb_hash_dup(plugin->common);
	thread->turn = rb_mutex_new();
	VALUE *seen = ALLOC_N(VALUE, plugin->host->known_count);
	for (unsigned i = 0; i < plugin->host->known_count; i++)
		seen[i] = Qnil;
	thread->seen = seen;
	store_begin(&thread->input.store);
}

RBIMPL_ATTR_NORETURN() static void end_process(struct thread *thread, const char *what)
{
	char text[256];
	int size = snprintf(text, sizeof(text), "slot %u: %s", thread->number, what);

	thread->host->log(NULL, LP_ERROR, text, (size_t)size);
	_exit(EXIT_THREADS);
}

static void *run_slot(void *argument)
{
	struct thread *thread = argument;

	current_thread = thread;
	thread->native = pthread_self();
	atomic_store(&thread->running, true);
	if (thread->host->slot(thread->number))
		end_process(thread, "it could not be started");
	atomic_store(&thread->running, false);
	thread->ended_well = true;
	return NULL;
}

/* In the host nothing interrupts a thread: what others raise in it waits for its next request, which is rid of it. */
static VALUE leave_lock(VALUE argument)
{
	rb_thread_call_without_gvl(run_slot, (void *)argument, NULL, NULL);
	return Qnil;
}

static VALUE thread_main(void *argument)
{
	struct thread *thread = argument;
	int state;

	thread->ruby = rb_thread_current();
	rb_funcall(thread->ruby, rb_intern("name="), 1, rb_sprintf("slot %u", thread->number));
	protect(leave_lock, (VALUE)thread, &state);
	/* Ruby has left the host's frames by a jump: this slot and what it owes to front ends cannot be saved. */
	if (!thread->ended_well)
		end_process(thread, "it was ended from outside between two requests");
	rb_set_errinfo(Qnil);
	atomic_fetch_add(&thread->plugin->finished, 1);
	eventfd_write(thread->plugin->wake, 1);
	return Qnil;
}

static VALUE start_all(VALUE argument)
{
	struct plugin *plugin = (struct plugin *)argument;

	for (int i = 0; i < plugin->host->threads; i++)
		make(plugin, &plugin->threads[i], (unsigned)i);
	for (int i = 0; i < plugin->host->threads; i++) {
		VALUE made = rb_thread_create(thread_main, &plugin->threads[i]);
		plugin->threads[i].ruby = made;
	}
	return Qnil;
}

/* Handlers of signals run in here, and may raise. */
static VALUE wait_for_news(VALUE argument)
{
	struct plugin *plugin = (struct plugin *)argument;
	eventfd_t count;

	rb_thread_wait_fd(plugin->wake);
	eventfd_read(plugin->wake, &count);
	stacks_serve(plugin);
	return Qnil;
}

static VALUE join_all(VALUE argument)
{
	struct plugin *plugin = (struct plugin *)argument;

	for (int i = 0; i < plugin->host->threads; i++)
		rb_funcall(plugin->threads[i].ruby, rb_intern("join"), 0);
	return Qnil;
}

static void nothing(int number)
{
	(void)number;
}

void threads_run(void *state)
{
	struct plugin *plugin = state;
	int failed;

	/* Not ignored, as the host has it: programs that the application starts would inherit that. */
	sigaction(SIGPIPE, &(struct sigaction){.sa_handler = nothing, .sa_flags = SA_RESTART}, NULL);
	protect(start_all, (VALUE)plugin, &failed);
	plugin->serves = true;
	if (failed) {
		load_report(plugin, NULL, load_error(), NULL, 0);
		_exit(EXIT_THREADS);
	}
	while (atomic_load(&plugin->finished) < (unsigned)plugin->host->threads) {
		protect(wait_for_news, (VALUE)plugin, &failed);
		if (failed)
			load_report(plugin, NULL, load_error(), NULL, 0);
	}
	protect(join_all, (VALUE)plugin, &failed);
	rb_set_errinfo(Qnil);
}

int threads_start(void *state, void **thread)
{
	(void)state;
	*thread = current_thread;
	return 0;
}

void threads_stop(void *state, void *thread)
{
	(void)state;
	(void)thread;
}
