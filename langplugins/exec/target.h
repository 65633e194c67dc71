/* target.h - the request target that a program sees. */
#ifndef WEBSERVER_EXEC_TARGET_H
#define WEBSERVER_EXEC_TARGET_H

#include <stdbool.h>

#include "langplugin.h"

/* The request target for the program, into `to`, which has target_room() bytes. Returns its size. */
size_t target_room(const struct langplugin_request *request);
size_t target_make(const struct langplugin_request *request, bool strip_prefix, char *to);
/* A path with escapes where a target needs them; at most three bytes for one. */
size_t target_encode(struct langplugin_text path, char *to);

#endif
