/* The hosts that have remembered decisions, and by which extensions the decisions of each are told apart. */
#ifndef WEBSERVER_ENGINE_HOSTS_H
#define WEBSERVER_ENGINE_HOSTS_H

#include "decisions.h"
#include "table.h"

/* What the entries of one host share. Lives as long as it has entries. */
struct decision_host {
	struct table_node node;
	size_t entries;
	size_t exact;	   /* entries for one path */
	size_t longest;	   /* no prefix among the entries is longer */
	uint32_t extended; /* bits of the extensions that entries are keyed by */
	uint8_t extension_count;
	struct host_extension {
		uint8_t size;
		char text[DECISION_EXTENSION];
	} * extensions; /* a bit's number is the index here; never reordered */
	size_t name_size;
	char name[];
};

uint64_t host_hash(const struct hash_key *key, struct engine_text host);
struct decision_host *host_find(const struct table *hosts, struct engine_text name, uint64_t hash);
struct decision_host *host_get(
	struct table *hosts, const struct hash_key *key, struct engine_text name); /* made if new */
/* Frees it if it has no entries. */
void host_release(struct table *hosts, struct decision_host *host);
/* Bits of the host's extensions that a segment of the path ends in. */
uint32_t extensions_of(const struct decision_host *host, struct engine_text path);
/* The extension's number at this host, made when it is new; -1: there is no room. */
int extension_number(struct decision_host *host, struct engine_text extension);

#endif
