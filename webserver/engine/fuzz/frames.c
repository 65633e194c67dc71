/*
 * A channel with clients at one end and hostile workers at the other. The input is a list of things that happen, one
 * byte each and what it needs: requests come and go, workers are announced, speak and die, send what they should, or
 * nearly so, or anything; pages say anything; sends fail; time passes.
 *
 * sources: webserver/engine/sealed.c
 * sources: webserver/engine/loop.c webserver/engine/pace.c webserver/engine/timers.c webserver/engine/listener.c
 * sources: webserver/engine/connection.c webserver/engine/connections.c webserver/engine/deadlines.c
 * sources: webserver/engine/transport.c webserver/engine/buffers.c webserver/engine/reading.c
 * sources: webserver/engine/http1.c webserver/engine/head.c webserver/wire/chunked.c
 * sources: webserver/engine/trailers.c webserver/engine/tunnel.c
 * sources: webserver/engine/target.c webserver/engine/fields.c webserver/engine/request.c
 * sources: webserver/engine/framing.c
 * sources: webserver/engine/reply.c webserver/engine/output.c webserver/engine/errors.c webserver/engine/green.c
 * sources: webserver/engine/group.c webserver/engine/queue.c webserver/engine/slots.c webserver/engine/place.c
 * sources: webserver/engine/channel.c webserver/engine/frames.c webserver/engine/answers.c webserver/engine/bodies.c
 * sources: webserver/engine/absorb.c webserver/engine/loans.c webserver/engine/posts.c webserver/engine/gather.c
 * sources: webserver/engine/block.c webserver/engine/spool.c webserver/engine/endings.c webserver/engine/exchange.c
 * sources: webserver/engine/generation.c webserver/engine/pages.c webserver/engine/sendfile.c webserver/engine/dates.c
 * sources: webserver/engine/quarantine.c
 * sources: webserver/engine/fuzz/_frames_zmq.c webserver/engine/fuzz/_frames_clients.c
 * sources: webserver/engine/fuzz/_frames_checks.c
 * sources: /usr/share/llhttp/api.c /usr/share/llhttp/http.c /usr/share/llhttp/llhttp.c
 * flags: -DCHANNEL_STRICT -Dclock_gettime=fuzz_clock
 * options: -max_len=700 -entropic=0
 * count: -max_len=64
 *
 * Checked after each: _frames_checks.c. All the time: what the engine sends is in order (_frames_zmq.c), and no client
 * gets a piece of another's answer (_frames_clients.c). At the end nothing may be left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "_frames.h"
#include "loop.h"

#define GROUP	    1
#define OTHER	    2	/* a group that never has a worker */
#define GENERATIONS 2	/* alive at one time */
#define MOST	    200 /* things that happen in one case */
#define SPIN	    20	/* full turns one after another for which nothing new has happened */

struct world world;

static struct {
	const uint8_t *data;
	size_t size;
} input;

/* One worker's loans, and that of the next in its place. */
struct lender {
	char *map;
	int fd;
	size_t written[SLOTS * WIRE_LOANS]; /* bytes of each that say whose they are */
};

static struct live {
	uint32_t number; /* 0: none */
	uint64_t worker[WORKERS];
	struct lender lender[WORKERS];
	struct fake_socket socket;
	int fd;
} live[GENERATIONS];
static uint32_t generations;
static uint64_t workers;

static unsigned byte(void)
{
	if (input.size == 0)
		return 0;
	input.size--;
	return *input.data++;
}

static struct generation *generation_of(const struct live *l)
{
	struct group *g = group_find(world.e, GROUP);
	return g != NULL && l->number != 0 ? generation_find(g, l->number) : NULL;
}

/* ---- clients */

static const char *const requests[] = {
	"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b?c HTTP/1.1\r\nHost: a\r\nCookie: d\r\n\r\n",
	"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a HTTP/1.0\r\n\r\n",
	"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
	"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\nabc",
	"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
	"POST /gather HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
	"POST /gather HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\nabc",
	"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 900\r\n\r\n",
	"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n",
	"0\r\n\r\n",
	"3\r\nxyz\r\n0\r\n\r\n",
	"GET /b HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
	"0\r\nX-T: u\r\nHost: b\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
};

static void client_sends(struct client *client, const char *data, size_t size)
{
	if (client->gone || size > sizeof(client->in) - client->in_size)
		return;
	memcpy(client->in + client->in_size, data, size);
	client->in_size += size;
}

static void client_drive(struct client *client, uint32_t events)
{
	if (client->c != NULL)
		connection_ready(world.e, &client->c->poll, events | (client->c->poll.events & EPOLLOUT));
}

static void do_request(void)
{
	unsigned what = byte();
	struct client *client = &world.client[what % CLIENTS];
	const char *text = requests[what / CLIENTS % (sizeof(requests) / sizeof(requests[0]))];

	if (client->c == NULL) {
		*client = (struct client){.number = ++world.clients};
		client->c = connection_make(world.e, &fake_transport);
		must(client->c != NULL);
	}
	client_sends(client, text, strlen(text));
	client_drive(client, EPOLLIN);
}

static void do_body(void)
{
	static char filler[1200];
	unsigned what = byte();
	struct client *client = &world.client[what % CLIENTS];

	memset(filler, 'f', sizeof(filler));
	client_sends(client, filler, what / CLIENTS * 19);
	client_drive(client, EPOLLIN);
}

static void do_client(void)
{
	unsigned what = byte();
	struct client *client = &world.client[what % CLIENTS];

	client->deaf = what & 16;
	client->gone = client->gone || (what & 96) == 96;
	client_drive(client, EPOLLIN | EPOLLOUT | ((what & 128) && client->gone ? EPOLLHUP : 0));
}

void route_start(struct request *r)
{
	static uint32_t sendfile = 1;
	static struct site site = {.id = 1,
		.name = "site",
		.document_root = "/nowhere",
		.max_body = 5000,
		.sendfile = &sendfile,
		.sendfile_count = 1};

	r->site = &site;
	/* Only whether there is one is asked. */
	r->decision = text_is(r->path, "/gather", 7) ? (struct decision *)(void *)&site : NULL;
	group_start(r, text_is(r->path, "/b", 2) ? OTHER : GROUP, TEXT(""), r->path, TEXT(""));
}

/* ---- control */

static void do_generation(void)
{
	unsigned what = byte();
	struct live *l = &live[what % GENERATIONS];

	if (generation_of(l) == NULL && group_find(world.e, GROUP) != NULL) {
		memset(l->worker, 0, sizeof(l->worker));
		l->number = ++generations;
		must(engine_generation(world.e, GROUP, l->number, &l->socket, l->fd, WORKERS, SLOTS) == ENGINE_OK);
	} else if (what & 16) {
		engine_generation_drain(world.e, GROUP, l->number);
	} else if (what & 32) {
		if (engine_generation_close(world.e, GROUP, l->number) == ENGINE_OK)
			socket_empty(&l->socket);
		l->number = 0;
	}
}

static void do_worker(void)
{
	unsigned what = byte();
	struct live *l = &live[what % GENERATIONS];
	unsigned place = what / GENERATIONS % WORKERS;

	if (generation_of(l) == NULL)
		return;
	if (l->worker[place] == 0) {
		l->worker[place] = ++workers;
		must(engine_worker(world.e, GROUP, l->number, l->worker[place], SLOTS - (what >> 7), dup(world.page_fd),
			     dup(l->lender[place].fd)) == ENGINE_OK);
	} else {
		engine_worker_gone(world.e, GROUP, l->number, l->worker[place], what & 64 ? "died" : "");
		l->worker[place] = 0;
	}
}

static void do_group(void)
{
	static const struct engine_group_options options = {
		.name = "g", .queue_length = 3, .queue_timeout_ns = 3000000000, .request_timeout_ns = 9000000000};

	/* Rarely, since little goes on after it. */
	if (group_find(world.e, GROUP) == NULL) {
		must(engine_group(world.e, GROUP, &options) == ENGINE_OK);
		must(engine_group(world.e, OTHER, &options) == ENGINE_OK);
	} else if (byte() == 77) {
		engine_group_close(world.e, GROUP);
		for (unsigned i = 0; i < GENERATIONS; i++) {
			socket_empty(&live[i].socket);
			live[i].number = 0;
		}
	}
}

/* ---- workers */

static void say(struct live *l, const struct wire_identity *from, const void *data, size_t size, unsigned parts)
{
	struct generation *gen = generation_of(l);
	struct wire_credit credit;

	if (gen == NULL)
		return;
	if (size >= sizeof(credit)) {
		memcpy(&credit, data, sizeof(credit));
		struct placement *p = placement_find(credit.head.serial);
		if (credit.head.kind == WIRE_CREDIT && p != NULL && p->credit < credit.limit)
			p->credit = credit.limit;
	}
	socket_push(&l->socket, from, sizeof(*from), data, size, parts);
	generation_touch(gen);
}

/* A worker that does what it should: hello, and alive at once. */
static void do_hello(void)
{
	unsigned what = byte();
	struct live *l = &live[what % GENERATIONS];
	struct wire_identity from = {.version = WIRE_VERSION,
		.generation = l->number,
		.worker = what & 64 ? workers + 1 : l->worker[what / GENERATIONS % WORKERS]};
	struct wire_hello hello = {.head = {.kind = WIRE_HELLO, .size = sizeof(hello)},
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.slots = SLOTS};
	struct wire_head alive = {.kind = WIRE_ALIVE, .size = sizeof(alive)};

	for (uint16_t slot = 0; slot < SLOTS; slot++) {
		from.role = WIRE_ROLE_SLOT;
		from.slot = hello.head.slot = alive.slot = slot;
		say(l, &from, &hello, sizeof(hello), 2);
		say(l, &from, &alive, sizeof(alive), 2);
	}
	from.role = WIRE_ROLE_KEEPER;
	from.slot = hello.head.slot = 0;
	say(l, &from, &hello, sizeof(hello), 2);
}

/* Parts of a frame, each at its place; what is not said is right. */
struct draft {
	char data[8192];
	size_t size;
};

static void put(struct draft *d, const void *data, size_t size)
{
	memcpy(d->data + d->size, data, size);
	d->size += size;
}

static void put_body(struct draft *d, struct placement *p, unsigned what)
{
	static const uint16_t sizes[] = {0, 10, 300, 2100, 5000, 700, 40, 1};
	uint64_t mark = mark_of(p->serial);
	uint16_t size = sizes[what % 8];

	memset(d->data + d->size, 'x', size);
	if (size >= MARK)
		memcpy(d->data + d->size, &mark, MARK);
	d->size += size;
	p->given += size;
}

static const char trailer_texts[] = "X-T: uContent-Length: 3";

/* One field, or (wrong) one that is no trailer. */
static void put_trailer(struct draft *d, struct wire_body *b, bool wrong)
{
	while (d->size % 8 != 0)
		d->data[d->size++] = 0;
	uint32_t texts = (uint32_t)(d->size + sizeof(struct wire_field));
	struct wire_field field = wrong ? (struct wire_field){texts + 6, 14, 0, texts + 22, 1}
					: (struct wire_field){texts, 3, 0, texts + 5, 1};

	b->fields = (uint32_t)d->size;
	b->field_count = 1;
	put(d, &field, sizeof(field));
	put(d, trailer_texts, sizeof(trailer_texts));
}

/* The one field that a 101 needs. */
static void put_upgrade(char *table, uint32_t texts, struct wire_response *r, bool wrong)
{
	const struct wire_field field = {texts + 48, 7, 0, texts + 57, (uint32_t)(wrong ? 2 : 1)};

	memcpy(table, &field, sizeof(field));
	r->field_count = 1;
	r->head.flags |= WIRE_UPGRADE;
}

static void draft_response(struct draft *d, struct placement *p, struct wire_head head)
{
	static const uint16_t statuses[] = {200, 204, 304, 500, 103, 101, 199, 65535};
	static const char names[] =
		"X-A: b\0Content-Length: 3\0Date: c\0bad name: \r\0\0\0\0Upgrade: xy\0X-Sendfile: /x";
	unsigned what = byte(), more = byte();
	struct wire_response r = {.content_length = UINT64_MAX, .status = statuses[what % 8]};
	static const struct wire_field fields[] = {{0, 3, 0, 5, 1}, {7, 14, 0, 23, 1}, {25, 4, 0, 31, 1},
		{33, 8, 0, 43, 1}, {0, 0, 0, 0, 0}, {60, 10, 0, 72, 2}};

	if (head.kind == WIRE_INFORM)
		r.status = statuses[4 + what % 4];
	r.field_count = (uint16_t)(what / 8 % 8);
	r.fields = sizeof(r);
	d->size = sizeof(r);
	size_t texts = d->size + 7 * sizeof(struct wire_field);
	for (unsigned i = 0; i < 7; i++) {
		struct wire_field field = fields[what < 128 ? (what / 64 + i) % 3 : (what + i) % 5];
		if ((more & 0xc0) == 0xc0 && i == 0)
			field = fields[5];
		field.name += (uint32_t)texts;
		field.value += (uint32_t)texts;
		put(d, &field, sizeof(field));
	}
	put(d, names, sizeof(names));
	if (more & 8)
		r.content_length = (more & 16) ? 2100 : more;
	r.body.at = (uint32_t)d->size;
	p->given = 0;
	put_body(d, p, more);
	r.body.size = (uint32_t)(d->size - r.body.at);
	r.head = head;
	if (r.status == 101 && head.kind == WIRE_RESPONSE && !(more & 32))
		put_upgrade(d->data + sizeof(r), (uint32_t)texts, &r, more & 64);
	r.head.size = (uint32_t)d->size;
	memcpy(d->data, &r, sizeof(r));
}

/* ---- loans */

static uint32_t *loan_word(const struct lender *from, size_t number)
{
	struct wire_loans *loans = (struct wire_loans *)(void *)from->map;

	return &loans->slot[number / WIRE_LOANS].borrower[number % WIRE_LOANS];
}

static char *loan_bytes(const struct lender *from, size_t number)
{
	return from->map + WIRE_LOANS_WORDS(SLOTS) + number * WIRE_LOAN;
}

/* What has come back is nobody's: a frame that is wrong may lend it once more, to anybody. */
static void loans_wipe(void)
{
	for (unsigned i = 0; i < GENERATIONS * WORKERS; i++) {
		struct lender *from = &live[i / WORKERS].lender[i % WORKERS];
		for (size_t k = 0; k < SLOTS * WIRE_LOANS; k++)
			if (from->written[k] > 0 && *loan_word(from, k) == 0) {
				memset(loan_bytes(from, k), 'z', from->written[k]);
				from->written[k] = 0;
			}
	}
}

/* A loan of the worker that has p, that is free; NULL: none. */
static struct lender *lender_of(const struct placement *p, size_t *number)
{
	struct live *l = live[0].number == p->at.generation ? &live[0] : &live[1];

	for (unsigned place = 0; place < WORKERS; place++) {
		if (l->worker[place] != p->at.worker || p->at.slot >= SLOTS)
			continue;
		for (unsigned i = 0; i < WIRE_LOANS; i++) {
			*number = (size_t)p->at.slot * WIRE_LOANS + i;
			if (*loan_word(&l->lender[place], *number) == 0)
				return &l->lender[place];
		}
	}
	return NULL;
}

static void put_loan(struct lender *from, size_t number, const char *data, size_t size)
{
	from->written[number] = size;
	memcpy(loan_bytes(from, number), data, size);
	*loan_word(from, number) = 1;
}

/* The draft's bytes behind its head, in a loan instead. */
static void lend(struct draft *d, const struct placement *p, struct wire_body *b)
{
	size_t number;
	struct lender *from = lender_of(p, &number);

	if (from == NULL || d->size == sizeof(*b))
		return;
	put_loan(from, number, d->data + sizeof(*b), d->size - sizeof(*b));
	d->size = sizeof(*b);
	b->head.flags |= WIRE_LENT;
	b->data.at = (uint32_t)(number % WIRE_LOANS);
}

/* The draft as it is, right or wrong, posted. True: nothing is to be said of it, or that it is. */
static bool post(const struct draft *d, const struct placement *p, uint32_t ordinal)
{
	size_t number;
	struct lender *from = lender_of(p, &number);

	if (from == NULL)
		return false;
	put_loan(from, number, d->data, d->size);
	struct wire_loans *loans = (struct wire_loans *)(void *)from->map;
	loans->slot[p->at.slot].posted[ordinal] |= 1u << number % WIRE_LOANS;
	return true;
}

static void draft_body(struct draft *d, struct placement *p, struct wire_head head, bool wrong)
{
	struct wire_body b = {.offset = p->given, .data = {.at = sizeof(b)}};
	unsigned what = byte();

	b.offset += (what & 0xf0) == 0xf0 ? what : 0;
	d->size = sizeof(b);
	put_body(d, p, what);
	b.data.size = (uint32_t)(d->size - sizeof(b));
	b.head = head;
	if ((what & 0x18) == 0x18)
		put_trailer(d, &b, what & 64);
	else if ((what & 0xc0) == 0x80 && !wrong)
		lend(d, p, &b);
	if ((what & 0x28) == 0x28)
		b.head.flags |= WIRE_SHUT;
	b.head.size = (uint32_t)d->size;
	memcpy(d->data, &b, sizeof(b));
}

static void draft_credit(struct draft *d, const struct placement *p, struct wire_head head)
{
	struct wire_credit c = {.limit = p->credit};
	unsigned what = byte();

	c.limit = what == 255 ? UINT64_MAX : what == 254 ? 0 : c.limit + what * 64;
	head.size = sizeof(c);
	c.head = head;
	put(d, &c, sizeof(c));
}

/* A frame about a request that a worker has; wrong: one thing of it is not as it should be. */
static void do_frame(bool wrong)
{
	static const uint32_t kinds[] = {WIRE_RESPONSE, WIRE_BODY, WIRE_CREDIT, WIRE_INFORM, WIRE_VERDICT, WIRE_ABORT,
		WIRE_LEAVING, WIRE_GOODBYE, WIRE_ALIVE, WIRE_HELLO, WIRE_RESPONSE, WIRE_BODY, WIRE_CREDIT, WIRE_BODY,
		WIRE_RESPONSE, WIRE_VERDICT};
	unsigned which = byte(), what = byte();
	unsigned kept = world.placements < PLACEMENTS ? world.placements : PLACEMENTS;

	if (kept == 0)
		return;
	struct placement *p = &world.placed[(world.placements - 1 - which % (kept < 8 ? kept : 8)) % PLACEMENTS];
	struct live *l = live[0].number == p->at.generation ? &live[0] : &live[1];
	struct wire_identity from = p->at;
	struct wire_head head = {
		.kind = kinds[what % 16], .serial = p->serial, .request = p->request, .slot = p->at.slot};
	static struct draft d;

	loans_wipe();
	head.flags = (what & 16 ? WIRE_LAST : 0) | (what & 32 ? WIRE_GIVEN_BACK : WIRE_STARTED);
	d.size = 0;
	if (head.kind == WIRE_RESPONSE || head.kind == WIRE_INFORM) {
		draft_response(&d, p, head);
	} else if (head.kind == WIRE_BODY) {
		draft_body(&d, p, head, wrong);
	} else if (head.kind == WIRE_CREDIT) {
		draft_credit(&d, p, head);
	} else {
		head.size = sizeof(head);
		put(&d, &head, sizeof(head));
	}
	if (head.kind == WIRE_VERDICT) {
		from.role = WIRE_ROLE_KEEPER;
		from.slot = 0;
	}
	size_t size = d.size;
	unsigned parts = 2;
	if (wrong) {
		unsigned where = byte(), how = byte();
		/* Whose it is cannot be said any more. */
		for (size_t i = 0; i + MARK <= d.size; i++) {
			uint64_t mark = mark_of(p->serial);
			if (memcmp(d.data + i, &mark, MARK) == 0)
				memset(d.data + i, 'y', MARK);
		}
		if (where < 32)
			((uint8_t *)&from)[where % sizeof(from)] ^= (uint8_t)how;
		else if (where < 48)
			size = how * size / 256;
		else if (where < 56)
			parts = 1 + how % 4;
		else
			d.data[(where - 56) % d.size] = (char)(d.data[(where - 56) % d.size] ^ how);
	}
	d.size = size;
	if (head.kind == WIRE_RESPONSE && what & 64 && size > 0 && post(&d, p, world.e->options.ordinal)) {
		/* It may be asleep. */
		head.kind = WIRE_POSTED;
		head.size = (uint32_t)(size = sizeof(head));
		memcpy(d.data, &head, sizeof(head));
		from = p->at;
		parts = 2;
	}
	say(l, &from, d.data, size, parts);
}

/* Any bytes from any identity. */
static void do_noise(void)
{
	unsigned what = byte(), size = byte();
	struct live *l = &live[what % GENERATIONS];
	struct wire_identity from = {.role = what & 4 ? WIRE_ROLE_SLOT : WIRE_ROLE_KEEPER,
		.version = WIRE_VERSION,
		.slot = what & 4 ? what >> 3 & 1 : 0,
		.generation = l->number,
		.worker = l->worker[what / 16 % WORKERS]};
	uint8_t data[256];

	for (unsigned i = 0; i < size; i++)
		data[i] = (uint8_t)byte();
	if ((what & 2) && size >= 8)
		memcpy(data + 4, &(uint32_t){size}, 4);
	if (generation_of(l) != NULL && (what & 128)) {
		socket_push(&l->socket, data, size < 24 ? size : 24, data, size, 1 + what % 3);
		generation_touch(generation_of(l));
	} else {
		say(l, &from, data, size, 2);
	}
}

static void do_page(void)
{
	unsigned where = byte(), what = byte();
	uint64_t *words = (uint64_t *)(void *)&world.page->slot[where % SLOTS];
	const uint64_t values[] = {0, UINT64_MAX, world.now_ns, world.now_ns - 3000000, world.latest_serial,
		world.latest_serial - 1, what, (uint64_t)what << 56};

	/* The first words, and what front end 0 reads of started. */
	words[where / SLOTS % 10 == 9 ? offsetof(struct wire_slot, started) / 8 : where / SLOTS % 10] =
		values[what % 8];
}

/* A turn that ends because its time is over, and not because there is nothing to do, is a busy one: not for ever. */
static void turn(void)
{
	struct engine_event events[16];

	for (unsigned busy = 0;; busy++) {
		uint64_t began = world.now_ns;
		must(busy < SPIN);
		engine_run(world.e, events, 16);
		if (world.now_ns - began < 900000)
			return;
	}
}

static void do_turn(void)
{
	static const uint16_t milliseconds[] = {0, 1, 2, 3, 11, 50, 250, 1100, 4000, 15000};

	world.now_ns += milliseconds[byte() % 10] * 1000000ull;
	turn();
	for (unsigned i = 0; i < CLIENTS; i++)
		client_drive(&world.client[i], EPOLLIN | (world.client[i].deaf ? 0 : EPOLLOUT));
	turn();
}

static void do_trouble(void)
{
	static const int numbers[] = {0, EAGAIN, EHOSTUNREACH, 0};
	world.zmq_errno = numbers[byte() % 4];
}

/* ---- one case */

static void happen(void)
{
	unsigned what = byte() % 24;

	switch (what) {
	case 0 ... 3:
		do_request();
		break;
	case 4:
		do_body();
		break;
	case 5:
		do_client();
		break;
	case 6:
		do_generation();
		break;
	case 7:
		do_worker();
		break;
	case 8:
		do_hello();
		break;
	case 9 ... 13:
		do_frame(false);
		break;
	case 14 ... 15:
		do_frame(true);
		break;
	case 16:
		do_noise();
		break;
	case 17:
		do_page();
		break;
	case 18:
		do_trouble();
		break;
	case 19:
		do_group();
		break;
	default:
		do_turn();
		break;
	}
	connections_sweep(world.e);
	channel_ok(world.e);
}

static void end(void)
{
	struct engine *e = world.e;
	struct channel *c = e->channel;
	struct engine_event events[64];

	world.zmq_errno = 0;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (world.client[i].c != NULL)
			connection_close(world.client[i].c);
	connections_sweep(e);
	channel_ok(e);
	for (uint32_t id = GROUP; id <= OTHER; id++)
		if (group_find(e, id) != NULL)
			engine_group_close(e, id);
	for (unsigned i = 0; i < GENERATIONS; i++) {
		socket_empty(&live[i].socket);
		live[i].number = 0;
	}
	while (engine_run(e, events, 64) == 64)
		continue;
	for (unsigned i = 0; i < 4; i++) {
		world.now_ns += 60000000000;
		engine_run(e, events, 64);
	}
	must(e->stats.connections == 0 && world.messages == 0 && world.files == 0);
	must(list_empty(&c->groups) && list_empty(&c->closed_groups) && list_empty(&c->recheck) && list_empty(&c->due));
	must(list_empty(&c->retry) && list_empty(&c->waiting) && list_empty(&c->watched) && list_empty(&c->owing));
	must(list_empty(&c->ending));
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const uint64_t second = 1000000000;
	const struct engine_options options = {
		.incarnation = 1,
		.frontends = 2,
		.access_fd = -1,
		.server = "fuzz",
		.spool_directory = "/dev/shm",
		.limits = {.head_timeout_ns = 10 * second,
			.body_timeout_ns = 11 * second,
			.idle_timeout_ns = 12 * second,
			.send_timeout_ns = 13 * second,
			.tunnel_timeout_ns = 14 * second,
			.tunnel_grace_ns = 1 * second,
			.connections = 10,
			.max_head = 6000,
			.max_line = 1000,
			.max_fields = 20,
			.spool_memory = 1000,
			.spool_limit = 6000,
			.gather = 1500},
	};
	char message[100];
	(void)argc;
	(void)argv;
	world.now_ns = 1000 * second;
	world.e = engine_new(&options, message, sizeof(message));
	world.page_fd = memfd_create("page", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	if (world.e == NULL || world.page_fd < 0 || ftruncate(world.page_fd, WIRE_PAGE_SIZE(SLOTS)) < 0 ||
		fcntl(world.page_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return 1;
	world.e->zmq = &fake_zmq;
	world.page = mmap(NULL, WIRE_PAGE_SIZE(SLOTS), PROT_READ | PROT_WRITE, MAP_SHARED, world.page_fd, 0);
	for (unsigned i = 0; i < GENERATIONS; i++)
		live[i].fd = eventfd(0, EFD_CLOEXEC);
	for (unsigned i = 0; i < GENERATIONS * WORKERS; i++) {
		struct lender *from = &live[i / WORKERS].lender[i % WORKERS];
		from->fd = memfd_create("loans", MFD_ALLOW_SEALING | MFD_CLOEXEC);
		if (from->fd < 0 || ftruncate(from->fd, (off_t)WIRE_LOANS_SIZE(SLOTS)) < 0 ||
			fcntl(from->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
			return 1;
		from->map = mmap(NULL, WIRE_LOANS_SIZE(SLOTS), PROT_READ | PROT_WRITE, MAP_SHARED, from->fd, 0);
		if (from->map == MAP_FAILED)
			return 1;
	}
	return world.page == MAP_FAILED ? 1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A generation, a worker, its hellos, a turn: from a first byte that is odd, all is ready. */
	static const uint8_t ready[] = {6, 0, 7, 0, 8, 0, 23, 0};
	/* Nothing that came before may count, so that a case is the same alone. */
	for (unsigned i = 0; i < GENERATIONS * WORKERS; i++)
		memset(live[i / WORKERS].lender[i % WORKERS].map, 0, WIRE_LOANS_WORDS(SLOTS));
	loans_wipe();
	memset(world.page, 0, WIRE_PAGE_SIZE(SLOTS));
	memset(world.placed, 0, sizeof(world.placed));
	world.placements = generations = 0;
	workers = world.clients = world.latest_serial = world.e->channel->counter = 0;
	input.data = ready;
	input.size = size > 0 && data[0] & 1 ? sizeof(ready) : 0;
	do_group();
	while (input.size > 0)
		happen();
	input.data = data;
	input.size = size;
	byte();
	for (unsigned i = 0; i < MOST && input.size > 0; i++)
		happen();
	end();
	return 0;
}
