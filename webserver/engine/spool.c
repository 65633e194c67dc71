/*
 * Unlinked files for bodies that memory is too small for. A file is written from its beginning and read in the same
 * order, and never written twice at one place: sendfile(2) leaves pages of it in a socket's queue, and they must not
 * change there. Space that has been read is given back by punching holes, where the file system can; where it cannot,
 * the file's limit is reached and its writer waits until all has been read.
 *
 * A file system that is full or missing is no error of the request: the caller keeps the bytes in memory and stops
 * asking for more. The operator is told once a minute.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "loop.h"

#define TOLD_AGAIN_NS 60000000000ull

void spool_init(struct spool *spool)
{
	memset(spool, 0, sizeof(*spool));
	spool->fd = -1;
}

static void tell(struct engine *e, const char *what)
{
	struct channel *c = e->channel;
	int number = errno;

	if (c->spool_told_ns != 0 && e->now_ns - c->spool_told_ns < TOLD_AGAIN_NS)
		return;
	c->spool_told_ns = e->now_ns;
	log_entry(e, LOG_LEVEL_WARNING, NULL, "spool directory %s: %s: %s; workers wait for slow clients meanwhile",
		e->options.spool_directory ? e->options.spool_directory : "(none)", what, strerror(number));
	errno = number; /* the caller's, to tell whose request it is */
}

static int spool_open(struct engine *e, struct spool *spool)
{
	const char *directory = e->options.spool_directory;

	if (spool->fd >= 0)
		return 0;
	if (directory == NULL || *directory == 0) {
		errno = ENOENT;
		tell(e, "not set");
		return -1;
	}
	spool->fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
	if (spool->fd >= 0 && descriptor_is_spare(e, spool->fd)) {
		close(spool->fd);
		spool->fd = -1;
		errno = EMFILE;
	}
	if (spool->fd < 0)
		tell(e, "open");
	return spool->fd < 0 ? -1 : 0;
}

bool spool_write(struct engine *e, struct spool *spool, const char *data, size_t size, uint64_t limit)
{
	uint64_t in_use = spool->end - spool->freed;

	if (in_use > limit || size > limit - in_use)
		return false;
	/* What has no limit here has been asked for a little at a time, and has nowhere else to go. */
	if (limit != UINT64_MAX && e->channel->spooled + size > SPOOL_A_TURN)
		return false;
	if (spool_open(e, spool) < 0)
		return false;
	for (size_t done = 0; done < size;) {
		ssize_t n = pwrite(spool->fd, data + done, size - done, (off_t)(spool->end + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			tell(e, "write");
			return false; /* end has not moved: what was written of it is not looked at */
		}
		done += (size_t)n;
	}
	spool->end += size;
	e->channel->spooled += size;
	return true;
}

struct file *spool_file(struct spool *spool)
{
	/* The file now owns the descriptor, and may outlive the exchange in an output's queue. */
	if (spool->file == NULL && spool->fd >= 0)
		spool->file = file_wrap(spool->fd);
	return spool->file;
}

/*
 * Holes begin and end where no folio of the page cache can lie across: one that is cut has its part filled with zeros
 * in place, also while packets on the way to a client, or in its own queue on the same machine, point to it. The
 * largest folio is what one entry of a page-table's second level covers, 2 MiB with pages of 4 KiB.
 */
static uint64_t hole(void)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return page * (page / sizeof(uint64_t));
}

void spool_discard(struct spool *spool, uint64_t below)
{
	if (spool->fd < 0 || below > spool->end || below < spool->freed + hole())
		return;
	uint64_t to = below / hole() * hole();
	if (fallocate(spool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)spool->freed,
		    (off_t)(to - spool->freed)) == 0)
		spool->freed = to;
}

void spool_close(struct spool *spool)
{
	if (spool->file != NULL)
		file_unref(spool->file);
	else if (spool->fd >= 0)
		close(spool->fd);
	spool_init(spool);
}
