/*
 * Generations of a group: one ROUTER socket each, and the workers that control has announced.
 *
 * The socket's descriptor is edge-triggered and any zmq call may swallow its edge, so each call puts the generation on
 * the channel's recheck list, and it leaves the list only when the socket has been read to its end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "channel.h"
#include "loop.h"

struct generation *generation_find(const struct group *g, uint32_t number)
{
	for (struct list *n = g->generations.next; n != &g->generations; n = n->next) {
		struct generation *gen = list_entry(n, struct generation, node);
		if (gen->number == number)
			return gen;
	}
	return NULL;
}

struct worker *worker_find(const struct generation *gen, uint64_t number)
{
	struct worker *w = gen->buckets[number % WORKER_BUCKETS];

	while (w != NULL && w->number != number)
		w = w->bucket_next;
	return w;
}

void generation_touch(struct generation *gen)
{
	if (gen->broken || list_linked(&gen->recheck))
		return;
	list_append(&gen->engine->channel->recheck, &gen->recheck);
	engine_again(gen->engine);
}

static void generation_ready(struct engine *e, struct pollable *poll, uint32_t events)
{
	(void)e;
	(void)events;
	generation_touch(list_entry(poll, struct generation, poll));
}

static void generation_break(struct generation *gen, const char *what)
{
	if (gen->broken)
		return;
	gen->broken = true;
	list_remove(&gen->recheck);
	struct engine_event *event = event_push(gen->engine, EVENT_BROKEN);
	event->group = gen->group->id;
	event->generation = gen->number;
	snprintf(event->text, sizeof(event->text), "%s", what);
	log_entry(gen->engine, LOG_LEVEL_ERROR, NULL, "group \"%s\", generation %u: %s; its connections are closed",
		gen->group->name, gen->number, what);
}

void generation_violation(struct generation *gen, const char *what)
{
	char text[128];
	struct engine *e = gen->engine;

	e->stats.frames_dropped++;
	if (e->now_ns - gen->violations_since > VIOLATION_WINDOW_NS) {
		gen->violations_since = e->now_ns;
		gen->violations = 0;
	}
	if (gen->violations++ == 0)
		log_entry(e, LOG_LEVEL_WARNING, NULL,
			"group \"%s\", generation %u: a worker broke the channel's rules: %s", gen->group->name,
			gen->number, what);
	if (gen->violations <= VIOLATIONS)
		return;
	snprintf(text, sizeof(text), "its workers broke the channel's rules %u times; last: %s", gen->violations, what);
	generation_break(gen, text);
}

void generation_settle(struct generation *gen)
{
	if (!gen->draining || gen->drained || gen->in_flight != 0)
		return;
	gen->drained = true;
	struct engine_event *event = event_push(gen->engine, EVENT_DRAINED);
	event->group = gen->group->id;
	event->generation = gen->number;
}

/* One more connection has spoken. A generation has a slot's and a keeper's for each worker, and again for those that
   replace them. */
void generation_connected(struct generation *gen)
{
	uint64_t allowed = 2 * (uint64_t)gen->workers_expected * (gen->slots_per_worker + 1) + CONNECTION_SLACK;
	char text[128];

	if (++gen->connections <= allowed)
		return;
	snprintf(text, sizeof(text), "it opened more than %llu connections", (unsigned long long)allowed);
	generation_break(gen, text);
}

/* A hello of a worker that control has not told of yet: it comes on another way, and may be later. */
void generation_hello(struct generation *gen, const struct wire_identity *identity)
{
	for (uint32_t i = 0; i < gen->hello_count; i++) {
		if (memcmp(&gen->hellos[i].identity, identity, sizeof(*identity)) == 0) {
			generation_violation(gen, "a connection said hello twice");
			return;
		}
	}
	if (gen->hello_count == gen->hello_room) {
		generation_violation(gen, "hello of a worker that nobody has announced");
		return;
	}
	gen->hellos[gen->hello_count++].identity = *identity;
	generation_connected(gen);
}

/* What was kept of worker's hellos: taken up if w is there, else thrown away. */
static void hellos_of(struct generation *gen, uint64_t worker, struct worker *w)
{
	for (uint32_t i = 0; i < gen->hello_count;) {
		struct wire_identity identity = gen->hellos[i].identity;
		if (identity.worker != worker) {
			i++;
			continue;
		}
		gen->hellos[i] = gen->hellos[--gen->hello_count];
		if (w != NULL && identity.role == WIRE_ROLE_KEEPER) {
			w->keeper = true;
		} else if (w != NULL && identity.slot < w->slots) {
			slot_hello(&w->slot[identity.slot]);
		} else {
			gen->connections--;
			if (w != NULL)
				generation_violation(gen, "hello of a slot that its worker does not have");
		}
	}
}

int engine_generation(engine *e, uint32_t group, uint32_t generation, void *zmq_socket, int fd, uint32_t workers,
	uint32_t slots_per_worker)
{
	struct group *g = group_find(e, group);

	if (g == NULL || e->zmq == NULL || zmq_socket == NULL || fd < 0 || generation_find(g, generation) != NULL ||
		slots_per_worker == 0 || slots_per_worker > WIRE_SLOTS || workers == 0 || workers > UINT16_MAX)
		return ENGINE_INVALID;
	struct generation *gen = calloc(1, sizeof(*gen));
	if (gen == NULL)
		return ENGINE_SYSTEM;
	gen->hello_room = 2 * workers * (slots_per_worker + 1);
	gen->hellos = calloc(gen->hello_room, sizeof(*gen->hellos));
	gen->engine = e;
	gen->group = g;
	gen->socket = zmq_socket;
	gen->number = generation;
	gen->workers_expected = workers;
	gen->slots_per_worker = slots_per_worker;
	gen->poll.fd = fd;
	gen->poll.ready = generation_ready;
	list_init(&gen->workers);
	if (gen->hellos == NULL || poll_add(e, &gen->poll, EPOLLIN | EPOLLET) < 0) {
		free(gen->hellos);
		free(gen);
		return ENGINE_SYSTEM;
	}
	/* Newest first. */
	struct list *at = g->generations.next;
	while (at != &g->generations && list_entry(at, struct generation, node)->number > generation)
		at = at->next;
	list_insert_before(at, &gen->node);
	generation_touch(gen);
	return ENGINE_OK;
}

int engine_generation_drain(engine *e, uint32_t group, uint32_t generation)
{
	struct group *g = group_find(e, group);
	struct generation *gen = g ? generation_find(g, generation) : NULL;

	if (gen == NULL)
		return ENGINE_INVALID;
	engine_clock(e);
	gen->draining = true;
	g->look = true;
	tunnels_leave(e, gen, NULL);
	generation_settle(gen);
	return ENGINE_OK;
}

void generation_close(struct generation *gen)
{
	gen->draining = gen->drained = true;
	while (!list_empty(&gen->workers)) {
		struct worker *w = list_entry(gen->workers.next, struct worker, node);
		for (uint32_t i = 0; i < w->slots; i++)
			ending_judge_slot(
				&w->slot[i], w->gone ? w->cause : "lost its connection to the front end", !w->gone);
		worker_free(w);
	}
	gen->broken = true; /* nothing is sent or read any more */
	list_remove(&gen->recheck);
	list_remove(&gen->node);
	poll_remove(gen->engine, &gen->poll);
	gen->group->look = true;
	free(gen->hellos);
	free(gen);
}

int engine_generation_close(engine *e, uint32_t group, uint32_t generation)
{
	struct group *g = group_find(e, group);
	struct generation *gen = g ? generation_find(g, generation) : NULL;

	if (gen == NULL)
		return ENGINE_INVALID;
	engine_clock(e);
	generation_close(gen);
	return ENGINE_OK;
}

int engine_worker(
	engine *e, uint32_t group, uint32_t generation, uint64_t worker, uint32_t slots, int page_fd, int loans_fd)
{
	struct group *g = group_find(e, group);
	struct generation *gen = g ? generation_find(g, generation) : NULL;
	struct page page;
	char message[120];

	if (gen == NULL || slots == 0 || slots > gen->slots_per_worker || worker_find(gen, worker) != NULL) {
		close(page_fd);
		close(loans_fd);
		return ENGINE_INVALID;
	}
	engine_clock(e);
	struct loans *loans = loans_map(loans_fd, slots, message, sizeof(message));
	if (loans == NULL || page_map(&page, page_fd, slots, message, sizeof(message)) < 0) {
		log_entry(e, LOG_LEVEL_ERROR, NULL, "group \"%s\", generation %u, worker %llu: %s", g->name, generation,
			(unsigned long long)worker, message);
		if (loans == NULL)
			close(page_fd);
		loans_forget(loans);
		return ENGINE_INVALID;
	}
	struct worker *w = calloc(1, sizeof(*w) + slots * sizeof(w->slot[0]));
	if (w == NULL) {
		page_unmap(&page);
		loans_forget(loans);
		return ENGINE_SYSTEM;
	}
	w->generation = gen;
	w->number = worker;
	w->slots = slots;
	w->page = page;
	w->loans = loans;
	w->keeper_identity = (struct wire_identity){
		.role = WIRE_ROLE_KEEPER,
		.version = WIRE_VERSION,
		.generation = gen->number,
		.worker = worker,
	};
	list_init(&w->free);
	for (uint32_t i = 0; i < slots; i++)
		slot_init(&w->slot[i], w, (uint16_t)i);
	/* Neighbouring front ends look from different ends, so that two that are idle do not choose the same slot. */
	if (e->options.ordinal % 2)
		list_prepend(&gen->workers, &w->node);
	else
		list_append(&gen->workers, &w->node);
	w->bucket_next = gen->buckets[worker % WORKER_BUCKETS];
	gen->buckets[worker % WORKER_BUCKETS] = w;
	hellos_of(gen, worker, w);
	return ENGINE_OK;
}

/* Nothing is at its slots any more. */
void worker_free(struct worker *w)
{
	struct generation *gen = w->generation;
	struct worker **at = &gen->buckets[w->number % WORKER_BUCKETS];

	while (*at != w)
		at = &(*at)->bucket_next;
	*at = w->bucket_next;
	for (uint32_t i = 0; i < w->slots; i++) {
		struct slot *s = &w->slot[i];
		if (s->state != SLOT_ABSENT)
			gen->connections--;
		slot_lost(s);
		list_remove(&s->free);
		list_remove(&s->watched);
		list_remove(&s->busy);
	}
	if (w->keeper)
		gen->connections--;
	list_remove(&w->node);
	list_remove(&w->ending);
	list_remove(&w->told_asleep);
	page_unmap(&w->page);
	loans_forget(w->loans);
	free(w);
}

int engine_worker_leaves(engine *e, uint32_t group, uint32_t generation, uint64_t worker)
{
	struct group *g = group_find(e, group);
	struct generation *gen = g ? generation_find(g, generation) : NULL;
	struct worker *w = gen ? worker_find(gen, worker) : NULL;

	if (w == NULL)
		return ENGINE_INVALID;
	engine_clock(e);
	w->leaves = true;
	tunnels_leave(e, gen, w);
	return ENGINE_OK;
}

int engine_worker_excused(engine *e, uint32_t group, uint32_t generation, uint64_t worker)
{
	struct group *g = group_find(e, group);
	struct generation *gen = g ? generation_find(g, generation) : NULL;
	struct worker *w = gen ? worker_find(gen, worker) : NULL;

	if (w == NULL)
		return ENGINE_INVALID;
	w->excused = true;
	return ENGINE_OK;
}

int engine_worker_gone(engine *e, uint32_t group, uint32_t generation, uint64_t worker, const char *cause)
{
	struct group *g = group_find(e, group);
	struct generation *gen = g ? generation_find(g, generation) : NULL;
	struct worker *w = gen ? worker_find(gen, worker) : NULL;

	if (gen != NULL && w == NULL)
		hellos_of(gen, worker, NULL);
	if (w == NULL)
		return ENGINE_INVALID;
	if (w->gone)
		return ENGINE_OK;
	engine_clock(e);
	snprintf(w->cause, sizeof(w->cause), "%s", cause && *cause ? cause : "ended");
	ending_begin(w);
	return ENGINE_OK;
}
