/*
 * Where Lua is, and the end of a request whose time is over: asked for from another thread, while it runs, or hangs,
 * and goes on afterwards. lua_sethook() may be called at any time; the hook runs where Lua is, as soon as that is in
 * Lua code. Where a function in C hangs, nothing of Lua changes and its frames are read from outside.
 *
 * A hook belongs to one coroutine, and nobody tells which of them runs. So coroutine.resume is ours: it keeps a list,
 * from the innermost to the main one, on the C stack of those who wait for each other.
 */
#include <stdio.h>
#include <unistd.h>

#include "plugin.h"

#define DEPTH 60

/* Allocates nothing and leaves Lua's stack alone, so that it may be called from anywhere. */
static void write_stacks(struct plugin *plugin, int fd)
{
	lua_Debug frame;

	pthread_mutex_lock(&plugin->turn);
	const struct running *at = atomic_load(&plugin->running);
	for (int depth = 0; at && depth < DEPTH; depth++, at = at->outer) {
		dprintf(fd, "Lua%s (innermost first):\n", depth ? ", where that was resumed" : "");
		for (int level = 0; level < DEPTH && lua_getstack(at->state, level, &frame); level++) {
			lua_getinfo(at->state, "Sln", &frame);
			dprintf(fd, "  %s", frame.short_src);
			if (frame.currentline > 0)
				dprintf(fd, ":%d", frame.currentline);
			dprintf(fd, ": in %s '%s'\n", frame.name ? frame.namewhat : "function",
				frame.name ? frame.name : frame.what);
		}
	}
	pthread_mutex_unlock(&plugin->turn);
}

/* On Lua's thread, between two instructions. An application's own hook comes back to its place. */
static void hook(lua_State *L, lua_Debug *unused)
{
	struct plugin *plugin = plugin_of(L);

	(void)unused;
	pthread_mutex_lock(&plugin->turn);
	atomic_store(&plugin->asked, false);
	lua_sethook(L, plugin->before.function, plugin->before.mask, plugin->before.count);
	pthread_mutex_unlock(&plugin->turn);
	int fd = plugin->host->asked();
	if (fd >= 0) {
		write_stacks(plugin, fd);
		close(fd);
	}
	if (plugin->call && plugin->host->overdue(plugin->call))
		luaL_error(L, "the request has run for longer than its request_timeout");
}

static void set_hook(struct plugin *plugin)
{
	pthread_mutex_lock(&plugin->turn);
	atomic_store(&plugin->asked, true);
	lua_State *L = atomic_load(&plugin->running)->state;
	if (lua_gethook(L) != hook)
		plugin->before = (struct hooked){lua_gethook(L), lua_gethookmask(L), lua_gethookcount(L)};
	lua_sethook(L, hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
	pthread_mutex_unlock(&plugin->turn);
}

int stacks_ask(void *state)
{
	set_hook(state);
	return ((struct plugin *)state)->call ? 0 : -1;
}

/* While it is loaded this is a handler of a signal, on Lua's thread; and of a loop only the hook knows the line. */
void stacks_dump(void *state, int fd)
{
	write_stacks(state, fd);
	set_hook(state);
}

/* The asker sees `to`, or we see here that he asks; and nobody frees the one before while he has it in his hands. */
static void switch_to(struct plugin *plugin, struct running *to)
{
	atomic_store(&plugin->running, to);
	if (atomic_load(&plugin->asked))
		set_hook(plugin);
}

/* coroutine.resume(co, ...) */
int stacks_resume(lua_State *L)
{
	struct plugin *plugin = plugin_of(L);
	lua_State *co = lua_tothread(L, 1);
	struct running running = {co, atomic_load(&plugin->running)};
	int count = lua_gettop(L) - 1;

	luaL_argexpected(L, co, 1, "coroutine");
	luaL_argcheck(L, lua_checkstack(co, count), 1, "too many arguments to resume");
	lua_xmove(L, co, count);
	switch_to(plugin, &running);
	int status = lua_resume(co, L, count, &count);
	switch_to(plugin, running.outer);
	bool good = status == LUA_OK || status == LUA_YIELD;
	count = good ? count : 1; /* its message */
	luaL_checkstack(L, count + 1, "too many results to resume");
	lua_pushboolean(L, good);
	lua_xmove(co, L, count);
	return count + 1;
}
