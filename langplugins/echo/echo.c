/*
 * A plugin with no language in it: the reference for plugin authors, the double for tests, the floor for benchmarks.
 * GET answers "hello, world"; the last path segments choose what else it does.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "langplugin.h"

#define TEXT(literal)                                                                                                  \
	{                                                                                                              \
		literal, sizeof(literal) - 1                                                                           \
	}
static const struct langplugin_field plain = {TEXT("Content-Type"), TEXT("text/plain")};
static const struct langplugin_text no_reason = TEXT("");

static int echo_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t size)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(settings[i].name, "application") == 0 && strcmp(settings[i].value, "fail") == 0) {
			snprintf(message, size, "echo: told to fail by application = fail");
			return -1;
		}
	*state = (void *)(uintptr_t)host; /* all that it keeps */
	return 0;
}

static void answer(const struct langplugin_host *host, struct langplugin_call *call, int status, const char *text)
{
	size_t size = strlen(text);
	host->respond(call, status, no_reason, &plain, 1, (int64_t)size);
	host->write(call, text, size, 0);
}

/* The number after `word` at the end of the path, or -1. */
static long long number_after(struct langplugin_text path, const char *word)
{
	const char *at = strstr(path.data, word);
	return at ? atoll(at + strlen(word)) : -1;
}

static void sleep_for(const struct langplugin_host *host, struct langplugin_call *call, long long milliseconds)
{
	const struct timespec tick = {0, 1000000};
	for (long long i = 0; i < milliseconds && !host->cancelled(call); i++)
		nanosleep(&tick, NULL);
	answer(host, call, 200, "slept");
}

static void stream(const struct langplugin_host *host, struct langplugin_call *call, long long size)
{
	static char block[65536];
	host->respond(call, 200, no_reason, &plain, 1, -1);
	memset(block, 'x', sizeof(block));
	for (long long left = size; left > 0; left -= (long long)sizeof(block))
		if (host->write(call, block, left < (long long)sizeof(block) ? (size_t)left : sizeof(block), 0) !=
			LP_OK)
			return;
}

/* back: answer with the body itself; else with its length. */
static void take_body(const struct langplugin_host *host, struct langplugin_call *call, int back)
{
	char block[65536], text[32];
	long long total = 0;
	ssize_t got;
	while ((got = host->read(call, block, sizeof(block), 0)) > 0) {
		if (back && !total)
			host->respond(call, 200, no_reason, &plain, 1, -1);
		if (back && host->write(call, block, (size_t)got, 0) != LP_OK)
			return;
		total += got;
	}
	if (got < 0)
		return;
	snprintf(text, sizeof(text), "%lld", total);
	if (!back || !total)
		answer(host, call, 200, back ? "" : text);
}

/* 101; what comes goes back. */
static void upgrade(const struct langplugin_host *host, struct langplugin_call *call)
{
	const struct langplugin_field to = {TEXT("Upgrade"), host->request(call)->upgrade};
	char block[65536];
	ssize_t got;
	if (host->respond(call, 101, no_reason, &to, 1, -1) == LP_INVALID)
		answer(host, call, 426, "upgrade");
	else
		while ((got = host->read(call, block, sizeof(block), 0)) > 0)
			if (host->write(call, block, (size_t)got, 0) || host->flush(call, 0))
				return;
}

/* The body's length, and the request's trailers as the answer's. */
static void trailers(const struct langplugin_host *host, struct langplugin_call *call)
{
	char block[65536], text[32];
	size_t count;
	long long total = 0;
	for (ssize_t got; (got = host->read(call, block, sizeof(block), 0)) > 0; total += got)
		;
	const struct langplugin_field *fields = host->request_trailers(call, &count);
	host->respond(call, 200, no_reason, &plain, 1, -1);
	host->trailers(call, fields, count);
	host->write(call, text, (size_t)snprintf(text, sizeof(text), "%lld", total), 0);
}

static void list(const struct langplugin_host *host, struct langplugin_call *call, int variables)
{
	const struct langplugin_request *request = host->request(call);
	size_t count = variables ? request->variable_count : request->field_count;
	host->respond(call, 200, no_reason, &plain, 1, -1);
	for (size_t i = 0; i < count; i++) {
		struct langplugin_text name = variables ? request->variables[i].name : request->fields[i].name;
		struct langplugin_text value = variables ? request->variables[i].value : request->fields[i].value;
		host->write(call, name.data, name.size, 0);
		host->write(call, ": ", 2, 0);
		host->write(call, value.data, value.size, 0);
		host->write(call, "\n", 1, 0);
	}
}

static int echo_handle(void *state, void *thread, struct langplugin_call *call)
{
	(void)thread;
	const struct langplugin_host *host = state;
	const struct langplugin_request *request = host->request(call);
	struct langplugin_text path = request->path_info.size ? request->path_info : request->path;
	long long n;
	if ((n = number_after(path, "/sleep/")) >= 0)
		sleep_for(host, call, n);
	else if ((n = number_after(path, "/status/")) >= 0)
		answer(host, call, (int)n, n == 204 || n == 304 ? "" : "status");
	else if ((n = number_after(path, "/stream/")) >= 0)
		stream(host, call, n);
	else if ((n = number_after(path, "/exit/")) >= 0)
		_exit((int)n);
	else if (strstr(path.data, "/crash"))
		abort();
	else if (strstr(path.data, "/short")) {
		host->respond(call, 200, no_reason, &plain, 1, 100);
		host->write(call, "short", 5, 0);
	} else if (strstr(path.data, "/early")) {
		const struct langplugin_field link = {TEXT("Link"), TEXT("</style.css>; rel=preload")};
		host->inform(call, 103, &link, 1);
		answer(host, call, 200, "early");
	} else if (strstr(path.data, "/log")) {
		host->log(call, LP_WARNING, "a line\nand another", 18);
		answer(host, call, 200, "logged");
	} else if (strstr(path.data, "/upgrade"))
		upgrade(host, call);
	else if (strstr(path.data, "/trailers"))
		trailers(host, call);
	else if (strstr(path.data, "/takeover")) {
		int fd = host->take_over(call);
		dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken");
		close(fd);
	} else if (strstr(path.data, "/fields"))
		list(host, call, 0);
	else if (strstr(path.data, "/variables"))
		list(host, call, 1);
	else if (strstr(path.data, "/length"))
		take_body(host, call, 0);
	else if (request->content_length > 0 || request->chunked)
		take_body(host, call, 1);
	else
		answer(host, call, 200, "hello, world");
	return LP_DONE;
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	.magic = LANGPLUGIN_MAGIC,
	.major = LANGPLUGIN_MAJOR,
	.minor = LANGPLUGIN_MINOR,
	.size = sizeof(struct langplugin),
	.name = "echo",
	.version = "1",
	.open = echo_open,
	.handle = echo_handle,
};
