/*
 * One request's place: a thread with a socket of its own. It takes in what has come, begins the first request that
 * nobody has called back, gives it to the plugin, and sleeps when there is nothing. It holds no language's lock here.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker.h"

#define SHORT_NS   200000u /* 0.2 ms */
#define LOOK_AFTER 16	   /* short requests run before the sockets are looked at again: cancels may lie in them */
#define TAIL_MS	   100	   /* a new request waits this long for the last one's answer to have left */
#define LINGER_MS  10000   /* for goodbye and last answers, when the front end is slow */

int slot_open(struct slot *slot, struct worker *worker, unsigned number)
{
	struct wire_identity identity = {
		WIRE_ROLE_SLOT, WIRE_VERSION, (uint16_t)number, worker->generation, worker->incarnation};

	slot->worker = worker;
	slot->number = number;
	slot->page = &worker->page->slot[number];
	slot->call.slot = slot;
	recall_open(&slot->recall);
	slot->wake = worker->async.set >= 0 ? worker->async.wake : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const int others[LINK_OTHERS] = {slot->wake, -1};
	if (slot->wake < 0 || answer_open(&slot->call.answer) ||
		link_open(&slot->link, &identity, worker->slots, others))
		return -1;
	slot->nowait = worker->async.set >= 0 ? LP_NOWAIT : 0;
	slot->link.set = worker->async.set;
	slot->link.mark = (uint64_t)number << 8;
	return 0;
}

int slot_start(struct slot *slot)
{
	const struct langplugin *plugin = slot->worker->host->plugin;

	return plugin->thread_start ? plugin->thread_start(slot->worker->host->state, &slot->plugin_thread) : 0;
}

void slot_close(struct slot *slot)
{
	const struct langplugin *plugin = slot->worker->host->plugin;

	if (plugin->thread_stop)
		plugin->thread_stop(slot->worker->host->state, slot->plugin_thread);
	link_flush(&slot->link, LINGER_MS, true);
	link_close(&slot->link);
	answer_close(&slot->call.answer);
	block_free(&slot->call.block);
}

bool call_over(struct langplugin_call *call)
{
	struct slot *slot = call->slot;

	if (atomic_load_explicit(&call->cancelled, memory_order_relaxed))
		return true;
	/* The front end died: its connection has ended, or the manager has said so, through the keeper. */
	if (!link_knows(&slot->link, call->from)) {
		atomic_store(&call->cancelled, 1);
		return true;
	}
	if (atomic_load_explicit(&slot->worker->frontends_version, memory_order_acquire) != slot->frontends_seen &&
		!worker_has(slot->worker, call->from)) {
		atomic_store(&call->cancelled, 1);
		return true;
	}
	return false;
}

bool call_interrupted(struct langplugin_call *call)
{
	return atomic_load_explicit(&call->interrupted, memory_order_relaxed) && atomic_exchange(&call->interrupted, 0);
}

/* ---- what front ends say */

static void take_request(
	struct slot *slot, struct wire_frontend from, const struct wire_head *head, struct message *message)
{
	struct entry *entry = queue_add(&slot->queue);

	if (!entry) {
		/* More than any front end may place: it breaks the rules, and is told so. */
		slot->worker->page->protocol_errors++;
		link_say_head(&slot->link, from, WIRE_ABORT, head->serial, head->request, slot->number, 0);
		message_free(message);
		return;
	}
	entry->from = from;
	entry->head = *head;
	entry->request = message;
}

/* Body of a request that has not begun. */
static void keep_body(struct slot *slot, const struct wire_head *head, struct message *message)
{
	struct entry *entry = queue_find(&slot->queue, head->serial);
	struct wire_request request;

	if (!entry || entry->request->size < sizeof(request)) {
		message_free(message);
		return;
	}
	memcpy(&request, entry->request->data, sizeof(request));
	uint64_t expected = request.text[WIRE_FIRST_BODY].size;
	for (struct piece *piece = entry->first; piece; piece = piece->next)
		expected += piece->data.size;
	struct piece *piece = body_piece(message, expected);
	if (piece)
		piece_add(&entry->first, &entry->final, piece);
	else
		slot->worker->page->protocol_errors++;
}

static void take_credit(struct langplugin_call *call, const struct message *message)
{
	struct wire_credit credit;

	if (message->size < sizeof(credit))
		return;
	memcpy(&credit, message->data, sizeof(credit));
	if (credit.limit > call->answer.limit)
		call->answer.limit = credit.limit;
}

static void take_cancel(struct slot *slot, const struct wire_head *head)
{
	struct entry *entry = queue_find(&slot->queue, head->serial);

	if (slot->call.head.serial == head->serial)
		atomic_store(&slot->call.cancelled, 1);
	else if (entry)
		entry->cancelled = true;
}

static void take_frame(
	struct slot *slot, struct wire_frontend from, const struct wire_head *head, struct message *message)
{
	bool ours = slot->call.head.serial == head->serial && head->serial != 0;
	slot->news |= ours;

	switch (head->kind) {
	case WIRE_REQUEST:
		take_request(slot, from, head, message);
		return;
	case WIRE_BODY:
		if (ours && slot->call.answer.state != ANSWER_ENDED)
			body_take(&slot->call, message);
		else
			keep_body(slot, head, message);
		return;
	case WIRE_CREDIT:
		if (ours)
			take_credit(&slot->call, message);
		break;
	case WIRE_CANCEL:
		take_cancel(slot, head);
		break;
	case WIRE_PROBE:
		slot->link.peer[from.ordinal].probed = true;
		link_say_head(&slot->link, from, WIRE_ALIVE, head->serial, head->request, slot->number, 0);
		break;
	case WIRE_CLOSED:
		slot->link.peer[from.ordinal].closed = true; /* from is a peer's own name */
		break;
	default:
		slot->worker->page->protocol_errors++;
	}
	message_free(message);
}

/* Front ends look here before they place: what is taken out must be gone from it too. */
static void tell_queue(struct slot *slot)
{
	__atomic_store_n(&slot->page->queued, slot->queue.count, __ATOMIC_RELAXED);
}

/* What has been seen to be there. */
void slot_take_in(struct slot *slot)
{
	struct wire_frontend from;
	struct wire_head head;
	struct message *message;
	enum link_got got;

	while (!(slot->wants_body && slot->call.body.first) &&
		(got = link_receive(&slot->link, &from, &head, &message)) != LINK_NOTHING) {
		if (got == LINK_FRAME)
			take_frame(slot, from, &head, message);
		else
			slot->worker->page->protocol_errors++;
	}
	tell_queue(slot);
}

void slot_sleep(struct slot *slot, int milliseconds)
{
	/* An event loop's: what comes is taken in by turn(), which tells the plugin of it. */
	if (slot->nowait)
		return;
	if (link_wait(&slot->link, milliseconds) & 1)
		wake_over(slot->wake);
	slot_take_in(slot);
}

int call_wait(struct langplugin_call *call, int fd, short events, int milliseconds)
{
	struct slot *slot = call->slot;
	struct pollfd *other = &slot->link.poll[1]; /* see slot_open */

	if (call_over(call))
		return LP_GONE;
	*other = (struct pollfd){fd, events, 0};
	slot_sleep(slot, slot->news ? 0 : milliseconds);
	slot->news = false;
	int seen = other->revents;
	*other = (struct pollfd){-1, 0, 0};
	return call_over(call) ? LP_GONE : seen;
}

void slot_drain(struct slot *slot)
{
	slot_sleep(slot, 0);
}

/* ---- running one */

static void forget(struct langplugin_call *call, struct entry *entry)
{
	call->head.serial = 0;
	message_free(entry->request);
	pieces_free(entry->first);
}

bool slot_begin(struct slot *slot, struct entry *entry, uint64_t now)
{
	struct langplugin_call *call = &slot->call;
	bool valid = block_read(&call->block, entry->request->data, entry->request->size);

	call->from = entry->from;
	call->head = entry->head;
	atomic_store(&call->cancelled, 0);
	atomic_store(&call->interrupted, 0);
	atomic_store(&call->overdue, 0);
	/* Nor for a front end that is gone: nobody would get the answer. */
	if (!valid || entry->cancelled || !link_knows(&slot->link, entry->from)) {
		slot->worker->page->protocol_errors += !valid;
		recall_skip(&slot->recall, slot->page, entry->from.ordinal, entry->head.serial);
		/* The front end waits for this to see the slot free. */
		link_say_head(
			&slot->link, entry->from, WIRE_ABORT, entry->head.serial, entry->head.request, slot->number, 0);
		forget(call, entry);
		return false;
	}
	enum begin begin = recall_begin(
		&slot->recall, slot->page, entry->from.ordinal, entry->head.serial, now, call->block.deadline_ns);
	if (begin != BEGIN) {
		/* Called back: the keeper has said so. A serial that was used before must not wait for ever either. */
		if (begin == BEGIN_STALE) {
			slot->worker->page->protocol_errors++;
			link_say_head(&slot->link, entry->from, WIRE_ABORT, entry->head.serial, entry->head.request,
				slot->number, 0);
		}
		forget(call, entry);
		return false;
	}
	call->message = entry->request;
	call->place = NULL;
	call->spoke = false;
	answer_begin(call);
	body_begin(call, entry);
	return true;
}

void slot_over(struct slot *slot, uint64_t now)
{
	struct langplugin_call *call = &slot->call;

	body_end(call);
	trailers_end(call);
	recall_end(&slot->recall, slot->page, now, call->answer.status >= 500 || call->answer.aborted);
	call->head.serial = 0;
	message_free(call->message);
	call->message = NULL;
	worker_count(slot->worker);
}

static void run(struct slot *slot, struct entry *entry)
{
	const struct host *host = slot->worker->host;
	uint64_t now = clock_ns();

	if (!slot_begin(slot, entry, now))
		return;
	host->plugin->handle(host->state, slot->plugin_thread, &slot->call);
	if (slot->worker->forked)
		_exit(0); /* a child that application code made came back here: the request is its parent's */
	if (slot->call.taken)
		takeover_end(&slot->call);
	answer_conclude(&slot->call);
	uint64_t end = clock_ns();
	slot_over(slot, end);
	/* Looking for more costs a system call; a run of short requests is worth fewer looks than one for each. */
	slot->unlooked = end - now < SHORT_NS ? slot->unlooked + 1 : LOOK_AFTER;
}

/* ---- front ends come and go, the orderly end */

static bool frontends_have(const struct frontends *frontends, struct wire_frontend name)
{
	for (unsigned i = 0; i < frontends->count; i++)
		if (frontends->item[i].ordinal == name.ordinal && frontends->item[i].incarnation == name.incarnation)
			return true;
	return false;
}

void slot_update_frontends(struct slot *slot)
{
	struct frontends frontends;

	if (atomic_load_explicit(&slot->worker->frontends_version, memory_order_acquire) == slot->frontends_seen)
		return;
	slot->frontends_seen = worker_frontends(slot->worker, &frontends);
	/* Before there is another front end with this ordinal that could find it. */
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		if (slot->link.peer[i].name.role && !frontends_have(&frontends, slot->link.peer[i].name))
			loan_forget(slot, i);
	link_update(&slot->link, &frontends);
	if (!slot->leaving)
		return;
	/* One that has come since is told at once; it will not send anything here. */
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		if (slot->link.peer[i].name.role && !slot->link.peer[i].closed)
			link_say_head(&slot->link, slot->link.peer[i].name, WIRE_LEAVING, 0, 0, slot->number, 0);
}

void slot_leave(struct slot *slot)
{
	slot->leaving = true;
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		if (slot->link.peer[i].name.role)
			link_say_head(&slot->link, slot->link.peer[i].name, WIRE_LEAVING, 0, 0, slot->number, 0);
}

bool slot_all_closed(const struct slot *slot)
{
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		if (slot->link.peer[i].name.role && !slot->link.peer[i].closed)
			return false;
	return true;
}

void slot_say_goodbye(struct slot *slot)
{
	for (unsigned i = 0; i < WIRE_FRONTENDS; i++)
		if (slot->link.peer[i].name.role)
			link_say_head(&slot->link, slot->link.peer[i].name, WIRE_GOODBYE, 0, 0, slot->number, 0);
}

void slot_run(struct slot *slot)
{
	struct entry entry;

	for (;;) {
		/* No goodbye: it would say that all of the queue has been seen to. */
		if (atomic_load(&slot->worker->gave_up))
			return;
		slot_update_frontends(slot);
		if (!slot->leaving && atomic_load_explicit(&slot->worker->retiring, memory_order_acquire))
			slot_leave(slot);
		if (slot->queue.count == 0) {
			if (slot->leaving && slot_all_closed(slot))
				break;
			slot->unlooked = 0;
			/* Application code can write to the page: nobody would place where it says that much waits. */
			tell_queue(slot);
			slot_sleep(slot, -1);
			continue; /* front ends may have come or gone with what woke it */
		} else if (slot->unlooked >= LOOK_AFTER) {
			slot->unlooked = 0;
			slot_drain(slot);
		}
		if (slot->link.meets && slot->queue.count)
			slot_meet(slot);
		if (!atomic_load(&slot->worker->gave_up) && queue_take(&slot->queue, &entry)) {
			tell_queue(slot);
			/* Application code may keep the thread for long; what is left of an answer goes first. A front
			   end that hangs is waited for once. */
			link_flush(&slot->link, TAIL_MS, false);
			run(slot, &entry);
		}
	}
	slot_say_goodbye(slot);
}
