/*
 * A plugin with no language in it: the reference for plugin authors, the double for tests, the floor for benchmarks.
 * GET answers "hello, world"; the last path segments choose what else it does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "langplugin.h"

#define TEXT(literal) ((struct langplugin_text){literal, sizeof(literal) - 1})
static const struct langplugin_field plain = {TEXT("Content-Type"), TEXT("text/plain")};

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
	host->respond(call, status, TEXT(""), &plain, 1, (int64_t)size);
	host->write(call, text, size, 0);
}

static void stream(const struct langplugin_host *host, struct langplugin_call *call, long long left)
{
	static char block[65536];
	host->respond(call, 200, TEXT(""), &plain, 1, -1);
	memset(block, 'x', sizeof(block));
	for (; left > 0; left -= (long long)sizeof(block))
		if (host->write(call, block, left < 65536 ? (size_t)left : sizeof(block), 0) != LP_OK)
			return;
}

/* What comes goes back: a body, or with 101 what the client says in a tunnel. */
static void send_back(const struct langplugin_host *host, struct langplugin_call *call, int status)
{
	const struct langplugin_field upgrade = {TEXT("Upgrade"), host->request(call)->upgrade};
	char block[65536];
	ssize_t got;
	if (host->respond(call, status, TEXT(""), status == 101 ? &upgrade : &plain, 1, -1) == LP_INVALID)
		answer(host, call, 426, "upgrade");
	else
		while ((got = host->read(call, block, sizeof(block), 0)) > 0)
			if (host->write(call, block, (size_t)got, 0) || (status == 101 && host->flush(call, 0)))
				return;
}

/* The body's length; and the request's trailers as the answer's. */
static void measure(const struct langplugin_host *host, struct langplugin_call *call, int trailers)
{
	char block[65536], text[32];
	long long total = 0;
	size_t count;
	ssize_t got;
	while ((got = host->read(call, block, sizeof(block), 0)) > 0)
		total += got;
	int size = snprintf(text, sizeof(text), "%lld", total);
	if (got < 0)
		return;
	host->respond(call, 200, TEXT(""), &plain, 1, trailers ? -1 : size);
	const struct langplugin_field *fields = trailers ? host->request_trailers(call, &count) : NULL;
	if (fields)
		host->trailers(call, fields, count);
	host->write(call, text, (size_t)size, 0);
}

static void list(const struct langplugin_host *host, struct langplugin_call *call, int variables)
{
	const struct langplugin_request *request = host->request(call);
	size_t count = variables ? request->variable_count : request->field_count;
	host->respond(call, 200, TEXT(""), &plain, 1, -1);
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
	const struct langplugin_host *host = state;
	const struct langplugin_request *request = host->request(call);
	const char *path = request->path_info.size ? request->path_info.data : request->path.data, *at;
	(void)thread;
	if ((at = strstr(path, "/sleep/"))) {
		struct timespec next;
		clock_gettime(CLOCK_MONOTONIC, &next);
		for (int left = atoi(at + 7); left > 0 && !host->cancelled(call); left--) {
			next.tv_nsec = (next.tv_nsec + 1000000) % 1000000000;
			next.tv_sec += next.tv_nsec < 1000000;
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
		}
		answer(host, call, 200, "slept");
	} else if ((at = strstr(path, "/status/")))
		answer(host, call, atoi(at + 8), atoi(at + 8) == 204 || atoi(at + 8) == 304 ? "" : "status");
	else if ((at = strstr(path, "/stream/")))
		stream(host, call, atoll(at + 8));
	else if ((at = strstr(path, "/exit/")))
		_exit(atoi(at + 6));
	else if (strstr(path, "/crash"))
		abort();
	else if (strstr(path, "/short")) {
		host->respond(call, 200, TEXT(""), &plain, 1, 100);
		host->write(call, "short", 5, 0);
	} else if (strstr(path, "/early")) {
		const struct langplugin_field link = {TEXT("Link"), TEXT("</style.css>; rel=preload")};
		host->inform(call, 103, &link, 1);
		answer(host, call, 200, "early");
	} else if (strstr(path, "/log")) {
		host->log(call, LP_WARNING, "a line\nand another", 18);
		answer(host, call, 200, "logged");
	} else if (strstr(path, "/takeover")) {
		int fd = host->take_over(call);
		dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken");
		close(fd);
	} else if (strstr(path, "/fields") || strstr(path, "/variables"))
		list(host, call, strstr(path, "/variables") != NULL);
	else if (strstr(path, "/length") || strstr(path, "/trailers"))
		measure(host, call, strstr(path, "/trailers") != NULL);
	else if (strstr(path, "/upgrade"))
		send_back(host, call, 101);
	else if (request->content_length > 0 || request->chunked)
		send_back(host, call, 200);
	else
		answer(host, call, 200, "hello, world");
	return LP_DONE;
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.name = "echo",
	.version = "1",
	.open = echo_open,
	.handle = echo_handle,
};
