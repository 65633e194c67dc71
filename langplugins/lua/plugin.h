/*
 * Lua 5.4 as a language plugin, in the manner of WSAPI.
 *
 *   plugin.c    what langplugin.h asks for
 *   request.c   what serve.lua can do with a request: `native` there
 *   serve.lua   compiled into the plugin: finding applications, and what becomes of what they return
 *
 * One lua_State in each process, made in the manager and copied by fork, so that what is preloaded is shared. Nothing
 * of Lua is called but inside lua_pcall: a lack of memory is an error like any other.
 */
#ifndef WEBSERVER_LUA_PLUGIN_H
#define WEBSERVER_LUA_PLUGIN_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "langplugin.h"

struct plugin {
	const struct langplugin_host *host;
	const struct langplugin_setting *settings;
	size_t count;
	lua_State *state;
	struct langplugin_call *call; /* the request that runs; NULL between requests */
	const void *environ;	      /* its environment, by which it is told from those of before */
};

struct plugin *plugin_of(lua_State *L);
/* Puts the functions of request.c into the table at the top. */
void request_open(lua_State *L);

#endif
