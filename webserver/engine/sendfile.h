/* Files that a group names in its answer: see sendfile.c. */
#ifndef WEBSERVER_ENGINE_SENDFILE_H
#define WEBSERVER_ENGINE_SENDFILE_H

#include "engine.h"

enum sendfile_kind { SENDFILE_NONE = 0, SENDFILE_PATH, SENDFILE_URI };

struct sendfile {
	enum sendfile_kind kind;
	struct engine_text name;  /* of the field; in lower case, with a NUL behind it */
	struct engine_text value; /* in the answer's message */
};

#define SENDFILE_FIELDS 4 /* that an answer gets beside those that the group gave it */

/* Whether this field of an answer names a file. Such a field is never passed on. */
bool sendfile_take(struct sendfile *wanted, const struct field *field);
/*
 * Answer with that file. No group has the request any more. fields are the group's others, in a place with room for
 * SENDFILE_FIELDS more, and are changed. May end the request.
 */
void sendfile_answer(struct request *r, const struct sendfile *wanted, int status, struct engine_text reason,
	struct field *fields, size_t count);

#endif
