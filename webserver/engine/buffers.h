/*
 * Pooled memory for bytes on their way: heads that are read, answers that are written. Sizes are powers of two from
 * BUFFER_SMALLEST to BUFFER_LARGEST; what is larger comes from malloc and goes back to it. The pool keeps the buffers
 * that were used last (they are in the caches) and a bounded number of them.
 */
#ifndef WEBSERVER_ENGINE_BUFFERS_H
#define WEBSERVER_ENGINE_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

#define BUFFER_SMALLEST 4096
#define BUFFER_CLASSES	5
#define BUFFER_LARGEST	(BUFFER_SMALLEST << (BUFFER_CLASSES - 1))

struct buffers {
	struct {
		void *first; /* each free buffer begins with a pointer to the next */
		uint32_t count;
	} free[BUFFER_CLASSES];
};

/* At least least bytes; *size says how many. NULL: no memory. */
char *buffer_take(struct buffers *b, size_t least, size_t *size);
/* size as buffer_take said; data may be NULL. */
void buffer_give(struct buffers *b, char *data, size_t size);
void buffers_free(struct buffers *b);

#endif
