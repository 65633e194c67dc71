/*
 * Deadlines. All timers of one queue have the same duration, so arming is appending and the first is the earliest.
 * One timerfd wakes the loop; it is set only when a deadline comes before the one it is set to, so the usual arm and
 * disarm of each request costs no system call. Waking for a timer that was disarmed meanwhile costs one empty turn.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "engine.h"
#include "loop.h"

struct timer_queue {
	struct list timers;
	struct list node; /* in struct timers */
	uint64_t duration_ns;
	timer_expired *expired;
	struct timers *owner;
};

struct timers {
	struct pollable poll;
	struct engine *engine;
	struct list queues;
	uint64_t set_ns; /* what the timerfd is set to; UINT64_MAX: nothing */
	bool fired;
};

static void timer_set(struct timers *t, uint64_t deadline_ns)
{
	struct itimerspec spec = {
		.it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000), .tv_nsec = (long)(deadline_ns % 1000000000)},
	};
	t->set_ns = deadline_ns;
	timerfd_settime(t->poll.fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* Edge-triggered, so the count need not be read: setting the descriptor again clears it. */
static void timers_ready(struct engine *e, struct pollable *self, uint32_t events)
{
	(void)self;
	(void)events;
	e->timers->fired = true;
}

int timers_make(struct engine *e)
{
	struct timers *t = calloc(1, sizeof(*t));
	if (t == NULL)
		return -1;
	t->engine = e;
	t->set_ns = UINT64_MAX;
	list_init(&t->queues);
	e->timers = t;
	t->poll.ready = timers_ready;
	t->poll.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	e->timer_fd = t->poll.fd;
	if (t->poll.fd < 0 || poll_add(e, &t->poll, EPOLLIN | EPOLLET) < 0)
		return -1;
	return 0;
}

void timers_free(struct engine *e)
{
	struct timers *t = e->timers;
	if (t == NULL)
		return;
	while (!list_empty(&t->queues)) {
		struct timer_queue *queue = list_entry(t->queues.next, struct timer_queue, node);
		while (!list_empty(&queue->timers))
			list_remove(queue->timers.next);
		list_remove(&queue->node);
		free(queue);
	}
	if (t->poll.fd >= 0)
		close(t->poll.fd);
	free(t);
	e->timers = NULL;
}

struct timer_queue *timer_queue(struct engine *e, uint64_t duration_ns, timer_expired *expired)
{
	struct timers *t = e->timers;
	if (duration_ns == 0)
		duration_ns = 1; /* so that a callback that arms itself again waits for the next turn */
	for (struct list *at = t->queues.next; at != &t->queues; at = at->next) {
		struct timer_queue *queue = list_entry(at, struct timer_queue, node);
		if (queue->duration_ns == duration_ns && queue->expired == expired)
			return queue;
	}
	struct timer_queue *queue = calloc(1, sizeof(*queue));
	if (queue == NULL)
		return NULL;
	queue->duration_ns = duration_ns;
	queue->expired = expired;
	queue->owner = t;
	list_init(&queue->timers);
	list_append(&t->queues, &queue->node);
	return queue;
}

void timer_arm(struct engine *e, struct timer_queue *queue, struct timer *timer)
{
	list_remove(&timer->node);
	timer->queue = queue;
	timer->deadline_ns = e->now_ns + queue->duration_ns;
	list_append(&queue->timers, &timer->node);
	if (timer->deadline_ns < e->timers->set_ns)
		timer_set(e->timers, timer->deadline_ns);
}

void timer_disarm(struct timer *timer)
{
	list_remove(&timer->node);
}

void timers_run(struct engine *e)
{
	struct timers *t = e->timers;
	if (!t->fired && e->now_ns < t->set_ns)
		return;
	bool fired = t->fired;
	t->fired = false;
	uint64_t now = e->now_ns;
	/* Callbacks may arm timers, in this queue too, and make queues: at the end of the list, where the walk sees
	 * them. */
	for (struct list *at = t->queues.next; at != &t->queues; at = at->next) {
		struct timer_queue *queue = list_entry(at, struct timer_queue, node);
		while (!list_empty(&queue->timers)) {
			struct timer *timer = list_entry(queue->timers.next, struct timer, node);
			if (timer->deadline_ns > now)
				break;
			list_remove(&timer->node);
			queue->expired(e, timer);
		}
	}
	uint64_t earliest = UINT64_MAX;
	for (struct list *at = t->queues.next; at != &t->queues; at = at->next) {
		struct timer_queue *queue = list_entry(at, struct timer_queue, node);
		if (list_empty(&queue->timers))
			continue;
		uint64_t deadline = list_entry(queue->timers.next, struct timer, node)->deadline_ns;
		if (deadline < earliest)
			earliest = deadline;
	}
	if (earliest == UINT64_MAX)
		t->set_ns = UINT64_MAX; /* it has fired, or will once more for nothing */
	else if (fired || earliest != t->set_ns)
		timer_set(t, earliest);
}
