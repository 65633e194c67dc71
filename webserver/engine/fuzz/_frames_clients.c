/*
 * Clients without sockets, files that are only descriptors, no logs, a clock that is set. A client looks through all
 * that it gets for marks: one of an answer to somebody else ends the run. Linked to fuzz/frames.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "_frames.h"

/* Which way the checks go is nothing that an input should be kept for. */
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)

void must(bool condition)
{
	if (!condition)
		abort();
}

uint64_t mark_of(uint64_t serial)
{
	return (serial ^ 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd << 16 | MARK_BEGINS;
}

struct client *client_of(const struct connection *c)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (world.client[i].c == c)
			return &world.client[i];
	return NULL;
}

static void taken(struct client *client, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		client->seen = client->seen >> 8 | (uint64_t)(unsigned char)data[i] << 56;
		if ((uint16_t)client->seen != MARK_BEGINS)
			continue;
		for (unsigned k = 0; k < PLACEMENTS && k < world.placements; k++)
			must(client->seen != mark_of(world.placed[k].serial) ||
				world.placed[k].client == client->number);
	}
}

static ssize_t fake_receive(struct connection *c, void *data, size_t size)
{
	struct client *client = client_of(c);

	must(client != NULL);
	if (client->in_size == 0) {
		if (client->gone)
			return 0;
		errno = EAGAIN;
		return -1;
	}
	if (size > client->in_size)
		size = client->in_size;
	memcpy(data, client->in, size);
	client->in_size -= size;
	memmove(client->in, client->in + size, client->in_size);
	return (ssize_t)size;
}

static ssize_t refused(const struct client *client)
{
	must(client != NULL);
	errno = client->gone && client->deaf ? ECONNRESET : EAGAIN;
	return client->deaf ? -1 : 0;
}

static ssize_t fake_send(struct connection *c, const struct msghdr *message, int flags)
{
	struct client *client = client_of(c);
	size_t size = 0;

	(void)flags;
	if (refused(client) < 0)
		return -1;
	for (size_t i = 0; i < message->msg_iovlen; i++) {
		taken(client, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
		size += message->msg_iov[i].iov_len;
	}
	return (ssize_t)size;
}

static ssize_t fake_send_file(struct connection *c, int fd, off_t *offset, size_t size)
{
	struct client *client = client_of(c);
	char data[1000];

	if (refused(client) < 0)
		return -1;
	ssize_t n = pread(fd, data, size < sizeof(data) ? size : sizeof(data), *offset);
	must(n > 0);
	taken(client, data, (size_t)n);
	return n;
}

static void fake_shut(struct connection *c)
{
	(void)c;
}

static void fake_close(struct connection *c)
{
	must(client_of(c) != NULL);
	client_of(c)->c = NULL;
}

const struct transport fake_transport = {fake_receive, fake_send, fake_send_file, fake_shut, fake_close};

/* ---- files: what spool.c needs of them */

struct file {
	int fd;
	unsigned references;
};

struct file *file_wrap(int fd)
{
	struct file *f = malloc(sizeof(*f));

	must(f != NULL);
	*f = (struct file){fd, 1};
	world.files++;
	return f;
}

struct file *file_ref(struct file *f)
{
	f->references++;
	return f;
}

void file_unref(struct file *f)
{
	if (--f->references > 0)
		return;
	close(f->fd);
	free(f);
	world.files--;
}

/* No directory that a group may name files in is there: sendfile.c comes no further. */
struct root;
struct representation;

struct root *root_use(engine *e, uint32_t id)
{
	(void)e;
	(void)id;
	return NULL;
}

struct file *files_find(engine *e, const struct root *root, struct engine_text path, bool probe)
{
	(void)e;
	(void)root;
	(void)path;
	(void)probe;
	abort();
}

int file_trouble(const struct root *root, const struct file *f, struct engine_text path, const char **why)
{
	(void)root;
	(void)f;
	(void)path;
	(void)why;
	abort();
}

void represent(struct request *r, const struct representation *is)
{
	(void)r;
	(void)is;
	abort();
}

int file_fd(const struct file *f)
{
	return f->fd;
}

struct engine_text file_path(const struct file *f)
{
	(void)f;
	return (struct engine_text){"", 0};
}

/* ---- parts of the engine that are not there */

#define NO_PART(name)                                                                                                  \
	int name##_make(struct engine *e)                                                                              \
	{                                                                                                              \
		(void)e;                                                                                               \
		return 0;                                                                                              \
	}                                                                                                              \
	void name##_free(struct engine *e)                                                                             \
	{                                                                                                              \
		(void)e;                                                                                               \
	}

NO_PART(decisions)
NO_PART(statics)
NO_PART(access)
NO_PART(errors)

void access_flush(struct engine *e)
{
	(void)e;
}

void access_record(struct request *r)
{
	(void)r;
}

void log_entry(struct engine *e, int level, const struct request *r, const char *format, ...)
{
	(void)e;
	(void)level;
	(void)r;
	(void)format;
}

void decision_release(struct decision *d)
{
	(void)d;
}

/* The one decision of frames.c gathers. */
bool decision_gathers(const struct decision *d)
{
	return d != NULL;
}

/* The build's flags put it in the place of clock_gettime. A little passes with each look. */
int fuzz_clock(clockid_t id, struct timespec *t)
{
	(void)id;
	world.now_ns += 1000;
	t->tv_sec = (time_t)(world.now_ns / 1000000000);
	t->tv_nsec = (long)(world.now_ns % 1000000000);
	return 0;
}

#pragma clang attribute pop
