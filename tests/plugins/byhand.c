/*
 * A plugin for tests of tunnels and of connections that are taken over. The end of the path says what it does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "langplugin.h"

#define TEXT(literal)                                                                                                  \
	{                                                                                                              \
		literal, sizeof(literal) - 1                                                                           \
	}
static const struct langplugin_host *host;
static const struct langplugin_text no_reason = TEXT("");
static const struct langplugin_field plain = {TEXT("Content-Type"), TEXT("text/plain")};
static const char switching[] =
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\nX-Hand: 1\r\n\r\n";

static int open_plugin(const struct langplugin_host *given, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t size)
{
	(void)settings, (void)count, (void)state, (void)message, (void)size;
	host = given;
	return 0;
}

static void say(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
		if (sent < 0)
			return;
		data += sent;
		size -= (size_t)sent;
	}
}

static void answer(struct langplugin_call *call, const char *text)
{
	host->respond(call, 200, no_reason, &plain, 1, (int64_t)strlen(text));
	host->write(call, text, strlen(text), 0);
}

/* All that comes goes back, to the client's end. */
static void *echo(void *argument)
{
	int fd = (int)(intptr_t)argument;
	char block[65536];
	ssize_t got;

	say(fd, switching, sizeof(switching) - 1);
	while ((got = recv(fd, block, sizeof(block), 0)) > 0)
		say(fd, block, (size_t)got);
	close(fd);
	return NULL;
}

/* Says something and ends its side; then counts what still comes, and logs how much it was. */
static void *shut_first(void *argument)
{
	int fd = (int)(intptr_t)argument;
	char block[65536], text[64];
	long long total = 0;
	ssize_t got;

	say(fd, switching, sizeof(switching) - 1);
	say(fd, "bye", 3);
	shutdown(fd, SHUT_WR);
	while ((got = recv(fd, block, sizeof(block), 0)) > 0)
		total += got;
	host->log(NULL, LP_NOTICE, text, (size_t)snprintf(text, sizeof(text), "counted %lld", total));
	close(fd);
	return NULL;
}

static void in_thread(void *(*run)(void *), int fd)
{
	pthread_t thread;

	pthread_create(&thread, NULL, run, (void *)(intptr_t)fd);
	pthread_detach(thread);
}

/* The request's body is what is written by hand; in one piece, or byte by byte. */
static void by_hand(struct langplugin_call *call, int bytes)
{
	char *block = malloc(1 << 20);
	size_t size = 0;
	ssize_t got;

	while ((got = host->read(call, block + size, (1 << 20) - size, 0)) > 0)
		size += (size_t)got;
	int fd = host->take_over(call);
	for (size_t at = 0, part; at < size; at += part) {
		part = bytes ? 1 : size;
		say(fd, block + at, part);
	}
	close(fd);
	free(block);
}

/* What is left of the body goes through the connection: the answer is how long it was. */
static void rest(struct langplugin_call *call)
{
	const struct langplugin_request *request = host->request(call);
	char block[65536], text[128];
	long long total = 0;
	ssize_t got;
	int fd = host->take_over(call);

	while ((request->content_length < 0 || total < request->content_length) &&
		(got = recv(fd, block, sizeof(block), 0)) > 0)
		total += got;
	int size = snprintf(block, sizeof(block), "%lld", total);
	say(fd, text,
		(size_t)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, block));
	close(fd);
}

/* Calls that are out of order, or say what they must not: all are to be refused. */
static void wrong(struct langplugin_call *call)
{
	static const struct langplugin_field fields[] = {{TEXT("Upgrade"), TEXT("other")},
		{TEXT("Content-Length"), TEXT("3")}, {TEXT("Upgrade"), TEXT("chat")}, {TEXT("X-Fine"), TEXT("yes")},
		{TEXT("Authorization"), TEXT("no")}, {TEXT("Transfer-Encoding"), TEXT("chunked")}};
	const struct langplugin_field both[] = {fields[2], fields[1]}, twice[] = {fields[2], fields[2]};
	int results[] = {
		host->trailers(call, &fields[3], 1),
		host->respond(call, 101, no_reason, &fields[0], 1, -1),
		host->respond(call, 101, no_reason, &fields[3], 1, -1),
		host->respond(call, 101, no_reason, both, 2, -1),
		host->respond(call, 101, no_reason, twice, 2, -1),
		host->respond(call, 101, no_reason, &fields[2], 1, 5),
		host->respond(call, 100, no_reason, NULL, 0, -1),
		host->respond(call, 200, no_reason, &fields[2], 1, -1),
	};
	int bad = 0;
	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
		bad += results[i] != LP_INVALID;
	host->respond(call, 200, no_reason, &plain, 1, -1);
	bad += host->trailers(call, &fields[1], 1) != LP_INVALID;
	bad += host->trailers(call, &fields[4], 1) != LP_INVALID;
	bad += host->trailers(call, &fields[5], 1) != LP_INVALID;
	bad += host->take_over(call) != -1;
	host->write(call, bad ? "taken" : "refused", bad ? 5 : 7, 0);
	bad = host->trailers(call, &fields[4], 1) != LP_INVALID;
	host->trailers(call, &fields[3], 1);
}

/* In a request whose connection is taken over, everything else is refused. */
static void taken(struct langplugin_call *call)
{
	char block[8];
	size_t count = 7;
	int fd = host->take_over(call), bad = 0;

	bad += host->respond(call, 200, no_reason, &plain, 1, -1) != LP_INVALID;
	bad += host->write(call, "x", 1, 0) != LP_INVALID || host->flush(call, 0) != LP_INVALID;
	bad += host->read(call, block, 8, 0) != LP_INVALID || host->end(call) != LP_INVALID;
	bad += host->inform(call, 103, NULL, 0) != LP_INVALID || host->trailers(call, &plain, 0) != LP_INVALID;
	bad += host->request_trailers(call, &count) != NULL || count != 0 || host->take_over(call) != -1;
	bad += host->cancelled(call) != 0;
	host->abort(call);
	const char *text = bad ? "HTTP/1.1 500 Bad\r\n\r\n" : "HTTP/1.1 200 OK\r\n\r\nrefused";
	say(fd, text, strlen(text));
	close(fd);
}

/* What it says in a tunnel goes in small writes, without end. */
static void flood(struct langplugin_call *call)
{
	static char block[65536];
	const struct langplugin_field to = {TEXT("Upgrade"), TEXT("chat")};

	if (host->respond(call, 101, no_reason, &to, 1, -1) != LP_OK)
		return;
	memset(block, 'x', sizeof(block));
	while (host->write(call, block, sizeof(block), 0) == LP_OK)
		;
	host->log(call, LP_NOTICE, "the flood is over", 17);
}

static int handle(void *state, void *thread, struct langplugin_call *call)
{
	(void)state, (void)thread;
	const char *word = strrchr(host->request(call)->path.data, '/') + 1;

	if (strcmp(word, "inline") == 0)
		echo((void *)(intptr_t)host->take_over(call));
	else if (strcmp(word, "thread") == 0)
		in_thread(echo, host->take_over(call));
	else if (strcmp(word, "shut") == 0)
		in_thread(shut_first, host->take_over(call));
	else if (strcmp(word, "hand") == 0)
		by_hand(call, 0);
	else if (strcmp(word, "bytes") == 0)
		by_hand(call, 1);
	else if (strcmp(word, "rest") == 0)
		rest(call);
	else if (strcmp(word, "wrong") == 0)
		wrong(call);
	else if (strcmp(word, "taken") == 0)
		taken(call);
	else if (strcmp(word, "flood") == 0)
		flood(call);
	else if (strcmp(word, "hang") == 0)
		for (;;)
			pause();
	else
		answer(call, "by hand");
	return LP_DONE;
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	.magic = LANGPLUGIN_MAGIC,
	.major = LANGPLUGIN_MAJOR,
	.minor = LANGPLUGIN_MINOR,
	.size = sizeof(struct langplugin),
	.name = "byhand",
	.version = "1",
	.open = open_plugin,
	.handle = handle,
};
