/*
 * Where every thread is, and the end of a request whose time is over: asked for from a thread that is not Python's.
 * With the interpreter's lock everything can be known, and most of the time it can be had within milliseconds. It
 * cannot where somebody sits in C with it; then no other thread of Python's runs either, the frames stand still, and
 * CPython's own function for crashes reads them without the lock.
 *
 * Nobody here waits for the lock but a thread of its own, made for that one question.
 */
#include "plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOCK_MS	   200 /* to get the lock in */
#define WRITING_MS 150 /* for what has begun with it */

/* pycore_traceback.h: works without the interpreter's lock, which a stuck thread may hold for ever. Not every version
   exports it, some hide it again: see stacks_prepare(). */
extern const char *_Py_DumpTracebackThreads(int fd, PyInterpreterState *interpreter, PyThreadState *current)
	__attribute__((weak));

/* Where the function is hidden, faulthandler's own handler of a signal does the same, to the log; nobody else uses this
   signal. */
#define DUMP_SIGNAL (SIGRTMAX - 2)

enum { ASKED, TAKEN, GIVEN_UP };

struct question {
	struct plugin *plugin;
	int fd;
	atomic_int state, holders;
	sem_t answered;
	struct thread *thread; /* to be stopped, while it runs request `serial` */
	uint64_t serial;
};

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

static void dump_without_lock(int fd)
{
	sigset_t one, before;

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

static void release(struct question *question)
{
	if (atomic_fetch_sub(&question->holders, 1) > 1)
		return;
	if (question->fd >= 0)
		close(question->fd);
	sem_destroy(&question->answered);
	free(question);
}

/* The two may hold it. NULL: no memory. */
static struct question *make(struct plugin *plugin, int holders)
{
	struct question *question = calloc(1, sizeof(*question));

	if (!question)
		return NULL;
	question->plugin = plugin;
	question->fd = -1;
	atomic_init(&question->holders, holders);
	sem_init(&question->answered, 0, 0);
	return question;
}

/* On a thread without signals; the caller's share is given back if there is none. */
static int start(void *(*run)(void *argument), struct question *question)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int result = pthread_create(&thread, &attributes, run, question);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result)
		release(question);
	return result;
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

static void *answer(void *argument)
{
	struct question *question = argument;
	PyGILState_STATE lock = PyGILState_Ensure();
	int asked = ASKED;

	if (atomic_compare_exchange_strong(&question->state, &asked, TAKEN)) {
		write_text(question->plugin, "stacks", question->fd);
		if (question->plugin->is_asgi)
			write_text(question->plugin, "tasks", question->fd);
		close(question->fd);
		question->fd = -1;
	}
	PyGILState_Release(lock);
	sem_post(&question->answered);
	release(question);
	return NULL;
}

static bool is_answered(struct question *question, int milliseconds)
{
	struct timespec until;
	int result;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += milliseconds * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	do
		result = sem_clockwait(&question->answered, CLOCK_MONOTONIC, &until);
	while (result && errno == EINTR);
	return result == 0;
}

void stacks_dump(void *state, int fd)
{
	struct plugin *plugin = state;
	struct question *question = plugin->serves ? make(plugin, 2) : NULL;
	int asked = ASKED;

	if (!question) {
		dump_without_lock(fd);
		return;
	}
	question->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (question->fd < 0 || start(answer, question)) {
		dump_without_lock(fd);
	} else if (!is_answered(question, LOCK_MS)) {
		if (atomic_compare_exchange_strong(&question->state, &asked, GIVEN_UP))
			dump_without_lock(fd);
		else
			is_answered(question, WRITING_MS);
	}
	release(question);
}

/* ---- a request whose time is over */

static void *stop(void *argument)
{
	struct question *question = argument;
	PyGILState_STATE lock = PyGILState_Ensure();
	struct thread *thread = question->thread;

	/* With the lock: it is this request still, and will be when the exception is there. */
	if (thread->call && thread->serial == question->serial) {
		PyObject *timeout = PyDict_GetItemString(question->plugin->loader, "RequestTimeout");
		if (timeout)
			thread->stopped = PyThreadState_SetAsyncExc(thread->identity, timeout) > 0;
	}
	PyGILState_Release(lock);
	release(question);
	return NULL;
}

void stacks_interrupt(void *state, struct langplugin_call *call)
{
	struct plugin *plugin = state;
	const struct langplugin_host *host = plugin->host;
	struct thread *thread = NULL;

	if (host->size >= offsetof(struct langplugin_host, place) + sizeof(host->place))
		thread = *host->place(call);
	struct question *question = thread ? make(plugin, 1) : NULL;
	if (!question)
		return;
	question->thread = thread;
	/* The call lives while we are called. */
	question->serial = __atomic_load_n(&thread->serial, __ATOMIC_RELAXED);
	start(stop, question);
}

void stacks_begin(struct thread *thread, struct langplugin_call *call)
{
	const struct langplugin_host *host = thread->plugin->host;

	__atomic_store_n(&thread->serial, thread->serial + 1, __ATOMIC_RELAXED);
	thread->call = call;
	if (host->size >= offsetof(struct langplugin_host, place) + sizeof(host->place))
		*host->place(call) = thread;
}

void stacks_end(struct thread *thread)
{
	thread->call = NULL;
	/* It came too late: the next request has done nothing. */
	if (thread->stopped)
		PyThreadState_SetAsyncExc(thread->identity, NULL);
	thread->stopped = false;
}
