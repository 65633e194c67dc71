/* Finds libzmq's functions in what the process has already loaded; loads nothing itself. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "zmqlib.h"

/* Where each function goes. memcpy below, because ISO C has no cast from void * to a function pointer. */
static const struct {
	const char *name;
	size_t at;
} functions[] = {
	{"zmq_version", offsetof(struct zmqlib, version)},
	{"zmq_errno", offsetof(struct zmqlib, errno_)},
	{"zmq_strerror", offsetof(struct zmqlib, strerror)},
	{"zmq_msg_init", offsetof(struct zmqlib, msg_init)},
	{"zmq_msg_init_size", offsetof(struct zmqlib, msg_init_size)},
	{"zmq_msg_init_data", offsetof(struct zmqlib, msg_init_data)},
	{"zmq_msg_move", offsetof(struct zmqlib, msg_move)},
	{"zmq_msg_close", offsetof(struct zmqlib, msg_close)},
	{"zmq_msg_data", offsetof(struct zmqlib, msg_data)},
	{"zmq_msg_size", offsetof(struct zmqlib, msg_size)},
	{"zmq_msg_more", offsetof(struct zmqlib, msg_more)},
	{"zmq_msg_send", offsetof(struct zmqlib, msg_send)},
	{"zmq_msg_recv", offsetof(struct zmqlib, msg_recv)},
	{"zmq_send", offsetof(struct zmqlib, send)},
	{"zmq_getsockopt", offsetof(struct zmqlib, getsockopt)},
};

static int load(struct zmqlib *library, const char *where, char *message, size_t message_size)
{
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *function = dlsym(library->handle, functions[i].name);
		if (function == NULL) {
			snprintf(message, message_size, "%s and what it depends on have no function %s", where,
				functions[i].name);
			return -1;
		}
		memcpy((char *)library + functions[i].at, &function, sizeof(function));
	}
	int major, minor, patch;
	library->version(&major, &minor, &patch);
	if (major != 4 || minor < 2) {
		snprintf(message, message_size, "libzmq %d.%d.%d is loaded; 4.2 or a later 4.x is needed", major, minor,
			patch);
		return -1;
	}
	return 0;
}

struct zmqlib *zmqlib_open(const char *path, char *message, size_t message_size)
{
	const char *where = *path ? path : "the program";
	struct zmqlib *library = calloc(1, sizeof(*library));
	if (library == NULL) {
		snprintf(message, message_size, "no memory");
		return NULL;
	}
	library->handle = dlopen(*path ? path : NULL, RTLD_NOLOAD | RTLD_LAZY);
	if (library->handle == NULL) {
		/* With RTLD_NOLOAD a library that is merely not loaded leaves no text behind. */
		const char *why = dlerror();
		snprintf(message, message_size, "%s is not loaded in this process%s%s", where, why ? ": " : "",
			why ? why : "");
		free(library);
		return NULL;
	}
	if (load(library, where, message, message_size) == 0)
		return library;
	zmqlib_free(library);
	return NULL;
}

void zmqlib_free(struct zmqlib *library)
{
	if (library == NULL)
		return;
	dlclose(library->handle);
	free(library);
}

int engine_zmq(engine *e, const char *library, char *message, size_t message_size)
{
	if (e->zmq != NULL) {
		/* Messages and sockets of the first one may be in use. */
		snprintf(message, message_size, "libzmq has been found already");
		return ENGINE_INVALID;
	}
	e->zmq = zmqlib_open(library, message, message_size);
	return e->zmq != NULL ? ENGINE_OK : ENGINE_SYSTEM;
}
