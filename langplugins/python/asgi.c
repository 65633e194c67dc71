/* The Python plugin as groups with interface = asgi get it: an event loop that serves many requests in one thread. */
#include "asgi.h"

__asm__(".pushsection .rodata\n"
	"asgi_source: .incbin \"langplugins/python/asgi.py\"\n"
	".byte 0\n"
	".popsection\n");
__asm__(".pushsection .rodata\n"
	"websocket_source: .incbin \"langplugins/python/websocket.py\"\n"
	".byte 0\n"
	".popsection\n");
extern const char asgi_source[] __attribute__((visibility("hidden")));
extern const char websocket_source[] __attribute__((visibility("hidden")));

static struct plugin *plugin_of(PyObject *capsule)
{
	return PyCapsule_GetPointer(capsule, NULL);
}

/* turn(): what the host says; see langplugin.h. */
static PyObject *loop_turn(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyLong_FromLong(plugin_of(self)->host->turn());
}

static PyObject *loop_descriptor(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyLong_FromLong(plugin_of(self)->host->descriptor());
}

/* log(level, text) */
static PyObject *loop_log(PyObject *self, PyObject *args)
{
	PyObject *text;
	int level;

	if (!PyArg_ParseTuple(args, "iU", &level, &text))
		return NULL;
	return load_log(plugin_of(self), NULL, level, text);
}

static PyMethodDef functions[] = {
	{"turn", loop_turn, METH_NOARGS, "turn() -> 1, 2: the end has been asked for, 0: it is over"},
	{"descriptor", loop_descriptor, METH_NOARGS, "descriptor() -> what the loop watches"},
	{"log", loop_log, METH_VARARGS, "log(level, text)"},
};

static int add_functions(struct plugin *plugin)
{
	PyObject *capsule = PyCapsule_New(plugin, NULL, NULL);
	int result = capsule ? 0 : -1;

	for (size_t i = 0; !result && i < sizeof(functions) / sizeof(functions[0]); i++) {
		PyObject *function = PyCFunction_New(&functions[i], capsule);
		result = function ? PyDict_SetItemString(plugin->loader, functions[i].ml_name, function) : -1;
		Py_XDECREF(function);
	}
	Py_XDECREF(capsule);
	return result;
}

/* Of a name that loader.py's report() leaves out of tracebacks. */
static int run_source(struct plugin *plugin, const char *source, const char *name)
{
	PyObject *code = Py_CompileString(source, name, Py_file_input);
	PyObject *result = code ? PyEval_EvalCode(code, plugin->loader, plugin->loader) : NULL;

	Py_XDECREF(code);
	if (!result)
		return -1;
	Py_DECREF(result);
	return 0;
}

static int set_ping(struct plugin *plugin)
{
	PyObject *ping = PyFloat_FromDouble(plugin->socket_ping);
	int result = ping ? PyDict_SetItemString(plugin->loader, "_PING", ping) : -1;

	Py_XDECREF(ping);
	return result;
}

/* In loader.py's names: they go on where that ends. */
int asgi_begin(struct plugin *plugin)
{
	struct asgi *asgi = &plugin->asgi;

	if (PyType_Ready(&exchange_type) || PyType_Ready(&step_type) || events_make() || scope_make(plugin) ||
		add_functions(plugin))
		return -1;
	if (run_source(plugin, asgi_source, "<webserver>.asgi") ||
		run_source(plugin, websocket_source, "<webserver>.websocket") || set_ping(plugin))
		return -1;
	const struct {
		PyObject **place;
		const char *name;
	} wanted[] = {{&asgi->serve, "serve"}, {&asgi->gone, "gone"}, {&asgi->send_file, "send_file"},
		{&asgi->disconnected, "ClientDisconnected"}, {&asgi->handshake, "handshake"}, {&asgi->accept, "accept"},
		{&asgi->close_later, "close_later"}, {&asgi->socket_over, "socket_over"}};
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (!(*wanted[i].place = Py_XNewRef(PyDict_GetItemString(plugin->loader, wanted[i].name))))
			return -1;
	return 0;
}

static PyObject *call_asgi(struct plugin *plugin, const char *name, PyObject *arguments)
{
	PyObject *function = PyDict_GetItemString(plugin->loader, name);
	PyObject *result = function && arguments ? PyObject_CallObject(function, arguments) : NULL;

	Py_XDECREF(arguments);
	return result;
}

/* The loop is made, the application is loaded in it and has had its lifespan.startup. */
static int start(struct plugin *plugin)
{
	struct asgi *asgi = &plugin->asgi;
	PyObject *made = call_asgi(plugin, "start", Py_BuildValue("(sO)", plugin->application, asgi->version));
	int result = made && PyArg_ParseTuple(made, "OOO", &asgi->create_task, &asgi->create_future, &asgi->state) ? 0
														   : -1;

	if (!result) {
		Py_INCREF(asgi->create_task);
		Py_INCREF(asgi->create_future);
		Py_INCREF(asgi->state);
	}
	Py_XDECREF(made);
	return result;
}

static int asgi_after_fork(void *state, char *message, size_t message_size)
{
	return plugin_guarded(state, plugin_forked, message, message_size) ||
			       plugin_guarded(state, start, message, message_size)
		       ? -1
		       : 0;
}

static void asgi_run(void *state)
{
	struct plugin *plugin = state;
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *result = call_asgi(plugin, "run", PyTuple_New(0));

	if (!result)
		load_report(plugin, NULL, NULL, 0);
	Py_XDECREF(result);
	PyGILState_Release(gil);
}

static int asgi_handle(void *state, void *thread, struct langplugin_call *call)
{
	struct plugin *plugin = state;

	(void)thread;
	int begun = exchange_begin(plugin, call);
	if (begun >= 0)
		return begun;
	/* The host answers 500. */
	load_report(plugin, call, NULL, 0);
	return LP_DONE;
}

static void asgi_ready(void *state, struct langplugin_call *call)
{
	struct plugin *plugin = state;
	struct exchange *exchange = *plugin->host->place(call);

	if (!exchange)
		return;
	Py_INCREF(exchange);
	exchange_ready(exchange);
	Py_DECREF(exchange);
	/* From futures that are no futures any more. */
	if (PyErr_Occurred())
		load_report(plugin, NULL, NULL, 0);
}

static const struct langplugin asgi = {
	LANGPLUGIN_VERSION,
	.traits = LANGPLUGIN_ASYNC | LANGPLUGIN_MAIN_THREAD,
	.name = "python",
	.version = PY_VERSION,
	.open = plugin_open,
	.preload = plugin_preload,
	.after_fork = asgi_after_fork,
	.handle = asgi_handle,
	.dump = stacks_dump,
	.close = plugin_close,
	.run = asgi_run,
	.ready = asgi_ready,
	.fork = plugin_fork,
	.ask = stacks_ask,
};

const struct langplugin *asgi_plugin(void)
{
	return &asgi;
}
