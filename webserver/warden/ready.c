/* How a program shows that it works. One kind for each warden; see warden.h. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "warden.h"

/* No event says that a file is there or that somebody listens: it is looked for again and again, and ever less often.
 */
#define FIRST_MS 10
#define LAST_MS	 200

static bool starts(const char *text, const char *word, const char **rest)
{
	size_t size = strlen(word);

	*rest = text + size;
	return strncmp(text, word, size) == 0;
}

/* A socket whose name the kernel chooses, in the abstract namespace: no directory is needed, nothing is left behind. */
static const char *open_notify(struct ready *ready)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(address);
	int yes = 1;

	ready->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ready->socket < 0 || setsockopt(ready->socket, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) ||
		bind(ready->socket, (struct sockaddr *)&address, sizeof(sa_family_t)) ||
		getsockname(ready->socket, (struct sockaddr *)&address, &size))
		return strerror(errno);
	size_t length = size - offsetof(struct sockaddr_un, sun_path);
	if (length < 2 || length > sizeof(ready->name) - 1 || address.sun_path[0])
		return "the kernel gave its socket no name";
	memcpy(ready->name, address.sun_path, length);
	ready->name[0] = '@';
	return "";
}

static const char *open_unix(struct ready *ready, const char *path)
{
	struct sockaddr_un *address = (struct sockaddr_un *)&ready->address;

	if (strlen(path) >= sizeof(address->sun_path))
		return "the socket's path is too long";
	address->sun_family = AF_UNIX;
	strcpy(address->sun_path, path);
	ready->address_size = sizeof(*address);
	return "";
}

static const char *open_inet(struct ready *ready, int family, const char *text)
{
	char host[INET6_ADDRSTRLEN];
	const char *colon = strrchr(text, ':');
	struct sockaddr_in *four = (struct sockaddr_in *)&ready->address;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&ready->address;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return "not an address";
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = 0;
	in_port_t port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (family == AF_INET) {
		*four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
		ready->address_size = sizeof(*four);
	} else {
		*six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port};
		ready->address_size = sizeof(*six);
	}
	void *number = family == AF_INET ? (void *)&four->sin_addr : (void *)&six->sin6_addr;
	return inet_pton(family, host, number) == 1 ? "" : "not an address";
}

const char *ready_open(struct ready *ready, const char *text)
{
	const char *rest;

	ready->socket = -1;
	if (strcmp(text, "started") == 0) {
		ready->kind = READY_STARTED;
		return "";
	}
	if (strcmp(text, "finished") == 0) {
		ready->kind = READY_FINISHED;
		return "";
	}
	if (strcmp(text, "notify") == 0) {
		ready->kind = READY_NOTIFY;
		return open_notify(ready);
	}
	if (starts(text, "output:", &rest)) {
		ready->kind = READY_OUTPUT;
		return regcomp(&ready->expression, rest, REG_EXTENDED | REG_NOSUB) ? "not a regular expression" : "";
	}
	ready->wait_ms = FIRST_MS;
	if (starts(text, "file:", &rest)) {
		ready->kind = READY_FILE;
		ready->path = rest;
		if (stat(rest, &ready->before))
			ready->before.st_ino = 0;
		return "";
	}
	ready->kind = READY_ADDRESS;
	if (starts(text, "unix:", &rest))
		return open_unix(ready, rest);
	if (starts(text, "inet:", &rest))
		return open_inet(ready, AF_INET, rest);
	if (starts(text, "inet6:", &rest))
		return open_inet(ready, AF_INET6, rest);
	return "no way to be ready";
}

struct pollfd ready_poll(const struct ready *ready)
{
	bool notify = ready->kind == READY_NOTIFY;

	return (struct pollfd){ready->done && !notify ? -1 : ready->socket, notify ? POLLIN : POLLOUT, 0};
}

static void hear_line(struct ready *ready, const char *line)
{
	const char *rest;

	if (strcmp(line, "READY=1") == 0) {
		ready->done = true;
	} else if (starts(line, "STATUS=", &rest)) {
		snprintf(ready->said, sizeof(ready->said), "%s", rest);
		ready->said_is_new = true;
	}
}

/* One message. False: there is none. Descriptors that come with it find no room, so that the kernel closes them. */
static bool hear(struct ready *ready)
{
	char bytes[4096];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec iov = {bytes, sizeof(bytes) - 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};
	struct ucred who = {.uid = (uid_t)-1};

	message.msg_controllen = sizeof(control);
	ssize_t size = recvmsg(ready->socket, &message, MSG_CMSG_CLOEXEC);
	if (size < 0)
		return errno == EINTR;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part))
		if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_CREDENTIALS)
			memcpy(&who, CMSG_DATA(part), sizeof(who));
	/* Every user of the machine can send to an abstract address. */
	if (who.uid != getuid() && who.uid != 0)
		return true;
	bytes[size] = 0;
	char *rest = NULL;
	for (char *line = strtok_r(bytes, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		hear_line(ready, line);
	return true;
}

static void look_at_file(struct ready *ready)
{
	struct stat now, *before = &ready->before;

	if (stat(ready->path, &now))
		return;
	/* One that another run has left behind says nothing, until it is written anew. */
	ready->done = now.st_ino != before->st_ino || now.st_dev != before->st_dev ||
		      now.st_mtim.tv_sec != before->st_mtim.tv_sec || now.st_mtim.tv_nsec != before->st_mtim.tv_nsec;
}

/* A connection to a port that the kernel might have chosen as our own end's can meet itself (simultaneous open). */
static bool with_itself(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	socklen_t size = sizeof(here), other = sizeof(there);

	return getsockname(fd, (struct sockaddr *)&here, &size) == 0 &&
	       getpeername(fd, (struct sockaddr *)&there, &other) == 0 && here.ss_family != AF_UNIX && size == other &&
	       memcmp(&here, &there, size) == 0;
}

static void end_attempt(struct ready *ready, bool accepted)
{
	ready->done = accepted && !with_itself(ready->socket);
	close(ready->socket);
	ready->socket = -1;
	ready->wait_ms = ready->wait_ms ? ready->wait_ms : FIRST_MS;
}

static void try_address(struct ready *ready, bool event)
{
	if (ready->socket >= 0) {
		int error = 0;
		socklen_t size = sizeof(error);
		if (event && getsockopt(ready->socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0)
			end_attempt(ready, error == 0);
		return;
	}
	ready->socket = socket(ready->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ready->socket < 0)
		return;
	if (connect(ready->socket, (struct sockaddr *)&ready->address, ready->address_size) == 0)
		end_attempt(ready, true);
	else if (errno != EINPROGRESS)
		end_attempt(ready, false);
}

void ready_look(struct ready *ready, bool event)
{
	if (ready->kind == READY_NOTIFY && event)
		while (hear(ready))
			;
	if (ready->done)
		return;
	if (ready->kind == READY_FILE)
		look_at_file(ready);
	else if (ready->kind == READY_ADDRESS)
		try_address(ready, event);
	if (ready->wait_ms && !event)
		ready->wait_ms = ready->wait_ms * 3 / 2 < LAST_MS ? ready->wait_ms * 3 / 2 : LAST_MS;
}

void ready_line(struct ready *ready, const char *line)
{
	if (ready->kind == READY_OUTPUT && regexec(&ready->expression, line, 0, NULL, 0) == 0)
		ready->done = true;
}
