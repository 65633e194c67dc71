/* The pool of buffers; see buffers.h. */
#include <stdlib.h>
#include <string.h>

#include "buffers.h"

/* Bytes of free buffers kept per size. Beyond that malloc has them back, so that a burst does not stay for ever. */
#define KEPT_BYTES (2U << 20)

static unsigned class_of(size_t size)
{
	unsigned class = 0;
	while (((size_t)BUFFER_SMALLEST << class) < size)
		class ++;
	return class;
}

char *buffer_take(struct buffers *b, size_t least, size_t *size)
{
	if (least > BUFFER_LARGEST) {
		*size = least;
		return malloc(least);
	}
	unsigned class = class_of(least);
	*size = (size_t)BUFFER_SMALLEST << class;
	void *taken = b->free[class].first;
	if (taken == NULL)
		return malloc(*size);
	memcpy(&b->free[class].first, taken, sizeof(void *));
	b->free[class].count--;
	return taken;
}

void buffer_give(struct buffers *b, char *data, size_t size)
{
	if (data == NULL)
		return;
	unsigned class = size > BUFFER_LARGEST ? BUFFER_CLASSES : class_of(size);
	if (class == BUFFER_CLASSES || (b->free[class].count + 1) * size > KEPT_BYTES) {
		free(data);
		return;
	}
	memcpy(data, &b->free[class].first, sizeof(void *));
	b->free[class].first = data;
	b->free[class].count++;
}

void buffers_free(struct buffers *b)
{
	for (unsigned class = 0; class < BUFFER_CLASSES; class ++) {
		void *next;
		for (void *at = b->free[class].first; at != NULL; at = next) {
			memcpy(&next, at, sizeof(void *));
			free(at);
		}
		b->free[class].first = NULL;
		b->free[class].count = 0;
	}
}
