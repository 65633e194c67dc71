/* What the harness of HTTP is made of besides http.c: checks, and stand-ins for the engine's other parts. */
#ifndef WEBSERVER_ENGINE_FUZZ_HTTP_PARTS_H
#define WEBSERVER_ENGINE_FUZZ_HTTP_PARTS_H

#include "connection.h"
#include "fields.h"

/* _http_checks.c: abort when it does not hold. */
void must(bool condition);
void request_ok(const struct request *r);

#endif
