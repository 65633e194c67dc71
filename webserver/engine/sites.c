/* The sites that decisions name by number: see sites.h. */
#include "sites.h"

#include <stdlib.h>
#include <string.h>

/*
 * A text that a reload replaced. Requests in flight may still point to it, and nothing counts them by text, so it stays
 * until the engine ends: some bytes for each site whose name or root changes.
 */
struct retired {
	struct retired *next;
	char *text;
};

struct sites {
	struct site **by_id;
	uint32_t size;
	struct retired *retired;
};

struct sites *sites_new(void)
{
	return calloc(1, sizeof(struct sites));
}

void sites_delete(struct sites *sites)
{
	if (sites == NULL)
		return;
	for (uint32_t i = 0; i < sites->size; i++)
		if (sites->by_id[i] != NULL) {
			free(sites->by_id[i]->name);
			free(sites->by_id[i]->document_root);
			free(sites->by_id[i]->sendfile);
			free(sites->by_id[i]);
		}
	while (sites->retired != NULL) {
		struct retired *next = sites->retired->next;
		free(sites->retired->text);
		free(sites->retired);
		sites->retired = next;
	}
	free(sites->by_id);
	free(sites);
}

struct site *site_by_id(const struct sites *sites, uint32_t id)
{
	return id < sites->size ? sites->by_id[id] : NULL;
}

static int make_room(struct sites *sites, uint32_t id)
{
	if (id < sites->size)
		return 0;
	uint32_t size = sites->size == 0 ? 16 : sites->size;
	while (size <= id)
		size *= 2;
	struct site **larger = realloc(sites->by_id, size * sizeof *larger);
	if (larger == NULL)
		return -1;
	memset(larger + sites->size, 0, (size - sites->size) * sizeof *larger);
	sites->by_id = larger;
	sites->size = size;
	return 0;
}

static int replace(struct sites *sites, char **text, const char *with)
{
	if (*text != NULL && strcmp(*text, with) == 0)
		return 0;
	char *copy = strdup(with);
	struct retired *old = *text == NULL ? NULL : malloc(sizeof *old);
	if (copy == NULL || (*text != NULL && old == NULL)) {
		free(copy);
		free(old);
		return -1;
	}
	if (old != NULL) {
		*old = (struct retired){sites->retired, *text};
		sites->retired = old;
	}
	*text = copy;
	return 0;
}

int site_set(struct sites *sites, uint32_t id, const char *name, const char *document_root, uint64_t max_body)
{
	if (id >= SITE_IDS || name == NULL || document_root == NULL)
		return ENGINE_INVALID;
	if (make_room(sites, id) < 0)
		return ENGINE_SYSTEM;
	struct site *site = sites->by_id[id];
	if (site == NULL) {
		site = calloc(1, sizeof *site);
		if (site == NULL)
			return ENGINE_SYSTEM;
		site->id = id;
		if (replace(sites, &site->name, name) < 0 || replace(sites, &site->document_root, document_root) < 0) {
			free(site->name);
			free(site);
			return ENGINE_SYSTEM;
		}
		sites->by_id[id] = site;
	} else if (replace(sites, &site->name, name) < 0 || replace(sites, &site->document_root, document_root) < 0) {
		return ENGINE_SYSTEM;
	}
	site->max_body = max_body;
	return ENGINE_OK;
}

int site_sendfile(struct sites *sites, uint32_t id, const uint32_t *roots, size_t count)
{
	struct site *site = site_by_id(sites, id);
	if (site == NULL || count > SITE_SENDFILE || (count > 0 && roots == NULL))
		return ENGINE_INVALID;
	uint32_t *copy = NULL;
	if (count > 0) {
		copy = malloc(count * sizeof *copy);
		if (copy == NULL)
			return ENGINE_SYSTEM;
		memcpy(copy, roots, count * sizeof *copy);
	}
	free(site->sendfile);
	site->sendfile = copy;
	site->sendfile_count = count;
	return ENGINE_OK;
}

void site_forget(struct sites *sites, uint32_t id)
{
	struct site *site = site_by_id(sites, id);
	if (site != NULL)
		site->generation++;
}
