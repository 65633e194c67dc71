/*
 * From the manager to a worker. The child is C from its first instruction: what Python does there, be it to count a
 * reference, makes a copy of a page, and of what the manager writes in the meantime every worker keeps the original.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "worker.h"

/* What the manager handles, in Python. */
static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGWINCH};
#define HANDLED (sizeof(handled) / sizeof(handled[0]))

/*
 * A signal to a worker that still had the manager's handlers would be the manager's: its SIGTERM, for one. They are
 * held over fork(2) alone: hooks of the language around it, and the threads that these begin, have the mask that there
 * was.
 */
static _Thread_local bool forks;
static sigset_t before;
static void (*managers)(int); /* its handler, for all that it handles */

static void hold(void)
{
	sigset_t held;

	if (!forks)
		return;
	sigemptyset(&held);
	for (size_t i = 0; i < HANDLED; i++)
		sigaddset(&held, handled[i]);
	pthread_sigmask(SIG_BLOCK, &held, &before);
}

static void release(void)
{
	if (forks)
		pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void on_any(int number)
{
	(void)number;
}

/* In the child. The manager's handler writes to its wake-up descriptor, which is another's here, or soon nobody's. */
static void let_signals_go(void)
{
	struct sigaction nothing = {.sa_handler = on_any, .sa_flags = SA_RESTART}, now;

	if (!forks)
		return;
	for (size_t i = 0; i < HANDLED; i++)
		if (sigaction(handled[i], NULL, &now) == 0 && now.sa_handler == managers)
			sigaction(handled[i], &nothing, NULL);
	signal(SIGCHLD, SIG_DFL);
	release();
	forks = false;
}

/* Once, before the first hook of a language could put something else in its place. False: no memory. */
static bool prepare(void)
{
	static bool prepared;
	struct sigaction now;

	if (prepared)
		return true;
	sigaction(SIGCHLD, NULL, &now);
	managers = now.sa_handler;
	prepared = pthread_atfork(hold, release, let_signals_go) == 0;
	return prepared;
}

static pid_t forked(struct host *host)
{
	const struct langplugin *plugin = host->plugin;

	return has_fork(plugin) ? plugin->fork(host->state) : fork();
}

/* What an application prints belongs to its worker as much as what it reports. */
static int let_descriptors_go(const struct host_options *options)
{
	if (dup2(options->log, STDOUT_FILENO) < 0 || dup2(options->log, STDERR_FILENO) < 0)
		return -1;
	close(options->log);
	for (uint32_t i = 0; i < options->closing_count; i++)
		close(options->closing[i]);
	return 0;
}

int host_fork(struct host *host, const struct host_options *options)
{
	if (!prepare()) {
		errno = ENOMEM;
		return -1;
	}
	errno = EAGAIN; /* if a language says only that it could not */
	forks = true;
	pid_t pid = forked(host);
	if (pid == 0)
		_exit(let_descriptors_go(options) ? HOST_EXIT_SYSTEM : worker_run(host, options));
	forks = false;
	return pid;
}
