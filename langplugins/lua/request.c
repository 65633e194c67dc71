/* What serve.lua can do with a request. Each function is one of `native`; its arguments stand above it. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "plugin.h"

#define PIECE 65536
#define MOST  1024 /* fields of an answer */

static struct langplugin_call *call_of(lua_State *L)
{
	if (!plugin_of(L)->call)
		luaL_error(L, "no request runs");
	return plugin_of(L)->call;
}

/* variable(env, name): made when it is asked for, since most never are, and kept in env */
static int variable(lua_State *L)
{
	struct plugin *plugin = plugin_of(L);
	size_t size;

	if (lua_topointer(L, 1) != plugin->environ)
		luaL_error(L, "the request of this environment is over");
	const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &size) : NULL;
	const struct langplugin_text *text = name ? plugin->host->variable(plugin->call, name, size) : NULL;
	if (!text) {
		lua_rawget(L, lua_upvalueindex(1)); /* what is the same for every request */
		return 1;
	}
	lua_pushlstring(L, text->data, text->size);
	lua_pushvalue(L, -1);
	lua_insert(L, 2);
	lua_rawset(L, 1);
	return 1;
}

/* environ(): a table that variable() is going to fill */
static int make_environ(lua_State *L)
{
	lua_createtable(L, 0, 16);
	plugin_of(L)->environ = lua_topointer(L, -1);
	return 1;
}

/* fill(env): with all that came as fields */
static int fill(lua_State *L)
{
	const struct langplugin_request *request = plugin_of(L)->host->request(call_of(L));

	for (size_t i = 0; i < request->variable_count; i++, lua_settop(L, 1))
		lua_getfield(L, 1, request->variables[i].name.data);
	return 0;
}

/* read(size, some): as many bytes, fewer at the body's end, nil after it; some: at least a byte will do */
static int read_bytes(lua_State *L)
{
	lua_Integer asked = luaL_checkinteger(L, 1);
	size_t want = asked > 0 ? (size_t)asked : 0, enough = lua_toboolean(L, 2) ? 1 : want, have = 0;
	ssize_t got = 1;
	luaL_Buffer buffer;

	luaL_buffinit(L, &buffer);
	while (got > 0 && have < enough) {
		size_t room = want - have < PIECE ? want - have : PIECE;
		got = plugin_of(L)->host->read(call_of(L), luaL_prepbuffsize(&buffer, room), room, 0);
		if (got == LP_GONE)
			luaL_error(L, "the client went away before its request was complete");
		if (got > 0) /* LP_INVALID: the answer is complete, and the rest is nobody's */
			have += (size_t)got, luaL_addsize(&buffer, (size_t)got);
	}
	luaL_pushresult(&buffer);
	if (!have && want)
		lua_pushnil(L);
	return 1;
}

static int cancelled(lua_State *L)
{
	lua_pushboolean(L, plugin_of(L)->host->cancelled(call_of(L)));
	return 1;
}

/* deadline(): seconds that are left, or nil */
static int deadline(lua_State *L)
{
	uint64_t at = plugin_of(L)->host->deadline(call_of(L));
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!at)
		return 0;
	lua_pushnumber(L, (lua_Number)at / 1e9 - (lua_Number)now.tv_sec - (lua_Number)now.tv_nsec / 1e9);
	return 1;
}

/* A number becomes a string where it lies. */
static struct langplugin_text text_at(lua_State *L, int index)
{
	struct langplugin_text text;

	text.data = lua_tolstring(L, index, &text.size);
	if (!text.data)
		luaL_error(L, "the headers hold a %s, expected a string", luaL_typename(L, index));
	return text;
}

/* A table of fields, each a string, a number, or a list of these. Good as long as what it leaves on the stack. */
static size_t fields_of(lua_State *L, int index, struct langplugin_field *fields)
{
	size_t made = 0;

	luaL_checktype(L, index, LUA_TTABLE);
	for (lua_pushnil(L); lua_next(L, index);) {
		/* Both stay, with a copy of the key on top: lua_next would lose its way if that became a string. */
		int value = lua_gettop(L);
		size_t count = lua_istable(L, value) ? lua_rawlen(L, value) : 1;
		if (count > MOST - made)
			luaL_error(L, "more than %d headers", MOST);
		luaL_checkstack(L, (int)count + 8, "headers");
		lua_pushvalue(L, value - 1);
		struct langplugin_text name = text_at(L, value - 1);
		for (size_t i = 1; i <= count; i++) {
			if (lua_istable(L, value)) {
				lua_rawgeti(L, value, (lua_Integer)i);
				lua_insert(L, -2);
			}
			fields[made++] = (struct langplugin_field){name, text_at(L, -2)};
		}
	}
	return made;
}

/* fields(headers): early hints; (headers, false): trailers; (headers, status, reason, length): the answer begins */
static int send_fields(lua_State *L)
{
	const struct langplugin_host *host = plugin_of(L)->host;
	struct langplugin_call *call = call_of(L);
	struct langplugin_field fields[MOST];
	int type = lua_type(L, 2), result;
	size_t count = fields_of(L, 1, fields);

	if (type == LUA_TNONE)
		result = host->inform(call, 103, fields, count);
	else if (type == LUA_TBOOLEAN)
		result = host->trailers(call, fields, count);
	else
		result = host->respond(call, (int)luaL_checkinteger(L, 2),
			(struct langplugin_text){luaL_checkstring(L, 3), lua_rawlen(L, 3)}, fields, count,
			luaL_checkinteger(L, 4));
	if (result == LP_INVALID)
		luaL_error(L, "the status or a header breaks a rule of HTTP, or comes too late");
	return 0;
}

/* write(piece, last): it is on its way now; the last one ends the answer. False: the client has gone */
static int write_piece(lua_State *L)
{
	const struct langplugin_host *host = plugin_of(L)->host;
	const char *data = luaL_checkstring(L, 1);
	int result = host->write(call_of(L), data, lua_rawlen(L, 1), 0);

	if (result == LP_OK)
		result = lua_toboolean(L, 2) ? host->end(call_of(L)) : host->flush(call_of(L), 0);
	lua_pushboolean(L, result == LP_OK);
	return 1;
}

/* send_file(file): from where it stands to its end */
static int send_file(lua_State *L)
{
	const luaL_Stream *stream = luaL_checkudata(L, 1, LUA_FILEHANDLE);
	long at = ftell(stream->f);

	if (at < 0 || plugin_of(L)->host->send_file(call_of(L), fileno(stream->f), at, -1) == LP_FAILED)
		luaL_error(L, "the body's file: %s", strerror(errno));
	return 0;
}

/* log(level, text) */
static int log_text(lua_State *L)
{
	const char *text = luaL_checkstring(L, 2);

	plugin_of(L)->host->log(plugin_of(L)->call, (int)luaL_checkinteger(L, 1), text, lua_rawlen(L, 2));
	return 0;
}

/* mark(path): a text that changes when the file does; or nil and a status */
static int mark(lua_State *L)
{
	char text[LANGPLUGIN_MARK];
	int status = plugin_of(L)->host->mark(plugin_of(L)->call, luaL_checkstring(L, 1), text);

	lua_pushstring(L, status ? NULL : text);
	lua_pushinteger(L, status);
	return 2;
}

void request_open(lua_State *L)
{
	static const luaL_Reg functions[] = {{"variable", variable}, {"fill", fill}, {"environ", make_environ},
		{"read", read_bytes}, {"cancelled", cancelled}, {"deadline", deadline}, {"fields", send_fields},
		{"write", write_piece}, {"send_file", send_file}, {"log", log_text}, {"mark", mark},
		{"resume", stacks_resume}, {NULL, NULL}};

	luaL_newlibtable(L, functions);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "constants");
	luaL_setfuncs(L, functions, 1); /* an upvalue of all */
}
