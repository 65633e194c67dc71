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
	struct running *running; /* the coroutine that runs, and those that wait for it */
	pthread_mutex_t turn;	 /* asked: running changes under it */
	atomic_bool asked;	 /* another thread wants to know what runs, or end it */
	atomic_bool stop;	 /* the request's time is over */
	bool serves;		 /* the application is loaded */
};

struct plugin *plugin_of(lua_State *L);
/* Puts the functions of request.c into the table at the top. */
void request_open(lua_State *L);

/* ---- stacks.c */
void stacks_open(lua_State *L);		    /* when the libraries are open */
void stacks_prepare(struct plugin *plugin); /* when the application is loaded */
void stacks_begin(struct plugin *plugin);   /* with each request */
void stacks_dump(void *state, int fd);
void stacks_interrupt(void *state, struct langplugin_call *call);

#endif
