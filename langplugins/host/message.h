/*
 * message.h - one message of the channel in memory of its own; whoever has the pointer owns it.
 *
 * Large ones are pieces of bodies. Each thread keeps two of them for the next: given back to the kernel and faulted in
 * again they would cost more than their copying. What a worker keeps is its private memory, so one that has nothing to
 * do gives it back (link.c, pause.c).
 */
#ifndef WEBSERVER_HOST_MESSAGE_H
#define WEBSERVER_HOST_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#define MESSAGE_LARGE 32768
#define MESSAGE_ROOM  262208 /* WIRE_PIECE and a head; what is larger than this is not kept */
#define MESSAGES_KEPT 2
#define MESSAGES_MS   100 /* a pause that no busy worker makes */

struct message {
	size_t size; /* decides where it lies: it stays as message_new was given it */
	_Alignas(16) char data[];
};

struct message *message_new(size_t size); /* NULL: no memory */
void message_free(struct message *message);
bool messages_kept(void);   /* by the calling thread */
void messages_forget(void); /* the calling thread's */

#endif
