/* Plain sockets; the descriptors that are not a connection's but belong to accepting them. */
#ifndef WEBSERVER_ENGINE_TRANSPORT_H
#define WEBSERVER_ENGINE_TRANSPORT_H

#include "connection.h"

extern const struct transport socket_transport;

#endif
