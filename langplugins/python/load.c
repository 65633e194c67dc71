/* Applications. What is not hot is written in Python: loader.py, whose text lies in this object. */
#include <signal.h>

#include "plugin.h"

__asm__(".pushsection .rodata\n"
	"loader_source: .incbin \"langplugins/python/loader.py\"\n"
	".byte 0\n"
	".popsection\n");
extern const char loader_source[] __attribute__((visibility("hidden")));

static PyObject *loader_call(struct plugin *plugin, const char *name, PyObject *arguments)
{
	PyObject *function = PyDict_GetItemString(plugin->loader, name);
	PyObject *result = function && arguments ? PyObject_CallObject(function, arguments) : NULL;

	Py_XDECREF(arguments);
	return result;
}

static int done(PyObject *result)
{
	if (!result)
		return -1;
	Py_DECREF(result);
	return 0;
}

int load_begin(struct plugin *plugin)
{
	PyObject *code = Py_CompileString(loader_source, "<webserver>", Py_file_input);
	PyObject *file = PyUnicode_FromString("<webserver>");

	plugin->loader = PyDict_New();
	if (!code || !file || !plugin->loader ||
		PyDict_SetItemString(plugin->loader, "__builtins__", PyEval_GetBuiltins()) ||
		PyDict_SetItemString(plugin->loader, "__file__", file)) {
		Py_XDECREF(code);
		Py_XDECREF(file);
		return -1;
	}
	Py_DECREF(file);
	PyObject *result = PyEval_EvalCode(code, plugin->loader, plugin->loader);
	Py_DECREF(code);
	if (done(result))
		return -1;
	return done(loader_call(plugin, "begin",
		Py_BuildValue("(zOOzi)", plugin->directory, plugin->python_path, plugin->arguments, plugin->application,
			plugin->watch)));
}

int load_preload(struct plugin *plugin)
{
	return done(loader_call(plugin, "preload", Py_BuildValue("(Oz)", plugin->preload, plugin->application)));
}

static PyOS_sighandler_t handler_of(int number)
{
	struct sigaction now;

	return sigaction(number, NULL, &now) ? SIG_ERR : now.sa_handler;
}

/* The host took the manager's handlers for what no worker has: which of them are gone. SIGTERM's is one of them. */
static PyObject *signals_taken(void)
{
	PyObject *list = PyList_New(0);

	for (int i = 1; list && i < NSIG; i++) {
		if (i == SIGTERM || handler_of(i) != handler_of(SIGTERM))
			continue;
		PyObject *number = PyLong_FromLong(i);
		if (!number || PyList_Append(list, number))
			Py_CLEAR(list);
		Py_XDECREF(number);
	}
	return list;
}

void load_forked(struct plugin *plugin)
{
	if (done(loader_call(plugin, "forked", Py_BuildValue("(N)", signals_taken()))))
		load_report(plugin, NULL, NULL, 0);
}

int load_after_fork(struct plugin *plugin)
{
	return done(loader_call(plugin, "after_fork", PyTuple_New(0)));
}

int load_application(struct plugin *plugin)
{
	if (!plugin->application)
		return 0;
	plugin->callable = loader_call(plugin, "load", Py_BuildValue("(s)", plugin->application));
	return plugin->callable ? 0 : -1;
}

PyObject *load_requested(struct plugin *plugin, const struct langplugin_request *request)
{
	PyObject *path = PyUnicode_DecodeFSDefaultAndSize(
		request->script_filename.data, (Py_ssize_t)request->script_filename.size);

	return path ? loader_call(plugin, "requested", Py_BuildValue("(N)", path)) : NULL;
}

void load_report(struct plugin *plugin, struct langplugin_call *call, char *message, size_t message_size)
{
	static const char lost[] = "Python: an exception that could not be put into words";
	PyObject *value = exception_take();

	PyObject *pair = value && plugin->loader ? loader_call(plugin, "report", Py_BuildValue("(O)", value)) : NULL;
	const char *whole = NULL, *line = NULL;
	Py_ssize_t size = 0;
	PyObject *bytes = NULL, *last = NULL;
	if (pair && PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
		bytes = PyUnicode_AsEncodedString(PyTuple_GET_ITEM(pair, 0), "utf-8", "backslashreplace");
		last = PyUnicode_AsEncodedString(PyTuple_GET_ITEM(pair, 1), "utf-8", "backslashreplace");
	}
	if (bytes) {
		whole = PyBytes_AS_STRING(bytes);
		size = PyBytes_GET_SIZE(bytes);
	}
	if (last)
		line = PyBytes_AS_STRING(last);
	plugin->host->log(call, LP_ERROR, whole ? whole : lost, whole ? (size_t)size : sizeof(lost) - 1);
	if (message)
		PyOS_snprintf(message, message_size, "python: %s", line ? line : lost);
	Py_XDECREF(bytes);
	Py_XDECREF(last);
	Py_XDECREF(pair);
	Py_XDECREF(value);
	PyErr_Clear();
}

PyObject *load_log(struct plugin *plugin, struct langplugin_call *call, int level, PyObject *text)
{
	PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");

	if (!bytes)
		return NULL;
	plugin->host->log(call, level, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
	Py_DECREF(bytes);
	Py_RETURN_NONE;
}

void load_end(struct plugin *plugin)
{
	if (done(loader_call(plugin, "end", PyTuple_New(0))))
		load_report(plugin, NULL, NULL, 0);
}
