/* Opening a plugin in the manager, and the table of functions that it is given. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stacks.h"

static const struct langplugin_request *call_request(struct langplugin_call *call)
{
	return &call->block.request;
}

static int call_cancelled(struct langplugin_call *call)
{
	return atomic_load_explicit(&call->cancelled, memory_order_relaxed);
}

static uint64_t call_deadline(struct langplugin_call *call)
{
	/* Another thread may end it: tunnel.c, takeover.c. */
	return __atomic_load_n(&call->block.deadline_ns, __ATOMIC_RELAXED);
}

static void call_finish(struct langplugin_call *call)
{
	answer_conclude(call);
}

static void call_interrupt(struct langplugin_call *call)
{
	atomic_store(&call->interrupted, 1);
	wake_up(call->slot->wake);
}

static void **call_place(struct langplugin_call *call)
{
	return &call->place;
}

static void call_log(struct langplugin_call *call, int level, const char *text, size_t size)
{
	static const struct langplugin_text none = {"", 0};

	log_entry(level, call ? call->block.request.request_id : none, call ? call->block.request.site : none, text,
		size);
}

/*
 * Once the application has the connection, none of these has anything to do with the call any more: another thread
 * does (takeover.c).
 */
static ssize_t call_read(struct langplugin_call *call, void *buffer, size_t size, int flags)
{
	return call->taken ? LP_INVALID : body_read(call, buffer, size, flags);
}

static int call_respond(struct langplugin_call *call, int status, struct langplugin_text reason,
	const struct langplugin_field *fields, size_t count, int64_t content_length)
{
	return call->taken ? LP_INVALID : answer_respond(call, status, reason, fields, count, content_length);
}

static int call_unrespond(struct langplugin_call *call)
{
	return call->taken ? LP_INVALID : answer_unrespond(call);
}

static int call_write(struct langplugin_call *call, const void *data, size_t size, int flags)
{
	return call->taken ? LP_INVALID : answer_write(call, data, size, flags);
}

static int call_flush(struct langplugin_call *call, int flags)
{
	return call->taken ? LP_INVALID : answer_flush(call, flags);
}

static int call_send_file(struct langplugin_call *call, int fd, int64_t offset, int64_t length)
{
	return call->taken ? LP_INVALID : answer_send_file(call, fd, offset, length);
}

static int call_inform(struct langplugin_call *call, int status, const struct langplugin_field *fields, size_t count)
{
	return call->taken ? LP_INVALID : answer_inform(call, status, fields, count);
}

static void call_abort(struct langplugin_call *call)
{
	if (!call->taken)
		answer_abort(call);
}

static int call_end(struct langplugin_call *call)
{
	return call->taken ? LP_INVALID : answer_end(call);
}

static void call_fail(struct langplugin_call *call, int status)
{
	if (!call->taken)
		answer_fail(call, status);
}

static int call_trailers(struct langplugin_call *call, const struct langplugin_field *fields, size_t count)
{
	return call->taken ? LP_INVALID : answer_trailers(call, fields, count);
}

static const struct langplugin_field *call_request_trailers(struct langplugin_call *call, size_t *count)
{
	*count = 0;
	return call->taken ? NULL : request_trailers(call, count);
}

static const struct langplugin_host functions = {
	.size = sizeof(struct langplugin_host),
	.major = LANGPLUGIN_MAJOR,
	.minor = LANGPLUGIN_MINOR,
	.known_count = WIRE_KNOWN_COUNT,
	.known = block_known,
	.request = call_request,
	.read = call_read,
	.respond = call_respond,
	.unrespond = call_unrespond,
	.write = call_write,
	.flush = call_flush,
	.send_file = call_send_file,
	.inform = call_inform,
	.abort = call_abort,
	.cancelled = call_cancelled,
	.deadline = call_deadline,
	.finish = call_finish,
	.log = call_log,
	.end = call_end,
	.trailers = call_trailers,
	.request_trailers = call_request_trailers,
	.take_over = call_take_over,
	.place = call_place,
	.slot = worker_slot,
	.descriptor = worker_descriptor,
	.turn = worker_turn,
	.wait = call_wait,
	.give_up = worker_give_up,
	.interrupt = call_interrupt,
	.asked = question_asked,
	.overdue = question_overdue,
	.fail = call_fail,
	.variable = request_variable,
	.mark = script_mark,
};

bool has_fork(const struct langplugin *plugin)
{
	return plugin->size >= offsetof(struct langplugin, fork) + sizeof(plugin->fork) && plugin->fork;
}

/* NULL: it is what it says it is. */
static const char *objection(const struct langplugin *plugin)
{
	if (plugin->magic != LANGPLUGIN_MAGIC)
		return "what it exports as `langplugin` is none";
	if (plugin->major != LANGPLUGIN_MAJOR)
		return "it was built for another major version of the plugin interface; build it again";
	if (plugin->size < offsetof(struct langplugin, run))
		return "its struct langplugin is too small";
	if (!plugin->open || !plugin->handle || !plugin->name)
		return "it has no open(), handle() or name";
	if (plugin->traits & (LANGPLUGIN_OWN_THREADS | LANGPLUGIN_ASYNC) &&
		(plugin->minor < 1 || plugin->size < offsetof(struct langplugin, fork) || !plugin->run))
		return "a trait of it asks for run(), which it does not have";
	if (plugin->traits & LANGPLUGIN_ASYNC && !plugin->ready)
		return "LANGPLUGIN_ASYNC asks for ready(), which it does not have";
	/* The manager's own language: nobody else would tell it of a fork. */
	if (strcmp(plugin->name, "python") == 0 && !has_fork(plugin))
		return "it was built for an older version of the server; build it again: webserver-build-plugin(8)";
	return NULL;
}

/* One object may be several plugins: which of them these settings ask for. */
static const struct langplugin *chosen(
	const struct langplugin *plugin, const struct langplugin_setting *settings, size_t count)
{
	bool chooses = plugin->magic == LANGPLUGIN_MAGIC && plugin->major == LANGPLUGIN_MAJOR && plugin->minor >= 1 &&
		       plugin->size >= offsetof(struct langplugin, fork) && plugin->choose;

	return chooses ? plugin->choose(settings, count) : plugin;
}

struct host *host_open(const char *path, const struct langplugin_setting *settings, size_t count, int processes,
	int threads, char *message, size_t size)
{
	/* Global, since extensions of Perl and PHP expect their interpreter's symbols there. */
	void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	if (!library) {
		/* Most of what the dynamic linker says begins with the path already. */
		const char *why = dlerror();
		bool named = why && strncmp(why, path, strlen(path)) == 0;
		snprintf(
			message, size, "plugin %s%s%s", named ? "" : path, named ? "" : ": ", why ? why : "not opened");
		return NULL;
	}
	const struct langplugin *plugin = dlsym(library, "langplugin");
	if (plugin)
		plugin = chosen(plugin, settings, count);
	const char *wrong = plugin ? objection(plugin) : "it exports no symbol `langplugin`";
	if (!wrong && threads > 1 && plugin->traits & LANGPLUGIN_SINGLE_THREAD)
		wrong = "its language runs one thread in a process: set threads = 1, and more processes";
	if (!wrong && (threads < 1 || threads > WIRE_SLOTS))
		wrong = "threads is out of range";
	struct host *host = wrong ? NULL : calloc(1, sizeof(*host));
	if (!host) {
		snprintf(message, size, "plugin %s: %s", path, wrong ? wrong : "no memory");
		dlclose(library);
		return NULL;
	}
	host->library = library;
	host->plugin = plugin;
	host->functions = functions;
	host->functions.threads = threads;
	host->functions.processes = processes;
	if (plugin->traits & LANGPLUGIN_ASYNC)
		async_functions(&host->functions);
	frames_prepare(host);
	if (plugin->open(&host->functions, settings, count, &host->state, message, size)) {
		/* Not closed: an interpreter that has half started leaves threads and handlers behind. */
		free(host);
		return NULL;
	}
	/* After it, since an interpreter that starts sets handlers of its own. */
	crash_prepare(host);
	return host;
}

int host_preload(struct host *host, char *message, size_t size)
{
	return host->plugin->preload ? host->plugin->preload(host->state, message, size) : 0;
}

const char *host_language(const struct host *host)
{
	return host->plugin->name;
}

const char *host_language_version(const struct host *host)
{
	return host->plugin->version ? host->plugin->version : "";
}

void host_log(int level, const char *text, size_t size)
{
	call_log(NULL, level, text, size);
}
