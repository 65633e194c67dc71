/* Strangers' bytes made safe for log lines. Pure functions. */
#ifndef WEBSERVER_ENGINE_ESCAPE_H
#define WEBSERVER_ENGINE_ESCAPE_H

#include "api.h"

#define ESCAPE_MOST 6 /* bytes that one byte may become */

/*
 * Both write at most room bytes, stop before what would not fit whole, and return the end of what they wrote.
 *
 * combined: quotes, backslashes, control characters and all but ASCII become \xHH, so that a line has one reading.
 * json: the inside of a JSON string; bytes that are not UTF-8 become U+FFFD, one for each.
 */
char *escape_combined(char *out, size_t room, const char *data, size_t size);
char *escape_json(char *out, size_t room, const char *data, size_t size);

#endif
