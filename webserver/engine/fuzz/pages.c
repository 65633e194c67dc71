/*
 * A worker's page that says anything and something else each time it is read; descriptors that are no pages.
 *
 * sources: webserver/engine/sealed.c
 * sources: webserver/engine/pages.c
 *
 * What is read is what stands there, word for word, whatever slot and front end are asked for; what does not exist
 * reads as zeros; a page that its worker could cut short is never mapped.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
	if (!condition)
		abort();
}

static struct {
	const uint8_t *data;
	size_t size;
} input;

static uint64_t number(unsigned bytes)
{
	uint64_t n = 0;

	for (; bytes > 0 && input.size > 0; bytes--, input.size--)
		n = n << 8 | *input.data++;
	return n;
}

static void look(const struct page *page, const struct wire_page *written, uint32_t slot, uint32_t ordinal)
{
	static const struct page_slot zeros;
	struct page_slot out;

	memset(&out, 0xff, sizeof(out));
	page_read(page, slot, ordinal, &out);
	uint64_t started = page_started(page, slot, ordinal);
	must(started == out.started);
	if (written == NULL || slot >= page->slots || ordinal >= WIRE_FRONTENDS) {
		must(memcmp(&out, &zeros, sizeof(out)) == 0);
	} else {
		const struct wire_slot *s = &written->slot[slot];
		must(out.running == s->running && out.since_ns == s->since_ns && out.phase == s->phase);
		must(out.queued == s->queued && out.requests == s->requests && out.busy_ns == s->busy_ns);
		must(out.started == s->started[ordinal]);
	}
	uint64_t now = number(8), duration = number(4);
	if (page_runs_since(&out, now, duration))
		must(out.running != 0 && out.since_ns <= now && now - out.since_ns >= duration);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char message[80];
	struct page page;

	input.data = data;
	input.size = size;
	unsigned how = (unsigned)number(1);
	uint32_t slots = how & 1 ? (uint32_t)number(4) : (uint32_t)number(1) % 4 + 1;
	size_t length = how & 2 ? number(3) : WIRE_PAGE_SIZE(slots % 512) + number(1);
	bool sealed = how & 4, closed = (how & 0x38) == 0x38;
	int fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
	struct wire_page *written = NULL;
	if (length >= sizeof(*written))
		written = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(written != MAP_FAILED);
	if (sealed)
		must(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	if (closed)
		close(fd);
	int result = page_map(&page, closed ? -1 : fd, slots, message, sizeof(message));
	must(result == 0 || (result == -1 && page.map == NULL && message[0] != 0));
	must((result == 0) ==
		(!closed && sealed && slots > 0 && slots <= WIRE_SLOTS && length >= WIRE_PAGE_SIZE(slots)));
	must(closed || fcntl(fd, F_GETFD) == -1);
	if (result < 0)
		page.slots = 0;
	while (input.size > 0) {
		unsigned what = (unsigned)number(1);
		if (what < 128 && result == 0) {
			size_t at = number(2) % length;
			for (unsigned n = what; n > 0 && at < length && input.size > 0; n--)
				((uint8_t *)written)[at++] = (uint8_t)number(1);
		} else {
			uint32_t slot = what & 1 ? (uint32_t)number(4) : (uint32_t)number(1) % 8;
			uint32_t ordinal = what & 2 ? (uint32_t)number(4) : (uint32_t)number(1) % 40;
			look(&page, result == 0 ? written : NULL, slot, ordinal);
		}
	}
	page_unmap(&page);
	must(page.map == NULL);
	look(&page, NULL, 0, 0);
	if (written != NULL)
		munmap(written, length);
	return 0;
}
