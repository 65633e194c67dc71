/*
 * The engine's turn: take what the descriptors have, then what expired, then what is left over; tell Python.
 *
 * One epoll set holds everything and is itself the one descriptor in gevent's hub. All in it is level-triggered, but
 * for the zmq descriptors (libzmq asks for it), the timerfd and the eventfd `again` (which then need not be read). A
 * turn ends after about a millisecond so that green threads run; what is left makes the set readable again by itself,
 * or `again` does.
 */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "loop.h"
#include "pace.h"
#include "posts.h"
#include "wire.h"
#include "zmqlib.h"

#define BATCH		128
#define TURN_NS		1000000U
#define EVENTS_AT_FIRST 64

struct events {
	/* The batch that is being handed out, so that poll_remove can strike a pollable from it. */
	struct epoll_event batch[BATCH];
	int batch_at, batch_count;
	struct pollable again;
	bool in_turn, again_asked;
	bool asked_within; /* the turn has made work for a part of it that may be over */
	/* For Python: a ring would do; a plain array is emptied in nearly every turn. */
	struct engine_event *pending;
	size_t first, count, room;
	struct engine_event spare; /* where events go that no memory could be had for */
};

int poll_add(struct engine *e, struct pollable *p, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = p};
	p->events = events;
	return epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, p->fd, &event);
}

int poll_change(struct engine *e, struct pollable *p, uint32_t events)
{
	if (p->events == events)
		return 0;
	struct epoll_event event = {.events = events, .data.ptr = p};
	p->events = events;
	return epoll_ctl(e->epoll_fd, EPOLL_CTL_MOD, p->fd, &event);
}

void poll_forget(struct engine *e, struct pollable *p)
{
	struct events *ev = e->events;
	for (int i = ev->batch_at; i < ev->batch_count; i++)
		if (ev->batch[i].data.ptr == p)
			ev->batch[i].data.ptr = NULL;
}

void poll_remove(struct engine *e, struct pollable *p)
{
	struct epoll_event event = {0};
	poll_forget(e, p);
	epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, p->fd, &event);
}

static void again_ready(struct engine *e, struct pollable *self, uint32_t events)
{
	(void)self;
	(void)events;
	e->events->again_asked = false;
}

void engine_again(struct engine *e)
{
	/* Inside a turn the turn itself finds the work: if not any more in this round, then in one more. */
	e->events->asked_within = true;
	if (e->events->in_turn || e->events->again_asked)
		return;
	uint64_t one = 1;
	if (write(e->again_fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
		e->events->again_asked = true;
}

struct engine_event *event_push(struct engine *e, uint32_t kind)
{
	struct events *ev = e->events;
	if (ev->first + ev->count == ev->room) {
		if (ev->first > 0) {
			memmove(ev->pending, ev->pending + ev->first, ev->count * sizeof(*ev->pending));
			ev->first = 0;
		} else {
			struct engine_event *grown = realloc(ev->pending, 2 * ev->room * sizeof(*grown));
			if (grown == NULL) {
				memset(&ev->spare, 0, sizeof(ev->spare));
				return &ev->spare;
			}
			ev->pending = grown;
			ev->room *= 2;
		}
	}
	struct engine_event *event = &ev->pending[ev->first + ev->count++];
	memset(event, 0, sizeof(*event));
	event->kind = kind;
	/* A turn ends with handing out. */
	if (!ev->in_turn)
		engine_again(e);
	return event;
}

static int events_hand_out(struct events *ev, struct engine_event *events, int max)
{
	size_t n = ev->count < (size_t)(max > 0 ? max : 0) ? ev->count : (size_t)(max > 0 ? max : 0);
	memcpy(events, ev->pending + ev->first, n * sizeof(*events));
	ev->count -= n;
	ev->first = ev->count > 0 ? ev->first + n : 0;
	return (int)n;
}

void engine_clock(struct engine *e)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	e->now_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	clock_gettime(CLOCK_REALTIME, &t);
	e->now_wall_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	if (t.tv_sec == e->now_wall && e->date[0] != '\0')
		return;
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm;
	e->now_wall = t.tv_sec;
	gmtime_r(&t.tv_sec, &tm);
	/* Not strftime: its names of days and months follow the locale. */
	snprintf(e->date, sizeof(e->date), "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * tm.tm_wday,
		(unsigned)tm.tm_mday % 100, months + 3 * tm.tm_mon, (unsigned)(tm.tm_year + 1900) % 10000,
		(unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

static int batch_run(struct engine *e)
{
	struct events *ev = e->events;
	int count = epoll_wait(e->epoll_fd, ev->batch, BATCH, 0);
	ev->batch_count = count > 0 ? count : 0;
	for (ev->batch_at = 0; ev->batch_at < ev->batch_count;) {
		struct epoll_event *event = &ev->batch[ev->batch_at++];
		struct pollable *p = event->data.ptr;
		if (p != NULL)
			p->ready(e, p, event->events);
	}
	ev->batch_at = ev->batch_count = 0;
	return count;
}

int engine_run(engine *e, struct engine_event *events, int max)
{
	struct events *ev = e->events;
	ev->in_turn = true;
	connections_sweep(e);
	engine_clock(e);
	e->stats.turns++;
	pace_turn(e);
	posts_wake(e);
	uint64_t end = e->now_ns + TURN_NS;
	bool more;
	for (;;) {
		int count = batch_run(e);
		engine_clock(e);
		timers_run(e);
		more = connections_turn(e);
		ev->asked_within = false;
		more |= channel_turn(e);
		more |= connections_due(e); /* what the channel has let go on */
		/* A request whose body has come with that is queued, and nobody would place it before something
		 * happens. */
		more |= ev->asked_within;
		if (e->now_ns >= end)
			break;
		/* One ready descriptor is what a quiet server sees: asking again would only find nothing. */
		if (count < 2 && !more)
			break;
	}
	more |= posts_sleep(e);
	access_flush(e);
	connections_sweep(e);
	int handed = events_hand_out(ev, events, max);
	ev->in_turn = false;
	if (more || ev->count > 0)
		engine_again(e);
	return handed;
}

int engine_fd(const engine *e)
{
	return e->epoll_fd;
}

void engine_stats(const engine *e, struct engine_stats *stats)
{
	*stats = e->stats;
}

void engine_limits(engine *e, const struct engine_limits *limits)
{
	e->limits = *limits;
	connections_limits(e);
	tunnels_limits(e);
}

void engine_drain(engine *e)
{
	if (e->draining)
		return;
	engine_clock(e);
	e->draining = true;
	tunnels_leave(e, NULL, NULL);
	connections_drain(e);
}

static int events_make(struct engine *e)
{
	struct events *ev = calloc(1, sizeof(*ev));
	if (ev == NULL)
		return -1;
	e->events = ev;
	ev->room = EVENTS_AT_FIRST;
	ev->pending = calloc(ev->room, sizeof(*ev->pending));
	e->again_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ev->again.fd = e->again_fd;
	ev->again.ready = again_ready;
	if (ev->pending == NULL || e->again_fd < 0)
		return -1;
	return poll_add(e, &ev->again, EPOLLIN | EPOLLET);
}

static void events_free(struct engine *e)
{
	if (e->events == NULL)
		return;
	free(e->events->pending);
	free(e->events);
	e->events = NULL;
}

/* In this order they are made, in the reverse they are freed. Each freer stands a maker that stopped half-way. */
static const struct {
	const char *name;
	int (*make)(struct engine *e);
	void (*free)(struct engine *e);
} parts[] = {
	{"events", events_make, events_free},
	{"timers", timers_make, timers_free},
	{"pace", pace_make, pace_free},
	{"error log", errors_make, errors_free},
	{"access log", access_make, access_free},
	{"requests", requests_make, requests_free},
	{"decision table", decisions_make, decisions_free},
	{"files", statics_make, statics_free},
	{"channel", channel_make, channel_free},
	{"connections", connections_make, connections_free},
};

#define PARTS (sizeof(parts) / sizeof(parts[0]))

static void engine_unmake(struct engine *e, size_t made)
{
	while (made-- > 0)
		parts[made].free(e);
	if (e->epoll_fd >= 0)
		close(e->epoll_fd);
	if (e->again_fd >= 0)
		close(e->again_fd);
	zmqlib_free(e->zmq);
	free((char *)e->options.spool_directory);
	free((char *)e->options.server);
	free(e);
}

/*
 * Pieces of bodies come and go at the top of the heap: given back to the kernel each time, they cost more in page
 * faults than in copying.
 */
static void keep_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 2 * WIRE_MESSAGE);
	mallopt(M_TRIM_THRESHOLD, 4 * WIRE_MESSAGE);
}

bool descriptor_is_spare(const struct engine *e, int fd)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= INT_MAX)
		return false;
	/* Lowered by far, it would leave none for clients. */
	int limit = (int)files.rlim_cur, spare = e->spare < limit / 2 ? e->spare : limit / 2;
	return fd >= limit - spare;
}

engine *engine_new(const struct engine_options *options, char *message, size_t message_size)
{
	struct engine *e = calloc(1, sizeof(*e));
	if (e == NULL) {
		snprintf(message, message_size, "no memory for the engine");
		return NULL;
	}
	e->options = *options;
	e->limits = options->limits;
	e->again_fd = e->timer_fd = -1;
	struct rlimit files;
	e->spare = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < INT_MAX ? (int)files.rlim_cur / 8 : 0;
	e->options.spool_directory = strdup(options->spool_directory != NULL ? options->spool_directory : "/tmp");
	e->options.server = strdup(options->server != NULL ? options->server : "");
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll_fd < 0 || e->options.spool_directory == NULL || e->options.server == NULL) {
		snprintf(message, message_size, "cannot make the engine's epoll set: %s", strerror(errno));
		engine_unmake(e, 0);
		return NULL;
	}
	keep_memory();
	engine_clock(e);
	for (size_t i = 0; i < PARTS; i++) {
		if (parts[i].make(e) < 0) {
			snprintf(message, message_size, "cannot make the engine's %s: %s", parts[i].name,
				strerror(errno));
			engine_unmake(e, i + 1); /* what it had made of itself goes too */
			return NULL;
		}
	}
	return e;
}

void engine_free(engine *e)
{
	if (e == NULL)
		return;
	e->events->in_turn = true; /* what ends now must not ask for another turn */
	connections_close(e);
	engine_unmake(e, PARTS);
}
