/*
 * Answers that are found in the memory of their workers. While this front end is in a turn it looks there, so nobody
 * has to make a system call for an answer to arrive; before the turn ends it asks to be woken, and looks once more. A
 * busy front end takes many answers a turn, one that has nothing else to do is woken for each as by a message.
 *
 * What is found is copied, then it is a frame like any other.
 */
#include "posts.h"

#include <stdlib.h>

int posts_make(struct channel *c)
{
	list_init(&c->busy);
	list_init(&c->told_asleep);
	c->posted = malloc(WIRE_LOAN);
	return c->posted != NULL ? 0 : -1;
}

void posts_free(struct channel *c)
{
	free(c->posted);
}

void posts_take_slot(struct slot *s)
{
	struct worker *w = s->worker;
	struct engine *e = w->generation->engine;
	uint32_t posted = w->generation->broken ? 0 : loans_posted(w->loans, s->number, e->options.ordinal);

	for (; posted != 0; posted &= posted - 1) {
		size_t size = loans_copy(w->loans, s->number, (uint32_t)__builtin_ctz(posted), e->channel->posted);
		frame_posted(s, e->channel->posted, size);
	}
}

void posts_take_worker(struct worker *w)
{
	for (uint32_t i = 0; i < w->slots; i++)
		posts_take_slot(&w->slot[i]);
}

void posts_take(struct engine *e)
{
	struct list *busy = &e->channel->busy;
	struct list end = {0};

	/* As in queue_look: what is taken may leave the list, or come into it. */
	list_append(busy, &end);
	while (busy->next != &end) {
		struct slot *s = list_entry(busy->next, struct slot, busy);
		list_remove(&s->busy);
		list_append(busy, &s->busy);
		posts_take_slot(s);
	}
	list_remove(&end);
}

void posts_wake(struct engine *e)
{
	struct list *told = &e->channel->told_asleep;

	while (!list_empty(told)) {
		struct worker *w = list_entry(told->next, struct worker, told_asleep);
		list_remove(&w->told_asleep);
		loans_asleep(w->loans, e->options.ordinal, false);
	}
}

bool posts_sleep(struct engine *e)
{
	struct list *busy = &e->channel->busy;
	bool any = false;

	for (struct list *n = busy->next; n != busy; n = n->next) {
		struct worker *w = list_entry(n, struct slot, busy)->worker;
		if (list_linked(&w->told_asleep))
			continue;
		list_append(&e->channel->told_asleep, &w->told_asleep);
		loans_asleep(w->loans, e->options.ordinal, true);
	}
	for (struct list *n = busy->next; n != busy && !any; n = n->next) {
		struct slot *s = list_entry(n, struct slot, busy);
		any = !s->worker->generation->broken && loans_any(s->worker->loans, s->number, e->options.ordinal);
	}
	return any;
}
