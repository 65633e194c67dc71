/*
 * Where every thread is, and the end of a request whose time is over: asked for from a thread that Ruby does not know.
 * Ruby's own main thread, which has no slot, sees to both as soon as it gets the lock: a thread that computes gives it
 * away every 100 ms. One that sits in an extension's C code does not. Then a signal has each slot's thread note its
 * frames: rb_profile_frames() is made for handlers, and what it notes is put into words by who asked, while everything
 * stands still.
 *
 * Tried and rejected: a postponed job (rb_postponed_job_register_one) runs on the thread that has the lock, and on none
 * where all of them sleep.
 */
#include "plugin.h"

#include <errno.h>
#include <pthread.h>
#include <ruby/debug.h>
#include <ruby/io.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define STACK_SIGNAL (SIGRTMAX - 2) /* nobody else uses it */
#define SIGNAL_MS    50		    /* for one thread to note its frames, and for all of them together twice that */
#define FRAMES	     64

/* What a signalled thread notes; one at a time. */
static struct {
	atomic_bool wanted;
	VALUE frames[FRAMES];
	int lines[FRAMES], count;
	sem_t noted;
} notes;

static void say(int fd, const char *text, size_t size)
{
	ssize_t unused = write(fd, text, size);

	(void)unused;
}

static bool wait_for(sem_t *done, int milliseconds)
{
	struct timespec until;
	int result;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += milliseconds * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	do
		result = sem_clockwait(done, CLOCK_MONOTONIC, &until);
	while (result && errno == EINTR);
	return result == 0;
}

/* ---- on Ruby's main thread */

static VALUE make_text(VALUE argument)
{
	VALUE text = load_call((struct plugin *)argument, "stacks", 0, NULL);

	return StringValue(text);
}

static void write_stacks(struct plugin *plugin, int fd)
{
	static const char head[] = "Ruby's threads:\n";
	int state;
	VALUE text = protect(make_text, (VALUE)plugin, &state);

	if (state) {
		rb_set_errinfo(Qnil);
	} else {
		say(fd, head, sizeof(head) - 1);
		say(fd, RSTRING_PTR(text), (size_t)RSTRING_LEN(text));
	}
	close(fd);
	RB_GC_GUARD(text);
}

static VALUE raise_in(VALUE argument)
{
	struct thread *thread = (struct thread *)argument;

	load_call(thread->plugin, "stop", 1, &thread->ruby);
	return Qnil;
}

/* With the lock it is that request still; what comes too late for it all the same is shaken off at its end. */
static void stop_requests(struct plugin *plugin)
{
	int state;

	for (int i = 0; i < plugin->host->threads; i++) {
		struct thread *thread = &plugin->threads[i];
		if (!thread->call || !plugin->host->overdue(thread->call))
			continue;
		protect(raise_in, (VALUE)thread, &state);
		rb_set_errinfo(Qnil);
	}
}

void stacks_serve(struct plugin *plugin)
{
	int fd = plugin->host->asked();

	if (fd >= 0)
		write_stacks(plugin, fd);
	stop_requests(plugin);
}

/* ---- without the lock */

static void on_signal(int number)
{
	int saved = errno;

	(void)number;
	if (current_thread && atomic_exchange(&notes.wanted, false)) {
		notes.count = rb_profile_frames(0, FRAMES, notes.frames, notes.lines);
		sem_post(&notes.noted);
	}
	errno = saved;
}

static void write_notes(int fd)
{
	for (int i = 0; i < notes.count && i < FRAMES; i++) {
		VALUE path = rb_profile_frame_path(notes.frames[i]);
		VALUE label = RB_TYPE_P(path, T_STRING) ? rb_profile_frame_label(notes.frames[i]) : Qnil;
		if (RB_TYPE_P(path, T_STRING) && RB_TYPE_P(label, T_STRING))
			dprintf(fd, "    %.*s:%d:in `%.*s'\n", (int)RSTRING_LEN(path), RSTRING_PTR(path),
				notes.lines[i], (int)RSTRING_LEN(label), RSTRING_PTR(label));
	}
}

static void write_without_lock(struct plugin *plugin, int fd)
{
	static const char head[] = "Ruby's lock is not given away; its threads:\n";
	int silent = 0;

	say(fd, head, sizeof(head) - 1);
	sigaction(
		STACK_SIGNAL, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK}, NULL);
	for (int i = 0; i < plugin->host->threads && silent < 2; i++) {
		if (!atomic_load(&plugin->threads[i].running))
			continue;
		dprintf(fd, "  slot %d:\n", i);
		while (sem_trywait(&notes.noted) == 0)
			; /* of one that came too late */
		notes.count = 0;
		atomic_store(&notes.wanted, true);
		pthread_kill(plugin->threads[i].native, STACK_SIGNAL);
		if (wait_for(&notes.noted, SIGNAL_MS))
			write_notes(fd);
		else
			silent++;
	}
	atomic_store(&notes.wanted, false);
}

/* It hangs while the application is loaded: a handler of a signal, on the thread that loads. */
static void write_here(int fd)
{
	notes.count = ruby_native_thread_p() ? rb_profile_frames(0, FRAMES, notes.frames, notes.lines) : 0;
	write_notes(fd);
}

void stacks_dump(void *state, int fd)
{
	struct plugin *plugin = state;

	if (plugin->serves)
		write_without_lock(plugin, fd);
	else
		write_here(fd);
}

int stacks_ask(void *state)
{
	eventfd_write(((struct plugin *)state)->wake, 1);
	return 0;
}

void stacks_prepare(void)
{
	sem_init(&notes.noted, 0, 0);
}
