/* What langplugin.h asks for. */
#include <stdio.h>

#include "plugin.h"

__asm__(".pushsection .rodata\n"
	"serve_source: .incbin \"serve.lua\"\n"
	"serve_end: .byte 0\n"
	".popsection\n");
extern const char serve_source[] __attribute__((visibility("hidden")));
extern const char serve_end[] __attribute__((visibility("hidden")));

static const char key_serve; /* of the registry, by its address */

struct plugin *plugin_of(lua_State *L)
{
	/* Each coroutine has a copy of it. */
	return *(struct plugin **)lua_getextraspace(L);
}

static int traceback(lua_State *L)
{
	luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
	return 1;
}

static int open_state(lua_State *L)
{
	const struct plugin *plugin = plugin_of(L);

	luaL_openlibs(L);
	stacks_open(L);
	if (luaL_loadbuffer(L, serve_source, (size_t)(serve_end - serve_source), "=webserver") != LUA_OK)
		lua_error(L);
	lua_newtable(L);
	request_open(L);
	lua_call(L, 1, 1);
	lua_getfield(L, -1, "open");
	lua_newtable(L);
	for (size_t i = 0; i < plugin->count; i++) {
		lua_createtable(L, 2, 0);
		lua_pushstring(L, plugin->settings[i].name);
		lua_rawseti(L, -2, 1);
		lua_pushstring(L, plugin->settings[i].value);
		lua_rawseti(L, -2, 2);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_call(L, 1, 0);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &key_serve);
	return 0;
}

/* A function of serve.lua by its name, which is at the only index. */
static int call_serve(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &key_serve);
	lua_getfield(L, -1, lua_touserdata(L, 1));
	lua_call(L, 0, 0);
	return 0;
}

/* Run one of these two. What goes wrong goes to the log with its traceback, and its first line to `message`. */
static int guarded(struct plugin *plugin, lua_CFunction what, const char *name, char *message, size_t size)
{
	lua_State *L = plugin->state;
	size_t length = 0;

	lua_settop(L, 0);
	lua_pushcfunction(L, traceback);
	lua_pushcfunction(L, what);
	lua_pushlightuserdata(L, (void *)(uintptr_t)name);
	if (lua_pcall(L, 1, 0, 1) == LUA_OK)
		return 0;
	const char *text = lua_tolstring(L, -1, &length);
	if (!text)
		text = "out of memory", length = strlen(text);
	/* A client that goes away in the middle of its request is no mistake of the application's. */
	bool gone = plugin->call && plugin->host->cancelled(plugin->call) && strstr(text, "the client went away");
	size_t line = strcspn(text, "\n");
	plugin->host->log(plugin->call, gone ? LP_NOTICE : LP_ERROR, text, gone ? line : length);
	if (message)
		snprintf(message, size, "%.*s", (int)line, text);
	return -1;
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
	*plugin = (struct plugin){.host = host, .settings = settings, .count = count, .state = L};
	*(struct plugin **)lua_getextraspace(L) = plugin;
	*state = plugin;
	return guarded(plugin, open_state, NULL, message, size);
}

static int plugin_preload(void *state, char *message, size_t size)
{
	return guarded(state, call_serve, "preload", message, size);
}

static int plugin_after_fork(void *state, char *message, size_t size)
{
	int result = guarded(state, call_serve, "load", message, size);

	stacks_prepare(state);
	return result;
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	static const char text[] = "Internal Server Error\n";
	static const struct langplugin_field type = {{"Content-Type", 12}, {"text/plain", 10}};
	struct plugin *plugin = state;
	const struct langplugin_host *host = plugin->host;

	(void)thread;
	stacks_begin(plugin);
	plugin->call = call;
	if (guarded(plugin, call_serve, "request", NULL, 0)) {
		host->unrespond(call);
		if (host->respond(call, 500, (struct langplugin_text){"", 0}, &type, 1, sizeof(text) - 1) == LP_INVALID)
			host->abort(call); /* some of another answer has been sent */
		else
			host->write(call, text, sizeof(text) - 1, 0);
	}
	plugin->call = NULL;
	plugin->environ = NULL;
	return LP_DONE;
}

/* Everything is finalized: files are flushed, connections closed. */
static void plugin_close(void *state)
{
	struct plugin *plugin = state;

	lua_close(plugin->state);
	free(plugin);
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	.magic = LANGPLUGIN_MAGIC,
	.major = LANGPLUGIN_MAJOR,
	.minor = LANGPLUGIN_MINOR,
	.size = sizeof(struct langplugin),
	.traits = LANGPLUGIN_SINGLE_THREAD,
	.name = "lua",
	.version = LUA_VERSION_MAJOR "." LUA_VERSION_MINOR "." LUA_VERSION_RELEASE,
	.open = plugin_open,
	.preload = plugin_preload,
	.after_fork = plugin_after_fork,
	.handle = plugin_handle,
	.dump = stacks_dump,
	.close = plugin_close,
	.interrupt = stacks_interrupt,
};
