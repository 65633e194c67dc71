/*
 * libzmq in memory: messages at odd addresses, sockets that are arrays. What the engine sends is looked at as a worker
 * would: is it well formed, in order, within the credit given? Linked to fuzz/frames.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "_frames.h"

/* Which way the checks go is nothing that an input should be kept for. */
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)

#define ALIVE 0x600dface

struct message {
	uint32_t alive;
	bool more;
	char *block, *data;
	size_t size;
	zmq_free_fn *release; /* data is not ours */
	void *hint;
};
_Static_assert(sizeof(struct message) <= sizeof(zmq_msg_t), "message");

static int fake_errno;

static struct message *inside(const zmq_msg_t *m)
{
	return (struct message *)(void *)m;
}

static void fill(struct message *m, size_t size, size_t shift)
{
	*m = (struct message){.alive = ALIVE, .size = size};
	m->block = malloc(size + shift);
	must(m->block != NULL);
	m->data = m->block + shift;
	world.messages++;
}

static int fake_init(zmq_msg_t *m)
{
	*inside(m) = (struct message){.alive = ALIVE};
	return 0;
}

static int fake_init_size(zmq_msg_t *m, size_t size)
{
	fill(inside(m), size, 0);
	return 0;
}

static int fake_init_data(zmq_msg_t *m, void *data, size_t size, zmq_free_fn *release, void *hint)
{
	*inside(m) = (struct message){.alive = ALIVE, .data = data, .size = size, .release = release, .hint = hint};
	world.messages++;
	return 0;
}

static int fake_close(zmq_msg_t *m)
{
	struct message *mine = inside(m);

	must(mine->alive == ALIVE);
	world.messages -= mine->block != NULL || mine->release != NULL;
	free(mine->block);
	if (mine->release != NULL)
		mine->release(mine->data, mine->hint);
	memset(mine, 0, sizeof(*mine));
	return 0;
}

static int fake_move(zmq_msg_t *to, zmq_msg_t *from)
{
	must(inside(from)->alive == ALIVE);
	fake_close(to);
	*inside(to) = *inside(from);
	return fake_init(from);
}

static void *fake_data(zmq_msg_t *m)
{
	must(inside(m)->alive == ALIVE);
	return inside(m)->data;
}

static size_t fake_size(const zmq_msg_t *m)
{
	must(inside(m)->alive == ALIVE);
	return inside(m)->size;
}

static int fake_more(const zmq_msg_t *m)
{
	return inside(m)->more;
}

static int fake_number(void)
{
	return fake_errno;
}

/* ---- what comes from workers */

bool socket_push(struct fake_socket *s, const void *identity, size_t identity_size, const void *data, size_t size,
	unsigned parts)
{
	if (s->count == sizeof(s->queue) / sizeof(s->queue[0]))
		return false;
	char *copy = malloc(size + 1);
	must(copy != NULL && identity_size <= sizeof(s->queue[0].identity));
	memcpy(copy, data, size);
	memcpy(s->queue[s->count].identity, identity, identity_size);
	s->queue[s->count].identity_size = identity_size;
	s->queue[s->count].data = copy;
	s->queue[s->count].size = size;
	s->queue[s->count++].parts = parts;
	return true;
}

static void pop(struct fake_socket *s)
{
	free(s->queue[0].data);
	memmove(s->queue, s->queue + 1, --s->count * sizeof(s->queue[0]));
	s->part = 0;
}

void socket_empty(struct fake_socket *s)
{
	while (s->count > 0)
		pop(s);
}

static int fake_recv(zmq_msg_t *m, void *socket, int flags)
{
	struct fake_socket *s = socket;

	must(flags == ZMQ_DONTWAIT && inside(m)->alive == ALIVE);
	if (s->count == 0) {
		fake_errno = EAGAIN;
		return -1;
	}
	fake_close(m);
	size_t size = s->part == 0 ? s->queue[0].identity_size : s->queue[0].size;
	fill(inside(m), size, 1);
	memcpy(inside(m)->data, s->part == 0 ? s->queue[0].identity : s->queue[0].data, size);
	inside(m)->more = s->part + 1 < s->queue[0].parts;
	if (inside(m)->more)
		s->part++;
	else
		pop(s);
	return (int)size;
}

/* ---- what goes to them */

static struct wire_identity towards;
static bool half;

static int fake_send(void *socket, const void *data, size_t size, int flags)
{
	(void)socket;
	must(!half && flags == (ZMQ_SNDMORE | ZMQ_DONTWAIT) && size == sizeof(towards));
	if (world.zmq_errno != 0) {
		fake_errno = world.zmq_errno;
		return -1;
	}
	memcpy(&towards, data, size);
	half = true;
	return (int)size;
}

struct placement *placement_find(uint64_t serial)
{
	for (unsigned i = 0; i < PLACEMENTS; i++)
		if (world.placed[i].serial == serial)
			return &world.placed[i];
	return NULL;
}

static void see_request(const struct message *m, const struct wire_head *head)
{
	struct wire_request block;

	must(m->size >= sizeof(block));
	memcpy(&block, m->data, sizeof(block));
	must(wire_fields_ok(m->data, m->size, block.fields, (uint32_t)block.field_count + block.trailer_count));
	for (unsigned i = 0; i < WIRE_TEXTS; i++)
		must(wire_span_ok(block.text[i], m->size));
	must(head->serial > world.latest_serial);
	world.latest_serial = head->serial;
	const struct request *r = request_by_index(world.e, head->request);
	must(r != NULL && client_of(r->connection) != NULL);
	struct placement *p = &world.placed[world.placements++ % PLACEMENTS];
	*p = (struct placement){
		.at = towards,
		.serial = head->serial,
		.client = client_of(r->connection)->number,
		.request = head->request,
		.life = r->life,
		.body = block.text[WIRE_FIRST_BODY].size,
		.credit = head->flags & WIRE_EXPECT ? 0 : WIRE_BODY_WINDOW,
		.window = block.response_window,
		.closed = head->flags & WIRE_LAST,
	};
}

/* A request that was answered with 101 has a second body. */
static bool is_tunnel(const struct placement *p)
{
	const struct request *r = request_by_index(world.e, p->request);

	return r != NULL && r->life == p->life && ((const struct exchange *)r->backend_data)->tunnel;
}

static void see_body(const struct message *m, const struct wire_head *head)
{
	struct placement *p = placement_find(head->serial);
	struct wire_body piece;

	must(m->size >= sizeof(piece));
	memcpy(&piece, m->data, sizeof(piece));
	must(wire_span_ok(piece.data, m->size) && piece.data.size <= WIRE_PIECE);
	must(piece.field_count == 0 ||
		(head->flags & WIRE_LAST && wire_fields_ok(m->data, m->size, piece.fields, piece.field_count)));
	if (p == NULL)
		return;
	if (p->closed && !p->tunnel && is_tunnel(p)) {
		p->tunnel = true;
		p->closed = false;
		p->body = 0;
		p->credit = p->credit < WIRE_BODY_WINDOW ? WIRE_BODY_WINDOW : p->credit;
	}
	must(!p->closed && piece.offset == p->body && memcmp(&p->at, &towards, sizeof(towards)) == 0);
	p->body += piece.data.size;
	must(p->body <= p->credit || piece.data.size == 0);
	p->closed = head->flags & WIRE_LAST;
}

static void see_credit(const struct message *m, const struct wire_head *head)
{
	struct placement *p = placement_find(head->serial);
	struct wire_credit credit;

	must(m->size == sizeof(credit));
	memcpy(&credit, m->data, sizeof(credit));
	must(p == NULL || credit.limit > p->window);
	if (p != NULL)
		p->window = credit.limit;
}

static int fake_msg_send(zmq_msg_t *m, void *socket, int flags)
{
	const struct message *mine = inside(m);
	struct wire_head head;

	(void)socket;
	must(half && flags == ZMQ_DONTWAIT && mine->alive == ALIVE && mine->size >= sizeof(head));
	half = false;
	memcpy(&head, mine->data, sizeof(head));
	must(head.size == mine->size && head.size <= WIRE_MESSAGE);
	must(towards.role == WIRE_ROLE_KEEPER || head.slot == towards.slot);
	if (head.kind == WIRE_REQUEST)
		see_request(mine, &head);
	else if (head.kind == WIRE_BODY)
		see_body(mine, &head);
	else if (head.kind == WIRE_CREDIT)
		see_credit(mine, &head);
	else
		must(head.size == sizeof(head));
	int size = (int)mine->size;
	fake_close(m);
	fake_init(m);
	return size;
}

struct zmqlib fake_zmq = {
	.errno_ = fake_number,
	.msg_init = fake_init,
	.msg_init_size = fake_init_size,
	.msg_init_data = fake_init_data,
	.msg_move = fake_move,
	.msg_close = fake_close,
	.msg_data = fake_data,
	.msg_size = fake_size,
	.msg_more = fake_more,
	.msg_send = fake_msg_send,
	.msg_recv = fake_recv,
	.send = fake_send,
};

/* It is static: nobody may free it. */
void zmqlib_free(struct zmqlib *library)
{
	(void)library;
}

#pragma clang attribute pop
