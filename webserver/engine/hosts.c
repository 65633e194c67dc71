/* The hosts of the decision table and their extensions: see hosts.h. */
#include "hosts.h"

#include <stdlib.h>
#include <string.h>

uint64_t host_hash(const struct hash_key *key, struct engine_text host)
{
	return hash_bytes(key, host.size, host.data, host.size);
}

struct decision_host *host_find(const struct table *hosts, struct engine_text name, uint64_t hash)
{
	for (struct table_node *n = table_chain(hosts, hash); n != NULL; n = n->next) {
		struct decision_host *host = list_entry(n, struct decision_host, node);
		if (n->hash == hash && text_is(name, host->name, host->name_size))
			return host;
	}
	return NULL;
}

struct decision_host *host_get(struct table *hosts, const struct hash_key *key, struct engine_text name)
{
	uint64_t hash = host_hash(key, name);
	struct decision_host *host = host_find(hosts, name, hash);
	if (host != NULL)
		return host;
	host = calloc(1, sizeof *host + name.size);
	if (host == NULL)
		return NULL;
	host->node.hash = hash;
	host->name_size = name.size;
	memcpy(host->name, name.data, name.size);
	table_insert(hosts, &host->node);
	return host;
}

void host_release(struct table *hosts, struct decision_host *host)
{
	if (host->entries > 0)
		return;
	table_remove(hosts, &host->node);
	free(host->extensions);
	free(host);
}

/* Whether the segment that ends before `end` ends in the extension. An extension holds no "/". */
static inline bool ends_in(const char *path, size_t start, size_t end, const char *extension, size_t size)
{
	return end - start >= size && memcmp(path + end - size, extension, size) == 0;
}

size_t extension_end(struct engine_text path, size_t from, struct engine_text extension)
{
	size_t start = from;
	while (extension.size > 0 && start < path.size) {
		const char *slash = memchr(path.data + start, '/', path.size - start);
		size_t end = slash == NULL ? path.size : (size_t)(slash - path.data);
		if (ends_in(path.data, start, end, extension.data, extension.size))
			return end;
		start = end + 1;
	}
	return 0;
}

uint32_t extensions_of(const struct decision_host *host, struct engine_text path)
{
	uint32_t found = 0;
	size_t start = 0;
	if (host->extension_count == 0)
		return 0;
	while (start < path.size) {
		const char *slash = memchr(path.data + start, '/', path.size - start);
		size_t end = slash == NULL ? path.size : (size_t)(slash - path.data);
		for (unsigned i = 0; i < host->extension_count; i++) {
			const struct host_extension *x = &host->extensions[i];
			if (ends_in(path.data, start, end, x->text, x->size))
				found |= UINT32_C(1) << i;
		}
		start = end + 1;
	}
	return found;
}

int extension_number(struct decision_host *host, struct engine_text extension)
{
	for (unsigned i = 0; i < host->extension_count; i++)
		if (text_is(extension, host->extensions[i].text, host->extensions[i].size))
			return (int)i;
	if (host->extension_count == DECISION_EXTENSIONS || extension.size > DECISION_EXTENSION)
		return -1;
	void *more = realloc(host->extensions, (host->extension_count + 1u) * sizeof *host->extensions);
	if (more == NULL)
		return -1;
	host->extensions = more;
	struct host_extension *x = &host->extensions[host->extension_count];
	x->size = (uint8_t)extension.size;
	memcpy(x->text, extension.data, extension.size);
	return host->extension_count++;
}
