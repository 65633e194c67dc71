/*
 * Who starts what. A slot's thread begins a request, or the keeper gives it back; both under one lock, so a request is
 * never run twice and never lost. Serials of one front end reach a slot in order, so one number for each says what has
 * been begun.
 */
#include <string.h>

#include "worker.h"

void recall_open(struct recall *recall)
{
	memset(recall, 0, sizeof(*recall));
	pthread_mutex_init(&recall->mutex, NULL);
}

static bool contains(const struct recall *recall, uint64_t serial)
{
	for (unsigned i = 0; i < recall->count; i++)
		if (recall->set[i] == serial)
			return true;
	return false;
}

static bool add(struct recall *recall, uint64_t serial)
{
	if (contains(recall, serial))
		return true;
	if (recall->count == RECALL_ROOM) {
		/* What is below `started` was thrown away long ago, or came from a front end that is gone. */
		unsigned kept = 0;
		for (unsigned i = 0; i < recall->count; i++) {
			bool old = false;
			for (unsigned k = 0; k < WIRE_FRONTENDS; k++)
				old |= recall->started[k] >> 40 == recall->set[i] >> 40 &&
				       recall->started[k] >= recall->set[i];
			if (!old)
				recall->set[kept++] = recall->set[i];
		}
		recall->count = kept;
		if (kept == RECALL_ROOM)
			return false;
	}
	recall->set[recall->count++] = serial;
	return true;
}

static bool take_out(struct recall *recall, uint64_t serial)
{
	for (unsigned i = 0; i < recall->count; i++) {
		if (recall->set[i] == serial) {
			recall->set[i] = recall->set[--recall->count];
			return true;
		}
	}
	return false;
}

bool recall_ask(struct recall *recall, unsigned ordinal, uint64_t serial)
{
	pthread_mutex_lock(&recall->mutex);
	/* No room to remember it: then it is run here, which is always right. */
	bool back = serial > recall->started[ordinal] && add(recall, serial);
	pthread_mutex_unlock(&recall->mutex);
	return back;
}

void recall_skip(struct recall *recall, struct wire_slot *page, unsigned ordinal, uint64_t serial)
{
	pthread_mutex_lock(&recall->mutex);
	if (recall->count)
		take_out(recall, serial);
	if (serial > recall->started[ordinal])
		recall->started[ordinal] = serial;
	__atomic_store_n(&page->started[ordinal], recall->started[ordinal], __ATOMIC_RELEASE);
	pthread_mutex_unlock(&recall->mutex);
}

enum begin recall_begin(struct recall *recall, struct wire_slot *page, unsigned ordinal, uint64_t serial, uint64_t now,
	uint64_t deadline)
{
	pthread_mutex_lock(&recall->mutex);
	enum begin begin = BEGIN;
	if (recall->count && take_out(recall, serial))
		begin = BEGIN_RECALLED;
	else if (serial <= recall->started[ordinal])
		begin = BEGIN_STALE;
	if (serial > recall->started[ordinal])
		recall->started[ordinal] = serial;
	if (begin == BEGIN) {
		recall->running = serial;
		recall->since = now;
		__atomic_store_n(&page->since_ns, now, __ATOMIC_RELAXED);
		__atomic_store_n(&page->deadline_ns, deadline, __ATOMIC_RELAXED);
		__atomic_store_n(&page->phase, WIRE_RUNNING, __ATOMIC_RELAXED);
		__atomic_store_n(&page->running, serial, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&page->started[ordinal], recall->started[ordinal], __ATOMIC_RELEASE);
	pthread_mutex_unlock(&recall->mutex);
	return begin;
}

void recall_end(struct recall *recall, struct wire_slot *page, uint64_t now, bool failed)
{
	pthread_mutex_lock(&recall->mutex);
	recall->running = 0;
	pthread_mutex_unlock(&recall->mutex);
	uint64_t since = page->since_ns;
	__atomic_store_n(&page->busy_ns, page->busy_ns + (now > since ? now - since : 0), __ATOMIC_RELAXED);
	__atomic_store_n(&page->requests, page->requests + 1, __ATOMIC_RELAXED);
	if (failed)
		__atomic_store_n(&page->errors, page->errors + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&page->phase, WIRE_IDLE, __ATOMIC_RELAXED);
	__atomic_store_n(&page->running, 0, __ATOMIC_RELEASE);
}
