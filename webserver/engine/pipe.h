/* Whole lines on their way into a pipe whose reader may be slow, or gone. */
#ifndef WEBSERVER_ENGINE_PIPE_H
#define WEBSERVER_ENGINE_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Bytes of whole lines, of which the first may have been written in part: what is dropped is always a whole line that
 * has not been begun, so the reader never sees two lines run together.
 */
struct line_pipe {
	int fd; /* not owned; non-blocking */
	char *data;
	size_t room, start, end; /* what waits is data[start, end) */
};

int line_pipe_make(struct line_pipe *p, int fd, size_t room); /* 0 or -1 with errno */
void line_pipe_free(struct line_pipe *p);
/* A place for one line of at most size bytes; NULL: full. */
char *line_pipe_reserve(struct line_pipe *p, size_t size);
void line_pipe_commit(struct line_pipe *p, const char *line_end);
static inline size_t line_pipe_waiting(const struct line_pipe *p)
{
	return p->end - p->start;
}
/* Write what can be written. Returns the number of lines that are lost because nobody will ever read them. */
uint64_t line_pipe_write(struct line_pipe *p);

#endif
