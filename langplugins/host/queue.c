/* Requests that have come to a slot and not begun, in order. */
#include <stdlib.h>
#include <string.h>

#include "worker.h"

struct entry *queue_add(struct queue *queue)
{
	if (queue->count == QUEUE_ROOM)
		return NULL;
	struct entry *entry = &queue->entry[(queue->begin + queue->count++) % QUEUE_ROOM];
	memset(entry, 0, sizeof(*entry));
	return entry;
}

struct entry *queue_find(struct queue *queue, uint64_t serial)
{
	for (unsigned i = 0; i < queue->count; i++) {
		struct entry *entry = &queue->entry[(queue->begin + i) % QUEUE_ROOM];
		if (entry->head.serial == serial)
			return entry;
	}
	return NULL;
}

bool queue_take(struct queue *queue, struct entry *to)
{
	if (queue->count == 0)
		return false;
	struct entry *entry = &queue->entry[queue->begin];
	*to = *entry;
	queue->begin = (queue->begin + 1) % QUEUE_ROOM;
	queue->count--;
	return true;
}

void piece_add(struct piece **first, struct piece **final, struct piece *piece)
{
	piece->next = NULL;
	if (*final)
		(*final)->next = piece;
	else
		*first = piece;
	*final = piece;
}

void pieces_free(struct piece *piece)
{
	while (piece) {
		struct piece *next = piece->next;
		message_free(piece->message);
		free(piece);
		piece = next;
	}
}
