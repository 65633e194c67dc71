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

/* The request that runs, or an error. */
static struct langplugin_call *call_of(lua_State *L)
{
	struct langplugin_call *call = plugin_of(L)->call;

	if (!call)
		luaL_error(L, "no request runs");
	return call;
}

/* ---- what was asked */

static const struct {
	const char *name;
	size_t offset;
} from_request[] = {
	{"REQUEST_METHOD", offsetof(struct langplugin_request, method)},
	{"REQUEST_URI", offsetof(struct langplugin_request, target)},
	{"SCRIPT_NAME", offsetof(struct langplugin_request, script_name)},
	{"PATH_INFO", offsetof(struct langplugin_request, path_info)},
	{"QUERY_STRING", offsetof(struct langplugin_request, query)},
	{"SERVER_NAME", offsetof(struct langplugin_request, server_name)},
	{"SERVER_PORT", offsetof(struct langplugin_request, server_port)},
	{"SERVER_PROTOCOL", offsetof(struct langplugin_request, protocol)},
	{"SERVER_ADDR", offsetof(struct langplugin_request, server_addr)},
	{"REMOTE_ADDR", offsetof(struct langplugin_request, remote_addr)},
	{"REMOTE_PORT", offsetof(struct langplugin_request, remote_port)},
	{"REQUEST_SCHEME", offsetof(struct langplugin_request, scheme)},
	{"REQUEST_ID", offsetof(struct langplugin_request, request_id)},
	{"DOCUMENT_ROOT", offsetof(struct langplugin_request, document_root)},
	{"SCRIPT_FILENAME", offsetof(struct langplugin_request, script_filename)},
	{"UPGRADE", offsetof(struct langplugin_request, upgrade)},
};

/* environ(): a table of CGI's variables */
static int environ_table(lua_State *L)
{
	const struct langplugin_request *request = plugin_of(L)->host->request(call_of(L));

	lua_createtable(L, 0, (int)request->variable_count + 24);
	for (size_t i = 0; i < sizeof(from_request) / sizeof(from_request[0]); i++) {
		const void *at = (const char *)request + from_request[i].offset;
		const struct langplugin_text *text = at;
		lua_pushlstring(L, text->data, text->size);
		lua_setfield(L, -2, from_request[i].name);
	}
	for (size_t i = 0; i < request->variable_count; i++) {
		const struct langplugin_variable *v = &request->variables[i];
		lua_pushlstring(L, v->name.data, v->name.size);
		lua_pushlstring(L, v->value.data, v->value.size);
		lua_rawset(L, -3);
	}
	return 1;
}

/* Bytes of the body: 0 at its end. */
static size_t fetch(lua_State *L, char *to, size_t size)
{
	ssize_t got = plugin_of(L)->host->read(call_of(L), to, size, 0);

	if (got == LP_GONE)
		luaL_error(L, "the client went away before its request was complete");
	return got > 0 ? (size_t)got : 0; /* LP_INVALID: the answer is complete, and the rest is nobody's */
}

/* read(size): as many bytes, fewer at the body's end, nil after it */
static int read_bytes(lua_State *L)
{
	lua_Integer asked = luaL_checkinteger(L, 1);
	size_t want = asked > 0 ? (size_t)asked : 0, have = 0, got = 1;
	luaL_Buffer buffer;

	luaL_buffinit(L, &buffer);
	while (got && have < want) {
		size_t room = want - have < PIECE ? want - have : PIECE;
		got = fetch(L, luaL_prepbuffsize(&buffer, room), room);
		luaL_addsize(&buffer, got);
		have += got;
	}
	luaL_pushresult(&buffer);
	if (!have && want)
		lua_pushnil(L);
	return 1;
}

/* some(most): what has come, at least a byte; nil at the body's end */
static int read_some(lua_State *L)
{
	lua_Integer most = luaL_checkinteger(L, 1);
	size_t room = most > PIECE ? PIECE : most > 0 ? (size_t)most : 1;
	luaL_Buffer buffer;
	size_t got = fetch(L, luaL_buffinitsize(L, &buffer, room), room);

	luaL_pushresultsize(&buffer, got);
	if (!got)
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

/* ---- what is answered */

struct fields {
	struct langplugin_field *field;
	size_t count;
	bool length; /* one of them is Content-Length */
};

/* The value at the top as text; it is moved to the table at `anchors`, which keeps it alive. */
static struct langplugin_text text_of(lua_State *L, int anchors)
{
	size_t size;

	if (!lua_isstring(L, -1))
		luaL_error(L, "the headers hold a %s, expected a string", luaL_typename(L, -1));
	const char *data = lua_tolstring(L, -1, &size);
	lua_rawseti(L, anchors, (lua_Integer)lua_rawlen(L, anchors) + 1);
	return (struct langplugin_text){data, size};
}

/* A table of fields, each a string, a number, or a list of these. Lives as long as what is on the stack now. */
static struct fields fields_of(lua_State *L, int index)
{
	struct fields fields = {NULL, 0, false};
	size_t most = 0;

	luaL_checktype(L, index, LUA_TTABLE);
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
		most += lua_istable(L, -1) ? lua_rawlen(L, -1) : 1;
	fields.field = lua_newuserdatauv(L, (most + 1) * sizeof(*fields.field), 0);
	lua_createtable(L, (int)most * 2, 0);
	int anchors = lua_gettop(L);
	for (lua_pushnil(L); lua_next(L, index); lua_settop(L, anchors + 1)) {
		/* A copy of the key: lua_next would lose its way if the key itself became a string. */
		lua_pushvalue(L, -2);
		struct langplugin_text name = text_of(L, anchors);
		bool list = lua_istable(L, -1);
		lua_Integer count = list ? (lua_Integer)lua_rawlen(L, -1) : 1;
		for (lua_Integer i = 1; i <= count; i++) {
			if (list)
				lua_rawgeti(L, anchors + 2, i);
			fields.field[fields.count++] = (struct langplugin_field){name, text_of(L, anchors)};
		}
		fields.length |= name.size == 14 && strncasecmp(name.data, "Content-Length", 14) == 0;
	}
	return fields;
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
	struct fields fields = fields_of(L, 3);

	return checked(L, plugin_of(L)->host->respond(
				  call_of(L), status, reason, fields.field, fields.count, fields.length ? -1 : length));
}

/* inform(headers): early hints, before the answer */
static int inform(lua_State *L)
{
	struct fields fields = fields_of(L, 1);

	return checked(L, plugin_of(L)->host->inform(call_of(L), 103, fields.field, fields.count));
}

/* trailers(headers): while the body is made */
static int trailers(lua_State *L)
{
	struct fields fields = fields_of(L, 1);

	return checked(L, plugin_of(L)->host->trailers(call_of(L), fields.field, fields.count));
}

/* write(piece, last): it is on its way now, unless it is the last. False: the client has gone */
static int write_piece(lua_State *L)
{
	const struct langplugin_host *host = plugin_of(L)->host;
	const char *data = luaL_checkstring(L, 1);
	int result = host->write(call_of(L), data, lua_rawlen(L, 1), 0);

	if (result == LP_OK && !lua_toboolean(L, 2))
		result = host->flush(call_of(L), 0);
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

/* finish(): the answer is complete; what follows keeps no client waiting */
static int finish(lua_State *L)
{
	plugin_of(L)->host->end(call_of(L));
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
	char text[96];
	struct stat st;

	if (stat(path, &st) || !S_ISREG(st.st_mode) || access(path, R_OK)) {
		lua_pushnil(L);
		lua_pushinteger(L, errno == EACCES ? 403 : 404);
		return 2;
	}
	snprintf(text, sizeof(text), "%lld.%09ld %lld %llu", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		(long long)st.st_size, (unsigned long long)st.st_ino);
	lua_pushstring(L, text);
	return 1;
}

void request_open(lua_State *L)
{
	static const luaL_Reg functions[] = {{"environ", environ_table}, {"read", read_bytes}, {"some", read_some},
		{"cancelled", cancelled}, {"deadline", deadline}, {"respond", respond}, {"inform", inform},
		{"trailers", trailers}, {"write", write_piece}, {"send_file", send_file}, {"finish", finish},
		{"log", log_text}, {"mark", mark}, {NULL, NULL}};

	luaL_setfuncs(L, functions, 0);
}
