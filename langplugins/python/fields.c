/* Header fields of an application, as the host takes them. */
#include "asgi.h"

/* The connection is the server's: what an application says of it is ignored, as the spec has it for
   Transfer-Encoding. */
static bool is_ignored(PyObject *name)
{
	static const char *const words[] = {
		"transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "proxy-connection"};
	size_t size = (size_t)PyBytes_GET_SIZE(name);

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strlen(words[i]) == size && PyOS_strnicmp(words[i], PyBytes_AS_STRING(name), (Py_ssize_t)size) == 0)
			return true;
	return false;
}

static struct langplugin_text text_of(PyObject *bytes)
{
	return (struct langplugin_text){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
}

PyObject *pairs_of(PyObject *headers, const char *what)
{
	PyObject *kept = PyList_New(0);
	PyObject *all = headers && headers != Py_None ? PySequence_Fast(headers, "headers must be iterable") : NULL;

	if (!kept || (!all && PyErr_Occurred()))
		Py_CLEAR(kept);
	for (Py_ssize_t i = 0; kept && all && i < PySequence_Fast_GET_SIZE(all); i++) {
		PyObject *item = PySequence_Fast_GET_ITEM(all, i),
			 *pair = PySequence_Fast(item, "a header must be a pair");
		PyObject *name = NULL, *value = NULL;
		if (pair && PySequence_Fast_GET_SIZE(pair) == 2) {
			name = PySequence_Fast_GET_ITEM(pair, 0);
			value = PySequence_Fast_GET_ITEM(pair, 1);
		}
		if (!name || !PyBytes_Check(name) || !PyBytes_Check(value)) {
			PyErr_Format(PyExc_TypeError, "send: %s must be pairs of bytes, not %R", what, item);
			Py_CLEAR(kept);
		} else if (!is_ignored(name)) {
			/* A tuple of ours: the application's list may change. */
			PyObject *own = PyTuple_Pack(2, name, value);
			if (!own || PyList_Append(kept, own))
				Py_CLEAR(kept);
			Py_XDECREF(own);
		}
		Py_XDECREF(pair);
	}
	Py_XDECREF(all);
	return kept;
}

struct langplugin_field *fields_of(PyObject *pairs, struct langplugin_field *small, Py_ssize_t room)
{
	Py_ssize_t count = PyList_GET_SIZE(pairs);
	struct langplugin_field *fields = count <= room ? small
							: PyMem_Calloc((size_t)count, sizeof(struct langplugin_field));

	if (!fields)
		PyErr_NoMemory();
	for (Py_ssize_t i = 0; fields && i < count; i++) {
		PyObject *pair = PyList_GET_ITEM(pairs, i);
		fields[i] = (struct langplugin_field){
			text_of(PyTuple_GET_ITEM(pair, 0)), text_of(PyTuple_GET_ITEM(pair, 1))};
	}
	return fields;
}
