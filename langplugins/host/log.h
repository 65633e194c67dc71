/* log.h - entries of the error log on descriptor 2: 0x1e, one JSON object, newline. Never waits; what does not fit is
 * counted and reported with the next entry that does. */
#ifndef WEBSERVER_HOST_LOG_H
#define WEBSERVER_HOST_LOG_H

#include <stddef.h>

#include "host.h"

/* request and site may be empty texts. From any thread. */
void log_entry(int level, struct langplugin_text request, struct langplugin_text site, const char *text, size_t size);
/* A text of many lines, as entries that a pipe takes whole; waits for room in it for so long at most. */
void log_lines(int level, struct langplugin_text request, struct langplugin_text site, const char *text, size_t size,
	int milliseconds);
/* call may be NULL. */
void log_format(struct langplugin_call *call, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
