/*
 * Where a program listens: a unix socket in a directory that only the group's user can enter, or a port of 127.0.0.1.
 *
 * The directory is made below TMPDIR, or /tmp: the server's run directory is not the group's to write. It is the
 * warden's to remove, which lives longest, and the worker's where the warden was killed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exec.h"

#define BACKLOG 1024 /* connections that the program has not accepted; a worker makes 256 at most */

static int say(char *message, size_t size, const char *what, const char *where)
{
	snprintf(message, size, "exec: %s %s: %s", what, where, strerror(errno));
	return -1;
}

static int make_directory(struct address *address, char *message, size_t size)
{
	const char *place = getenv("TMPDIR");

	address->path.sun_family = AF_UNIX;
	if (!place || *place != '/')
		place = "/tmp";
	int directory = snprintf(address->directory, sizeof(address->directory), "%s/webserver-exec-XXXXXX", place);
	int path = directory + (int)sizeof("/socket");
	if (directory >= (int)sizeof(address->directory) || path > (int)sizeof(address->path.sun_path)) {
		address->directory[0] = 0;
		snprintf(message, size,
			"exec: TMPDIR=%s is too long for a socket below it: at most %zu bytes; give the group another "
			"one in its [environment]",
			place, sizeof(address->path.sun_path) - sizeof("/webserver-exec-XXXXXX/socket"));
		return -1;
	}
	if (!mkdtemp(address->directory)) {
		address->directory[0] = 0;
		return say(message, size, "no directory for the program's socket below", place);
	}
	snprintf(address->path.sun_path, sizeof(address->path.sun_path), "%.*s/socket",
		(int)sizeof(address->path.sun_path) - 8, address->directory);
	return 0;
}

static int make_listener(struct address *address, char *message, size_t size)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address->path, sizeof(address->path)) || listen(fd, BACKLOG)) {
		say(message, size, "cannot listen on", address->path.sun_path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	address->listener = fd;
	return 0;
}

/* One that is free now. Another process may be faster: then the program says so and ends, and the next start asks for
   another. */
static int find_port(struct address *address, char *message, size_t size)
{
	struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t room = sizeof(local);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool found = fd >= 0 && bind(fd, (struct sockaddr *)&local, sizeof(local)) == 0 &&
		     getsockname(fd, (struct sockaddr *)&local, &room) == 0;

	if (!found)
		say(message, size, "no free port on", "127.0.0.1");
	if (fd >= 0)
		close(fd);
	address->port = ntohs(local.sin_port);
	return found ? 0 : -1;
}

int address_make(struct address *address, enum listens_on listens_on, char *message, size_t size)
{
	memset(address, 0, sizeof(*address));
	address->listens_on = listens_on;
	address->listener = -1;
	if (listens_on == LISTENS_PORT)
		return find_port(address, message, size);
	if (make_directory(address, message, size))
		return -1;
	if (listens_on == LISTENS_DESCRIPTOR && make_listener(address, message, size)) {
		address_remove(address);
		return -1;
	}
	return 0;
}

/* Programs leave files beside their socket (a lock, a pid file): all that lies in it goes, directories do not. */
void address_remove(const struct address *address)
{
	DIR *directory = address->directory[0] ? opendir(address->directory) : NULL;

	if (!directory)
		return;
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
		unlinkat(dirfd(directory), entry->d_name, 0);
	closedir(directory);
	rmdir(address->directory);
}

int address_connect(const struct address *address, bool *pending)
{
	bool port = address->listens_on == LISTENS_PORT;
	const struct sockaddr_in local = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)address->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int one = 1;
	int fd = socket(port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*pending = false;
	if (fd < 0)
		return -1;
	if (port)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if ((port ? connect(fd, (const struct sockaddr *)&local, sizeof(local))
		  : connect(fd, (const struct sockaddr *)&address->path, sizeof(address->path))) == 0)
		return fd;
	*pending = errno == EINPROGRESS;
	if (*pending)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}
