/*
 * All connections together: the loop's calls, memory, draining, making and freeing. One connection: connection.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "connection.h"
#include "deadlines.h"
#include "loop.h"

/* Free connections kept; each is below 1 KB. */
#define CONNECTIONS_KEPT 4096

bool connections_turn(struct engine *e)
{
	struct connections *cs = e->connections;
	struct list end;
	/* What is added from here on comes in the next turn. */
	list_append(&cs->due, &end);
	while (cs->due.next != &end)
		connection_drive(list_entry(cs->due.next, struct connection, due));
	list_remove(&end);
	return !list_empty(&cs->due);
}

bool connections_due(const struct engine *e)
{
	return !list_empty(&e->connections->due);
}

void connections_sweep(struct engine *e)
{
	struct connections *cs = e->connections;
	while (!list_empty(&cs->closed)) {
		struct connection *c = list_entry(cs->closed.next, struct connection, node);
		list_remove(&c->node);
		if (cs->free_count >= CONNECTIONS_KEPT) {
			free(c);
			continue;
		}
		c->node.next = (struct list *)(void *)cs->free;
		cs->free = c;
		cs->free_count++;
	}
}

void connections_tell_when_empty(struct engine *e)
{
	struct connections *cs = e->connections;
	if (!e->draining || cs->emptied || e->stats.connections > 0)
		return;
	cs->emptied = true;
	event_push(e, EVENT_EMPTY);
}

/* ---- draining */

void connections_drain(struct engine *e)
{
	listeners_stop(e);
	timer_arm(e, e->connections->drain_queue, &e->connections->drain_timer);
	connections_tell_when_empty(e);
}

/* Nothing came on these for a while. A request that is in the kernel already is still answered; the rest hear that we
   end, and are closed when they agree or after the linger time. */
void connections_drain_idle(struct engine *e)
{
	struct connections *cs = e->connections;
	struct list end;
	list_append(&cs->idle, &end);
	while (cs->idle.next != &end) {
		struct connection *c = list_entry(cs->idle.next, struct connection, node);
		list_remove(&c->node);
		list_append(&cs->open, &c->node);
		c->readable = true;
		connection_drive(c);
		if (c->phase == PHASE_IDLE)
			connection_linger(c);
	}
	list_remove(&end);
}

/* ---- making and freeing */

int connections_make(struct engine *e)
{
	struct connections *cs = calloc(1, sizeof(*cs));
	if (cs == NULL)
		return -1;
	e->connections = cs;
	list_init(&cs->open);
	list_init(&cs->idle);
	list_init(&cs->closed);
	list_init(&cs->due);
	list_init(&cs->listeners);
	cs->reserve_fd = reserve_open();
	cs->scratch = malloc(SCRATCH_SIZE);
	cs->http1 = http1_make();
	if (cs->scratch == NULL || cs->http1 == NULL)
		return -1;
	return deadlines_make(e);
}

void connections_close(struct engine *e)
{
	struct connections *cs = e->connections;
	while (!list_empty(&cs->idle))
		connection_close(list_entry(cs->idle.next, struct connection, node));
	while (!list_empty(&cs->open))
		connection_close(list_entry(cs->open.next, struct connection, node));
}

void connections_free(struct engine *e)
{
	struct connections *cs = e->connections;
	if (cs == NULL)
		return;
	listeners_free(e);
	connections_sweep(e);
	while (cs->free != NULL) {
		struct connection *c = cs->free;
		cs->free = (struct connection *)(void *)c->node.next;
		free(c);
	}
	segments_free(e);
	buffers_free(&cs->buffers);
	timer_disarm(&cs->accept_timer);
	timer_disarm(&cs->drain_timer);
	if (cs->reserve_fd >= 0)
		close(cs->reserve_fd);
	free(cs->scratch);
	http1_free(cs->http1);
	free(cs);
	e->connections = NULL;
}
