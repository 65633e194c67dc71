/*
 * Many slots in one thread, which is the event loop of a plugin with LANGPLUGIN_ASYNC. The loop watches one descriptor,
 * an epoll set of every slot's connections, and calls turn(). All that is read is read there, so that the plugin is
 * told of all that has changed; what is sent goes out at once as far as there is room, and from turn() when there is
 * more.
 *
 * A slot lives as it does in a thread of its own: idle, running, and then finishing for as long as the end of the
 * answer has not left. While a part of a body lies there unread, its connections are not read from: the rest waits in
 * the socket, and the set does not wake the loop for it.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "worker.h"

#define EVENTS	  64		   /* taken from the set in one turn; the loop has other things to do */
#define WAKE	  UINT64_MAX	   /* mark of the eventfd; a connection's is slot * 256 + front end */
#define IDLE	  (UINT64_MAX - 1) /* of the timer */
#define LINGER_MS 10000		   /* for goodbyes, when a front end is slow; for all slots together */

/* Each slot has a connection to each front end: the application's own files come on top. Done as well as allowed. */
static void make_room(const struct worker *worker)
{
	rlim_t wanted = (rlim_t)worker->slots *
			(WIRE_FRONTENDS < worker->frontends.count + 2 ? WIRE_FRONTENDS : worker->frontends.count + 2);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return;
	wanted += limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max != RLIM_INFINITY && wanted > limit.rlim_max ? limit.rlim_max : wanted;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int async_open(struct worker *worker)
{
	struct async *async = &worker->async;
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE};

	make_room(worker);
	async->set = epoll_create1(EPOLL_CLOEXEC);
	async->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (async->set < 0 || async->wake < 0 || epoll_ctl(async->set, EPOLL_CTL_ADD, async->wake, &event))
		return -1;
	event.data.u64 = IDLE;
	if (pause_open(async) || epoll_ctl(async->set, EPOLL_CTL_ADD, async->idle, &event))
		return -1;
	async->left = worker->slots;
	/* The first turn connects. */
	wake_up(async->wake);
	return 0;
}

void async_abandon(struct worker *worker)
{
	if (worker->async.set < 0)
		return;
	/* The set itself is shared with the parent: nothing may be taken out of it. */
	close(worker->async.set);
	close(worker->async.wake);
	close(worker->async.idle);
	worker->async.set = worker->async.wake = worker->async.idle = -1;
}

/* ---- one slot */

/* To be looked after in the next turn, or later in this one. */
static void list(struct slot *slot)
{
	struct async *async = &slot->worker->async;

	if (slot->listed)
		return;
	slot->listed = true;
	slot->next = NULL;
	if (async->first)
		async->last->next = slot;
	else
		async->first = slot;
	async->last = slot;
	if (!async->turning)
		wake_up(async->wake);
}

/* Something is to leave that could not: what lets it is to be read. */
static bool waits_to_send(const struct slot *slot)
{
	return slot->wants_credit || slot->call.answer.ending || tunnel_waits(&slot->call);
}

/* A part of the body has not been read, and nobody waits for anything else. */
static bool is_full(const struct slot *slot)
{
	return slot->stage == SLOT_RUNNING && slot->call.body.first && !waits_to_send(slot);
}

/* After anything that may have sent or read: the set is to know what the slot waits for. */
static void settle(struct slot *slot)
{
	bool full = is_full(slot);

	/* What has been read already and not looked at is announced by nobody. */
	if (!full && slot->link.at < slot->link.end)
		list(slot);
	if (!slot->link.changed && full == slot->paused)
		return;
	/* Its front end was found dead by sending: those who wait for something else are to hear of it. */
	if (slot->stage == SLOT_RUNNING && !slot->told && !link_knows(&slot->link, slot->call.from))
		list(slot);
	slot->paused = full;
	link_watch(&slot->link, !full);
}

/* The plugin has done with the call: true when its answer has left. */
static bool finish(struct slot *slot)
{
	struct langplugin_call *call = &slot->call;

	answer_conclude(call);
	if (call->answer.state != ANSWER_ENDED) {
		slot->stage = SLOT_FINISHING;
		slot->wants_credit = true;
		call_phase(&slot->call, WIRE_WRITING);
		return false;
	}
	slot_over(slot, clock_ns());
	slot->stage = SLOT_IDLE;
	slot->wants_credit = false;
	return true;
}

static void start_next(struct slot *slot)
{
	const struct host *host = slot->worker->host;
	struct entry entry;

	while (slot->stage == SLOT_IDLE && queue_take(&slot->queue, &entry)) {
		__atomic_store_n(&slot->page->queued, slot->queue.count, __ATOMIC_RELAXED);
		if (!slot_begin(slot, &entry, clock_ns()))
			continue;
		slot->stage = SLOT_RUNNING;
		slot->told = slot->wants_credit = false;
		int handled = host->plugin->handle(host->state, slot->plugin_thread, &slot->call);
		if (slot->worker->forked)
			_exit(0);
		if (handled != LP_PENDING && slot->stage == SLOT_RUNNING)
			finish(slot);
	}
}

static void tell(struct slot *slot)
{
	const struct host *host = slot->worker->host;

	slot->told |= call_over(&slot->call);
	if (slot->wants_credit || slot->page->phase != WIRE_RUNNING)
		call_phase(&slot->call, WIRE_RUNNING);
	slot->wants_credit = false;
	host->plugin->ready(host->state, &slot->call);
	if (slot->worker->forked)
		_exit(0);
}

/* What has come is taken in, and whatever follows from it is done. */
static void look_after(struct slot *slot)
{
	struct async *async = &slot->worker->async;

	slot->wants_body = slot->stage == SLOT_RUNNING && !waits_to_send(slot);
	slot_take_in(slot);
	slot->wants_body = false;
	if (slot->stage == SLOT_RUNNING) {
		answer_go_on(&slot->call);
		tell(slot);
	} else if (slot->stage == SLOT_FINISHING) {
		answer_go_on(&slot->call);
		finish(slot);
	}
	start_next(slot);
	if (slot->leaving && slot->stage == SLOT_IDLE && slot_all_closed(slot)) {
		slot_say_goodbye(slot);
		slot->stage = SLOT_GONE;
		async->left--;
	}
	settle(slot);
}

/* ---- a turn */

static void update_frontends(struct worker *worker)
{
	worker->async.frontends_seen = atomic_load_explicit(&worker->frontends_version, memory_order_acquire);
	for (unsigned i = 0; i < worker->slots; i++) {
		if (worker->slot[i].stage == SLOT_GONE)
			continue;
		slot_update_frontends(&worker->slot[i]);
		look_after(&worker->slot[i]);
	}
}

static void leave(struct worker *worker)
{
	worker->async.leaving = true;
	for (unsigned i = 0; i < worker->slots; i++) {
		slot_leave(&worker->slot[i]);
		look_after(&worker->slot[i]);
	}
}

/* The keeper has marked calls. */
static void find_cancelled(struct worker *worker)
{
	for (unsigned i = 0; i < worker->slots; i++) {
		struct slot *slot = &worker->slot[i];
		bool runs = slot->stage == SLOT_RUNNING || slot->stage == SLOT_FINISHING;
		if (runs && !slot->told && atomic_load_explicit(&slot->call.cancelled, memory_order_acquire))
			look_after(slot);
	}
}

static void look_after_listed(struct async *async)
{
	/* As far as it goes now: what is added meanwhile waits for the next turn. */
	struct slot *last = async->last;

	for (struct slot *slot = async->first, *next; slot; slot = next) {
		next = slot == last ? NULL : slot->next;
		async->first = slot->next;
		slot->listed = false;
		look_after(slot);
	}
}

int async_turn(struct worker *worker)
{
	struct async *async = &worker->async;
	struct epoll_event events[EVENTS];
	bool woken = false;

	if (worker->forked)
		return 0;
	async->turning = true;
	int count = epoll_wait(async->set, events, EVENTS, 0);
	for (int i = 0; i < count; i++) {
		if (events[i].data.u64 == IDLE) {
			pause_over(async);
			continue;
		}
		async->moved = true;
		if (events[i].data.u64 == WAKE) {
			wake_over(async->wake);
			woken = true;
			continue;
		}
		struct slot *slot = &worker->slot[events[i].data.u64 >> 8];
		link_event(&slot->link, events[i].data.u64 & 0xff, events[i].events);
		/* A connection that has ended is read to its end, whatever waits: epoll(7) would tell of it for ever.
		 */
		if (slot->paused && events[i].events & WATCH_ALWAYS)
			slot_take_in(slot);
		look_after(slot);
	}
	if (atomic_load_explicit(&worker->frontends_version, memory_order_acquire) != async->frontends_seen)
		update_frontends(worker);
	if (!async->leaving && atomic_load_explicit(&worker->retiring, memory_order_acquire))
		leave(worker);
	if (woken)
		find_cancelled(worker);
	if (async->first)
		look_after_listed(async);
	pause_begin(async);
	async->turning = false;
	if (async->first)
		wake_up(async->wake);
	return async->left == 0 ? 0 : async->leaving ? 2 : 1;
}

void async_close(struct worker *worker)
{
	uint64_t end = clock_ns() + LINGER_MS * 1000000ull;

	for (unsigned i = 0; i < worker->slots; i++) {
		struct slot *slot = &worker->slot[i];
		uint64_t now = clock_ns();
		link_flush(&slot->link, now < end ? (int)((end - now) / 1000000u) : 0, true);
		link_close(&slot->link);
		answer_close(&slot->call.answer);
		block_free(&slot->call.block);
	}
}

/* ---- the host's functions, as this plugin gets them */

static ssize_t async_read(struct langplugin_call *call, void *buffer, size_t size, int flags)
{
	ssize_t result = body_read(call, buffer, size, flags | LP_NOWAIT);

	if (result == LP_AGAIN)
		call_phase(call, WIRE_READING);
	settle(call->slot);
	return result;
}

/* What waits for credit or for room waits for something that comes behind the body. */
static int sent(struct langplugin_call *call, int result)
{
	if (result == LP_AGAIN) {
		call->slot->wants_credit = true;
		call_phase(call, WIRE_WRITING);
	}
	settle(call->slot);
	return result;
}

static int async_respond(struct langplugin_call *call, int status, struct langplugin_text reason,
	const struct langplugin_field *fields, size_t count, int64_t content_length)
{
	return sent(call, answer_respond(call, status, reason, fields, count, content_length));
}

static int async_write(struct langplugin_call *call, const void *data, size_t size, int flags)
{
	return sent(call, answer_write(call, data, size, flags | LP_NOWAIT));
}

static int async_flush(struct langplugin_call *call, int flags)
{
	return sent(call, answer_flush(call, flags | LP_NOWAIT));
}

static int async_send_file(struct langplugin_call *call, int fd, int64_t offset, int64_t length)
{
	(void)call, (void)fd, (void)offset, (void)length;
	return LP_INVALID;
}

static int async_inform(struct langplugin_call *call, int status, const struct langplugin_field *fields, size_t count)
{
	return sent(call, answer_inform(call, status, fields, count));
}

static int async_end(struct langplugin_call *call)
{
	return sent(call, answer_end(call));
}

static void async_abort(struct langplugin_call *call)
{
	answer_abort(call);
	settle(call->slot);
}

static void async_finish(struct langplugin_call *call)
{
	struct slot *slot = call->slot;

	if (slot->worker->forked)
		_exit(0); /* a child that application code made came back here: the request is its parent's */
	if (slot->stage != SLOT_RUNNING)
		return;
	/* Another call may begin only when nobody is in this one: in a turn. */
	if (finish(slot) && (slot->queue.count || slot->leaving))
		list(slot);
	settle(slot);
}

static int async_take_over(struct langplugin_call *call)
{
	(void)call;
	errno = ENOTSUP;
	return -1;
}

void async_functions(struct langplugin_host *functions)
{
	functions->read = async_read;
	functions->respond = async_respond;
	functions->write = async_write;
	functions->flush = async_flush;
	functions->send_file = async_send_file;
	functions->inform = async_inform;
	functions->end = async_end;
	functions->abort = async_abort;
	functions->finish = async_finish;
	functions->slot = NULL;
	functions->take_over = async_take_over;
}
