/* Hash tables whose links lie in their members. The table owns its buckets, never the members. */
#ifndef WEBSERVER_ENGINE_TABLE_H
#define WEBSERVER_ENGINE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "hash.h"

struct table_node {
	struct table_node *next;
	uint64_t hash;
};

struct table {
	struct table_node **buckets;
	unsigned bits; /* 1 << bits buckets */
	size_t count;
	uint64_t mix;
};

int table_make(struct table *table, unsigned bits, const struct hash_key *key); /* 0 or -1 with errno */
void table_free(struct table *table);
/* Doubles the buckets when members outnumber them; stays as it is when there is no memory for that. */
void table_insert(struct table *table, struct table_node *node);
void table_remove(struct table *table, struct table_node *node);

static inline size_t table_bucket(const struct table *table, uint64_t hash)
{
	return (size_t)((hash * table->mix) >> (64 - table->bits));
}

/* The first of the chain that holds all nodes with this hash, and others. */
static inline struct table_node *table_chain(const struct table *table, uint64_t hash)
{
	return table->buckets[table_bucket(table, hash)];
}

#endif
