/*
 * Where Lua is, and the end of a request whose time is over: asked for from another thread, while it runs, or hangs,
 * and goes on afterwards. lua_sethook() may be called at any time; the hook runs where Lua is, as soon as that is in
 * Lua code. Where a function in C hangs, nothing of Lua changes and its frames are read from outside.
 *
 * A hook belongs to one coroutine, and nobody tells which of them runs. So coroutine.resume and coroutine.wrap are
 * wrapped: they keep a list, from the innermost to the main one, on the C stack of those who wait for each other. While
 * somebody asks, that list changes under a lock, and what it comes to gets the hook as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"

#define MAIN_MS 50  /* for Lua to tell itself, if the main coroutine runs or others come and go */
#define HOOK_MS 120 /* the same for one that runs for long */
#define DEPTH	60

static atomic_int dump_to = -1;
static sem_t dumped;
static const char key_plain_wrap; /* of the registry, by its address */

/* ---- which coroutine runs */

static void ask(lua_State *L);

/* `to` runs from here on. It lives at least until the next call of this. */
static void switch_to(struct plugin *plugin, struct running *to)
{
	if (!atomic_load_explicit(&plugin->asked, memory_order_acquire)) {
		plugin->running = to;
		return;
	}
	pthread_mutex_lock(&plugin->turn);
	plugin->running = to;
	if (atomic_load(&dump_to) >= 0 || atomic_load(&plugin->stop))
		ask(to->state);
	pthread_mutex_unlock(&plugin->turn);
}

static int call_tracked(lua_State *L, lua_State *coroutine, bool adds_place)
{
	struct plugin *plugin = plugin_of(L);
	struct running running = {coroutine, plugin->running};

	switch_to(plugin, &running);
	int result = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
	switch_to(plugin, running.outer);
	if (result == LUA_OK)
		return lua_gettop(L);
	/* As coroutine.wrap does, which sees us where its caller was. */
	if (adds_place && lua_type(L, -1) == LUA_TSTRING) {
		luaL_where(L, 1);
		lua_insert(L, -2);
		lua_concat(L, 2);
	}
	return lua_error(L);
}

/* coroutine.resume; the original is the upvalue. */
static int resume(lua_State *L)
{
	lua_State *coroutine = lua_tothread(L, 1);

	luaL_argexpected(L, coroutine, 1, "coroutine");
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	return call_tracked(L, coroutine, false);
}

/* What coroutine.wrap returns; upvalues: what the original returned, its coroutine. */
static int wrapped(lua_State *L)
{
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	return call_tracked(L, lua_tothread(L, lua_upvalueindex(2)), true);
}

static int wrap(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_settop(L, 1);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &key_plain_wrap);
	lua_insert(L, 1);
	lua_call(L, 1, 1);
	/* Its coroutine is its only upvalue; of another Lua, that has it elsewhere, it is left alone. */
	if (!lua_getupvalue(L, 1, 1) || !lua_isthread(L, -1)) {
		lua_settop(L, 1);
		return 1;
	}
	lua_pushcclosure(L, wrapped, 2);
	return 1;
}

void stacks_open(lua_State *L)
{
	struct plugin *plugin = plugin_of(L);

	plugin->main.state = L;
	plugin->running = &plugin->main;
	lua_getglobal(L, "coroutine");
	lua_getfield(L, -1, "wrap");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &key_plain_wrap);
	lua_getfield(L, -1, "resume");
	lua_pushcclosure(L, resume, 1);
	lua_setfield(L, -2, "resume");
	lua_pushcfunction(L, wrap);
	lua_setfield(L, -2, "wrap");
	lua_pop(L, 1);
}

/* ---- by Lua itself */

static void write_all(int fd, const char *text, size_t size)
{
	ssize_t unused = write(fd, text, size);

	(void)unused;
}

/* The hook that the application has, while ours is in its place. */
static struct {
	lua_Hook function;
	int mask, count;
} before;

static void hook(lua_State *L, lua_Debug *unused)
{
	struct plugin *plugin = plugin_of(L);
	int fd = atomic_exchange(&dump_to, -1);
	size_t size;

	(void)unused;
	lua_sethook(L, before.function, before.mask, before.count);
	if (fd >= 0) {
		for (const struct running *at = plugin->running; at; at = at->outer) {
			luaL_traceback(L, at->state, at->outer ? "Lua, in a coroutine" : "Lua", 0);
			const char *text = lua_tolstring(L, -1, &size);
			write_all(fd, text, size);
			write_all(fd, "\n", 1);
			lua_pop(L, 1);
		}
		sem_post(&dumped);
	}
	if (atomic_exchange(&plugin->stop, false))
		luaL_error(L, "the request has run for longer than its request_timeout");
}

static void ask(lua_State *L)
{
	if (lua_gethook(L) != hook) {
		before.function = lua_gethook(L);
		before.mask = lua_gethookmask(L);
		before.count = lua_gethookcount(L);
	}
	lua_sethook(L, hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

static bool has_told(int milliseconds)
{
	struct timespec until;
	int result;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += milliseconds * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	do
		result = sem_clockwait(&dumped, CLOCK_MONOTONIC, &until);
	while (result && errno == EINTR);
	return result == 0;
}

/* ---- from outside, while it stands still: nothing here allocates, or touches Lua's stack */

static void write_frames(int fd, lua_State *L, bool innermost)
{
	lua_Debug frame;

	dprintf(fd, "Lua%s, in a function in C (innermost first):\n", innermost ? "" : ", where that was resumed");
	for (int level = 0; level < DEPTH && lua_getstack(L, level, &frame); level++) {
		if (!lua_getinfo(L, "Sln", &frame))
			return;
		if (frame.currentline > 0)
			dprintf(fd, "  %s:%d: in %s\n", frame.short_src, frame.currentline,
				frame.name ? frame.name : frame.what);
		else
			dprintf(fd, "  %s: in %s\n", frame.short_src, frame.name ? frame.name : frame.what);
	}
}

/* The innermost one gets the hook; under the lock it stays what it is. */
static void ask_innermost(struct plugin *plugin)
{
	pthread_mutex_lock(&plugin->turn);
	ask(plugin->running->state);
	pthread_mutex_unlock(&plugin->turn);
}

static void write_all_frames(struct plugin *plugin, int fd)
{
	const struct running *at = plugin->running;

	for (int depth = 0; at && depth < DEPTH; depth++, at = at->outer)
		write_frames(fd, at->state, depth == 0);
}

void stacks_dump(void *state, int fd)
{
	struct plugin *plugin = state;

	if (!plugin->serves) {
		/* A handler of a signal, on Lua's own thread. Of a loop the line is the hook's, which follows if it
		 * can. */
		write_all_frames(plugin, fd);
		atomic_store(&dump_to, fd);
		ask(plugin->state);
		return;
	}
	if (!plugin->call) {
		dprintf(fd, "Lua: no request is running\n");
		return;
	}
	while (sem_trywait(&dumped) == 0)
		; /* of an earlier one that was late */
	atomic_store(&dump_to, fd);
	atomic_store(&plugin->asked, true);
	ask(plugin->state);
	if (!has_told(MAIN_MS)) {
		ask_innermost(plugin);
		if (!has_told(HOOK_MS)) {
			if (atomic_exchange(&dump_to, -1) < 0) {
				has_told(HOOK_MS); /* it is telling just now */
			} else {
				pthread_mutex_lock(&plugin->turn);
				write_all_frames(plugin, fd);
				pthread_mutex_unlock(&plugin->turn);
			}
		}
	}
	atomic_store(&plugin->asked, false);
}

void stacks_interrupt(void *state, struct langplugin_call *call)
{
	struct plugin *plugin = state;

	(void)call;
	atomic_store(&plugin->stop, true);
	atomic_store(&plugin->asked, true);
	ask(plugin->state);
	ask_innermost(plugin);
}

/* Nothing of an earlier request's is left. A hook that is still set does nothing, and takes itself away. */
void stacks_begin(struct plugin *plugin)
{
	plugin->running = &plugin->main;
	if (atomic_load_explicit(&plugin->stop, memory_order_relaxed)) {
		atomic_store(&plugin->stop, false);
		atomic_store(&plugin->asked, false);
	}
}

void stacks_prepare(struct plugin *plugin)
{
	pthread_mutex_init(&plugin->turn, NULL);
	sem_init(&dumped, 0, 0);
	plugin->serves = true;
}
