/* What serve.lua can do with a request. Each function is one of `native`; its arguments stand above it. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"

#define PIECE 65536
#define MOST  1024 /* fields of an answer */

static struct langplugin_call *call_of(lua_State *L)
{
	struct langplugin_call *call = plugin_of(L)->call;

	if (!call)
		luaL_error(L, "no request runs");
	return call;
}

#define AT(member) offsetof(struct langplugin_request, member)
/* By number; 0: a field of the request's. */
static const struct {
	const char *name;
	size_t offset;
} fixed[] = {{NULL, 0}, {"REQUEST_METHOD", AT(method)}, {"REQUEST_URI", AT(target)}, {"SCRIPT_NAME", AT(script_name)},
	{"PATH_INFO", AT(path_info)}, {"QUERY_STRING", AT(query)}, {"SERVER_NAME", AT(server_name)},
	{"SERVER_PORT", AT(server_port)}, {"SERVER_PROTOCOL", AT(protocol)}, {"SERVER_ADDR", AT(server_addr)},
	{"REMOTE_ADDR", AT(remote_addr)}, {"REMOTE_PORT", AT(remote_port)}, {"REQUEST_SCHEME", AT(scheme)},
	{"REQUEST_ID", AT(request_id)}, {"DOCUMENT_ROOT", AT(document_root)}, {"UPGRADE", AT(upgrade)},
	{"SCRIPT_FILENAME", AT(script_filename)}, {"HTTPS", AT(scheme)}};
#define FIXED (sizeof(fixed) / sizeof(fixed[0]))

static const struct langplugin_text *find(lua_State *L, const struct langplugin_request *request, lua_Integer number)
{
	static const struct langplugin_text on = {"on", 2};
	const void *at = (const char *)request + fixed[number].offset;
	size_t size;

	if (number == FIXED - 1)
		return request->scheme.size == 5 ? &on : NULL;
	if (number)
		return at;
	const char *name = lua_tolstring(L, 2, &size);
	for (size_t i = 0; i < request->variable_count; i++)
		if (request->variables[i].name.size == size && memcmp(request->variables[i].name.data, name, size) == 0)
			return &request->variables[i].value;
	return NULL;
}

/* variable(env, name): made when it is asked for, since most never are, and kept in env */
static int variable(lua_State *L)
{
	struct plugin *plugin = plugin_of(L);

	if (lua_topointer(L, 1) != plugin->environ)
		return luaL_error(L, "the request of this environment is over");
	if (lua_type(L, 2) != LUA_TSTRING)
		return 0;
	lua_pushvalue(L, 2);
	/* The upvalue: by name the number in `fixed`, or what is the same for every request. */
	if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL || lua_isinteger(L, 3)) {
		const struct langplugin_text *text = find(L, plugin->host->request(plugin->call), lua_tointeger(L, 3));
		if (!text)
			return 0;
		lua_pushlstring(L, text->data, text->size);
	}
	lua_pushvalue(L, 2);
	lua_pushvalue(L, -2);
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

/* fill(env): with all that there is */
static int fill(lua_State *L)
{
	const struct langplugin_request *request = plugin_of(L)->host->request(call_of(L));

	for (size_t i = 1; i < FIXED; i++, lua_pop(L, 1))
		lua_getfield(L, 1, fixed[i].name);
	for (size_t i = 0; i < request->variable_count; i++, lua_pop(L, 1))
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

struct fields {
	size_t count;
	bool length; /* one of them is Content-Length */
	struct langplugin_field field[MOST];
};

/* A string lives in the headers; one made of a number stays on the stack, below the `above` values of an iteration. */
static struct langplugin_text text_at(lua_State *L, int index, int above)
{
	struct langplugin_text text;

	if (lua_type(L, index) != LUA_TSTRING) {
		luaL_checkstack(L, 8, "headers");
		/* Of a copy: lua_next would lose its way if the key itself became a string. */
		lua_pushvalue(L, index);
		if (!lua_tolstring(L, -1, NULL))
			luaL_error(L, "the headers hold a %s, expected a string", luaL_typename(L, -1));
		index = -1 - above;
		lua_insert(L, index);
	}
	text.data = lua_tolstring(L, index, &text.size);
	return text;
}

/* A table of fields, each a string, a number, or a list of these. Good as long as what it leaves on the stack. */
static void fields_of(lua_State *L, int index, struct fields *fields)
{
	fields->count = fields->length = 0;
	luaL_checktype(L, index, LUA_TTABLE);
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
		struct langplugin_text name = text_at(L, -2, 2);
		bool list = lua_istable(L, -1);
		lua_Integer count = list ? (lua_Integer)lua_rawlen(L, -1) : 1;
		for (lua_Integer i = 1; i <= count; i++, lua_pop(L, 1)) {
			if (fields->count == MOST)
				luaL_error(L, "more than %d headers", MOST);
			if (list)
				lua_rawgeti(L, -1, i);
			else
				lua_pushvalue(L, -1);
			fields->field[fields->count++] = (struct langplugin_field){name, text_at(L, -1, 3)};
		}
		fields->length |= name.size == 14 && strncasecmp(name.data, "Content-Length", 14) == 0;
	}
}

static int checked(lua_State *L, int result)
{
	if (result == LP_INVALID)
		luaL_error(L, "the status or a header breaks a rule of HTTP, or comes too late");
	return 0;
}

/* respond(status, reason, headers, length): -1 for a length that is not known; one of the headers comes first */
static int respond(lua_State *L)
{
	int status = (int)luaL_checkinteger(L, 1);
	lua_Integer length = luaL_checkinteger(L, 4);
	struct langplugin_text reason = {luaL_checkstring(L, 2), lua_rawlen(L, 2)};
	struct fields fields;

	fields_of(L, 3, &fields);
	return checked(L, plugin_of(L)->host->respond(
				  call_of(L), status, reason, fields.field, fields.count, fields.length ? -1 : length));
}

/* fields(headers, after): early hints before the answer, or trailers, while the body is made */
static int send_fields(lua_State *L)
{
	const struct langplugin_host *host = plugin_of(L)->host;
	struct fields fields;

	fields_of(L, 1, &fields);
	return checked(L, lua_toboolean(L, 2) ? host->trailers(call_of(L), fields.field, fields.count)
					      : host->inform(call_of(L), 103, fields.field, fields.count));
}

/* write(piece, last): it is on its way now; the last one ends the answer. False: the client has gone */
static int write_piece(lua_State *L)
{
	const struct langplugin_host *host = plugin_of(L)->host;
	const char *data = luaL_checkstring(L, 1);
	size_t size = lua_rawlen(L, 1);
	int result = size ? host->write(call_of(L), data, size, 0) : LP_OK;

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
	const char *path = luaL_checkstring(L, 1);
	struct stat st;

	if (stat(path, &st) || !S_ISREG(st.st_mode) || access(path, R_OK)) {
		lua_pushnil(L);
		lua_pushinteger(L, errno == EACCES ? 403 : 404);
		return 2;
	}
	lua_pushfstring(L, "%I.%I %I %I", (LUAI_UACINT)st.st_mtim.tv_sec, (LUAI_UACINT)st.st_mtim.tv_nsec,
		(LUAI_UACINT)st.st_size, (LUAI_UACINT)st.st_ino);
	return 1;
}

void request_open(lua_State *L)
{
	static const luaL_Reg functions[] = {{"environ", make_environ}, {"fill", fill}, {"read", read_bytes},
		{"cancelled", cancelled}, {"deadline", deadline}, {"respond", respond}, {"fields", send_fields},
		{"write", write_piece}, {"send_file", send_file}, {"log", log_text}, {"mark", mark}, {NULL, NULL}};

	luaL_setfuncs(L, functions, 0);
	lua_newtable(L);
	for (size_t i = 1; i < FIXED; i++) {
		lua_pushinteger(L, (lua_Integer)i);
		lua_setfield(L, -2, fixed[i].name);
	}
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "fixed");
	lua_pushcclosure(L, variable, 1);
	lua_setfield(L, -2, "variable");
}
