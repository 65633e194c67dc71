/* Entries of the error log. See log.h. */
#define _GNU_SOURCE
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker.h"

#define MOST  60000 /* bytes of text in one entry; a pipe takes 64 KiB at once or not at all */
#define PIECE 2500  /* the same of log_lines: with what quoting adds to ordinary text below PIPE_BUF */

static const char *const levels[] = {"error", "warning", "notice"};
static atomic_ulong lost;

/* Length of a UTF-8 sequence at data, 0 if there is none. RFC 3629, section 4. */
static size_t sequence(const unsigned char *data, size_t left)
{
	static const struct {
		unsigned char first, last, second_first, second_last;
		size_t size;
	} forms[] = {
		{0xc2, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3},
		{0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},
		{0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (data[0] < forms[i].first || data[0] > forms[i].last)
			continue;
		if (left < forms[i].size || data[1] < forms[i].second_first || data[1] > forms[i].second_last)
			return 0;
		for (size_t k = 2; k < forms[i].size; k++)
			if (data[k] < 0x80 || data[k] > 0xbf)
				return 0;
		return forms[i].size;
	}
	return 0;
}

/* At most six bytes for one. */
static char *quote(char *to, const char *text, size_t size)
{
	const unsigned char *at = (const unsigned char *)text, *end = at + size;

	*to++ = '"';
	while (at < end) {
		size_t more = *at >= 0x80 ? sequence(at, (size_t)(end - at)) : 0;
		if (more) {
			memcpy(to, at, more);
			to += more;
			at += more;
			continue;
		}
		if (*at == '\n') {
			*to++ = '\\';
			*to++ = 'n';
		} else if (*at == '"' || *at == '\\') {
			*to++ = '\\';
			*to++ = (char)*at;
		} else if (*at < 0x20 || *at >= 0x7f) {
			to += sprintf(to, "\\u%04x", *at >= 0x80 ? 0xfffd : *at);
		} else {
			*to++ = (char)*at;
		}
		at++;
	}
	*to++ = '"';
	return to;
}

/* A description of its own of the log pipe, so that not waiting is ours alone: an application may wait if it likes. */
static int descriptor(void)
{
	static atomic_int opened = -1;
	int fd = atomic_load(&opened);

	if (fd < 0) {
		fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_APPEND);
		if (fd < 0)
			return 2;
		int none = -1;
		if (!atomic_compare_exchange_strong(&opened, &none, fd)) {
			close(fd);
			fd = none;
		}
	}
	/* Descriptor 2 of a worker is not its manager's. */
	static atomic_int owner;
	int self = getpid(), before = atomic_exchange(&owner, self);
	if (before && before != self) {
		int again = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_APPEND);
		if (again >= 0) {
			dup3(again, fd, O_CLOEXEC);
			close(again);
		}
	}
	return fd;
}

/* Whoever fills it may be quicker again: as often as it takes, but not for ever. */
static bool has_room(int milliseconds)
{
	return milliseconds > 0 && poll(&(struct pollfd){descriptor(), POLLOUT, 0}, 1, milliseconds) > 0;
}

/* False: it was not written, as there was no room within so much time. */
static bool write_entry(int level, struct langplugin_text request, struct langplugin_text site, const char *text,
	size_t size, int milliseconds)
{
	while (size && text[size - 1] == '\n')
		size--;
	if (size > MOST)
		size = MOST;
	char *line = malloc(size * 6 + request.size * 6 + site.size * 6 + 256);
	if (!line) {
		atomic_fetch_add(&lost, 1);
		return false;
	}
	unsigned long missing = atomic_exchange(&lost, 0);
	char *to = line;
	to += sprintf(to, "\x1e{\"level\":\"%s\",\"request\":", levels[level >= 0 && level <= 2 ? level : 0]);
	to = quote(to, request.data ? request.data : "", request.size);
	to += sprintf(to, ",\"site\":");
	to = quote(to, site.data ? site.data : "", site.size);
	if (missing)
		to += sprintf(to, ",\"lost\":%lu", missing);
	to += sprintf(to, ",\"text\":");
	to = quote(to, text, size);
	*to++ = '}';
	*to++ = '\n';
	ssize_t written;
	do
		written = write(descriptor(), line, (size_t)(to - line));
	while (written < 0 && (errno == EINTR || (errno == EAGAIN && has_room(milliseconds))));
	if (written < 0)
		atomic_fetch_add(&lost, missing + 1);
	free(line);
	return written >= 0;
}

void log_entry(int level, struct langplugin_text request, struct langplugin_text site, const char *text, size_t size)
{
	write_entry(level, request, site, text, size, 0);
}

void log_lines(int level, struct langplugin_text request, struct langplugin_text site, const char *text, size_t size,
	int milliseconds)
{
	for (size_t at = 0; at < size;) {
		size_t piece = size - at;
		if (piece > PIECE) {
			const char *end = memrchr(text + at, '\n', PIECE);
			piece = end ? (size_t)(end - (text + at)) + 1 : PIECE;
		}
		if (!write_entry(level, request, site, text + at, piece, milliseconds))
			milliseconds = 0; /* that was all the time there is */
		at += piece;
	}
}

void log_format(struct langplugin_call *call, int level, const char *format, ...)
{
	static const struct langplugin_text none = {"", 0};
	char text[2048];
	va_list arguments;

	va_start(arguments, format);
	int size = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (size < 0)
		return;
	if ((size_t)size >= sizeof(text))
		size = sizeof(text) - 1;
	log_entry(level, call ? call->block.request.request_id : none, call ? call->block.request.site : none, text,
		(size_t)size);
}
