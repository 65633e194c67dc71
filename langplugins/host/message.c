/* Memory of messages: see message.h. */
#include "message.h"

#include <stdlib.h>
#include <sys/mman.h>

/* A thread's own, so that no lock is needed; nothing but memory hangs on it. */
static _Thread_local struct message *kept[MESSAGES_KEPT];
static _Thread_local unsigned kept_count;

static bool is_large(size_t size)
{
	return size >= MESSAGE_LARGE && size <= MESSAGE_ROOM;
}

/* Not from the heap: what is freed in its midst stays there. */
static struct message *map_large(void)
{
	void *at = mmap(NULL, sizeof(struct message) + MESSAGE_ROOM, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return at != MAP_FAILED ? at : NULL;
}

static void unmap_large(struct message *message)
{
	munmap(message, sizeof(*message) + MESSAGE_ROOM);
}

struct message *message_new(size_t size)
{
	bool large = is_large(size);
	struct message *message = large ? kept_count > 0 ? kept[--kept_count] : map_large()
					: malloc(sizeof(*message) + size);

	if (message)
		message->size = size;
	return message;
}

void message_free(struct message *message)
{
	if (!message || !is_large(message->size))
		free(message);
	else if (kept_count < MESSAGES_KEPT)
		kept[kept_count++] = message;
	else
		unmap_large(message);
}

bool messages_kept(void)
{
	return kept_count > 0;
}

void messages_forget(void)
{
	while (kept_count > 0)
		unmap_large(kept[--kept_count]);
}
