/* Unlinked files for what memory is too small for: see spool.c. */
#ifndef WEBSERVER_ENGINE_SPOOL_H
#define WEBSERVER_ENGINE_SPOOL_H

#include "engine.h"

struct spool {
	int fd;		   /* -1: none yet */
	struct file *file; /* the same descriptor, for reply_file; NULL while only pread is used */
	uint64_t end;	   /* written so far */
	uint64_t freed;	   /* given back to the file system, from the beginning */
};
void spool_init(struct spool *spool);
bool spool_write(
	struct engine *e, struct spool *spool, const char *data, size_t size, uint64_t limit); /* all or none */
struct file *spool_file(struct spool *spool);						       /* NULL: no memory */
void spool_discard(struct spool *spool, uint64_t below); /* bytes below this offset are not needed any more */
void spool_close(struct spool *spool);

#endif
