/*
 * The warden: a child of the worker, parent of the program. It is here for the ends that nobody has planned.
 *
 *   worker dies (KILL too)   its end of the line closes: everything below the warden is killed
 *   program ends             the worker is told how; what the program has left behind is killed
 *   warden dies              the program's death signal; the worker kills the rest (it adopts orphans too)
 *
 * It adopts what the program forks and forgets (PR_SET_CHILD_SUBREAPER), so nothing below it becomes a zombie, or gets
 * away by a process group or session of its own. It has one thread, and holds no descriptor but its line, its signals,
 * the log and, until the program runs, what that inherits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exec.h"
#include "sweep.h"

#define LINE	3   /* the warden's descriptors, after it has closed all others */
#define HANG_MS 900 /* for a program that hangs to end when asked */

/* ---- its life */

struct warden {
	const struct launch *launch;
	struct address address; /* its listener is our own copy */
	int signals;
	pid_t program; /* 0: it has been collected, and its number may be another's */
	int status;
	int stop_ms;
	bool ending;
	uint64_t kill_at; /* 0: no limit */
};

static void tell(int kind, int value)
{
	struct warden_report report = {kind, value};

	/* Nobody there is what the end of file says, too. */
	if (send(LINE, &report, sizeof(report), MSG_NOSIGNAL) < 0)
		return;
}

static _Noreturn void leave(struct warden *warden)
{
	/* First what nobody else would do: a supervisor that stops at once kills orphans, and so us. */
	address_remove(&warden->address);
	if (warden->program)
		kill(-warden->program, SIGKILL);
	sweep();
	_exit(0);
}

/* In the title that ps shows, "worker" becomes "warden": both have six letters, and the place is where the kernel says.
 */
static void retitle(void)
{
	static const char before[] = "webserver: worker ";
	char line[2048], *at, *rest = NULL;
	unsigned long where = 0;
	int field = 2;

	prctl(PR_SET_NAME, "warden");
	FILE *file = fopen("/proc/self/stat", "re");
	if (!file)
		return;
	line[fread(line, 1, sizeof(line) - 1, file)] = 0;
	fclose(file);
	at = strrchr(line, ')');
	for (char *word = at ? strtok_r(at + 1, " ", &rest) : NULL; word; word = strtok_r(NULL, " ", &rest))
		if (++field == 48) /* proc(5): arg_start */
			where = strtoul(word, NULL, 10);
	char *title = (char *)where; // NOLINT: the kernel says so
	if (title && strncmp(title, before, sizeof(before) - 1) == 0)
		memcpy(title + sizeof("webserver: ") - 1, "warden", 6);
}

/* Start the program; tells the worker what came of it. */
static void start(struct warden *warden)
{
	int report[2], error = 0;
	ssize_t got = -1;

	if (pipe2(report, O_CLOEXEC))
		error = errno;
	else
		warden->program = fork();
	if (!error && warden->program < 0)
		error = errno;
	if (error) {
		warden->program = 0;
		tell(WARDEN_REFUSED, error);
		leave(warden);
	}
	if (warden->program == 0) {
		close(report[0]);
		launch_run(warden->launch, &warden->address, report[1]);
	}
	/* Whoever of the two comes first: kill() by its group must find it. */
	setpgid(warden->program, warden->program);
	close(report[1]);
	while ((got = read(report[0], &error, sizeof(error))) < 0 && errno == EINTR)
		;
	close(report[0]);
	if (got == sizeof(error)) {
		tell(WARDEN_REFUSED, error);
		leave(warden);
	}
	if (warden->address.listener >= 0)
		close(warden->address.listener);
	tell(WARDEN_STARTED, warden->program);
}

static void end(struct warden *warden)
{
	if (warden->ending)
		return;
	warden->ending = true;
	if (warden->stop_ms >= 0)
		warden->kill_at = clock_now() + (uint64_t)warden->stop_ms * 1000000u;
	if (warden->program) {
		kill(-warden->program, SIGTERM);
		kill(-warden->program, SIGCONT); /* a stopped one hears nothing */
	}
}

/* Collect who has ended. False: nobody is left. */
static bool collect(struct warden *warden)
{
	siginfo_t info;

	for (;;) {
		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT))
			return errno != ECHILD;
		if (info.si_pid == 0)
			return true;
		/* As long as it is a zombie, its group's number is nobody else's. */
		bool was_program = info.si_pid == warden->program;
		if (was_program && !warden->ending)
			kill(-warden->program, SIGKILL);
		int status = 0;
		waitpid(info.si_pid, &status, 0);
		if (!was_program)
			continue;
		warden->program = 0;
		warden->status = status;
		if (!warden->ending) {
			/* First the others: while one of them lives, its connections do. */
			sweep();
			tell(WARDEN_ENDED, status);
			leave(warden);
		}
	}
}

static void obey(struct warden *warden)
{
	char order = 0;
	ssize_t got = recv(LINE, &order, sizeof(order), MSG_DONTWAIT);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		leave(warden);
	if (got == 1 && order == WARDEN_HANGS)
		warden->stop_ms = HANG_MS;
	if (got == 1)
		end(warden);
}

static int patience(const struct warden *warden)
{
	if (!warden->ending || !warden->kill_at)
		return -1;
	uint64_t now = clock_now();
	uint64_t left = now < warden->kill_at ? (warden->kill_at - now) / 1000000u + 1 : 0;
	return left > INT_MAX ? INT_MAX : (int)left;
}

static void settle(struct warden *warden, int line)
{
	sigset_t all, child;
	int listener = warden->address.listener;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	/* The group of the worker gets what a terminal sends; a stopped warden would guard nobody. */
	setpgid(0, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* The worker's own, and its connections: whoever waits for their end must not wait for this process. */
	int kept[2] = {fcntl(line, F_DUPFD, 64), listener < 0 ? -1 : fcntl(listener, F_DUPFD, 65)};
	if (kept[0] < 0)
		_exit(1);
	syscall(SYS_close_range, LINE, 63, 0);
	dup3(kept[0], LINE, O_CLOEXEC);
	if (kept[1] >= 0)
		warden->address.listener = fcntl(kept[1], F_DUPFD_CLOEXEC, LINE + 1);
	syscall(SYS_close_range, 64, ~0U, 0);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	warden->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (warden->signals < 0)
		_exit(1);
}

_Noreturn void warden_run(const struct launch *launch, const struct address *address, int line, int stop_ms)
{
	struct warden warden = {.launch = launch, .address = *address, .stop_ms = stop_ms};

	retitle();
	settle(&warden, line);
	start(&warden);
	for (;;) {
		struct pollfd polls[] = {{LINE, POLLIN, 0}, {warden.signals, POLLIN, 0}};
		struct signalfd_siginfo seen;
		int ready = poll(polls, 2, patience(&warden));
		if (ready == 0 && warden.ending)
			break;
		while (read(warden.signals, &seen, sizeof(seen)) > 0)
			;
		if (!collect(&warden))
			break;
		if (polls[0].revents)
			obey(&warden);
	}
	if (warden.program) {
		/* It has not ended within stop_timeout. */
		kill(-warden.program, SIGKILL);
		waitpid(warden.program, &warden.status, 0);
		warden.program = 0;
	}
	sweep();
	tell(WARDEN_ENDED, warden.status);
	leave(&warden);
}
