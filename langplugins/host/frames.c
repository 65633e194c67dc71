/*
 * What a thread's own stack says, by a signal that it gets. A slot's thread gets it only where its request is to be
 * ended: system calls come back early from it (sleep(3), poll(2)), which is wanted then and would be harm otherwise.
 *
 * What has not come up yet has no keeper that could be told anything. Its manager, or a manager's supervisor, sends the
 * same signal, and the handler writes what it can to the log.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "stacks.h"

#define FRAMES 24

/* Never closed: a thread may get its signal late. */
static int ends[2] = {-1, -1};
static atomic_bool wanted;
static sem_t written;
static const struct host *the_host;
static bool serving;

static void on_signal(int number)
{
	static const char words[] = "where it is while it starts:\n";
	void *frames[FRAMES];
	int saved = errno;

	(void)number;
	if (!serving) {
		ssize_t unused = write(STDERR_FILENO, words, sizeof(words) - 1);
		(void)unused;
		/* Where this very thread is to come by a place where it can tell better. */
		question_leave(STDERR_FILENO);
		if (the_host->plugin->dump && the_host->plugin->minor >= 2 && the_host->state)
			the_host->plugin->dump(the_host->state, STDERR_FILENO);
		backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
	} else if (atomic_exchange(&wanted, false)) {
		backtrace_symbols_fd(frames, backtrace(frames, FRAMES), ends[1]);
		sem_post(&written);
	}
	errno = saved;
}

void frames_prepare(const struct host *host)
{
	/* Not SA_RESTART: what is interrupted is to notice. */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
	void *frame;

	the_host = host;
	/* Its first call loads a library, which a handler must not. */
	backtrace(&frame, 1);
	sigaction(HOST_STACK_SIGNAL, &action, NULL);
}

void frames_serve(void)
{
	sem_init(&written, 0, 0);
	serving = true;
}

int frames_descriptor(void)
{
	return ends[0];
}

/* Under the lock of its slot the thread is there. */
static bool send_signal(struct slot *slot, uint64_t serial)
{
	pthread_mutex_lock(&slot->recall.mutex);
	bool runs = slot->recall.running == serial;
	if (runs)
		pthread_kill(slot->native, HOST_STACK_SIGNAL);
	pthread_mutex_unlock(&slot->recall.mutex);
	return runs;
}

enum frames_got frames_ask(struct slot *slot, uint64_t serial, uint64_t until)
{
	if (ends[0] < 0 && pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return FRAMES_OVER;
	while (sem_trywait(&written) == 0)
		; /* of one that was late */
	atomic_store(&wanted, true);
	if (!send_signal(slot, serial)) {
		atomic_store(&wanted, false);
		return FRAMES_OVER;
	}
	bool told = semaphore_wait(&written, until);
	atomic_store(&wanted, false);
	return told ? FRAMES_WRITTEN : FRAMES_SILENT;
}
