/*
 * What CPython has only had since some version, for every one from 3.9 on. Public API alone is used here and elsewhere
 * in this plugin, so that one text compiles for all of them; stacks.c has the one exception, and does without where it
 * is missing.
 */
#ifndef WEBSERVER_PYTHON_COMPAT_H
#define WEBSERVER_PYTHON_COMPAT_H

#include <Python.h>

#if PY_VERSION_HEX < 0x03090000
#error "Python 3.9 or newer is needed"
#endif
#ifdef Py_GIL_DISABLED
#error "a free-threaded Python is not supported: this plugin relies on the interpreter's lock"
#endif

/* What the plugin was built for, as python3.11 or python3.11d say it of themselves. The manager looks for it in the
   file, before it opens it (webserver/manager/plugins.py). */
#ifdef Py_DEBUG
#define COMPAT_FLAGS "d"
#else
#define COMPAT_FLAGS ""
#endif
#define COMPAT_TEXT(x)	 #x
#define COMPAT_NUMBER(x) COMPAT_TEXT(x)
#define COMPAT_VERSION	 COMPAT_NUMBER(PY_MAJOR_VERSION) "." COMPAT_NUMBER(PY_MINOR_VERSION)

#if PY_VERSION_HEX < 0x030a0000
static inline PyObject *compat_new_ref(PyObject *object)
{
	Py_INCREF(object);
	return object;
}
static inline PyObject *compat_xnew_ref(PyObject *object)
{
	Py_XINCREF(object);
	return object;
}
#define Py_NewRef(object)  compat_new_ref((PyObject *)(object))
#define Py_XNewRef(object) compat_xnew_ref((PyObject *)(object))
#endif

/* The current exception, with its traceback, which is none any more; NULL: there was none. */
static inline PyObject *exception_take(void)
{
#if PY_VERSION_HEX >= 0x030c0000
	return PyErr_GetRaisedException();
#else
	PyObject *type, *value, *trace;

	PyErr_Fetch(&type, &value, &trace);
	if (!type)
		return NULL;
	PyErr_NormalizeException(&type, &value, &trace);
	if (value && trace)
		PyException_SetTraceback(value, trace);
	Py_DECREF(type);
	Py_XDECREF(trace);
	return value;
#endif
}

/* Takes the reference. NULL: no exception. */
static inline void exception_give(PyObject *value)
{
#if PY_VERSION_HEX >= 0x030c0000
	PyErr_SetRaisedException(value);
#else
	if (value)
		PyErr_Restore(Py_NewRef(Py_TYPE(value)), value, PyException_GetTraceback(value));
	else
		PyErr_Clear();
#endif
}

#if PY_VERSION_HEX < 0x030a0000
typedef enum { PYGEN_RETURN = 0, PYGEN_ERROR = -1, PYGEN_NEXT = 1 } PySendResult;

static inline PySendResult PyIter_Send(PyObject *iterator, PyObject *value, PyObject **result)
{
	*result = value == Py_None && PyIter_Check(iterator) ? Py_TYPE(iterator)->tp_iternext(iterator)
							     : PyObject_CallMethod(iterator, "send", "O", value);
	if (*result)
		return PYGEN_NEXT;
	if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_StopIteration))
		return PYGEN_ERROR;
	/* Without an exception it has ended with None. */
	PyObject *stop = exception_take();
	*result = Py_NewRef(stop ? ((PyStopIterationObject *)stop)->value : Py_None);
	Py_XDECREF(stop);
	return PYGEN_RETURN;
}
#endif

#endif
