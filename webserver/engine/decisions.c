/* The table of remembered decisions: see decisions.h. */
#include "decisions.h"

#include "hosts.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_EXACT = 0, KEY_PREFIX = 1, KEY_EXTENSION = 2 /* and above: 2 + the extension's number */ };

struct decision_table {
	struct hash_key key;
	struct table hosts; /* hosts.c */
	struct table entries;
	struct list order; /* oldest first */
	size_t limit;
};

/* ---- making and freeing */

struct decision_table *decisions_new(size_t limit)
{
	struct decision_table *table = calloc(1, sizeof *table);
	if (table == NULL)
		return NULL;
	list_init(&table->order);
	table->limit = limit;
	if (hash_key_make(&table->key) == 0 && table_make(&table->hosts, 6, &table->key) == 0 &&
		table_make(&table->entries, 8, &table->key) == 0)
		return table;
	table_free(&table->hosts);
	free(table);
	return NULL;
}

struct decision *decision_ref(struct decision *d)
{
	d->references++;
	return d;
}

void decision_release(struct decision *d)
{
	if (--d->references == 0)
		free(d);
}

/* Out of the table; requests that hold it keep it. */
static void forget(struct decision_table *table, struct decision *d)
{
	struct decision_host *host = d->host;
	table_remove(&table->entries, &d->node);
	list_remove(&d->order);
	d->host = NULL;
	host->entries--;
	if (d->key == KEY_EXACT)
		host->exact--;
	host_release(&table->hosts, host);
	decision_release(d);
}

void decisions_clear(struct decision_table *table)
{
	while (!list_empty(&table->order))
		forget(table, list_entry(table->order.next, struct decision, order));
}

void decisions_delete(struct decision_table *table)
{
	decisions_clear(table);
	table_free(&table->entries);
	table_free(&table->hosts);
	free(table);
}

/* Second chance: what was used since the hand came by goes to the end once. */
static void evict(struct decision_table *table, size_t keep)
{
	while (table->entries.count > keep) {
		struct decision *d = list_entry(table->order.next, struct decision, order);
		if (d->used) {
			d->used = false;
			list_remove(&d->order);
			list_append(&table->order, &d->order);
		} else {
			forget(table, d);
		}
	}
}

void decisions_limit(struct decision_table *table, size_t limit)
{
	table->limit = limit;
	evict(table, limit);
}

size_t decisions_count(const struct decision_table *table)
{
	return table->entries.count;
}

/* ---- keys */

struct step {
	size_t size;   /* of the prefix, its "/" included */
	uint64_t hash; /* of host and prefix */
};

/*
 * The hashes of the path's prefixes up to the longest, and into *whole that of the whole path if it is asked for, in
 * one pass. Segment by segment, so that a prefix hashes the same in each path that begins with it.
 */
static unsigned path_hashes(const struct decision_table *table, uint64_t hash, struct engine_text path, size_t longest,
	struct step *steps, uint64_t *whole)
{
	unsigned depth = 0;
	size_t start = 0;
	size_t end = whole != NULL ? path.size : (longest < path.size ? longest : path.size);
	while (start < end) {
		const char *slash = memchr(path.data + start, '/', end - start);
		size_t next = slash == NULL ? end : (size_t)(slash - path.data) + 1;
		if (slash == NULL && whole == NULL)
			break;
		hash = hash_bytes(&table->key, hash, path.data + start, next - start);
		if (slash != NULL && next <= longest && depth < DECISION_DEPTH)
			steps[depth++] = (struct step){next, hash};
		start = next;
	}
	if (whole != NULL)
		*whole = hash;
	return depth;
}

static inline uint64_t entry_hash(const struct decision_table *table, uint64_t path_hash, uint64_t key)
{
	return hash_word(&table->key, path_hash, key);
}

/* ---- looking up */

static bool excepted(const struct decision *d, struct engine_text path, uint32_t extensions)
{
	if (d->except_extensions & extensions)
		return true;
	if (d->except_prefix_count == 0 || path.size <= d->path.size)
		return false;
	unsigned char first = (unsigned char)path.data[d->path.size];
	if (!(d->except_first[first / 8] & 1u << first % 8))
		return false;
	for (size_t i = 0; i < d->except_prefix_count; i++) {
		struct engine_text p = d->except_prefixes[i];
		if (path.size >= p.size && memcmp(path.data, p.data, p.size) == 0)
			return true;
	}
	return false;
}

/* same: only an entry that was made for just this method (or for any, if it is ""). */
static struct decision *probe(struct decision_table *table, const struct decision_host *host, uint64_t path_hash,
	uint64_t key, struct engine_text text, struct engine_text method, bool same)
{
	uint64_t hash = entry_hash(table, path_hash, key);
	for (struct table_node *n = table_chain(&table->entries, hash); n != NULL; n = n->next) {
		struct decision *d = list_entry(n, struct decision, node);
		if (n->hash == hash && d->host == host && d->key == key && text_is(d->path, text.data, text.size) &&
			((d->method.size == 0 && !same) || text_is(d->method, method.data, method.size)))
			return d;
	}
	return NULL;
}

static struct decision *probe_prefixes(struct decision_table *table, const struct decision_host *host,
	const struct step *steps, unsigned depth, uint64_t key, struct engine_text path, struct engine_text method,
	uint32_t extensions)
{
	while (depth-- > 0) {
		struct engine_text prefix = {path.data, steps[depth].size};
		struct decision *d = probe(table, host, steps[depth].hash, key, prefix, method, false);
		if (d != NULL && !excepted(d, path, extensions))
			return d;
	}
	return NULL;
}

static struct decision *lookup(
	struct decision_table *table, struct engine_text host_name, struct engine_text path, struct engine_text method)
{
	uint64_t whole, hash = host_hash(&table->key, host_name);
	struct decision_host *host = host_find(&table->hosts, host_name, hash);
	if (host == NULL)
		return NULL;
	struct step steps[DECISION_DEPTH];
	unsigned depth = path_hashes(table, hash, path, host->longest, steps, host->exact > 0 ? &whole : NULL);
	struct decision *d = NULL;
	if (host->exact > 0)
		d = probe(table, host, whole, KEY_EXACT, path, method, false);
	if (d != NULL)
		return d;
	uint32_t extensions = extensions_of(host, path);
	for (unsigned i = 0; d == NULL && i < host->extension_count; i++)
		if (extensions & host->extended & UINT32_C(1) << i)
			d = probe_prefixes(table, host, steps, depth, KEY_EXTENSION + i, path, method, extensions);
	if (d == NULL)
		d = probe_prefixes(table, host, steps, depth, KEY_PREFIX, path, method, extensions);
	return d;
}

struct decision *decisions_find(
	struct decision_table *table, struct engine_text host, struct engine_text path, struct engine_text method)
{
	struct decision *d = lookup(table, host, path, method);
	if (d == NULL)
		return NULL;
	if (d->generation != d->site->generation) {
		forget(table, d); /* others of the site go the same way, each when it is met, or by the clock */
		return NULL;
	}
	d->used = true;
	return d;
}

/* ---- remembering */

static struct engine_text put(char **at, struct engine_text text)
{
	struct engine_text copy = {*at, text.size};
	if (text.size > 0)
		memcpy(*at, text.data, text.size);
	*at += text.size;
	return copy;
}

/* An except prefix that does not begin with the prefix, or is not longer, can never matter. */
static bool matters(struct engine_text except, struct engine_text prefix)
{
	return except.size > prefix.size && memcmp(except.data, prefix.data, prefix.size) == 0;
}

/* One block: the entry, its choices, its except prefixes, then all texts. */
static struct decision *copy(const struct engine_decision *from, struct engine_text path, struct engine_text method)
{
	bool prefixed = from->scope == SCOPE_PREFIX;
	size_t exceptions = 0, texts = path.size + method.size + from->extension.size;
	for (size_t i = 0; i < from->choice_count; i++)
		texts += from->choices[i].script.size;
	for (size_t i = 0; prefixed && i < from->except_prefix_count; i++)
		if (matters(from->except_prefixes[i], path)) {
			exceptions++;
			texts += from->except_prefixes[i].size;
		}
	struct decision *d = calloc(1,
		sizeof *d + from->choice_count * sizeof *d->choices + exceptions * sizeof *d->except_prefixes + texts);
	if (d == NULL)
		return NULL;
	d->choices = (struct choice *)(d + 1);
	d->except_prefixes = (struct engine_text *)(d->choices + from->choice_count);
	char *at = (char *)(d->except_prefixes + exceptions);
	d->references = 1;
	d->gather = from->gather != 0;
	d->scope = (uint8_t)from->scope;
	d->path = put(&at, path);
	d->method = put(&at, method);
	d->extension = put(&at, from->extension);
	d->choice_count = from->choice_count;
	for (size_t i = 0; i < from->choice_count; i++) {
		const struct engine_choice *c = &from->choices[i];
		d->choices[i] = (struct choice){c->kind, c->target, c->strip, c->flags, put(&at, c->script)};
	}
	for (size_t i = 0; prefixed && i < from->except_prefix_count; i++)
		if (matters(from->except_prefixes[i], path)) {
			struct engine_text p = put(&at, from->except_prefixes[i]);
			unsigned char first = (unsigned char)p.data[path.size];
			d->except_prefixes[d->except_prefix_count++] = p;
			d->except_first[first / 8] |= (uint8_t)(1u << first % 8);
		}
	return d;
}

/* Fills in what depends on the host. False: this decision cannot be told apart at this host, so it is not remembered.
 */
static bool extensions_number(struct decision_host *host, struct decision *d, const struct engine_decision *from)
{
	d->key = d->scope == SCOPE_EXACT ? KEY_EXACT : KEY_PREFIX;
	if (d->scope == SCOPE_EXACT)
		return true;
	if (from->extension.size > 0) {
		int number = extension_number(host, from->extension);
		if (number < 0)
			return false;
		d->key = KEY_EXTENSION + (uint64_t)number;
	}
	for (size_t i = 0; i < from->except_extension_count; i++) {
		int number = extension_number(host, from->except_extensions[i]);
		if (number < 0)
			return false;
		d->except_extensions |= UINT32_C(1) << number;
	}
	return true;
}

static void remember(struct decision_table *table, struct decision *d, const struct engine_decision *from,
	struct engine_text host_name)
{
	struct step steps[DECISION_DEPTH];
	uint64_t hash;
	if (table->limit == 0 || d->path.size > DECISION_KEY)
		return;
	evict(table, table->limit - 1);
	unsigned depth = path_hashes(table, host_hash(&table->key, host_name), d->path, d->path.size, steps, &hash);
	if (d->scope == SCOPE_PREFIX && (depth == 0 || steps[depth - 1].size != d->path.size))
		return; /* deeper than DECISION_DEPTH */
	struct decision_host *host = host_get(&table->hosts, &table->key, host_name);
	if (host == NULL)
		return;
	if (!extensions_number(host, d, from)) {
		host_release(&table->hosts, host);
		return;
	}
	host->entries++; /* before an older entry goes, which may be its last */
	struct decision *older = probe(table, host, hash, d->key, d->path, d->method, true);
	if (older != NULL)
		forget(table, older);
	if (d->key == KEY_EXACT)
		host->exact++;
	else if (d->path.size > host->longest)
		host->longest = d->path.size;
	if (d->key >= KEY_EXTENSION)
		host->extended |= UINT32_C(1) << (d->key - KEY_EXTENSION);
	d->host = host;
	d->node.hash = entry_hash(table, hash, d->key);
	d->references++;
	table_insert(&table->entries, &d->node);
	list_append(&table->order, &d->order);
}

struct decision *decisions_add(struct decision_table *table, const struct engine_decision *from, struct site *site,
	struct engine_text host, struct engine_text path, struct engine_text method)
{
	struct engine_text key = from->scope == SCOPE_PREFIX ? from->prefix : path;
	struct decision *d = copy(from, key, from->method_only ? method : (struct engine_text){"", 0});
	if (d == NULL)
		return NULL;
	d->site = site;
	d->generation = site->generation;
	if (from->scope != SCOPE_ONCE)
		remember(table, d, from, host);
	return d;
}
