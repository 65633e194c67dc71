/* The scope of a request: a dict that is the application's own to change. */
#include "asgi.h"

/* clang-format off */
#define KEYS(X) \
	X(type) X(asgi) X(http_version) X(method) X(scheme) X(path) X(raw_path) X(query_string) X(root_path) X(headers) \
	X(client) X(server) X(state) X(extensions) X(http) X(https) X(webserver) X(request_id) X(deadline) X(log)
/* clang-format on */

enum key {
#define X(name) KEY_##name,
	KEYS(X)
#undef X
		KEY_COUNT
};
static PyObject *keys[KEY_COUNT];

/* Field names in lower case, by what came: browsers send the same few. */
#define NAMES	  256
#define NAME_MOST 64
static struct {
	char came[NAME_MOST];
	uint8_t size;
	PyObject *lower;
} names[NAMES];

int scope_make(struct plugin *plugin)
{
	static const char *const words[KEY_COUNT] = {
#define X(name) #name,
		KEYS(X)
#undef X
	};
	static const char *const extensions[] = {"http.response.trailers", "http.response.early_hint",
		"http.response.pathsend", "http.response.zerocopysend"};
	struct asgi *asgi = &plugin->asgi;

	for (int i = 0; i < KEY_COUNT; i++)
		if (!keys[i] && !(keys[i] = PyUnicode_InternFromString(words[i])))
			return -1;
	asgi->version = Py_BuildValue("{ssss}", "version", "3.0", "spec_version", "2.4");
	asgi->extensions = PyDict_New();
	if (!asgi->version || !asgi->extensions)
		return -1;
	for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
		PyObject *nothing = PyDict_New();
		int result = nothing ? PyDict_SetItemString(asgi->extensions, extensions[i], nothing) : -1;
		Py_XDECREF(nothing);
		if (result)
			return -1;
	}
	return 0;
}

static PyObject *latin1(struct langplugin_text text)
{
	return PyUnicode_DecodeLatin1(text.data, (Py_ssize_t)text.size, NULL);
}

static PyObject *utf8(struct langplugin_text text)
{
	return PyUnicode_DecodeUTF8(text.data, (Py_ssize_t)text.size, "replace");
}

static PyObject *bytes(struct langplugin_text text)
{
	return PyBytes_FromStringAndSize(text.data, (Py_ssize_t)text.size);
}

/* The last request's, if it was the same. */
static PyObject *remembered(struct plugin *plugin, enum remembered_as as, struct langplugin_text text,
	PyObject *(*make)(struct langplugin_text))
{
	PyObject *last = plugin->last[as].text;

	if (last && PyUnicode_IS_ASCII(last) && (size_t)PyUnicode_GET_LENGTH(last) == text.size &&
		memcmp(PyUnicode_1BYTE_DATA(last), text.data, text.size) == 0)
		return Py_NewRef(last);
	PyObject *now = make(text);
	if (now) {
		plugin->last[as].text = Py_NewRef(now);
		Py_XDECREF(last);
	}
	return now;
}

/* Of "HTTP/1.1". */
static struct langplugin_text version(struct langplugin_text protocol)
{
	return (struct langplugin_text){protocol.data + 5, protocol.size - 5};
}

static PyObject *lower(struct langplugin_text name)
{
	PyObject *made = bytes(name);

	for (size_t i = 0; made && i < name.size; i++)
		PyBytes_AS_STRING(made)[i] = (char)Py_TOLOWER((unsigned char)name.data[i]);
	return made;
}

static PyObject *name_of(struct langplugin_text name)
{
	if (name.size == 0 || name.size > NAME_MOST)
		return lower(name);
	unsigned place = ((unsigned)name.size * 31 + (unsigned char)name.data[0] * 7 +
				 (unsigned char)name.data[name.size / 2] * 5 +
				 (unsigned char)name.data[name.size - 1]) %
			 NAMES;
	if (names[place].size == name.size && memcmp(names[place].came, name.data, name.size) == 0)
		return Py_NewRef(names[place].lower);
	PyObject *made = lower(name);
	if (made) {
		memcpy(names[place].came, name.data, name.size);
		names[place].size = (uint8_t)name.size;
		Py_XSETREF(names[place].lower, Py_NewRef(made));
	}
	return made;
}

static PyObject *headers_of(const struct langplugin_request *request)
{
	PyObject *list = PyList_New((Py_ssize_t)request->field_count);

	for (size_t i = 0; list && i < request->field_count; i++) {
		PyObject *name = name_of(request->fields[i].name), *value = bytes(request->fields[i].value);
		PyObject *pair = name && value ? PyTuple_Pack(2, name, value) : NULL;
		Py_XDECREF(name);
		Py_XDECREF(value);
		if (pair)
			PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
		else
			Py_CLEAR(list);
	}
	return list;
}

/* (address, port), or None for a unix socket. */
static PyObject *address(PyObject *host, struct langplugin_text port)
{
	long number = 0;

	if (!host)
		return NULL;
	if (PyUnicode_GET_LENGTH(host) == 0) {
		Py_DECREF(host);
		Py_RETURN_NONE;
	}
	for (size_t i = 0; i < port.size; i++)
		number = number * 10 + (port.data[i] - '0');
	return Py_BuildValue("(Nl)", host, number);
}

static PyObject *server_of(struct plugin *plugin, const struct langplugin_request *r)
{
	struct langplugin_text name = r->server_addr.size ? r->server_addr : r->server_name;

	return address(remembered(plugin, REMEMBER_SERVER_NAME, name, latin1), r->server_port);
}

/* As it came, without the query; of an absolute target the path alone (RFC 9112, section 3.2.2). */
static PyObject *raw_path(struct langplugin_text target)
{
	const char *begin = target.data, *end = begin + target.size;
	const char *query = memchr(begin, '?', target.size);

	if (query)
		end = query;
	if (begin < end && *begin != '/' && *begin != '*') {
		const char *after = memmem(begin, (size_t)(end - begin), "://", 3);
		const char *slash = after ? memchr(after + 3, '/', (size_t)(end - after - 3)) : NULL;
		if (after && !slash)
			return PyBytes_FromStringAndSize("/", 1);
		begin = slash ? slash : begin;
	}
	return PyBytes_FromStringAndSize(begin, end - begin);
}

static PyObject *own_extension(const struct langplugin_host *host, struct langplugin_call *call, PyObject *log)
{
	const struct langplugin_request *request = host->request(call);
	uint64_t deadline = host->deadline(call);
	PyObject *dict = PyDict_New(), *id = latin1(request->request_id);
	PyObject *until = deadline ? PyFloat_FromDouble((double)deadline / 1e9) : Py_NewRef(Py_None);

	if (!dict || !id || !until || PyDict_SetItem(dict, keys[KEY_request_id], id) ||
		PyDict_SetItem(dict, keys[KEY_deadline], until) || PyDict_SetItem(dict, keys[KEY_log], log))
		Py_CLEAR(dict);
	Py_XDECREF(id);
	Py_XDECREF(until);
	return dict;
}

/* Takes the reference to value. */
static int put(PyObject *dict, enum key key, PyObject *value)
{
	int result = value ? PyDict_SetItem(dict, keys[key], value) : -1;

	Py_XDECREF(value);
	return result;
}

PyObject *scope_of(struct plugin *plugin, struct langplugin_call *call, PyObject *log)
{
	const struct langplugin_host *host = plugin->host;
	const struct langplugin_request *r = host->request(call);
	PyObject *scope = PyDict_New(), *extensions = PyDict_Copy(plugin->asgi.extensions);

	if (!scope || !extensions || put(extensions, KEY_webserver, own_extension(host, call, log)) ||
		put(scope, KEY_type, Py_NewRef(keys[KEY_http])) ||
		put(scope, KEY_asgi, PyDict_Copy(plugin->asgi.version)) ||
		put(scope, KEY_http_version, remembered(plugin, REMEMBER_PROTOCOL, version(r->protocol), latin1)) ||
		put(scope, KEY_method, remembered(plugin, REMEMBER_METHOD, r->method, latin1)) ||
		put(scope, KEY_scheme, remembered(plugin, REMEMBER_SCHEME, r->scheme, latin1)) ||
		put(scope, KEY_path, utf8(r->path)) || put(scope, KEY_raw_path, raw_path(r->target)) ||
		put(scope, KEY_query_string, bytes(r->query)) ||
		put(scope, KEY_root_path, remembered(plugin, REMEMBER_SCRIPT_NAME, r->script_name, utf8)) ||
		put(scope, KEY_headers, headers_of(r)) ||
		put(scope, KEY_client,
			address(remembered(plugin, REMEMBER_REMOTE_ADDR, r->remote_addr, latin1), r->remote_port)) ||
		put(scope, KEY_server, server_of(plugin, r)) ||
		put(scope, KEY_state, PyDict_Copy(plugin->asgi.state)) ||
		put(scope, KEY_extensions, Py_NewRef(extensions)))
		Py_CLEAR(scope);
	Py_XDECREF(extensions);
	return scope;
}
