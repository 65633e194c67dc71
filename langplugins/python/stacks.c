/*
 * Where every thread is, and the end of a request whose time is over: asked for from a thread that is not Python's.
 * With the interpreter's lock everything can be known, and most of the time it can be had within milliseconds. It
 * cannot where somebody sits in C with it; then no other thread of Python's runs either, the frames stand still, and
 * CPython's own function for crashes reads them without the lock.
 *
 * Nobody waits for the lock but the thread that the host has made for asking.
 */
#include "plugin.h"

#include <signal.h>
#include <unistd.h>

/* pycore_traceback.h: works without the interpreter's lock, which a stuck thread may hold for ever. Not every version
   exports it, some hide it again: see stacks_prepare(). */
extern const char *_Py_DumpTracebackThreads(int fd, PyInterpreterState *interpreter, PyThreadState *current)
	__attribute__((weak));

/* Where the function is hidden, faulthandler's own handler of a signal does the same, to the log; nobody else uses this
   signal. */
#define DUMP_SIGNAL (SIGRTMAX - 2)

int stacks_prepare(void)
{
	if (_Py_DumpTracebackThreads)
		return 0;
	PyObject *module = PyImport_ImportModule("faulthandler");
	PyObject *done = module ? PyObject_CallMethod(module, "register", "iii", DUMP_SIGNAL, STDERR_FILENO, 1) : NULL;
	Py_XDECREF(module);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

/* Nobody has got the lock: who has it sits in C. */
void stacks_dump(void *state, int fd)
{
	sigset_t one, before;

	(void)state;
	if (_Py_DumpTracebackThreads) {
		_Py_DumpTracebackThreads(fd, PyInterpreterState_Main(), NULL);
		return;
	}
	/* Handled here and now, on this thread, which has no Python in it. */
	sigemptyset(&one);
	sigaddset(&one, DUMP_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &one, &before);
	pthread_kill(pthread_self(), DUMP_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The text that a function of the loader makes. */
static void write_text(struct plugin *plugin, const char *name, int fd)
{
	PyObject *function = PyDict_GetItemString(plugin->loader, name);
	PyObject *text = function ? PyObject_CallObject(function, NULL) : NULL;
	PyObject *bytes = text ? PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace") : NULL;

	if (bytes) {
		ssize_t unused = write(fd, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
		(void)unused;
	}
	Py_XDECREF(bytes);
	Py_XDECREF(text);
	PyErr_Clear();
}

static void stop_requests(struct plugin *plugin)
{
	PyObject *timeout = PyDict_GetItemString(plugin->loader, "RequestTimeout");

	/* With the lock: it is that request still, and will be when the exception is there. */
	for (struct thread *thread = plugin->threads; thread && timeout; thread = thread->next)
		if (thread->call && plugin->host->overdue(thread->call))
			thread->stopped = PyThreadState_SetAsyncExc(thread->identity, timeout) > 0;
}

int stacks_ask(void *state)
{
	struct plugin *plugin = state;
	PyGILState_STATE lock = PyGILState_Ensure();
	int fd = plugin->host->asked();

	if (fd >= 0) {
		write_text(plugin, "stacks", fd);
		if (plugin->is_asgi)
			write_text(plugin, "tasks", fd);
		close(fd);
	}
	stop_requests(plugin);
	PyGILState_Release(lock);
	return 0;
}

/* ---- around each request */

void stacks_begin(struct thread *thread, struct langplugin_call *call)
{
	thread->call = call;
}

void stacks_end(struct thread *thread)
{
	thread->call = NULL;
	/* It came too late: the next request has done nothing. */
	if (thread->stopped)
		PyThreadState_SetAsyncExc(thread->identity, NULL);
	thread->stopped = false;
}
