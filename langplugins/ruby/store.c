/* What has been read of a request's body: in memory, beyond a megabyte in a file without a name. No Ruby here. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugin.h"

#define PART   65536	 /* read at once */
#define MEMORY (1 << 20) /* more than this goes to the file */
#define KEPT   (1 << 18) /* memory that is worth keeping for the next request */

void store_begin(struct store *store)
{
	store->base = store->size = 0;
	store->fd = -1;
}

void store_end(struct store *store)
{
	if (store->fd >= 0)
		close(store->fd);
	if (store->room > KEPT) {
		free(store->memory);
		store->memory = NULL;
		store->room = 0;
	}
	store_begin(store);
}

static int temporary(void)
{
	const char *wanted = getenv("TMPDIR");
	const char *places[] = {wanted && *wanted ? wanted : "/tmp", "/tmp", "/var/tmp"};
	char path[PATH_MAX];
	int fd = -1;

	for (size_t i = 0; fd < 0 && i < sizeof(places) / sizeof(places[0]); i++) {
		fd = open(places[i], O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0 || (size_t)snprintf(path, sizeof(path), "%s/webserver-XXXXXX", places[i]) >= sizeof(path))
			continue;
		/* A file system that knows no file without a name. */
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	return fd;
}

static int write_all(int fd, const char *data, size_t size, uint64_t at)
{
	while (size > 0) {
		ssize_t written = pwrite(fd, data, size, (off_t)at);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -1;
		data += written;
		size -= (size_t)written;
		at += (uint64_t)written;
	}
	return 0;
}

static int to_file(struct store *store)
{
	int fd = temporary();

	if (fd < 0)
		return -1;
	if (write_all(fd, store->memory, (size_t)store->size, 0)) {
		close(fd);
		return -1;
	}
	store->fd = fd;
	return 0;
}

static int reserve(struct store *store, size_t wanted)
{
	if (wanted <= store->room)
		return 0;
	size_t room = store->room ? store->room : PART;
	while (room < wanted)
		room *= 2;
	char *memory = realloc(store->memory, room);
	if (!memory)
		return -1;
	store->memory = memory;
	store->room = room;
	return 0;
}

char *store_room(struct store *store, bool keep, size_t *room)
{
	if (!keep) {
		store->base += store->size;
		store->size = 0;
	} else if (store->fd < 0 && store->size + PART > MEMORY && to_file(store)) {
		return NULL;
	}
	/* With a file the memory is only where the next part is put. */
	size_t used = store->fd < 0 ? (size_t)store->size : 0;
	if (reserve(store, used + PART))
		return NULL;
	*room = store->room - used;
	return store->memory + used;
}

int store_filled(struct store *store, size_t size)
{
	if (store->fd >= 0 && write_all(store->fd, store->memory, size, store->size))
		return -1;
	store->size += size;
	return 0;
}

int store_append(struct store *store, const char *data, size_t size)
{
	if (write_all(store->fd, data, size, store->size))
		return -1;
	store->size += size;
	return 0;
}

ssize_t store_read(struct store *store, uint64_t at, char *to, size_t size)
{
	uint64_t from = at - store->base;
	ssize_t got;

	if (from >= store->size)
		return 0;
	if (size > store->size - from)
		size = (size_t)(store->size - from);
	if (store->fd < 0) {
		memcpy(to, store->memory + from, size);
		return (ssize_t)size;
	}
	do
		got = pread(store->fd, to, size, (off_t)from);
	while (got < 0 && errno == EINTR);
	if (got == 0) { /* somebody has cut it */
		errno = EIO;
		return -1;
	}
	return got;
}
