/* The worker's side of its program: start it, wait until it accepts, hear of its end, end it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "exec.h"
#include "sweep.h"

#define STACK	  262144 /* bytes, of the thread that waits for news */
#define FIRST_MS  1	 /* between two attempts to connect: no event says that somebody listens */
#define LAST_MS	  50
#define MARGIN_MS 1000 /* the manager kills a worker at start_timeout, and could say less than we can */

uint64_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static const char *name_of(const struct program *program)
{
	return program->settings->argv[0];
}

static void describe(char *text, size_t size, const struct program *program, int status)
{
	if (WIFSIGNALED(status)) {
		const char *name = sigabbrev_np(WTERMSIG(status));
		snprintf(text, size, "its program %s (process %d) was killed by SIG%s%s", name_of(program),
			(int)program->pid, name ? name : "?", WCOREDUMP(status) ? " (core dumped)" : "");
	} else {
		snprintf(text, size, "its program %s (process %d) exited with status %d", name_of(program),
			(int)program->pid, WEXITSTATUS(status));
	}
	unsigned hung = atomic_load(&program->hung);
	size_t used = strlen(text);
	if (hung)
		snprintf(text + used, size - used,
			", as it had answered none of the last %u requests within request_timeout", hung);
}

/* ---- its end */

/* The last report, or the end of file that says that the warden is dead itself. */
static void end_is_here(struct program *program, ssize_t size, const struct warden_report *report)
{
	program->killed = true;
	if (size == (ssize_t)sizeof(*report) && report->kind == WARDEN_ENDED) {
		program->killed = WIFSIGNALED(report->value);
		describe(program->cause, sizeof(program->cause), program, report->value);
	} else {
		snprintf(program->cause, sizeof(program->cause), "the warden of its program (process %d) was killed",
			(int)program->warden);
		/* Its death has killed the program by a signal; the rest of the program's group is ours now. */
		kill(-program->pid, SIGKILL);
	}
	waitpid(program->warden, NULL, 0);
	sweep();
	address_remove(&program->address);
}

static ssize_t hear(int line, struct warden_report *report)
{
	ssize_t size;

	do
		size = recv(line, report, sizeof(*report), 0);
	while (size < 0 && errno == EINTR);
	return size;
}

static void *watch(void *argument)
{
	struct program *program = argument;
	struct warden_report report;
	const uint64_t one = 1;
	ssize_t size = hear(program->line, &report);

	end_is_here(program, size, &report);
	/* First this: a slot that hears of the death ends its request, and must not begin another. */
	if (!atomic_load(&program->ending))
		program->host->give_up(program->cause);
	if (write(program->dead, &one, sizeof(one)) < 0)
		return NULL; /* it can be read already */
	return NULL;
}

static int start_watching(struct program *program)
{
	pthread_attr_t attributes;
	sigset_t all, before;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int result = pthread_create(&program->thread, &attributes, watch, program);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	program->watched = result == 0;
	errno = result;
	return result ? -1 : 0;
}

/* ---- its start */

struct waiting {
	struct program *program;
	int changes;	/* inotify: something has appeared in the socket's directory; -1 */
	int probe;	/* LISTENS_DESCRIPTOR: a connection that it has not accepted yet; -1 */
	uint64_t until; /* 0: no limit */
};

/* Whether it takes connections now. errno says why not. */
static bool accepts(struct waiting *waiting)
{
	struct program *program = waiting->program;
	struct pollfd queue = {program->address.listener, POLLIN, 0};
	bool pending = false;
	int fd;

	if (waiting->probe >= 0) /* our own socket: a connection to it lies there until the program takes it */
		return poll(&queue, 1, 0) == 0;
	fd = address_connect(&program->address, &pending);
	if (fd >= 0 && pending) {
		struct pollfd made = {fd, POLLOUT, 0};
		int error = 0;
		socklen_t size = sizeof(error);
		poll(&made, 1, LAST_MS);
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (error || !(made.revents & POLLOUT)) {
			close(fd);
			fd = -1;
			errno = error;
		}
	}
	if (program->address.listener >= 0) {
		waiting->probe = fd;
		return false;
	}
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool is_there(const struct address *address)
{
	return address->listens_on != LISTENS_SOCKET || access(address->path.sun_path, F_OK) == 0;
}

static int too_slow(struct waiting *waiting, char *message, size_t size)
{
	const struct program *program = waiting->program;
	const struct address *address = &program->address;
	char where[160];

	if (address->listens_on == LISTENS_PORT)
		snprintf(where, sizeof(where), "127.0.0.1:%u, as PORT and {port} say", address->port);
	else if (address->listens_on == LISTENS_DESCRIPTOR)
		snprintf(where, sizeof(where), "descriptor %d, as LISTEN_FDS and {descriptor} say", DESCRIPTOR_NUMBER);
	else
		snprintf(where, sizeof(where), "%s, as PORT and {socket} say", address->path.sun_path);
	snprintf(message, size, "exec: %s runs but %s within start_timeout; expected it on %s", name_of(program),
		address->listens_on == LISTENS_DESCRIPTOR ? "accepted no connection"
		: is_there(address)			  ? "took no connection"
							  : "made no socket",
		where);
	return -1;
}

/* Sleep until something happens or it is time to try again. 0; -1: the program is over. */
static int doze(struct waiting *waiting, int *pause_ms, char *message, size_t size)
{
	struct program *program = waiting->program;
	struct pollfd polls[] = {{program->line, POLLIN, 0}, {waiting->changes, POLLIN, 0}};
	struct warden_report report;
	char events[4096];
	uint64_t now = clock_now();
	/* Nothing tells us of a listen(2): from a socket's appearance on, only trying does. */
	int limit = waiting->changes < 0 || is_there(&program->address) ? *pause_ms : -1;

	if (waiting->until) {
		if (now >= waiting->until)
			return too_slow(waiting, message, size);
		int left = (int)((waiting->until - now) / 1000000u) + 1;
		limit = limit < 0 || left < limit ? left : limit;
	}
	poll(polls, 2, limit);
	if (polls[0].revents) {
		ssize_t got = hear(program->line, &report);
		char cause[sizeof(program->cause)];
		end_is_here(program, got, &report);
		snprintf(cause, sizeof(cause), "%s", program->cause + strlen("its program "));
		snprintf(message, size, "exec: %s before it took a connection; the error log has what it said",
			strncmp(program->cause, "its program ", 12) == 0 ? cause : program->cause);
		program->warden = 0;
		return -1;
	}
	if (polls[1].revents) {
		while (read(waiting->changes, events, sizeof(events)) > 0)
			;
		*pause_ms = FIRST_MS;
	} else if (*pause_ms < LAST_MS) {
		*pause_ms *= 2;
	}
	return 0;
}

static int wait_until_it_accepts(struct program *program, uint64_t until, char *message, size_t size)
{
	struct waiting waiting = {program, -1, -1, until};
	int pause_ms = FIRST_MS, result = 0;

	if (program->address.listens_on == LISTENS_SOCKET) {
		waiting.changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (waiting.changes < 0 || inotify_add_watch(waiting.changes, program->address.directory,
						   IN_CREATE | IN_MOVED_TO | IN_ATTRIB) < 0) {
			/* No instances are left for this user: then by time alone. */
			if (waiting.changes >= 0)
				close(waiting.changes);
			waiting.changes = -1;
		}
	}
	while (result == 0 && !accepts(&waiting))
		result = doze(&waiting, &pause_ms, message, size);
	if (waiting.changes >= 0)
		close(waiting.changes);
	if (waiting.probe >= 0)
		close(waiting.probe);
	return result;
}

/* The first thing that the warden says. */
static int hear_of_start(struct program *program, char *message, size_t size)
{
	struct warden_report report = {0};
	ssize_t got = hear(program->line, &report);

	if (got == (ssize_t)sizeof(report) && report.kind == WARDEN_STARTED) {
		program->pid = report.value;
		return 0;
	}
	if (got == (ssize_t)sizeof(report) && report.kind == WARDEN_REFUSED)
		snprintf(message, size, "exec: %s cannot be run: %s", name_of(program),
			report.value == ENOEXEC
				? "it is no program, and does not begin with #! and an interpreter's path"
				: strerror(report.value));
	else
		snprintf(message, size, "exec: the warden of %s ended before it had started it", name_of(program));
	return -1;
}

/* The end of the line makes the warden kill everything, whatever it was doing. */
static void give_back(struct program *program)
{
	if (program->line >= 0)
		close(program->line);
	program->line = -1;
	if (program->warden > 0)
		waitpid(program->warden, NULL, 0);
	program->warden = 0;
	if (program->address.listener >= 0)
		close(program->address.listener);
	program->address.listener = -1;
	address_remove(&program->address);
}

static int start_warden(struct program *program, char *message, size_t size)
{
	struct launch launch;
	int pair[2];

	if (launch_make(&launch, program->settings, &program->address) ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		snprintf(message, size, "exec: %s: %s", name_of(program), strerror(errno));
		launch_free(&launch);
		return -1;
	}
	fflush(NULL);
	program->warden = fork();
	if (program->warden == 0)
		warden_run(&launch, &program->address, pair[1], program->settings->stop_ms);
	int error = errno;
	launch_free(&launch);
	close(pair[1]);
	program->line = pair[0];
	if (program->warden > 0)
		return 0;
	snprintf(message, size, "exec: no process for %s: %s", name_of(program), strerror(error));
	return -1;
}

int program_start(struct program *program, const struct langplugin_host *host, const struct settings *settings,
	char *message, size_t size)
{
	int limit = settings->start_ms;
	uint64_t until = 0;

	memset(program, 0, sizeof(*program));
	program->host = host;
	program->settings = settings;
	program->line = -1;
	program->dead = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (limit > 0) {
		limit -= limit / 10 < MARGIN_MS ? limit / 10 : MARGIN_MS;
		until = clock_now() + (uint64_t)limit * 1000000u;
	}
	/* Should the warden be killed, what it was the parent of comes to us and not to the supervisor. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (program->dead < 0) {
		snprintf(message, size, "exec: %s", strerror(errno));
		return -1;
	}
	if (address_make(&program->address, settings->listens_on, message, size))
		return -1;
	if (start_warden(program, message, size) || hear_of_start(program, message, size) ||
		wait_until_it_accepts(program, until, message, size)) {
		give_back(program);
		return -1;
	}
	/* While we have it, it takes connections for a program that is gone. */
	if (program->address.listener >= 0)
		close(program->address.listener);
	program->address.listener = -1;
	if (start_watching(program)) {
		snprintf(message, size, "exec: no thread: %s", strerror(errno));
		give_back(program);
		return -1;
	}
	return 0;
}

void program_end(struct program *program)
{
	const char order = WARDEN_END;

	if (!program->watched)
		return;
	atomic_store(&program->ending, true);
	if (send(program->line, &order, 1, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		shutdown(program->line, SHUT_RDWR);
	pthread_join(program->thread, NULL);
	close(program->line);
	close(program->dead);
	program->watched = false;
}
