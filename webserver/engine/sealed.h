/* Memory that a worker has too. */
#ifndef WEBSERVER_ENGINE_SEALED_H
#define WEBSERVER_ENGINE_SEALED_H

#include <stddef.h>

/*
 * size bytes of a memfd from the supervisor, mapped with `protection`; closes fd. If its worker could cut it short,
 * reading it would be the end of this process (SIGBUS), so one that is not sealed is refused. NULL, and why in message;
 * `what` names the memory there.
 */
void *sealed_map(int fd, size_t size, int protection, const char *what, char *message, size_t message_size);

#endif
