/*
 * What receive() and send() return. It behaves as the coroutine of an `async def` would: nothing happens before it is
 * awaited, it may be made a task of, and cancelled. What can be done at once costs no future and no turn of the loop.
 */
#include "asgi.h"

PyObject *step_make(struct exchange *exchange, PyObject *event)
{
	struct step *step = PyObject_New(struct step, &step_type);

	if (!step)
		return NULL;
	step->exchange = (struct exchange *)Py_NewRef((PyObject *)exchange);
	step->event = Py_XNewRef(event);
	step->inner = step->future = NULL;
	step->next = NULL;
	step->link = NULL;
	step->waits = WAITS_NOT;
	step->delegated = step->taken = step->over = false;
	return (PyObject *)step;
}

static void leave_list(struct step *step)
{
	if (!step->link)
		return;
	*step->link = step->next;
	if (step->next)
		step->next->link = step->link;
	step->link = NULL;
	step->next = NULL;
}

static void end(struct step *step)
{
	leave_list(step);
	Py_CLEAR(step->inner);
	Py_CLEAR(step->future);
	step->over = true;
}

/* At the end of the list: who came first is woken first. */
static void join_list(struct step *step)
{
	struct step **link = &step->exchange->waiters;

	while (*link)
		link = &(*link)->next;
	*link = step;
	step->link = link;
	step->next = NULL;
}

static int wait(struct step *step)
{
	Py_XSETREF(step->future, PyObject_CallNoArgs(step->exchange->plugin->asgi.create_future));
	if (!step->future)
		return -1;
	const PyAsyncMethods *async = Py_TYPE(step->future)->tp_as_async;
	if (!async || !async->am_await) {
		PyErr_SetString(PyExc_TypeError, "the event loop's futures cannot be awaited");
		return -1;
	}
	step->inner = async->am_await(step->future);
	if (!step->inner)
		return -1;
	join_list(step);
	return 0;
}

static PySendResult go_on(PyObject *self, PyObject *value, PyObject **result)
{
	struct step *step = (struct step *)self;

	*result = NULL;
	if (step->over) {
		PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited receive() or send()");
		return PYGEN_ERROR;
	}
	for (;;) {
		if (step->inner) {
			PySendResult sent = PyIter_Send(step->inner, value, result);
			if (sent == PYGEN_NEXT)
				return sent;
			leave_list(step);
			Py_CLEAR(step->inner);
			if (sent == PYGEN_ERROR || step->delegated) {
				end(step);
				return sent;
			}
			Py_CLEAR(*result);
		}
		PyObject *event = NULL;
		enum tried tried = step->event ? send_try(step) : receive_try(step, &event);
		if (tried == TRIED_DONE) {
			end(step);
			*result = event ? event : Py_NewRef(Py_None);
			return PYGEN_RETURN;
		}
		if (tried == TRIED_ERROR || (tried == TRIED_WAIT && wait(step))) {
			end(step);
			return PYGEN_ERROR;
		}
		step->delegated = tried == TRIED_DELEGATED;
		value = Py_None;
	}
}

static PyObject *step_next(PyObject *self)
{
	PyObject *result;
	PySendResult sent = go_on(self, Py_None, &result);

	if (sent == PYGEN_RETURN) {
		/* Without a value it is the end without StopIteration. */
		if (result != Py_None) {
			PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
			if (stop)
				PyErr_SetObject(PyExc_StopIteration, stop);
			Py_XDECREF(stop);
		}
		Py_DECREF(result);
		return NULL;
	}
	return sent == PYGEN_NEXT ? result : NULL;
}

static PyObject *step_send(PyObject *self, PyObject *value)
{
	PyObject *result;
	PySendResult sent = go_on(self, value, &result);

	if (sent == PYGEN_RETURN) {
		PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
		if (stop)
			PyErr_SetObject(PyExc_StopIteration, stop);
		Py_XDECREF(stop);
		Py_DECREF(result);
		return NULL;
	}
	return sent == PYGEN_NEXT ? result : NULL;
}

/* throw(type), throw(value), throw(type, value, traceback): cancellation comes this way. */
static PyObject *step_throw(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct step *step = (struct step *)self;

	if (count < 1 || count > 3)
		return PyErr_Format(PyExc_TypeError, "throw() takes from 1 to 3 arguments");
	if (step->inner) {
		PyObject *method = PyObject_GetAttrString(step->inner, "throw");
		PyObject *result = method ? PyObject_Vectorcall(method, args, (size_t)count, NULL) : NULL;
		Py_XDECREF(method);
		if (result)
			return result;
		/* What it was waiting for is not waited for any more. A send() has given its bytes away already: they
		   go out without anybody waiting. */
		end(step);
		return NULL;
	}
	end(step);
	if (PyExceptionInstance_Check(args[0]))
		PyErr_SetObject((PyObject *)Py_TYPE(args[0]), args[0]);
	else
		PyErr_Restore(Py_NewRef(args[0]), count > 1 ? Py_NewRef(args[1]) : NULL,
			count > 2 && args[2] != Py_None ? Py_NewRef(args[2]) : NULL);
	return NULL;
}

static PyObject *step_close(PyObject *self, PyObject *unused)
{
	struct step *step = (struct step *)self;
	PyObject *closed = Py_NewRef(Py_None);

	(void)unused;
	if (step->inner && step->delegated)
		Py_SETREF(closed, PyObject_CallMethod(step->inner, "close", NULL));
	end(step);
	return closed;
}

static void step_dealloc(PyObject *self)
{
	struct step *step = (struct step *)self;

	end(step);
	Py_CLEAR(step->event);
	Py_DECREF(step->exchange);
	PyObject_Free(self);
}

static PyMethodDef step_methods[] = {
	{"send", step_send, METH_O, "send(value)"},
	{"throw", (PyCFunction)(void (*)(void))step_throw, METH_FASTCALL, "throw(type, value=None, traceback=None)"},
	{"close", step_close, METH_NOARGS, "close()"},
	{NULL, NULL, 0, NULL},
};

static PyAsyncMethods step_async = {
	.am_await = PyObject_SelfIter,
#if PY_VERSION_HEX >= 0x030a0000 /* before it, step_next and step_send do */
	.am_send = go_on,
#endif
};

PyTypeObject step_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "webserver.Step",
	.tp_basicsize = sizeof(struct step),
	.tp_dealloc = step_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "What receive() and send() return: a coroutine.",
	.tp_iter = PyObject_SelfIter,
	.tp_iternext = step_next,
	.tp_methods = step_methods,
	.tp_as_async = &step_async,
};
