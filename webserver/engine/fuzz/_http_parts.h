/* The engine's parts that HTTP does not need, for the harness of HTTP. */
#ifndef WEBSERVER_ENGINE_FUZZ_HTTP_PARTS_H
#define WEBSERVER_ENGINE_FUZZ_HTTP_PARTS_H

#include "connection.h"
#include "fields.h"

#endif
