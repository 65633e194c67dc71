/* Doubly linked lists whose links lie in their members. A zeroed or unlinked node is in no list. */
#ifndef WEBSERVER_ENGINE_LIST_H
#define WEBSERVER_ENGINE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *previous;
};

#define list_entry(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

static inline void list_init(struct list *head)
{
	head->next = head->previous = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

static inline bool list_linked(const struct list *node)
{
	return node->next != NULL;
}

static inline void list_insert_before(struct list *at, struct list *node)
{
	node->next = at;
	node->previous = at->previous;
	at->previous->next = node;
	at->previous = node;
}

static inline void list_append(struct list *head, struct list *node)
{
	list_insert_before(head, node);
}

static inline void list_prepend(struct list *head, struct list *node)
{
	list_insert_before(head->next, node);
}

static inline void list_remove(struct list *node)
{
	if (node->next == NULL)
		return;
	node->previous->next = node->next;
	node->next->previous = node->previous;
	node->next = node->previous = NULL;
}

#endif
