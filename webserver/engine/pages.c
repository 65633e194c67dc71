/*
 * Workers' pages: mapped read-only, read word by word. A page is written by its worker and may say anything; what is
 * read here is compared and subtracted, and is never an index, a length or a pointer.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "channel.h"
#include "sealed.h"

int page_map(struct page *page, int fd, uint32_t slots, char *message, size_t message_size)
{
	size_t size = WIRE_PAGE_SIZE(slots);

	page->map = NULL;
	if (slots == 0 || slots > WIRE_SLOTS) {
		snprintf(message, message_size, "%u slots are not possible", slots);
		close(fd);
		return -1;
	}
	page->map = sealed_map(fd, size, PROT_READ, "page", message, message_size);
	page->size = size;
	page->slots = slots;
	return page->map != NULL ? 0 : -1;
}

void page_unmap(struct page *page)
{
	if (page->map != NULL)
		munmap((void *)page->map, page->size);
	page->map = NULL;
}

static uint64_t word64(const uint64_t *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

void page_read(const struct page *page, uint32_t slot, uint32_t ordinal, struct page_slot *out)
{
	memset(out, 0, sizeof(*out));
	if (page->map == NULL || slot >= page->slots || ordinal >= WIRE_FRONTENDS)
		return;
	const struct wire_slot *s = &page->map->slot[slot];
	out->running = word64(&s->running);
	out->since_ns = word64(&s->since_ns);
	out->requests = word64(&s->requests);
	out->busy_ns = word64(&s->busy_ns);
	out->started = word64(&s->started[ordinal]);
	out->phase = __atomic_load_n(&s->phase, __ATOMIC_RELAXED);
	out->queued = __atomic_load_n(&s->queued, __ATOMIC_RELAXED);
}

uint64_t page_started(const struct page *page, uint32_t slot, uint32_t ordinal)
{
	if (page->map == NULL || slot >= page->slots || ordinal >= WIRE_FRONTENDS)
		return 0;
	return word64(&page->map->slot[slot].started[ordinal]);
}

int page_crashed(const struct page *page, uint32_t slot)
{
	uint32_t crashed = page->map != NULL ? __atomic_load_n(&page->map->crashed, __ATOMIC_ACQUIRE) : 0;

	return crashed == 0 || crashed > page->slots ? 0 : crashed == slot + 1 ? 1 : -1;
}

bool page_runs_since(const struct page_slot *slot, uint64_t now_ns, uint64_t duration_ns)
{
	/* A time that has not come yet is no time. */
	return slot->running != 0 && slot->since_ns <= now_ns && now_ns - slot->since_ns >= duration_ns;
}
