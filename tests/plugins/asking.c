/*
 * A plugin that says where its request is, and ends it, in the ways that the last segment of its path names:
 *
 *   comes     as a language does: it looks at asked() and overdue() while it runs, until its client is gone
 *   ends      the same, until its time is over
 *   starts    the same, but for the end of what it has begun to tell
 *   deaf      it looks at nothing
 *   refuses   the same, and ask() says so
 *   hangs     the same, and ask() waits, as for a lock, until the request is over
 *
 * Any other is answered with the number of its process.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "langplugin.h"

#define TEXT(literal) ((struct langplugin_text){literal, sizeof(literal) - 1})

struct state {
	const struct langplugin_host *host;
	const char *way;
	atomic_int running, inside; /* inside: how many are in ask() */
};

static void rest(void)
{
	nanosleep(&(struct timespec){0, 2000000}, NULL);
}

static int asking_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t size)
{
	struct state *made = calloc(1, sizeof(*made));

	(void)settings, (void)count, (void)message, (void)size;
	if (!made)
		return -1;
	made->host = host;
	*state = made;
	return 0;
}

static void answer(const struct state *state, struct langplugin_call *call)
{
	char text[32];
	int size = snprintf(text, sizeof(text), "%d", (int)getpid());

	state->host->respond(call, 200, TEXT(""), NULL, 0, size);
	state->host->write(call, text, (size_t)size, 0);
}

/* As a language does between two instructions. True: the request is to end. */
static bool comes_by(const struct state *state, struct langplugin_call *call)
{
	static const char told[] = "asking: its time is over";
	int fd = state->host->asked();

	if (fd >= 0) {
		dprintf(fd, "asking: told by itself\n");
		if (strcmp(state->way, "starts") != 0)
			close(fd);
	}
	if (!state->host->overdue(call))
		return false;
	if (state->host->overdue(call))
		abort(); /* once is enough */
	state->host->log(call, LP_WARNING, told, sizeof(told) - 1);
	return true;
}

static int asking_handle(void *given, void *thread, struct langplugin_call *call)
{
	static const char *const ways[] = {"comes", "ends", "starts", "deaf", "refuses", "hangs"};
	struct state *state = given;
	const char *path = strrchr(state->host->variable(call, "REQUEST_URI", 11)->data, '/') + 1;
	bool looks = strcmp(path, "comes") == 0 || strcmp(path, "starts") == 0 || strcmp(path, "ends") == 0,
	     over = false;

	(void)thread;
	state->way = "";
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (strcmp(path, ways[i]) == 0)
			state->way = ways[i];
	if (!state->way[0]) {
		answer(state, call);
		return LP_DONE;
	}
	atomic_store(&state->running, 1);
	while (!over && (strcmp(path, "ends") == 0 || !state->host->cancelled(call))) {
		over = looks && comes_by(state, call);
		rest();
	}
	atomic_store(&state->running, 0);
	state->host->fail(call, 500);
	return LP_DONE;
}

static int asking_ask(void *given)
{
	struct state *state = given;

	if (!atomic_load(&state->running))
		return -1;
	if (atomic_fetch_add(&state->inside, 1) > 0)
		abort(); /* one at a time */
	while (strcmp(state->way, "hangs") == 0 && atomic_load(&state->running))
		rest();
	atomic_fetch_sub(&state->inside, 1);
	return strcmp(state->way, "refuses") == 0 ? -1 : 0;
}

static void asking_dump(void *state, int fd)
{
	(void)state;
	dprintf(fd, "asking: read from outside\n");
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.traits = LANGPLUGIN_SINGLE_THREAD,
	.name = "asking",
	.version = "1",
	.open = asking_open,
	.handle = asking_handle,
	.dump = asking_dump,
	.ask = asking_ask,
};
