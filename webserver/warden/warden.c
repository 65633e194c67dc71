/*
 * See warden.h. One thread, one poll(2).
 *
 *   the supervisor dies, or says TERM   its end of the control connection closes: everything below is killed
 *   the program ends                    what it has left behind is killed; then the warden ends in the same way
 *   the warden is killed                the program's death signal; the supervisor adopts the rest and kills it
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../langplugins/exec/sweep.h"
#include "warden.h"

#define CONTROL	    3
#define SAY_MS	    1000 /* between two packets with what a program says of itself */
#define PACKET	    2048
#define NOT_STARTED 127

struct warden {
	char **program;
	pid_t own, pid, shown; /* pid 0: it has not been started, or has been collected */
	int signals, report, status;
	bool up, told_ready, ended;
	uint64_t said_at, look_at;
	struct ready ready;
	struct output output;
};

uint64_t milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- what the supervisor is told */

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
	char packet[PACKET];
	va_list values;

	va_start(values, format);
	int size = vsnprintf(packet, sizeof(packet), format, values);
	va_end(values);
	if (size <= 0 || size >= PACKET)
		return;
	/* That nobody is there is read as the end of file. */
	if (send(CONTROL, packet, (size_t)size, MSG_NOSIGNAL) < 0)
		return;
}

/* Text that can stand in a JSON string. What is not printable ASCII becomes "?". */
static void tell_text(const char *op, const char *text)
{
	char plain[2 * SAID_BYTES];
	size_t size = 0;

	for (; *text && size < sizeof(plain) - 2; text++) {
		if (*text == '"' || *text == '\\')
			plain[size++] = '\\';
		plain[size++] = *text >= ' ' && *text <= '~' ? *text : '?';
	}
	plain[size] = 0;
	tell("{\"op\":\"%s\",\"text\":\"%s\"}", op, plain);
}

/* ---- its end */

static _Noreturn void leave(int status)
{
	struct rlimit none = {0, 0};
	sigset_t all;

	sweep();
	/* Whoever has been given us by another program is not our parent, and cannot wait for us. */
	tell("{\"op\":\"ended\",\"status\":%d}", status);
	if (WIFSIGNALED(status)) {
		setrlimit(RLIMIT_CORE, &none);
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
		sigemptyset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static _Noreturn void leave_at_once(struct warden *warden)
{
	int status = SIGKILL; /* as waitpid(2) has it */

	if (warden->pid) {
		kill(-warden->pid, SIGKILL);
		kill(warden->pid, SIGKILL);
		waitpid(warden->pid, &status, 0);
	}
	leave(status);
}

static _Noreturn void give_up(const char *step, const char *text)
{
	char message[SAID_BYTES];

	snprintf(message, sizeof(message), "%s: %s", step, text);
	tell_text("failed", message);
	leave(NOT_STARTED << 8);
}

/* ---- the program */

/* In the child. */
static _Noreturn void run(const struct warden *warden, int report, int output)
{
	sigset_t none;
	char number[16];

	/* Its own group: kill(0, ...) is meant for itself and its children. */
	setpgid(0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == warden->own) {
		/* By this the supervisor finds what a warden that was killed has left behind. */
		snprintf(number, sizeof(number), "%d", (int)warden->own);
		setenv("WEBSERVER_WARDEN", number, 1);
		if (output >= 0) {
			dup2(output, 1);
			dup2(output, 2);
		}
		if (warden->ready.kind == READY_NOTIFY)
			setenv("NOTIFY_SOCKET", warden->ready.name, 1);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
		execv(warden->program[0], warden->program);
	}
	int error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(1);
	_exit(NOT_STARTED);
}

static void start(struct warden *warden)
{
	int report[2], output = -1;

	if (warden->ready.kind == READY_OUTPUT && !output_open(&warden->output, &output))
		give_up("pipe", strerror(errno));
	if (pipe2(report, O_CLOEXEC))
		give_up("pipe", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		give_up("fork", strerror(errno));
	if (pid == 0)
		run(warden, report[1], output);
	warden->pid = warden->shown = pid;
	warden->report = report[0];
	close(report[1]);
	if (output >= 0)
		close(output);
}

/* The end of file says that exec has happened. */
static void hear_of_start(struct warden *warden)
{
	int error = 0;
	ssize_t size = read(warden->report, &error, sizeof(error));

	if (size < 0 && errno == EINTR)
		return;
	close(warden->report);
	warden->report = -1;
	if (size == sizeof(error))
		give_up(warden->program[0], strerror(error));
	warden->up = true;
	tell("{\"op\":\"up\",\"pid\":%d}", (int)warden->shown);
	if (warden->ready.kind == READY_STARTED)
		warden->ready.done = true;
}

static void collect(struct warden *warden)
{
	struct signalfd_siginfo seen;
	int status;
	pid_t pid;

	while (read(warden->signals, &seen, sizeof(seen)) == sizeof(seen))
		if (seen.ssi_signo == SIGTERM)
			leave_at_once(warden);
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == warden->pid) {
			warden->pid = 0;
			warden->ended = true;
			warden->status = status;
		}
	}
}

static void obey(struct warden *warden)
{
	char packet[PACKET];
	int number = 0;
	ssize_t size = recv(CONTROL, packet, sizeof(packet) - 1, MSG_DONTWAIT);

	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0)
		leave_at_once(warden);
	packet[size] = 0;
	/* As webserver/wire/control.py writes it. */
	if (sscanf(packet, "{\"op\":\"signal\",\"number\":%d}", &number) != 1 || number < 1 || number >= NSIG) {
		fprintf(stderr, "warden: an order that is none: %.100s\n", packet);
		return;
	}
	if (warden->pid) {
		kill(warden->pid, number);
		kill(warden->pid, SIGCONT); /* a stopped one hears nothing */
	}
}

/* ---- its life */

static void tell_news(struct warden *warden)
{
	struct ready *ready = &warden->ready;

	if (ready->done && warden->up && !warden->told_ready) {
		warden->told_ready = true;
		tell("{\"op\":\"ready\"}");
	}
	if (ready->said_is_new && milliseconds() >= warden->said_at + SAY_MS) {
		ready->said_is_new = false;
		warden->said_at = milliseconds();
		tell_text("said", ready->said);
	}
}

static bool looks_again(const struct warden *warden)
{
	return warden->up && !warden->ready.done && warden->ready.wait_ms;
}

static int patience(const struct warden *warden)
{
	uint64_t now = milliseconds(), at = UINT64_MAX;

	if (looks_again(warden))
		at = warden->look_at;
	if (warden->ready.said_is_new && warden->said_at + SAY_MS < at)
		at = warden->said_at + SAY_MS;
	return at == UINT64_MAX ? -1 : at > now ? (int)(at - now) : 0;
}

static void turn(struct warden *warden)
{
	enum { ORDERS, SIGNALS, REPORT, READY, IN, OUT, ALL };
	struct pollfd polls[ALL] = {{CONTROL, POLLIN, 0}, {warden->signals, POLLIN, 0}, {warden->report, POLLIN, 0},
		ready_poll(&warden->ready)};

	output_poll(&warden->output, &polls[IN], &polls[OUT]);
	if (poll(polls, ALL, patience(warden)) < 0)
		return;
	/* First what it has said and shown, then that it has ended. */
	if (polls[REPORT].revents)
		hear_of_start(warden);
	if (polls[IN].revents || polls[OUT].revents)
		output_move(&warden->output, &warden->ready);
	if (polls[READY].revents || (looks_again(warden) && milliseconds() >= warden->look_at)) {
		ready_look(&warden->ready, polls[READY].revents != 0);
		warden->look_at = milliseconds() + (uint64_t)warden->ready.wait_ms;
	}
	if (polls[SIGNALS].revents)
		collect(warden);
	if (polls[ORDERS].revents)
		obey(warden);
	tell_news(warden);
}

/* Over the words that ps shows; they are longer. They have been copied. */
static void set_title(char **argv, const char *title, size_t room)
{
	memset(argv[0], 0, room);
	memcpy(argv[0], title, strlen(title) < room ? strlen(title) : room - 1);
	prctl(PR_SET_NAME, "warden");
}

static void settle(struct warden *warden)
{
	sigset_t signals;

	/* What a terminal or a service manager sends to all is the supervisor's business. */
	sigfillset(&signals);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	warden->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (warden->signals < 0)
		give_up("signalfd", strerror(errno));
	if (prctl(PR_SET_CHILD_SUBREAPER, 1))
		give_up("subreaper", strerror(errno));
	fcntl(CONTROL, F_SETFD, FD_CLOEXEC);
	warden->own = getpid();
}

int main(int argc, char **argv)
{
	static struct warden warden = {.report = -1, .output = {.in = -1}};

	if (argc < 4) {
		fprintf(stderr, "usage: warden TITLE READY PROGRAM [ARGUMENT ...]\n");
		return 2;
	}
	size_t room = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) + 1 - argv[0]);
	char *title = strdup(argv[1]), *way = strdup(argv[2]);
	warden.program = calloc((size_t)argc - 2, sizeof(char *));
	for (int at = 3; warden.program && at < argc; at++)
		if (!(warden.program[at - 3] = strdup(argv[at])))
			return 1;
	if (!title || !way || !warden.program)
		return 1;
	set_title(argv, title, room);
	settle(&warden);
	const char *wrong = ready_open(&warden.ready, way);
	if (*wrong)
		give_up(way, wrong);
	start(&warden);
	while (!warden.ended)
		turn(&warden);
	sweep();
	/* It may have shown that it works with its last breath. */
	if (warden.report >= 0)
		hear_of_start(&warden);
	output_end(&warden.output, &warden.ready);
	if (warden.ready.kind == READY_NOTIFY || warden.ready.kind == READY_FILE)
		ready_look(&warden.ready, true);
	warden.said_at = 0;
	tell_news(&warden);
	leave(warden.status);
}
