/*
 * The libzmq that pyzmq has loaded, as a table of its functions.
 *
 * Python makes, binds and configures the sockets; the engine only sends and receives on them. Two copies of libzmq in
 * one process would be two sets of io threads and two meanings of a socket handle, so the engine is not linked to one:
 * it asks the loader for the copy that pyzmq's extension module brought in.
 *
 * Names are those of zmq.h without "zmq_". The types and constants come from zmq.h; zmq_msg_t has the same size and
 * life cycle in all of 4.x. engine_zmq() fills e->zmq. It is freed last of all (zmqlib_free from engine_free), because
 * an output queue may still hold a message.
 */
#ifndef WEBSERVER_ENGINE_ZMQLIB_H
#define WEBSERVER_ENGINE_ZMQLIB_H

#include <zmq.h>

struct zmqlib {
	void *handle; /* of dlopen: keeps the library where it is */
	void (*version)(int *major, int *minor, int *patch);
	int (*errno_)(void);
	const char *(*strerror)(int number);
	int (*msg_init)(zmq_msg_t *message);
	int (*msg_init_size)(zmq_msg_t *message, size_t size);
	int (*msg_init_data)(zmq_msg_t *message, void *data, size_t size, zmq_free_fn *release, void *hint);
	int (*msg_move)(zmq_msg_t *to, zmq_msg_t *from);
	int (*msg_close)(zmq_msg_t *message);
	void *(*msg_data)(zmq_msg_t *message);
	size_t (*msg_size)(const zmq_msg_t *message);
	int (*msg_more)(const zmq_msg_t *message);
	int (*msg_send)(zmq_msg_t *message, void *socket, int flags);
	int (*msg_recv)(zmq_msg_t *message, void *socket, int flags);
	int (*send)(void *socket, const void *data, size_t size, int flags);
	int (*getsockopt)(void *socket, int option, void *value, size_t *size);
};

/* library: as for engine_zmq. NULL with a sentence in message: it is not loaded, lacks a function, or is not 4.x. */
struct zmqlib *zmqlib_open(const char *library, char *message, size_t message_size);
void zmqlib_free(struct zmqlib *library); /* NULL is allowed */

#endif
