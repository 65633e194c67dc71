/* From the program's pipe to the log's, with a look at each line. What the log does not take waits in the program. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "warden.h"

#define LOG	2
#define LAST_MS 1000 /* for a log that is full when the program has ended */

bool output_open(struct output *output, int *program_end)
{
	int ends[2], flags = fcntl(LOG, F_GETFL);

	if (flags < 0 || fcntl(LOG, F_SETFL, flags | O_NONBLOCK) || pipe2(ends, O_CLOEXEC))
		return false;
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	output->in = ends[0];
	output->out = LOG;
	*program_end = ends[1];
	return true;
}

void output_poll(const struct output *output, struct pollfd *in, struct pollfd *out)
{
	*in = (struct pollfd){output->start == output->end ? output->in : -1, POLLIN, 0};
	*out = (struct pollfd){output->start < output->end ? output->out : -1, POLLOUT, 0};
}

static void look(struct output *output, struct ready *ready, const char *bytes, size_t size)
{
	for (size_t at = 0; at < size && !ready->done; at++) {
		if (bytes[at] == '\n') {
			output->line[output->line_size] = 0;
			output->line_size = 0;
			ready_line(ready, output->line);
		} else if (output->line_size < LINE_BYTES - 1) {
			/* A NUL would end the line for regexec(3). */
			output->line[output->line_size++] = bytes[at] ? bytes[at] : ' ';
		}
	}
}

static void flush(struct output *output)
{
	while (output->start < output->end) {
		ssize_t size = write(output->out, output->bytes + output->start, output->end - output->start);
		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0 && errno == EAGAIN)
			return;
		/* A log that nobody reads any more keeps no program waiting. */
		output->start = size < 0 ? output->end : output->start + (size_t)size;
	}
	output->start = output->end = 0;
}

void output_move(struct output *output, struct ready *ready)
{
	flush(output);
	while (output->in >= 0 && output->start == output->end) {
		ssize_t size = read(output->in, output->bytes, sizeof(output->bytes));
		if (size < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (size <= 0) {
			close(output->in);
			output->in = -1;
			return;
		}
		output->start = 0;
		output->end = (size_t)size;
		look(output, ready, output->bytes, (size_t)size);
		flush(output);
	}
}

void output_end(struct output *output, struct ready *ready)
{
	uint64_t limit = milliseconds() + LAST_MS;

	for (;;) {
		output_move(output, ready);
		uint64_t now = milliseconds();
		if (output->start == output->end || now >= limit)
			return;
		struct pollfd log = {output->out, POLLOUT, 0};
		poll(&log, 1, (int)(limit - now));
	}
}
