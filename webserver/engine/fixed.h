/* Answers that Python registered once and decisions name by number. */
#ifndef WEBSERVER_ENGINE_FIXED_H
#define WEBSERVER_ENGINE_FIXED_H

#include "engine.h"

#define FIXED_IDS    65536
#define FIXED_FIELDS 64

struct fixed_answers;

/* For answers that are queued as a whole at once: nothing is left to do for the request's body, for room, or at the
 * end. */
extern const struct backend whole_backend;

struct fixed_answers *fixed_new(void);
void fixed_delete(struct fixed_answers *all);
bool fixed_known(const struct fixed_answers *all, uint32_t id);
int fixed_set(struct fixed_answers *all, uint32_t id, int status, const struct engine_field *fields, size_t count,
	struct engine_text body);
/* Answer with it; ends or finishes the request. */
void fixed_answer(struct request *r, const struct fixed_answers *all, uint32_t id);

#endif
