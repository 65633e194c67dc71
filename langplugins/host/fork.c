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

static pid_t forked(struct host *host)
{
	const struct langplugin *plugin = host->plugin;
	bool has = plugin->size >= offsetof(struct langplugin, fork) + sizeof(plugin->fork) && plugin->fork;

	return has ? plugin->fork(host->state) : fork();
}

static void on_any(int number)
{
	(void)number;
}

/* What is the manager's stays the manager's: its handler would write to its wake-up descriptor, which is closed here.
 */
static int let_go(const struct host_options *options, const struct sigaction *managers)
{
	struct sigaction nothing = {.sa_handler = on_any, .sa_flags = SA_RESTART}, now;

	for (size_t i = 0; i < HANDLED; i++)
		if (sigaction(handled[i], NULL, &now) == 0 && now.sa_handler == managers->sa_handler)
			sigaction(handled[i], &nothing, NULL);
	signal(SIGCHLD, SIG_DFL);
	/* What an application prints belongs to its worker as much as what it reports. */
	if (dup2(options->log, STDOUT_FILENO) < 0 || dup2(options->log, STDERR_FILENO) < 0)
		return -1;
	close(options->log);
	for (uint32_t i = 0; i < options->closing_count; i++)
		close(options->closing[i]);
	return 0;
}

int host_fork(struct host *host, const struct host_options *options)
{
	struct sigaction managers;
	sigset_t held, before;

	/* A signal to a worker that still has the manager's handlers would be the manager's: its SIGTERM, for one. */
	sigemptyset(&held);
	sigaddset(&held, SIGCHLD);
	for (size_t i = 0; i < HANDLED; i++)
		sigaddset(&held, handled[i]);
	sigaction(SIGCHLD, NULL, &managers);
	pthread_sigmask(SIG_BLOCK, &held, &before);
	errno = EAGAIN; /* if a language says only that it could not */
	pid_t pid = forked(host);
	int error = errno;
	int lost = pid == 0 ? let_go(options, &managers) : 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pid == 0)
		_exit(lost ? HOST_EXIT_SYSTEM : worker_run(host, options));
	errno = error;
	return pid;
}
