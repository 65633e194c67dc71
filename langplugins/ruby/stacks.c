/*
 * Where every thread is. Asked for by the keeper, a thread that Ruby does not know, when a request does not end. Ruby's
 * own main thread writes it, as soon as it gets the lock: a thread that computes gives it away every 100 ms. One that
 * sits in an extension's C code does not; then a signal has each slot's thread write its frames itself, C's and Ruby's,
 * which no handler may do by the letter. The process is about to be ended, and knowing where beats being right.
 *
 * Tried and rejected: a postponed job (rb_postponed_job_register_one) runs on the thread that has the lock, and on none
 * where all of them sleep.
 */
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"

#define STACK_SIGNAL (SIGRTMAX - 2) /* nobody else uses it */
#define LOCK_SECONDS 1		    /* to get the lock in; the supervisor waits longer (STACKS_WAIT) before it kills */
#define FRAMES	     64

static atomic_int frames_to = -1;

static void say(int fd, const char *text)
{
	ssize_t unused = write(fd, text, strlen(text));

	(void)unused;
}

static VALUE make_text(VALUE argument)
{
	VALUE text = load_call((struct plugin *)argument, "stacks", 0, NULL);

	return StringValue(text);
}

void stacks_write(struct plugin *plugin)
{
	int state, fd = atomic_exchange(&plugin->dump_to, -1);
	VALUE text = protect(make_text, (VALUE)plugin, &state);

	if (fd < 0)
		return;
	if (state) {
		rb_set_errinfo(Qnil);
		return;
	}
	say(fd, "Ruby's threads:\n");
	ssize_t unused = write(fd, RSTRING_PTR(text), (size_t)RSTRING_LEN(text));
	(void)unused;
	sem_post(&plugin->dumped);
	RB_GC_GUARD(text);
}

static void on_signal(int number)
{
	void *frames[FRAMES];
	int saved = errno, fd = atomic_load(&frames_to);
	char text[64];

	(void)number;
	if (fd < 0 || !current_thread)
		return;
	snprintf(text, sizeof(text), "  slot %u, in C:\n", current_thread->number);
	say(fd, text);
	backtrace_symbols_fd(frames, backtrace(frames, FRAMES), fd);
	say(fd, "  and in Ruby:\n");
	rb_backtrace();
	errno = saved;
}

static bool has_been_written(struct plugin *plugin)
{
	struct timespec until;
	int result;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LOCK_SECONDS;
	do
		result = sem_clockwait(&plugin->dumped, CLOCK_MONOTONIC, &until);
	while (result && errno == EINTR);
	return result == 0;
}

static void *watch(void *state)
{
	struct plugin *plugin = state;
	int fd = atomic_load(&plugin->dump_to);

	eventfd_write(plugin->wake, 1);
	if (has_been_written(plugin) || atomic_exchange(&plugin->dump_to, -1) < 0)
		return NULL;
	say(fd, "Ruby's lock is not given away; its threads:\n");
	atomic_store(&frames_to, fd);
	sigaction(
		STACK_SIGNAL, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK}, NULL);
	for (int i = 0; i < plugin->host->threads; i++)
		if (plugin->threads[i].running)
			pthread_kill(plugin->threads[i].native, STACK_SIGNAL);
	return NULL;
}

/* The keeper must not wait: others are recalled and cancelled meanwhile. */
void stacks_dump(void *state, int fd)
{
	struct plugin *plugin = state;
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int none = -1;

	if (!atomic_compare_exchange_strong(&plugin->dump_to, &none, fd))
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attributes, watch, plugin))
		atomic_store(&plugin->dump_to, -1);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void stacks_prepare(struct plugin *plugin)
{
	void *frame;

	sem_init(&plugin->dumped, 0, 0);
	/* Its first call loads a library, which a handler must not. */
	backtrace(&frame, 1);
}
