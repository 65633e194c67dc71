/*
 * The WSGI environment: a copy of what all requests have in common, then what this one says. Native strings hold bytes
 * as code points (PEP 3333, "A Note on String Types"), so decoding is latin-1 everywhere.
 */
#include "plugin.h"

/* clang-format off */
#define KEYS(X) \
	X(REQUEST_METHOD) X(REQUEST_URI) X(SCRIPT_NAME) X(PATH_INFO) X(QUERY_STRING) X(SERVER_NAME) X(SERVER_PORT) \
	X(SERVER_PROTOCOL) X(REMOTE_ADDR) X(REMOTE_PORT) X(DOCUMENT_ROOT) X(SCRIPT_FILENAME) X(REQUEST_SCHEME)
/* clang-format on */

enum key {
#define X(name) KEY_##name,
	KEYS(X)
#undef X
		KEY_HTTPS,
	KEY_URL_SCHEME,
	KEY_INPUT,
	KEY_ERRORS,
	KEY_REQUEST_ID,
	KEY_EARLY_HINTS,
	KEY_CANCELLED,
	KEY_DEADLINE,
	KEY_TRAILERS,
	KEY_COUNT
};

/* Interned, immortal: names are the language's, not a request's. */
static PyObject *keys[KEY_COUNT];

static int make_keys(void)
{
	static const char *const names[KEY_COUNT] = {
#define X(name) #name,
		KEYS(X)
#undef X
			"HTTPS",
		"wsgi.url_scheme",
		"wsgi.input",
		"wsgi.errors",
		"webserver.request_id",
		"wsgi.early_hints",
		"webserver.cancelled",
		"webserver.deadline",
		"webserver.trailers",
	};
	for (int i = 0; i < KEY_COUNT; i++)
		if (!keys[i] && !(keys[i] = PyUnicode_InternFromString(names[i])))
			return -1;
	return 0;
}

static int set_new(PyObject *dict, const char *name, PyObject *value)
{
	int result = value ? PyDict_SetItemString(dict, name, value) : -1;

	Py_XDECREF(value);
	return result;
}

int environ_make(struct plugin *plugin)
{
	const struct langplugin_host *host = plugin->host;
	PyObject *common = PyDict_New();

	plugin->environ = common;
	plugin->empty = PyUnicode_InternFromString("");
	if (!common || !plugin->empty || make_keys())
		return -1;
	if (set_new(common, "wsgi.version", Py_BuildValue("(ii)", 1, 0)) ||
		set_new(common, "wsgi.multithread", PyBool_FromLong(host->threads > 1)) ||
		set_new(common, "wsgi.multiprocess", PyBool_FromLong(host->processes > 1)) ||
		set_new(common, "wsgi.run_once", PyBool_FromLong(0)) ||
		set_new(common, "wsgi.input_terminated", PyBool_FromLong(1)) ||
		PyDict_SetItemString(common, "wsgi.file_wrapper", (PyObject *)&file_wrapper_type) ||
		set_new(common, "SERVER_SOFTWARE", PyUnicode_FromString("webserver")) ||
		set_new(common, "GATEWAY_INTERFACE", PyUnicode_FromString("CGI/1.1")))
		return -1;
	plugin->names = PyMem_Calloc(host->known_count ? host->known_count : 1, sizeof(PyObject *));
	if (!plugin->names)
		return -1;
	for (unsigned i = 1; i < host->known_count; i++)
		if (!(plugin->names[i] = PyUnicode_InternFromString(host->known[i].data)))
			return -1;
	return 0;
}

void environ_forget(struct plugin *plugin)
{
	for (unsigned i = 1; plugin->names && i < plugin->host->known_count; i++)
		Py_CLEAR(plugin->names[i]);
	PyMem_Free(plugin->names);
	plugin->names = NULL;
	for (int i = 0; i < REMEMBERED; i++)
		Py_CLEAR(plugin->last[i].text);
	Py_CLEAR(plugin->environ);
	Py_CLEAR(plugin->empty);
}

static PyObject *text(struct plugin *plugin, struct langplugin_text value)
{
	if (value.size == 0)
		return Py_NewRef(plugin->empty);
	return PyUnicode_DecodeLatin1(value.data, (Py_ssize_t)value.size, NULL);
}

static PyObject *remembered(struct plugin *plugin, enum remembered_as as, struct langplugin_text value)
{
	PyObject *last = plugin->last[as].text;

	if (last && (size_t)PyUnicode_GET_LENGTH(last) == value.size &&
		memcmp(PyUnicode_1BYTE_DATA(last), value.data, value.size) == 0)
		return Py_NewRef(last);
	PyObject *now = text(plugin, value);
	if (now) {
		plugin->last[as].text = Py_NewRef(now);
		Py_XDECREF(last);
	}
	return now;
}

/* Takes the reference to value. */
static int put(PyObject *environ, PyObject *key, PyObject *value)
{
	int result = value ? PyDict_SetItem(environ, key, value) : -1;

	Py_XDECREF(value);
	return result;
}

static int put_request(struct plugin *plugin, PyObject *environ, const struct langplugin_request *r)
{
	bool secure = r->scheme.size == 5;

	return put(environ, keys[KEY_REQUEST_METHOD], remembered(plugin, REMEMBER_METHOD, r->method)) ||
	       put(environ, keys[KEY_REQUEST_URI], text(plugin, r->target)) ||
	       put(environ, keys[KEY_SCRIPT_NAME], remembered(plugin, REMEMBER_SCRIPT_NAME, r->script_name)) ||
	       put(environ, keys[KEY_PATH_INFO], text(plugin, r->path_info)) ||
	       put(environ, keys[KEY_QUERY_STRING], text(plugin, r->query)) ||
	       put(environ, keys[KEY_SERVER_NAME], remembered(plugin, REMEMBER_SERVER_NAME, r->server_name)) ||
	       put(environ, keys[KEY_SERVER_PORT], remembered(plugin, REMEMBER_SERVER_PORT, r->server_port)) ||
	       put(environ, keys[KEY_SERVER_PROTOCOL], remembered(plugin, REMEMBER_PROTOCOL, r->protocol)) ||
	       put(environ, keys[KEY_REMOTE_ADDR], remembered(plugin, REMEMBER_REMOTE_ADDR, r->remote_addr)) ||
	       put(environ, keys[KEY_REMOTE_PORT], text(plugin, r->remote_port)) ||
	       put(environ, keys[KEY_DOCUMENT_ROOT], remembered(plugin, REMEMBER_DOCUMENT_ROOT, r->document_root)) ||
	       put(environ, keys[KEY_URL_SCHEME], remembered(plugin, REMEMBER_SCHEME, r->scheme)) ||
	       put(environ, keys[KEY_REQUEST_SCHEME], remembered(plugin, REMEMBER_SCHEME, r->scheme)) ||
	       put(environ, keys[KEY_REQUEST_ID], text(plugin, r->request_id)) ||
	       (r->script_filename.size && put(environ, keys[KEY_SCRIPT_FILENAME], text(plugin, r->script_filename))) ||
	       (secure && put(environ, keys[KEY_HTTPS], PyUnicode_FromString("on")));
}

static int put_fields(struct plugin *plugin, PyObject *environ, const struct langplugin_request *r)
{
	for (size_t i = 0; i < r->variable_count; i++) {
		const struct langplugin_variable *v = &r->variables[i];
		int result;
		if (v->known && v->known < plugin->host->known_count) {
			result = put(environ, plugin->names[v->known], text(plugin, v->value));
		} else {
			PyObject *name = PyUnicode_DecodeLatin1(v->name.data, (Py_ssize_t)v->name.size, NULL);
			result = name ? put(environ, name, text(plugin, v->value)) : -1;
			Py_XDECREF(name);
		}
		if (result)
			return -1;
	}
	return 0;
}

static int put_extras(struct thread *thread, PyObject *environ, struct langplugin_call *call)
{
	const struct response *response = (const struct response *)thread->response;
	uint64_t deadline = thread->plugin->host->deadline(call);

	return PyDict_SetItem(environ, keys[KEY_EARLY_HINTS], response->hints) ||
	       PyDict_SetItem(environ, keys[KEY_CANCELLED], response->cancelled) ||
	       (response->trailers && PyDict_SetItem(environ, keys[KEY_TRAILERS], response->trailers)) ||
	       put(environ, keys[KEY_DEADLINE],
		       deadline ? PyFloat_FromDouble((double)deadline / 1e9) : Py_NewRef(Py_None));
}

PyObject *environ_of(struct thread *thread, struct langplugin_call *call)
{
	struct plugin *plugin = thread->plugin;
	const struct langplugin_request *request = plugin->host->request(call);
	PyObject *environ = PyDict_Copy(plugin->environ);

	if (!environ)
		return NULL;
	if (put_request(plugin, environ, request) || put_fields(plugin, environ, request) ||
		put_extras(thread, environ, call) ||
		put(environ, keys[KEY_INPUT], input_take(thread, call, request->content_length)) ||
		put(environ, keys[KEY_ERRORS], errors_take(thread, call))) {
		Py_DECREF(environ);
		return NULL;
	}
	return environ;
}
