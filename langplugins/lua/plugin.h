/*
 * Lua 5.4 as a language plugin, in the manner of WSAPI.
 *
 *   plugin.c    what langplugin.h asks for
 *   request.c   what serve.lua can do with a request: `native` there
 *   stacks.c    where a request is, and its end when its time is over
 *   serve.lua   compiled into the plugin: finding applications, and what becomes of what they return
 *
 * One lua_State in each process, made in the manager and copied by fork, so that what is preloaded is shared. Nothing
 * of Lua is called but inside lua_pcall: a lack of memory is an error like any other.
 */
#ifndef WEBSERVER_LUA_PLUGIN_H
#define WEBSERVER_LUA_PLUGIN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "langplugin.h"

struct running {
	lua_State *state;
	struct running *outer; /* that has resumed it; NULL: the main one */
};

struct plugin {
	const struct langplugin_host *host;
	const struct langplugin_setting *settings;
	size_t count;
	lua_State *state;
	struct langplugin_call *call; /* the request that runs; NULL between requests */
	const void *environ;	      /* its environment, by which it is told from those of before */
	struct running main;
	_Atomic(struct running *) running; /* the coroutine that runs, and those that wait for it */
	pthread_mutex_t turn;		   /* of who looks at running from outside, and of hooks */
	atomic_bool asked;		   /* somebody has looked for what runs, and a hook is set */
	struct hooked {
		lua_Hook function;
		int mask, count;
	} before; /* the application's own, while that is set */
};

/* Each coroutine has a copy of it. */
static inline struct plugin *plugin_of(lua_State *L)
{
	return *(struct plugin **)lua_getextraspace(L);
}

/* Pushes the table of what request.c has. */
void request_open(lua_State *L);

int stacks_resume(lua_State *L);
int stacks_ask(void *state);
void stacks_dump(void *state, int fd);

#endif
