/* From a fork to the program: its arguments and environment, its descriptors, its signals. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "exec.h"

extern char **environ;

#define PID_ROOM 12 /* digits, and a NUL */

struct names {
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
	char port[12], descriptor[12];
};

/* text with placeholders filled in; what is in braces and none of them stays as it is. */
static char *fill(const char *text, const struct names *names)
{
	const struct {
		const char *name, *value;
	} known[] = {{"{socket}", names->socket}, {"{port}", names->port}, {"{descriptor}", names->descriptor}};
	char *made = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&made, &size);

	if (!to)
		return NULL;
	while (*text) {
		size_t i = 0;
		while (i < 3 && !(strncmp(text, known[i].name, strlen(known[i].name)) == 0 && *known[i].value))
			i++;
		if (i < 3) {
			fputs(known[i].value, to);
			text += strlen(known[i].name);
		} else {
			fputc(*text++, to);
		}
	}
	return fclose(to) == 0 ? made : NULL;
}

static bool same_name(const char *one, const char *other)
{
	size_t size = strcspn(one, "=");

	return strncmp(one, other, size) == 0 && other[size] == '=';
}

/* A variable in the place of one of its name, or behind the others: there is room. Takes text. */
static bool set(char **environment, char *text, bool replace)
{
	size_t at = 0;

	if (!text)
		return false;
	while (environment[at] && !same_name(text, environment[at]))
		at++;
	if (environment[at] && !replace) {
		free(text);
		return true;
	}
	free(environment[at]);
	environment[at] = text;
	return true;
}

static bool make_environment(struct launch *launch, const struct settings *settings, const struct address *address,
	const struct names *names)
{
	size_t count = 0;
	char **variables = settings->variables, *port = NULL;

	while (environ[count])
		count++;
	launch->environment = calloc(count + settings->variable_count + 5, sizeof(*launch->environment));
	if (!launch->environment)
		return false;
	for (size_t i = 0; i < count; i++)
		if (!(launch->environment[i] = strdup(environ[i])))
			return false;
	for (; variables && *variables; variables++)
		if (!set(launch->environment, fill(*variables, names), true))
			return false;
	if (address->listens_on == LISTENS_DESCRIPTOR) {
		launch->listen_pid = calloc(1, sizeof("LISTEN_PID=") + PID_ROOM);
		if (launch->listen_pid)
			strcpy(launch->listen_pid, "LISTEN_PID=");
		return set(launch->environment, strdup("LISTEN_FDS=1"), true) &&
		       set(launch->environment, strdup("LISTEN_FDNAMES=http"), true) &&
		       set(launch->environment, launch->listen_pid, true);
	}
	/* What the group says of PORT itself counts. */
	if (asprintf(&port, "PORT=%s", address->listens_on == LISTENS_PORT ? names->port : names->socket) < 0)
		return false;
	return set(launch->environment, port, false);
}

int launch_make(struct launch *launch, const struct settings *settings, const struct address *address)
{
	struct names names = {.descriptor = ""};

	memset(launch, 0, sizeof(*launch));
	snprintf(names.socket, sizeof(names.socket), "%s", address->path.sun_path);
	if (address->listens_on == LISTENS_PORT)
		snprintf(names.port, sizeof(names.port), "%u", address->port);
	if (address->listens_on == LISTENS_DESCRIPTOR)
		snprintf(names.descriptor, sizeof(names.descriptor), "%d", DESCRIPTOR_NUMBER);
	launch->argv = calloc(settings->arguments + 1, sizeof(*launch->argv));
	for (size_t i = 0; launch->argv && i < settings->arguments; i++) {
		/* The program's own path is no place for them. */
		launch->argv[i] = i ? fill(settings->argv[i], &names) : strdup(settings->argv[i]);
		if (!launch->argv[i])
			return -1;
	}
	return launch->argv && make_environment(launch, settings, address, &names) ? 0 : -1;
}

static void free_list(char **list)
{
	for (char **at = list; at && *at; at++)
		free(*at);
	free(list);
}

void launch_free(struct launch *launch)
{
	free_list(launch->argv);
	free_list(launch->environment);
	memset(launch, 0, sizeof(*launch));
}

/* Handlers of the manager's interpreter, and a mask of the warden's, are nothing that a program expects. */
static void reset_signals(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		sigaction(number, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn void launch_run(const struct launch *launch, const struct address *address, int report)
{
	pid_t warden = getppid();
	/* Out of the way of DESCRIPTOR_NUMBER. */
	int to = fcntl(report, F_DUPFD_CLOEXEC, DESCRIPTOR_NUMBER + 1), null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setpgid(0, 0);
	reset_signals();
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	int from = DESCRIPTOR_NUMBER;
	if (address->listens_on == LISTENS_DESCRIPTOR) {
		if (address->listener == DESCRIPTOR_NUMBER)
			fcntl(DESCRIPTOR_NUMBER, F_SETFD, 0);
		else
			dup2(address->listener, DESCRIPTOR_NUMBER);
		from++;
	}
	syscall(SYS_close_range, from, ~0U, CLOSE_RANGE_CLOEXEC);
	if (launch->listen_pid)
		snprintf(launch->listen_pid + strlen("LISTEN_PID="), PID_ROOM, "%d", (int)getpid());
	/* Its parent may be gone before the kernel has been told; then the signal would never come. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == warden)
		execve(launch->argv[0], launch->argv, launch->environment);
	int error = errno;
	if (write(to, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}
