/* Hash tables whose links lie in their members: see table.h. */
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

int hash_key_make(struct hash_key *key)
{
	uint64_t words[2];
	size_t have = 0;
	while (have < sizeof words) {
		ssize_t got = getrandom((char *)words + have, sizeof words - have, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return -1;
		have += (size_t)got;
	}
	key->point = words[0] % (HASH_PRIME - 2) + 2; /* 0 and 1 would forget the text */
	key->mix = words[1] | 1;
	return 0;
}

int table_make(struct table *table, unsigned bits, const struct hash_key *key)
{
	table->buckets = calloc((size_t)1 << bits, sizeof *table->buckets);
	table->bits = bits;
	table->count = 0;
	table->mix = key->mix;
	return table->buckets == NULL ? -1 : 0;
}

void table_free(struct table *table)
{
	free(table->buckets);
	table->buckets = NULL;
	table->count = 0;
}

static void grow(struct table *table)
{
	struct table larger = {.bits = table->bits + 1, .count = table->count, .mix = table->mix};
	larger.buckets = calloc((size_t)1 << larger.bits, sizeof *larger.buckets);
	if (larger.buckets == NULL)
		return; /* chains become longer, nothing else */
	for (size_t i = 0; i < (size_t)1 << table->bits; i++) {
		struct table_node *node = table->buckets[i];
		while (node != NULL) {
			struct table_node *next = node->next;
			struct table_node **bucket = &larger.buckets[table_bucket(&larger, node->hash)];
			node->next = *bucket;
			*bucket = node;
			node = next;
		}
	}
	free(table->buckets);
	*table = larger;
}

void table_insert(struct table *table, struct table_node *node)
{
	if (table->count >= (size_t)1 << table->bits && table->bits < 30)
		grow(table);
	struct table_node **bucket = &table->buckets[table_bucket(table, node->hash)];
	node->next = *bucket;
	*bucket = node;
	table->count++;
}

void table_remove(struct table *table, struct table_node *node)
{
	struct table_node **link = &table->buckets[table_bucket(table, node->hash)];
	while (*link != node) {
		if (*link == NULL)
			return; /* it was not in the table */
		link = &(*link)->next;
	}
	*link = node->next;
	node->next = NULL;
	table->count--;
}
