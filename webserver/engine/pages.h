/* Workers' pages as a front end reads them: see pages.c. */
#ifndef WEBSERVER_ENGINE_PAGES_H
#define WEBSERVER_ENGINE_PAGES_H

#include "engine.h"
#include "wire.h"

struct page {
	const struct wire_page *map; /* NULL: none */
	size_t size;
	uint32_t slots;
};
/* One slot's words, each read once. They may contradict one another. */
struct page_slot {
	uint64_t running, since_ns, requests, busy_ns, started;
	uint32_t phase, queued;
};
int page_map(struct page *page, int fd, uint32_t slots, char *message, size_t message_size); /* closes fd; 0 or -1 */
void page_unmap(struct page *page);
void page_read(const struct page *page, uint32_t slot, uint32_t ordinal, struct page_slot *out);
uint64_t page_started(const struct page *page, uint32_t slot, uint32_t ordinal);
/* Whether the process crashed in this slot's request: 1, in another one's: -1, or nobody knows: 0. */
int page_crashed(const struct page *page, uint32_t slot);
/* True if the slot runs a request since at least duration_ns. */
bool page_runs_since(const struct page_slot *slot, uint64_t now_ns, uint64_t duration_ns);

#endif
