/* MIME types by file-name extension, as Python registered them. */
#define _GNU_SOURCE /* memrchr */
#include <stdlib.h>
#include <string.h>

#include "files.h"

#define MIME_UNKNOWN   "application/octet-stream"
#define MIME_TYPES     65536
#define MIME_EXTENSION 32 /* bytes, with the NUL */

struct mime_type {
	struct table_node node;
	char extension[MIME_EXTENSION]; /* lower case */
	char *type;
};

struct mime_types {
	struct hash_key key;
	struct table table;
};

struct mime_types *mime_new(const struct hash_key *key)
{
	struct mime_types *types = calloc(1, sizeof *types);
	if (types == NULL)
		return NULL;
	types->key = *key;
	if (table_make(&types->table, 6, key) == 0)
		return types;
	free(types);
	return NULL;
}

void mime_delete(struct mime_types *types)
{
	if (types == NULL)
		return;
	for (size_t i = 0; i < (size_t)1 << types->table.bits; i++) {
		struct table_node *node = types->table.buckets[i];
		while (node != NULL) {
			struct mime_type *m = list_entry(node, struct mime_type, node);
			node = node->next;
			free(m->type);
			free(m);
		}
	}
	table_free(&types->table);
	free(types);
}

/* Lower case into out; false: too long or empty to be one. */
static bool fold(char out[MIME_EXTENSION], const char *extension, size_t size)
{
	if (size == 0 || size >= MIME_EXTENSION)
		return false;
	for (size_t i = 0; i < size; i++) {
		char c = extension[i];
		out[i] = c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
	}
	out[size] = 0;
	return true;
}

static struct mime_type *find(const struct mime_types *types, const char *extension, uint64_t *hash)
{
	*hash = hash_bytes(&types->key, 0, extension, strlen(extension));
	for (struct table_node *n = table_chain(&types->table, *hash); n != NULL; n = n->next) {
		struct mime_type *m = list_entry(n, struct mime_type, node);
		if (n->hash == *hash && strcmp(m->extension, extension) == 0)
			return m;
	}
	return NULL;
}

static bool type_ok(const char *type)
{
	for (const char *c = type; *c != 0; c++)
		if (*c < 0x20 || *c > 0x7e)
			return false;
	return strchr(type, '/') != NULL && strlen(type) < 256;
}

int mime_set(struct mime_types *types, const char *extension, const char *type)
{
	char folded[MIME_EXTENSION];
	uint64_t hash;
	if (extension == NULL || type == NULL || !type_ok(type))
		return ENGINE_INVALID;
	if (extension[0] == '.')
		extension++;
	if (!fold(folded, extension, strlen(extension)) || strchr(folded, '/') != NULL)
		return ENGINE_INVALID;
	char *copy = strdup(type);
	if (copy == NULL)
		return ENGINE_SYSTEM;
	struct mime_type *m = find(types, folded, &hash);
	if (m == NULL) {
		m = types->table.count < MIME_TYPES ? calloc(1, sizeof *m) : NULL;
		if (m == NULL) {
			free(copy);
			return ENGINE_FULL;
		}
		memcpy(m->extension, folded, sizeof folded);
		m->node.hash = hash;
		table_insert(&types->table, &m->node);
	}
	free(m->type);
	m->type = copy;
	return ENGINE_OK;
}

const char *mime_find(const struct mime_types *types, struct engine_text path)
{
	char folded[MIME_EXTENSION];
	uint64_t hash;
	const char *slash = memrchr(path.data, '/', path.size);
	const char *name = slash == NULL ? path.data : slash + 1;
	size_t size = (size_t)(path.data + path.size - name);
	const char *dot = memrchr(name, '.', size);
	if (dot == NULL || !fold(folded, dot + 1, (size_t)(name + size - dot - 1)) ||
		memchr(dot, 0, size - (size_t)(dot - name)))
		return MIME_UNKNOWN;
	const struct mime_type *m = find(types, folded, &hash);
	return m == NULL ? MIME_UNKNOWN : m->type;
}
