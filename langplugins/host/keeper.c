/*
 * The thread that answers whatever application code does: calls back what has not begun, passes cancels on, and listens
 * to the manager. It has no timer and a socket of its own, so that a request that nobody calls back never wakes it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stacks.h"

#define LINGER_MS 10000 /* for the goodbyes, when a front end is slow */

int keeper_open(struct worker *worker)
{
	struct wire_identity identity = {WIRE_ROLE_KEEPER, WIRE_VERSION, 0, worker->generation, worker->incarnation};

	worker->keeper.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const int others[LINK_OTHERS] = {worker->keeper.wake, worker->control};
	if (worker->keeper.wake < 0 || link_open(&worker->keeper.link, &identity, worker->slots, others))
		return -1;
	link_update(&worker->keeper.link, &worker->frontends);
	return 0;
}

static void answer_recall(struct worker *worker, struct wire_frontend from, const struct wire_head *head)
{
	if (head->slot >= worker->slots || from.ordinal >= WIRE_FRONTENDS || head->serial == 0) {
		worker->page->protocol_errors++;
		return;
	}
	bool back = recall_ask(&worker->slot[head->slot].recall, from.ordinal, head->serial);
	link_say_head(&worker->keeper.link, from, WIRE_VERDICT, head->serial, head->request, head->slot,
		back ? WIRE_GIVEN_BACK : WIRE_STARTED);
}

static void cancel(struct worker *worker, struct wire_frontend from, const struct wire_head *head)
{
	if (head->slot >= worker->slots || from.ordinal >= WIRE_FRONTENDS)
		return;
	struct slot *slot = &worker->slot[head->slot];
	pthread_mutex_lock(&slot->recall.mutex);
	/* Under the lock, since the next call on this slot must not be hit. */
	bool runs = slot->recall.running == head->serial && head->serial != 0;
	if (runs)
		atomic_store(&slot->call.cancelled, 1);
	pthread_mutex_unlock(&slot->recall.mutex);
	if (runs)
		wake_up(slot->wake);
}

static void listen_to_frontends(struct worker *worker)
{
	struct wire_frontend from;
	struct wire_head head;
	struct message *message;
	enum link_got got;

	while ((got = link_receive(&worker->keeper.link, &from, &head, &message)) != LINK_NOTHING) {
		if (got == LINK_BROKEN)
			worker->page->protocol_errors++;
		if (got != LINK_FRAME)
			continue;
		if (head.kind == WIRE_RECALL)
			answer_recall(worker, from, &head);
		else if (head.kind == WIRE_CANCEL)
			cancel(worker, from, &head);
		else if (head.kind == WIRE_PROBE)
			link_say_head(&worker->keeper.link, from, WIRE_ALIVE, head.serial, head.request, 0, 0);
		else if (head.kind != WIRE_CLOSED)
			worker->page->protocol_errors++;
		message_free(message);
	}
}

static void wake_slots(struct worker *worker)
{
	for (unsigned i = 0; i < worker->slots; i++)
		wake_up(worker->slot[i].wake);
}

/* As recv(2), and the descriptor that came along; -1: none. */
static ssize_t take_order(int control, struct host_order *order, int *fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} rights;
	struct iovec part = {order, sizeof(*order)};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof(rights)};
	ssize_t size = recvmsg(control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *head = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;

	*fd = -1;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
		head->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(head), sizeof(int));
	return size;
}

/* Returns false when the manager is gone. */
static bool listen_to_manager(struct worker *worker)
{
	struct host_order order;
	ssize_t size;
	int fd;

	while ((size = take_order(worker->control, &order, &fd)) > 0) {
		size_t needed = offsetof(struct host_order, frontend);
		if ((size_t)size < needed)
			order.kind = 0;
		if (order.kind == HOST_FRONTENDS && order.count <= WIRE_FRONTENDS &&
			(size_t)size >= needed + order.count * sizeof(order.frontend[0])) {
			pthread_mutex_lock(&worker->mutex);
			worker->frontends.count = order.count;
			memcpy(worker->frontends.item, order.frontend, order.count * sizeof(order.frontend[0]));
			pthread_mutex_unlock(&worker->mutex);
			atomic_fetch_add(&worker->frontends_version, 1);
			link_update(&worker->keeper.link, &worker->frontends);
		} else if (order.kind == HOST_RETIRE) {
			atomic_store(&worker->retiring, true);
			/* So that it can be seen that this process runs at all. */
			__atomic_store_n(&worker->page->state, WIRE_DRAINING, __ATOMIC_RELEASE);
		} else if (order.kind == HOST_STUCK || order.kind == HOST_SLOW) {
			stacks_show(worker, order.kind == HOST_STUCK ? STACKS_STUCK : STACKS_SLOW,
				order.count * 1000000ull, -1);
		} else if (order.kind == HOST_STACK && fd >= 0) {
			stacks_show(worker, STACKS_ASKED, 0, fd);
			fd = -1;
		}
		if (fd >= 0)
			close(fd);
		wake_slots(worker);
	}
	return size < 0 && (errno == EAGAIN || errno == EINTR);
}

void *keeper_run(void *argument)
{
	struct worker *worker = argument;
	struct keeper *keeper = &worker->keeper;

	for (;;) {
		listen_to_frontends(worker);
		if (atomic_load(&worker->finished))
			break;
		unsigned others = link_wait(&keeper->link, -1);
		if (others & 1) {
			wake_over(keeper->wake);
			crash_look(worker);
			if (atomic_load(&worker->retiring))
				wake_slots(worker);
		}
		if ((others & 2) && !listen_to_manager(worker))
			_exit(HOST_EXIT_ORPHAN);
	}
	for (unsigned i = 0; i < WIRE_FRONTENDS && !atomic_load(&worker->gave_up); i++)
		if (keeper->link.peer[i].name.role)
			link_say_head(&keeper->link, keeper->link.peer[i].name, WIRE_GOODBYE, 0, 0, 0, 0);
	link_flush(&keeper->link, LINGER_MS, true);
	link_close(&keeper->link);
	return NULL;
}
