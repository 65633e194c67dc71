/* What langplugin.h asks for. */
#include <stdio.h>

#include "plugin.h"

__asm__(".pushsection .rodata\n"
	"serve_source: .incbin \"serve.lua\"\n"
	".byte 0\n"
	".popsection\n");
extern const char serve_source[] __attribute__((visibility("hidden")));

/* Functions that serve.lua returns, which stay at the bottom of the main stack. */
enum { TRACEBACK = 1, PRELOAD, LOAD, REQUEST };

static int open_state(lua_State *L)
{
	const struct plugin *plugin = plugin_of(L);

	luaL_openlibs(L);
	luaL_checkstack(L, 8 + 2 * (int)plugin->count, "settings");
	if (luaL_loadbuffer(L, serve_source, strlen(serve_source), "=webserver") != LUA_OK)
		lua_error(L);
	request_open(L);
	for (size_t i = 0; i < plugin->count; i++) {
		lua_pushstring(L, plugin->settings[i].name);
		lua_pushstring(L, plugin->settings[i].value);
	}
	lua_call(L, 1 + 2 * (int)plugin->count, REQUEST);
	return REQUEST;
}

/* Why goes to the log, and its first line to `message`. No text: serve.lua has told it. */
static int failed(const struct plugin *plugin, char *message, size_t size)
{
	size_t length = 0;
	const char *text = lua_tolstring(plugin->state, -1, &length);

	if (text)
		plugin->host->log(plugin->call, LP_ERROR, text, length);
	if (text && message)
		snprintf(message, size, "%.*s", (int)strcspn(text, "\n"), text);
	return -1;
}

static int run(struct plugin *plugin, int function, char *message, size_t size)
{
	lua_settop(plugin->state, REQUEST);
	lua_pushvalue(plugin->state, function);
	return lua_pcall(plugin->state, 0, 0, TRACEBACK) == LUA_OK ? 0 : failed(plugin, message, size);
}

static int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t size)
{
	struct plugin *plugin = calloc(1, sizeof(*plugin));
	lua_State *L = plugin ? luaL_newstate() : NULL;

	if (!L) {
		free(plugin);
		snprintf(message, size, "lua: out of memory");
		return -1;
	}
	*plugin = (struct plugin){.host = host, .settings = settings, .count = count, .state = L, .main = {L, NULL}};
	pthread_mutex_init(&plugin->turn, NULL);
	atomic_init(&plugin->running, &plugin->main);
	*(struct plugin **)lua_getextraspace(L) = plugin;
	*state = plugin;
	lua_pushcfunction(L, open_state);
	return lua_pcall(L, 0, REQUEST, 0) == LUA_OK ? 0 : failed(plugin, message, size);
}

static int plugin_preload(void *state, char *message, size_t size)
{
	return run(state, PRELOAD, message, size);
}

static int plugin_after_fork(void *state, char *message, size_t size)
{
	return run(state, LOAD, message, size);
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	struct plugin *plugin = state;

	(void)thread;
	plugin->call = call;
	if (run(plugin, REQUEST, NULL, 0))
		plugin->host->fail(call, 500);
	plugin->call = NULL;
	plugin->environ = NULL;
	return LP_DONE;
}

/* Everything is finalized: files are flushed, connections closed. */
static void plugin_close(void *state)
{
	lua_close(((struct plugin *)state)->state);
	free(state);
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.traits = LANGPLUGIN_SINGLE_THREAD,
	.name = "lua",
	.version = LUA_VERSION_MAJOR "." LUA_VERSION_MINOR "." LUA_VERSION_RELEASE,
	.open = plugin_open,
	.preload = plugin_preload,
	.after_fork = plugin_after_fork,
	.handle = plugin_handle,
	.dump = stacks_dump,
	.close = plugin_close,
	.ask = stacks_ask,
};
