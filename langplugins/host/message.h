/* message.h - one message of the channel in memory of its own; whoever has the pointer owns it. */
#ifndef WEBSERVER_HOST_MESSAGE_H
#define WEBSERVER_HOST_MESSAGE_H

#include <stddef.h>

struct message {
	size_t size;
	_Alignas(16) char data[];
};

struct message *message_new(size_t size); /* NULL: no memory */
void message_free(struct message *message);

#endif
