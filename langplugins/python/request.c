/* One request: call the application, send what it returns, and clean up whatever happens. */
#include <errno.h>
#include <sys/stat.h>

#include "plugin.h"

PyThreadState *call_enter(struct thread *thread)
{
	/* Free, since nobody is in the host; taken under the interpreter's lock, so that nobody slips in between. */
	pthread_mutex_lock(&thread->turn);
	thread->waiting = true;
	return PyEval_SaveThread();
}

void call_leave(struct thread *thread, PyThreadState *state)
{
	/* The turn first: whoever waits for it then waits for the interpreter's lock as we do. */
	pthread_mutex_unlock(&thread->turn);
	int saved = errno;
	PyEval_RestoreThread(state);
	thread->waiting = false;
	errno = saved;
}

void call_turn(struct thread *thread)
{
	while (thread->waiting) {
		Py_BEGIN_ALLOW_THREADS pthread_mutex_lock(&thread->turn);
		pthread_mutex_unlock(&thread->turn);
		Py_END_ALLOW_THREADS
	}
}

/* The length of an answer whose parts are all there; -1: not. */
static int64_t length_of(PyObject *parts)
{
	int64_t length = 0;

	for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(parts); i++) {
		PyObject *part = PySequence_Fast_GET_ITEM(parts, i);
		if (!PyBytes_Check(part))
			return -1;
		length += PyBytes_GET_SIZE(part);
	}
	return length;
}

static int send_part(struct response *response, PyObject *part, bool flush)
{
	if (!PyBytes_Check(part)) {
		PyErr_Format(
			PyExc_TypeError, "the application's answer must be bytes, not %.100s", Py_TYPE(part)->tp_name);
		return -1;
	}
	/* PEP: the head goes with the first bytes that are not empty. */
	if (PyBytes_GET_SIZE(part) == 0)
		return 0;
	return response_write(response, PyBytes_AS_STRING(part), (size_t)PyBytes_GET_SIZE(part), flush);
}

/* A list or tuple: nothing is computed between its parts, so nothing is gained by sending them apart. */
static int send_parts(struct response *response, PyObject *parts)
{
	call_turn(response->thread);
	if (!response->sent && response_send_head(response, length_of(parts)))
		return -1;
	/* By index: the application may change the list while the lock is given away. */
	for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(parts); i++) {
		PyObject *part = Py_NewRef(PySequence_Fast_GET_ITEM(parts, i));
		int result = send_part(response, part, false);
		Py_DECREF(part);
		if (result)
			return result;
	}
	return 0;
}

static int send_file(struct response *response, int fd, int64_t offset)
{
	struct stat st;
	int result;

	call_turn(response->thread);
	int64_t there = fstat(fd, &st) == 0 && st.st_size > offset ? st.st_size - offset : 0;
	if (!response->sent && response_send_head(response, there))
		return -1;
	if (response->gone || response->ended)
		return 1;
	/* PEP: not more than the Content-Length, which is how a part of a file is sent. */
	int64_t length = response->left < 0 || there < response->left ? there : response->left;
	PyThreadState *state = call_enter(response->thread);
	result = response->host->send_file(response->call, fd, offset, length);
	call_leave(response->thread, state);
	if (result == LP_FAILED) {
		PyErr_SetFromErrno(PyExc_OSError);
		return -1;
	}
	response->gone = result == LP_GONE;
	return response->gone;
}

static int send_iterable(struct response *response, PyObject *result)
{
	PyObject *iterator = PyObject_GetIter(result), *part;
	int sent = 0;

	if (!iterator)
		return -1;
	while (!sent && (part = PyIter_Next(iterator))) {
		/* PEP: a block is on its way before the next is asked for. */
		sent = send_part(response, part, true);
		Py_DECREF(part);
	}
	Py_DECREF(iterator);
	if (sent)
		return sent;
	if (PyErr_Occurred())
		return -1;
	call_turn(response->thread);
	return response->sent ? 0 : response_send_head(response, -1);
}

static int send_result(struct response *response, PyObject *result)
{
	int64_t offset = 0;
	int fd = -1;

	if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
		return send_parts(response, result);
	if (Py_IS_TYPE(result, &file_wrapper_type))
		fd = file_wrapper_descriptor((struct file_wrapper *)result, &offset);
	return fd >= 0 ? send_file(response, fd, offset) : send_iterable(response, result);
}

/* PEP: close() is called whatever happened. */
static int close_result(PyObject *result)
{
	if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
		return 0;
	PyObject *before = exception_take();
	PyObject *close = PyObject_GetAttrString(result, "close");
	if (!close) {
		PyErr_Clear();
		exception_give(before);
		return 0;
	}
	PyObject *nothing = PyObject_CallNoArgs(close);
	Py_DECREF(close);
	Py_XDECREF(nothing);
	if (nothing) {
		exception_give(before);
	} else if (before) {
		/* Both are told: that of close(), and before it the one that it came on top of. */
		PyObject *now = exception_take();
		PyException_SetContext(now, before);
		exception_give(now);
	}
	return nothing ? 0 : -1;
}

/* There is no such file, or nobody may read it: a status and why. */
static void answer_absent(struct plugin *plugin, struct langplugin_call *call, PyObject *absence)
{
	const struct langplugin_request *request = plugin->host->request(call);
	const char *why = NULL;
	char text[512];
	int status = 404;

	if (!PyArg_ParseTuple(absence, "iz", &status, &why))
		PyErr_Clear();
	int size = PyOS_snprintf(text, sizeof(text), "%d: %.300s: %.100s", status, request->script_filename.data,
		why ? why : "it is not there");
	plugin->host->log(call, status == 404 ? LP_NOTICE : LP_WARNING, text, (size_t)size);
	plugin->host->fail(call, status);
}

/* A client that goes away in the middle of its request is no mistake of the application's. */
static void report(struct plugin *plugin, struct langplugin_call *call)
{
	static const char text[] = "the client went away before its request or its answer was complete";

	if (plugin->host->cancelled(call) && PyErr_ExceptionMatches(PyExc_ConnectionResetError)) {
		PyErr_Clear();
		plugin->host->log(call, LP_NOTICE, text, sizeof(text) - 1);
	} else {
		load_report(plugin, call, NULL, 0);
	}
}

static void run(struct thread *thread, struct langplugin_call *call, PyObject *application)
{
	struct plugin *plugin = thread->plugin;
	struct response *response = response_take(thread, call);
	PyObject *environ = response ? environ_of(thread, call) : NULL;
	int sent = -1;

	if (environ) {
		PyObject *arguments[] = {NULL, environ, response->start};
		PyObject *result = PyObject_Vectorcall(
			application, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
		if (result) {
			sent = send_result(response, result);
			if (close_result(result))
				sent = -1;
			Py_DECREF(result);
		}
	}
	/* From here on the request is this thread's alone. */
	call_turn(thread);
	if (sent < 0) {
		report(plugin, call);
		plugin->host->fail(call, 500);
	}
	if (thread->errors)
		errors_detach(thread->errors);
	if (thread->input)
		input_detach(thread->input);
	Py_XDECREF(environ);
	if (response)
		response->call = NULL;
	if (PyErr_Occurred())
		PyErr_Clear();
}

int request_run(struct thread *thread, struct langplugin_call *call)
{
	struct plugin *plugin = thread->plugin;

	PyEval_RestoreThread(thread->python);
	stacks_begin(thread, call);
	PyObject *application = plugin->callable ? Py_NewRef(plugin->callable)
						 : load_requested(plugin, plugin->host->request(call));
	if (!application) {
		load_report(plugin, call, NULL, 0);
		plugin->host->fail(call, 500);
	} else if (PyTuple_CheckExact(application)) {
		answer_absent(plugin, call, application);
	} else {
		run(thread, call, application);
	}
	Py_XDECREF(application);
	stacks_end(thread);
	PyEval_SaveThread();
	return LP_DONE;
}
