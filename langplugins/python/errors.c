/* wsgi.errors: whole lines go to the group's error log, with the request's id. */
#include "plugin.h"

static struct errors *check(PyObject *self)
{
	struct errors *errors = (struct errors *)self;

	if (errors->call)
		return errors;
	PyErr_SetString(PyExc_ValueError, "wsgi.errors of a request that is over");
	return NULL;
}

static int log_text(struct errors *errors, PyObject *text)
{
	PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");

	if (!bytes)
		return -1;
	errors->host->log(errors->call, LP_NOTICE, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
	Py_DECREF(bytes);
	return 0;
}

static int write_text(struct errors *errors, PyObject *text)
{
	if (!PyUnicode_Check(text)) {
		PyErr_Format(PyExc_TypeError, "wsgi.errors takes str, not %.100s", Py_TYPE(text)->tp_name);
		return -1;
	}
	PyObject *all = errors->partial ? PyUnicode_Concat(errors->partial, text) : Py_NewRef(text);
	if (!all)
		return -1;
	Py_CLEAR(errors->partial);
	Py_ssize_t size = PyUnicode_GET_LENGTH(all);
	Py_ssize_t end = PyUnicode_FindChar(all, '\n', 0, size, -1);
	int result = 0;
	if (end == -2) {
		result = -1;
	} else if (end >= 0) {
		PyObject *lines = PyUnicode_Substring(all, 0, end);
		result = lines ? log_text(errors, lines) : -1;
		Py_XDECREF(lines);
	}
	if (!result && end + 1 < size)
		errors->partial = PyUnicode_Substring(all, end + 1, size);
	Py_DECREF(all);
	return result;
}

static PyObject *errors_write(PyObject *self, PyObject *text)
{
	struct errors *errors = check(self);

	if (!errors || write_text(errors, text))
		return NULL;
	return PyLong_FromSsize_t(PyUnicode_GET_LENGTH(text));
}

static PyObject *errors_writelines(PyObject *self, PyObject *lines)
{
	struct errors *errors = check(self);
	PyObject *iterator = errors ? PyObject_GetIter(lines) : NULL, *text;

	if (!iterator)
		return NULL;
	while ((text = PyIter_Next(iterator))) {
		int result = write_text(errors, text);
		Py_DECREF(text);
		if (result)
			break;
	}
	Py_DECREF(iterator);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *errors_flush(PyObject *self, PyObject *nothing)
{
	struct errors *errors = check(self);

	(void)nothing;
	if (!errors)
		return NULL;
	if (errors->partial && log_text(errors, errors->partial))
		return NULL;
	Py_CLEAR(errors->partial);
	Py_RETURN_NONE;
}

static void errors_dealloc(PyObject *self)
{
	Py_XDECREF(((struct errors *)self)->partial);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef errors_methods[] = {
	{"write", errors_write, METH_O, "write(text)"},
	{"writelines", errors_writelines, METH_O, "writelines(texts)"},
	{"flush", errors_flush, METH_NOARGS, "flush()"},
	{NULL, NULL, 0, NULL},
};

PyTypeObject errors_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "webserver.Errors",
	.tp_basicsize = sizeof(struct errors),
	.tp_dealloc = errors_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "The group's error log (wsgi.errors).",
	.tp_methods = errors_methods,
};

PyObject *errors_take(struct thread *thread, struct langplugin_call *call)
{
	if (!thread->errors || Py_REFCNT(thread->errors) != 1) {
		Py_XDECREF(thread->errors);
		struct errors *made = PyObject_New(struct errors, &errors_type);
		thread->errors = (PyObject *)made;
		if (!made)
			return NULL;
		made->partial = NULL;
	}
	struct errors *errors = (struct errors *)thread->errors;
	errors->host = thread->plugin->host;
	errors->call = call;
	return Py_NewRef(thread->errors);
}

void errors_detach(PyObject *self)
{
	struct errors *errors = (struct errors *)self;

	if (errors->partial) {
		if (log_text(errors, errors->partial))
			PyErr_Clear();
		Py_CLEAR(errors->partial);
	}
	errors->call = NULL;
}
