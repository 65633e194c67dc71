/* Python as a language plugin: WSGI applications in the interpreter that the manager was started with. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "asgi.h"

__attribute__((used)) static const char built_for[] = "webserver-python-plugin:" COMPAT_VERSION COMPAT_FLAGS ";";

static int add(PyObject *list, const char *value)
{
	PyObject *text = PyUnicode_DecodeFSDefault(value);
	int result = text ? PyList_Append(list, text) : -1;

	Py_XDECREF(text);
	return result;
}

static int keep(char **place, const char *value)
{
	free(*place);
	*place = strdup(value);
	return *place ? 0 : -1;
}

static int read_settings(struct plugin *plugin, const struct langplugin_setting *settings, size_t count)
{
	int result = 0;

	plugin->python_path = PyList_New(0);
	plugin->arguments = PyList_New(0);
	plugin->preload = PyList_New(0);
	if (!plugin->python_path || !plugin->arguments || !plugin->preload)
		return -1;
	for (size_t i = 0; i < count && !result; i++) {
		const char *name = settings[i].name, *value = settings[i].value;
		if (strcmp(name, "application") == 0 && *value)
			result = keep(&plugin->application, value);
		else if (strcmp(name, "directory") == 0 && *value)
			result = keep(&plugin->directory, value);
		else if (strcmp(name, "websocket_message") == 0)
			plugin->socket_limit = (size_t)strtoull(value, NULL, 10);
		else if (strcmp(name, "websocket_ping") == 0)
			plugin->socket_ping = PyOS_string_to_double(value, NULL, NULL);
		else if (strcmp(name, "watch") == 0)
			plugin->watch = atoi(value);
		else if (strcmp(name, "interface") == 0)
			plugin->is_asgi = strcmp(value, "asgi") == 0;
		else if (strcmp(name, "python_path") == 0)
			result = add(plugin->python_path, value);
		else if (strcmp(name, "arguments") == 0)
			result = add(plugin->arguments, value);
		else if (strcmp(name, "preload") == 0)
			result = add(plugin->preload, value);
	}
	return result;
}

static int make_types(void)
{
	return PyType_Ready(&response_type) || PyType_Ready(&input_type) || PyType_Ready(&errors_type) ||
	       PyType_Ready(&file_wrapper_type) || file_wrapper_make();
}

int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t message_size)
{
	if (strncmp(Py_GetVersion(), COMPAT_VERSION ".", sizeof(COMPAT_VERSION)) != 0) {
		snprintf(message, message_size, "python: the plugin was built for Python %s, the interpreter is %s",
			COMPAT_VERSION, Py_GetVersion());
		return -1;
	}
	struct plugin *plugin = calloc(1, sizeof(*plugin));
	if (!plugin)
		return -1;
	plugin->host = host;
	plugin->socket_limit = 16 << 20;
	plugin->watch = -1;
	PyGILState_STATE gil = PyGILState_Ensure();
	int result = make_types() || read_settings(plugin, settings, count) || environ_make(plugin) ||
		     load_begin(plugin) || (plugin->is_asgi && asgi_begin(plugin));
	if (result)
		load_report(plugin, NULL, message, message_size);
	PyGILState_Release(gil);
	*state = plugin;
	return result ? -1 : 0;
}

int plugin_guarded(struct plugin *plugin, int (*what)(struct plugin *plugin), char *message, size_t message_size)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	int result = what(plugin);

	if (result)
		load_report(plugin, NULL, message, message_size);
	PyGILState_Release(gil);
	return result;
}

int plugin_preload(void *state, char *message, size_t message_size)
{
	return plugin_guarded(state, load_preload, message, message_size);
}

int plugin_forked(struct plugin *plugin)
{
	return stacks_prepare() || load_after_fork(plugin) ? -1 : 0;
}

/* os.fork(), with the hooks of os.register_at_fork, of a manager in this language. The child gives the lock away. */
pid_t plugin_fork(void *state)
{
	PyOS_BeforeFork();
	pid_t pid = fork();
	if (pid != 0) {
		int saved = errno;
		PyOS_AfterFork_Parent();
		errno = saved;
		return pid;
	}
	PyOS_AfterFork_Child();
	load_forked(state);
	PyEval_SaveThread();
	return 0;
}

static int plugin_after_fork(void *state, char *message, size_t message_size)
{
	return plugin_guarded(state, plugin_forked, message, message_size) ||
			       plugin_guarded(state, load_application, message, message_size)
		       ? -1
		       : 0;
}

/* The thread's state lives from here to thread_stop; the lock is given away at once. */
static int thread_start(void *state, void **thread)
{
	struct thread *made = calloc(1, sizeof(*made));

	if (!made)
		return -1;
	made->plugin = state;
	pthread_mutex_init(&made->turn, NULL);
	made->state = PyGILState_Ensure();
	made->identity = PyThread_get_thread_ident();
	made->next = made->plugin->threads;
	made->plugin->threads = made;
	made->python = PyEval_SaveThread();
	*thread = made;
	return 0;
}

static void thread_stop(void *state, void *thread)
{
	struct thread *ended = thread;

	(void)state;
	PyEval_RestoreThread(ended->python);
	Py_CLEAR(ended->response);
	Py_CLEAR(ended->input);
	Py_CLEAR(ended->errors);
	PyGILState_Release(ended->state);
	/* Not freed: an application's own thread may still be about to find that its request is over. */
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	(void)state;
	return request_run(thread, call);
}

void plugin_close(void *state)
{
	struct plugin *plugin = state;
	PyGILState_STATE gil = PyGILState_Ensure();

	load_end(plugin);
	Py_CLEAR(plugin->callable);
	environ_forget(plugin);
	PyGILState_Release(gil);
}

static const struct langplugin *plugin_choose(const struct langplugin_setting *settings, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(settings[i].name, "interface") == 0 && strcmp(settings[i].value, "asgi") == 0)
			return asgi_plugin();
	return &langplugin;
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.name = "python",
	.version = PY_VERSION,
	.open = plugin_open,
	.preload = plugin_preload,
	.after_fork = plugin_after_fork,
	.thread_start = thread_start,
	.thread_stop = thread_stop,
	.handle = plugin_handle,
	.dump = stacks_dump,
	.close = plugin_close,
	.choose = plugin_choose,
	.fork = plugin_fork,
	.ask = stacks_ask,
};
