/*
 * Questions to the language: where its requests are, and to end those whose time is over. Only its own threads can tell
 * that, or raise anything, and nobody knows when they come to it. So ask() of the plugin sees to it that they do, on a
 * thread made for it, which may wait for a language's lock as long as that takes.
 *
 * Who wants to know where requests are listens at one end of a pipe, and the other end is the question: whoever takes
 * it (asked() in langplugin.h) writes there and closes it. Where nobody does in time it is taken back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "stacks.h"

static atomic_int question = -1; /* to write the answer to; whoever takes it closes it */
static atomic_uint wishes;	 /* since ask() was called last; 0: its thread is gone */
static sem_t heard;		 /* ask() has returned */

void question_serve(void)
{
	sem_init(&heard, 0, 0);
}

int question_asked(void)
{
	return atomic_exchange(&question, -1);
}

int question_overdue(struct langplugin_call *call)
{
	return atomic_load_explicit(&call->overdue, memory_order_relaxed) && atomic_exchange(&call->overdue, 0);
}

bool question_take_back(void)
{
	int fd = question_asked();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

void question_leave(int fd)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	question_take_back();
	atomic_store(&question, own);
}

static void *ask(void *argument)
{
	const struct host *host = argument;
	unsigned seen = atomic_load(&wishes);

	do {
		/* It says when it is not going to tell: nobody has to wait then. */
		if (host->plugin->ask(host->state))
			question_take_back();
		sem_post(&heard);
	} while (!atomic_compare_exchange_strong(&wishes, &seen, 0));
	return NULL;
}

bool question_ask(const struct host *host)
{
	const struct langplugin *plugin = host->plugin;

	if (plugin->minor < 2 || plugin->size < offsetof(struct langplugin, ask) + sizeof(plugin->ask) || !plugin->ask)
		return false;
	while (sem_trywait(&heard) == 0)
		; /* of an earlier one */
	/* One that still waits for its lock answers this one too, when it gets that. */
	if (atomic_fetch_add(&wishes, 1) > 0 || thread_detached(ask, (void *)(uintptr_t)host) == 0)
		return true;
	atomic_store(&wishes, 0);
	return false;
}

int question_put(const struct host *host)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return -1;
	question_take_back();
	atomic_store(&question, ends[1]);
	if (question_ask(host))
		return ends[0];
	question_take_back();
	close(ends[0]);
	return -1;
}

bool question_heard(uint64_t until)
{
	return semaphore_wait(&heard, until);
}

bool semaphore_wait(sem_t *semaphore, uint64_t until)
{
	const struct timespec at = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
	int result;

	do
		result = sem_clockwait(semaphore, CLOCK_MONOTONIC, &at);
	while (result && errno == EINTR);
	return result == 0;
}

int thread_detached(void *(*run)(void *argument), void *argument)
{
	sigset_t all, before;
	pthread_attr_t attributes;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int result = pthread_create(&thread, &attributes, run, argument);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result ? -1 : 0;
}
