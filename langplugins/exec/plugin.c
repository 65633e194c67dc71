/* A program as a language plugin. See exec.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exec.h"

void lane_disconnect(struct lane *lane)
{
	if (lane->fd >= 0)
		close(lane->fd);
	lane->fd = -1;
}

int lane_open(struct lane *lane, struct plugin *plugin)
{
	lane->plugin = plugin;
	lane->fd = -1;
	lane->in.data = malloc(LANE_ROOM);
	lane->piece.room = LANE_ROOM + 64; /* a chunk's size before, a line end behind it */
	lane->piece.data = malloc(lane->piece.room);
	lane->fields = malloc(REPLY_FIELDS * sizeof(*lane->fields));
	return reply_open(&lane->reply) == 0 && lane->in.data && lane->piece.data && lane->fields ? 0 : -1;
}

void lane_close(struct lane *lane)
{
	lane_disconnect(lane);
	reply_close(&lane->reply);
	free(lane->in.data);
	free(lane->head.data);
	free(lane->piece.data);
	free(lane->fields);
	memset(lane, 0, sizeof(*lane));
	lane->fd = -1;
}

static int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t size)
{
	if (host->size < offsetof(struct langplugin_host, give_up) + sizeof(host->give_up)) {
		snprintf(message, size, "exec: the server is older than this plugin: it has no wait() and give_up()");
		return -1;
	}
	struct plugin *plugin = calloc(1, sizeof(*plugin));
	if (!plugin) {
		snprintf(message, size, "exec: no memory");
		return -1;
	}
	plugin->host = host;
	silence_begin(&plugin->silence);
	*state = plugin;
	if (settings_read(&plugin->settings, settings, count, message, size))
		return -1;
	/* In the manager already, which has the user and the groups that the program will have. */
	if (access(plugin->settings.argv[0], X_OK)) {
		snprintf(message, size, "exec: %s cannot be run: %s", plugin->settings.argv[0], strerror(errno));
		return -1;
	}
	plugin->lane = calloc((size_t)host->threads, sizeof(*plugin->lane));
	if (!plugin->lane) {
		snprintf(message, size, "exec: no memory for %d slots", host->threads);
		return -1;
	}
	return 0;
}

static int plugin_after_fork(void *state, char *message, size_t size)
{
	struct plugin *plugin = state;

	return program_start(&plugin->program, plugin->host, &plugin->settings, message, size);
}

static int plugin_thread_start(void *state, void **thread)
{
	struct plugin *plugin = state;
	unsigned number = atomic_fetch_add(&plugin->lanes, 1);

	if (number >= (unsigned)plugin->host->threads || lane_open(&plugin->lane[number], plugin))
		return -1;
	*thread = &plugin->lane[number];
	return 0;
}

static void plugin_thread_stop(void *state, void *thread)
{
	(void)state;
	lane_close(thread);
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	return exchange_run(state, thread, call);
}

/* What runs is the program's; what is known here is what each slot waits for. */
static void plugin_dump(void *state, int fd)
{
	struct plugin *plugin = state;
	uint64_t now = clock_now();

	for (unsigned i = 0; i < (unsigned)plugin->host->threads; i++) {
		const char *what = atomic_load_explicit(&plugin->lane[i].doing, memory_order_relaxed);
		uint64_t since = atomic_load_explicit(&plugin->lane[i].since, memory_order_relaxed);
		char line[160];
		if (!what)
			continue;
		int size = snprintf(line, sizeof(line), "exec: slot %u %s; its request began %.1f s ago\n", i, what,
			(double)(now - since) / 1e9);
		if (size > 0 && write(fd, line, (size_t)size) < 0)
			return;
	}
}

static void plugin_close(void *state)
{
	struct plugin *plugin = state;

	program_end(&plugin->program);
	silence_end(&plugin->silence);
	free(plugin->lane);
	settings_free(&plugin->settings);
	free(plugin);
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.name = "exec",
	.version = "",
	.open = plugin_open,
	.after_fork = plugin_after_fork,
	.thread_start = plugin_thread_start,
	.thread_stop = plugin_thread_stop,
	.handle = plugin_handle,
	.dump = plugin_dump,
	.close = plugin_close,
};
