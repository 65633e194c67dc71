/*
 * The table of remembered decisions: which host and path go where, as Python once said.
 *
 * It knows nothing of requests: texts go in, an entry comes out. An entry is counted by the table and by each request
 * that follows it, so forgetting one never pulls it from under a request. Keys come from strangers, hence the keyed
 * hash, the bounded number of entries, and work for a look-up that does not grow faster than the path.
 */
#ifndef WEBSERVER_ENGINE_DECISIONS_H
#define WEBSERVER_ENGINE_DECISIONS_H

#include "engine.h"
#include "table.h"

#define DECISION_CHOICES    8
#define DECISION_EXCEPTIONS 4096 /* prefixes of one decision that have decisions of their own */
#define DECISION_EXTENSIONS 32	 /* that the decisions of one host may tell apart; a bit each */
#define DECISION_EXTENSION  15	 /* bytes of one, with its "." */
#define DECISION_DEPTH	    64	 /* "/" in a remembered prefix */
#define DECISION_KEY	    512	 /* bytes of a remembered path or prefix: strangers choose how many of them there are */

struct decision {
	struct table_node node;
	struct list order; /* of the clock that chooses what to evict */
	uint32_t references;
	bool used; /* since the clock's hand last came by */
	bool gather;
	uint8_t scope;		    /* enum engine_scope */
	struct decision_host *host; /* NULL: not in the table */
	struct site *site;
	uint64_t generation;	   /* the site's when it was decided */
	uint64_t key;		   /* within its host: exact, prefix, or which extension */
	struct engine_text method; /* "": any */
	struct engine_text path;   /* exact path, or prefix */
	struct engine_text extension;
	uint32_t except_extensions; /* bits of the host's extensions */
	uint8_t except_first[32];   /* set of the bytes that follow the prefix in any of except_prefixes */
	struct engine_text *except_prefixes;
	size_t except_prefix_count;
	struct choice *choices;
	size_t choice_count;
};

struct decision_table;

struct decision_table *decisions_new(size_t limit); /* NULL with errno */
void decisions_delete(struct decision_table *table);
void decisions_limit(struct decision_table *table, size_t limit);
size_t decisions_count(const struct decision_table *table);
void decisions_clear(struct decision_table *table);
/* An entry that holds for this request, or NULL. Borrowed: decision_ref it before anything else is done to the table.
 */
struct decision *decisions_find(
	struct decision_table *table, struct engine_text host, struct engine_text path, struct engine_text method);
/* A checked decision's entry, remembered as its scope says. One reference is the caller's. NULL: no memory. */
struct decision *decisions_add(struct decision_table *table, const struct engine_decision *from, struct site *site,
	struct engine_text host, struct engine_text path, struct engine_text method);
struct decision *decision_ref(struct decision *d);
/* The length of path up to the end of its first segment, counted from `from`, that ends in the extension; 0: none. */
size_t extension_end(struct engine_text path, size_t from, struct engine_text extension);

#endif
