/* The sites that decisions name by number. A number keeps its struct site until the engine ends. */
#ifndef WEBSERVER_ENGINE_SITES_H
#define WEBSERVER_ENGINE_SITES_H

#include "engine.h"

#define SITE_IDS      1000000 /* numbers below this; the table is an array */
#define SITE_SENDFILE 256     /* directories of one site */

struct sites;

struct sites *sites_new(void);
void sites_delete(struct sites *sites);
struct site *site_by_id(const struct sites *sites, uint32_t id); /* NULL: not known */
int site_set(struct sites *sites, uint32_t id, const char *name, const char *document_root, uint64_t max_body);
int site_sendfile(struct sites *sites, uint32_t id, const uint32_t *roots, size_t count);
void site_forget(struct sites *sites, uint32_t id);

#endif
