/* wsgi.file_wrapper: a file as an answer. A real file is sent by its descriptor, anything else is read in blocks. */
#include <sys/stat.h>

#include "plugin.h"

static int wrapper_init(PyObject *self, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"filelike", "blksize", NULL};
	struct file_wrapper *wrapper = (struct file_wrapper *)self;
	PyObject *file;
	Py_ssize_t block = 65536;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|n:FileWrapper", names, &file, &block))
		return -1;
	if (block <= 0) {
		PyErr_SetString(PyExc_ValueError, "blksize must be above 0");
		return -1;
	}
	Py_XSETREF(wrapper->file, Py_NewRef(file));
	wrapper->block = block;
	return 0;
}

static PyObject *wrapper_next(PyObject *self)
{
	struct file_wrapper *wrapper = (struct file_wrapper *)self;
	PyObject *data = wrapper->file ? PyObject_CallMethod(wrapper->file, "read", "n", wrapper->block) : NULL;

	if (data && PyBytes_Check(data) && PyBytes_GET_SIZE(data) == 0)
		Py_CLEAR(data);
	return data;
}

static PyObject *wrapper_close(PyObject *self, PyObject *nothing)
{
	struct file_wrapper *wrapper = (struct file_wrapper *)self;

	(void)nothing;
	if (!wrapper->file || !PyObject_HasAttrString(wrapper->file, "close"))
		Py_RETURN_NONE;
	return PyObject_CallMethod(wrapper->file, "close", NULL);
}

static int wrapper_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(((struct file_wrapper *)self)->file);
	return 0;
}

static int wrapper_clear(PyObject *self)
{
	Py_CLEAR(((struct file_wrapper *)self)->file);
	return 0;
}

static void wrapper_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	wrapper_clear(self);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef wrapper_methods[] = {
	{"close", wrapper_close, METH_NOARGS, "close the file"},
	{NULL, NULL, 0, NULL},
};

PyTypeObject file_wrapper_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "webserver.FileWrapper",
	.tp_basicsize = sizeof(struct file_wrapper),
	.tp_dealloc = wrapper_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_doc = "FileWrapper(filelike, blksize=65536): a file as an answer (wsgi.file_wrapper).",
	.tp_traverse = wrapper_traverse,
	.tp_clear = wrapper_clear,
	.tp_iter = PyObject_SelfIter,
	.tp_iternext = wrapper_next,
	.tp_methods = wrapper_methods,
	.tp_init = wrapper_init,
	.tp_new = PyType_GenericNew,
};

/* io's own classes, whose position is the descriptor's but for what they have buffered; kept for ever. */
static PyObject *raw_type, *reader_type, *random_type;

int file_wrapper_make(void)
{
	PyObject *io = PyImport_ImportModule("io");

	if (io) {
		raw_type = PyObject_GetAttrString(io, "FileIO");
		reader_type = PyObject_GetAttrString(io, "BufferedReader");
		random_type = PyObject_GetAttrString(io, "BufferedRandom");
	}
	Py_XDECREF(io);
	return raw_type && reader_type && random_type ? 0 : -1;
}

/* What tempfile's functions give. Nobody has one if nobody has imported it, which costs memory and time. */
static bool is_temporary(PyObject *file)
{
	PyObject *name = PyUnicode_FromString("tempfile");
	PyObject *module = name ? PyImport_GetModule(name) : NULL;
	PyObject *type = module ? PyObject_GetAttrString(module, "_TemporaryFileWrapper") : NULL;
	bool result = type && (PyObject *)Py_TYPE(file) == type;

	Py_XDECREF(name);
	Py_XDECREF(module);
	Py_XDECREF(type);
	PyErr_Clear();
	return result;
}

/*
 * True if what read() gives is what lies behind fileno(). gzip.GzipFile has both fileno() and tell() and is another
 * file than its descriptor's; nobody knows what a class of the application's does.
 */
static bool is_plain(PyObject *file)
{
	PyObject *inner = NULL;
	bool plain = Py_IS_TYPE(file, (PyTypeObject *)raw_type);

	if (Py_IS_TYPE(file, (PyTypeObject *)reader_type) || Py_IS_TYPE(file, (PyTypeObject *)random_type))
		inner = PyObject_GetAttrString(file, "raw");
	else if (!plain && is_temporary(file))
		inner = PyObject_GetAttrString(file, "file");
	if (inner)
		plain = is_plain(inner);
	Py_XDECREF(inner);
	PyErr_Clear();
	return plain;
}

int file_wrapper_descriptor(struct file_wrapper *wrapper, int64_t *offset)
{
	struct stat st;
	int fd = -1;
	PyObject *number = NULL, *position = NULL;

	if (!wrapper->file || !is_plain(wrapper->file))
		return -1;
	/* The position that the program sees: a buffered reader's descriptor is ahead of it. */
	number = PyObject_CallMethod(wrapper->file, "fileno", NULL);
	position = number ? PyObject_CallMethod(wrapper->file, "tell", NULL) : NULL;
	if (position && PyLong_Check(number) && PyLong_Check(position)) {
		fd = (int)PyLong_AsLong(number);
		*offset = PyLong_AsLongLong(position);
	}
	Py_XDECREF(number);
	Py_XDECREF(position);
	PyErr_Clear();
	return fd >= 0 && *offset >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fd : -1;
}
