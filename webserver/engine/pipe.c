/* Whole lines on their way into a pipe: see pipe.h. */
#include "pipe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int line_pipe_make(struct line_pipe *p, int fd, size_t room)
{
	*p = (struct line_pipe){.fd = fd, .data = malloc(room), .room = room};
	return p->data == NULL ? -1 : 0;
}

void line_pipe_free(struct line_pipe *p)
{
	free(p->data);
	p->data = NULL;
}

char *line_pipe_reserve(struct line_pipe *p, size_t size)
{
	if (size > p->room - p->end && p->start > 0) {
		memmove(p->data, p->data + p->start, p->end - p->start);
		p->end -= p->start;
		p->start = 0;
	}
	return size > p->room - p->end ? NULL : p->data + p->end;
}

void line_pipe_commit(struct line_pipe *p, const char *line_end)
{
	p->end = (size_t)(line_end - p->data);
}

static uint64_t count_lines(const char *data, size_t size)
{
	uint64_t lines = 0;
	const char *end = data + size;
	while (data < end && (data = memchr(data, '\n', (size_t)(end - data))) != NULL) {
		lines++;
		data++;
	}
	return lines;
}

uint64_t line_pipe_write(struct line_pipe *p)
{
	while (p->start < p->end) {
		ssize_t wrote = write(p->fd, p->data + p->start, p->end - p->start);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (wrote < 0) { /* EPIPE: no reader; ENOSPC and others where it is a file */
			uint64_t lost = count_lines(p->data + p->start, p->end - p->start);
			p->start = p->end = 0;
			return lost;
		}
		p->start += (size_t)wrote;
	}
	p->start = p->end = 0;
	return 0;
}
