/* Conditional requests (RFC 9110 section 13). Pure functions. */
#ifndef WEBSERVER_ENGINE_CONDITIONS_H
#define WEBSERVER_ENGINE_CONDITIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"

#define CONDITION_LINES 8 /* of one entity-tag field; a request with more matches no entity-tag */

/* The request's preconditions. A field that is not there has no lines, or data NULL. */
struct conditions {
	struct engine_text if_match[CONDITION_LINES], if_none_match[CONDITION_LINES];
	size_t if_match_count, if_none_match_count; /* above CONDITION_LINES: too many */
	struct engine_text if_unmodified_since, if_modified_since, if_range;
};

/* What there is now. */
struct validators {
	struct engine_text etag; /* with its quotes; "W/" before them: weak; "": none */
	int64_t modified;	 /* seconds */
	int64_t now;		 /* seconds */
};

enum condition_result {
	CONDITION_PROCEED = 0,
	CONDITION_WHOLE = 1, /* proceed, but If-Range says that Range does not count */
	CONDITION_NOT_MODIFIED = 2,
	CONDITION_FAILED = 3 /* 412 */
};

/* For GET and HEAD of something that exists. */
enum condition_result conditions_check(const struct conditions *c, const struct validators *v);

/* Whether an entity-tag list ("*" counts as any) holds the tag. Wrong syntax: it holds nothing. */
bool etag_list_has(struct engine_text list, struct engine_text etag, bool weak_comparison);

#endif
