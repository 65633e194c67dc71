/*
 * The channel between front end and worker: its one definition.
 *
 * Included by the engine and by the worker host, and read by cffi; page.py, which must do without cffi, is held to it
 * by tests/test_wire.py. Private to one installed version of this server, one machine, host byte order. A worker's
 * hello carries WIRE_VERSION; no other message does.
 *
 * One ZeroMQ message is one struct below, contiguous: offsets count from its first byte, and every offset and size is
 * checked against the message's own size before it is followed (wire_span_ok, wire_fields_ok). Either peer may lie.
 *
 * Only plain declarations stand between "wire: begin" and "wire: end": cffi reads that part as it is.
 */
#ifndef WEBSERVER_WIRE_H
#define WEBSERVER_WIRE_H

#include <stddef.h>
#include <stdint.h>

/* wire: begin */
#define WIRE_VERSION	     3
#define WIRE_MAGIC	     0x57534831
#define WIRE_FRONTENDS	     32
#define WIRE_SLOTS	     256
#define WIRE_PLACED	     32
#define WIRE_BLOCK	     65536
#define WIRE_PIECE	     262144
#define WIRE_BODY_WINDOW     1048576
#define WIRE_RESPONSE_WINDOW 1048576
#define WIRE_MESSAGE	     1048576
#define WIRE_FIELDS	     1000
#define WIRE_LOANS	     32
#define WIRE_LOAN	     65536

/*
 * A serial names one placing of one request at one slot. Upper 24 bits: the front end's incarnation; lower 40: a
 * counter. It grows with every send, so at one slot the serials of one front end arrive in order, and a request that
 * was given back and placed again has a new one. No serial is used twice while the server lives; 0 is none.
 */

enum wire_kind {
	/* front end to slot, on the slot's own connection */
	WIRE_REQUEST = 1, /* struct wire_request */
	WIRE_BODY = 2,	  /* struct wire_body; both directions */
	WIRE_CREDIT = 3,  /* struct wire_credit; both directions */
	WIRE_CANCEL = 4,  /* struct wire_head; sent to the slot and to the keeper: whoever can act does */
	WIRE_PROBE = 5,	  /* struct wire_head; answered by WIRE_ALIVE on the same connection */
	WIRE_CLOSED = 6,  /* struct wire_head; answer to WIRE_LEAVING: no request follows */
	/* front end to keeper (the worker's thread that answers whatever application code does) */
	WIRE_RECALL = 7, /* struct wire_head: give serial back if it has not started; answered by WIRE_VERDICT */
	/* worker to front end */
	WIRE_HELLO = 16,    /* struct wire_hello; first on every connection */
	WIRE_RESPONSE = 17, /* struct wire_response */
	WIRE_INFORM = 18,   /* struct wire_response with a 1xx status; any number before WIRE_RESPONSE */
	WIRE_VERDICT = 19,  /* struct wire_head; keeper only: WIRE_GIVEN_BACK or WIRE_STARTED in flags */
	WIRE_ALIVE = 20,    /* struct wire_head */
	WIRE_LEAVING = 21,  /* struct wire_head; this slot wants no new request */
	WIRE_GOODBYE = 22,  /* struct wire_head; the last frame of an orderly end */
	WIRE_ABORT = 23,    /* struct wire_head; the answer ends here and is not whole: cut the client's connection */
	WIRE_POSTED = 24    /* struct wire_head; you were asleep: answers are posted */
};

enum wire_flags {
	WIRE_LAST = 1,	     /* REQUEST, RESPONSE, BODY: the body ends with this message */
	WIRE_EXPECT = 2,     /* REQUEST: the client waits for 100; its body window starts at 0 */
	WIRE_GIVEN_BACK = 4, /* VERDICT: it will not be run here */
	WIRE_STARTED = 8,    /* VERDICT: application code has it, or had it */
	WIRE_HEAD = 16,	     /* REQUEST: method HEAD, the answer's body bytes are not wanted */
	WIRE_UPGRADE = 32,   /* REQUEST: the client asks to upgrade, and sends no body; RESPONSE 101: see below */
	WIRE_TRAILERS = 64,  /* REQUEST: TE: trailers was sent; RESPONSE: has a Trailer field, if it can be sent */
	WIRE_SHUT = 128,     /* BODY of a tunnel, from the worker: its last bytes, but it goes on to read */
	WIRE_LENT = 256	     /* BODY from a worker: its bytes begin in its slot's loan number data.at, see below */
};

/*
 * A tunnel. A RESPONSE with status 101 and WIRE_UPGRADE answers a REQUEST that has WIRE_UPGRADE. From then on the
 * request has a body, from offset 0 and with a new window of WIRE_BODY_WINDOW: what the client sends, until it ends its
 * side (WIRE_LAST). The answer's body is what it gets. WIRE_LAST from the worker ends both.
 *
 * Trailers are fields like a head's. Those of a request ride in its block, behind its fields, if all of its body does,
 * else in the last BODY; those of an answer in its last BODY, which a RESPONSE with WIRE_LAST is not.
 */

struct wire_head {
	uint32_t kind;	  /* enum wire_kind */
	uint32_t size;	  /* of the whole message in bytes; must equal what ZeroMQ delivered */
	uint64_t serial;  /* 0 where no request is meant */
	uint32_t request; /* index in the front end's request table; echoed by the worker */
	uint16_t slot;
	uint16_t flags; /* enum wire_flags */
};

struct wire_span {
	uint32_t at; /* from the message's first byte */
	uint32_t size;
};

struct wire_field {
	uint32_t name; /* offset; as the sender wrote it, no underscore, never "Proxy" */
	uint16_t name_size;
	uint16_t known; /* enum wire_known, 0 for a name that is not in fields.h */
	uint32_t value;
	uint32_t value_size;
};

enum wire_text {
	WIRE_METHOD = 0,
	WIRE_TARGET = 1,	  /* the request target as it came */
	WIRE_PATH = 2,		  /* percent-decoded, dot segments removed; begins with "/" */
	WIRE_QUERY = 3,		  /* after the "?", as it came */
	WIRE_SCRIPT_NAME = 4,	  /* decoded; the part of the path that chose the application; no "/" at its end */
	WIRE_PATH_INFO = 5,	  /* decoded; the rest */
	WIRE_SCRIPT_FILENAME = 6, /* the file to run; empty where the group names its application */
	WIRE_DOCUMENT_ROOT = 7,
	WIRE_HOST = 8,	      /* Host field or authority, as it came; may hold a port */
	WIRE_SERVER_NAME = 9, /* host without port, lower case */
	WIRE_SCHEME = 10,
	WIRE_REMOTE_ADDR = 11, /* numeric; empty for a unix socket */
	WIRE_SERVER_ADDR = 12,
	WIRE_SITE = 13,	      /* for log lines */
	WIRE_REQUEST_ID = 14, /* 16 hex digits, same in every log */
	WIRE_FIRST_BODY = 15, /* body bytes that ride with the head */
	WIRE_TEXTS = 16
};

struct wire_request {
	struct wire_head head;
	uint64_t content_length;  /* UINT64_MAX: not known (chunked) */
	uint64_t response_window; /* bytes of answer body that may be sent before the first credit */
	uint64_t arrived_ns;	  /* CLOCK_MONOTONIC */
	uint64_t deadline_ns;	  /* CLOCK_MONOTONIC; 0: none */
	uint16_t version;	  /* 10, 11, 20 */
	uint16_t field_count;
	uint32_t fields; /* offset of struct wire_field[field_count + trailer_count], 8-aligned */
	uint16_t remote_port;
	uint16_t server_port;
	uint16_t trailer_count;
	uint16_t reserved;
	struct wire_span text[16];
};

struct wire_response {
	struct wire_head head;
	uint64_t content_length; /* UINT64_MAX: not said by the application */
	uint16_t status;
	uint16_t field_count;	 /* never holds Content-Length, Transfer-Encoding, Connection, Keep-Alive */
	uint32_t fields;	 /* offset of struct wire_field[field_count], 8-aligned */
	struct wire_span reason; /* empty: the registered phrase */
	struct wire_span body;
};

struct wire_body {
	struct wire_head head;
	uint64_t offset; /* of the first byte of this piece in the body; pieces have no gaps */
	struct wire_span data;
	uint32_t fields; /* WIRE_LAST: trailers, as struct wire_field[field_count], 8-aligned */
	uint16_t field_count;
	uint16_t reserved;
};

struct wire_credit {
	struct wire_head head;
	uint64_t limit; /* the other side may send body bytes below this offset; never shrinks */
};

struct wire_hello {
	struct wire_head head;
	uint32_t magic;
	uint32_t version;
	uint32_t pid;
	uint32_t slots;
};

/* A worker's ZMQ_ROUTING_ID on each of its connections, 16 bytes. Never used twice. */
enum wire_role { WIRE_ROLE_SLOT = 83, WIRE_ROLE_KEEPER = 75 }; /* 'S', 'K' */

struct wire_identity {
	uint8_t role; /* enum wire_role; never 0, as ZeroMQ asks */
	uint8_t version;
	uint16_t slot;	     /* 0 for the keeper */
	uint32_t generation; /* of the group */
	uint64_t worker;     /* incarnation; from the supervisor, unique while the server lives */
};

/* What a worker calls a front end (ZMQ_CONNECT_ROUTING_ID), 8 bytes. */
struct wire_frontend {
	uint8_t role;	 /* 'F' */
	uint8_t ordinal; /* below WIRE_FRONTENDS */
	uint16_t reserved;
	uint32_t incarnation; /* the upper 24 bits of its serials */
};

/*
 * A worker's page: memfd from the supervisor, sealed against resizing, written by this worker only. Readers treat every
 * word as hostile: nothing read from it is an index, a length or a pointer.
 */
enum wire_worker_state { WIRE_STARTING = 0, WIRE_READY = 1, WIRE_DRAINING = 2, WIRE_GONE = 3 };

enum wire_phase {
	WIRE_IDLE = 0,
	WIRE_RUNNING = 1, /* application code has the request */
	WIRE_READING = 2, /* it waits for request body */
	WIRE_WRITING = 3, /* it waits for credit */
	WIRE_TUNNEL = 4	  /* it has answered 101: it may last for days */
};

struct wire_slot {
	uint64_t running;     /* serial; 0 when idle */
	uint64_t since_ns;    /* CLOCK_MONOTONIC, when it started */
	uint32_t phase;	      /* enum wire_phase */
	uint32_t queued;      /* requests received and not started */
	uint64_t requests;    /* finished since the worker started */
	uint64_t busy_ns;     /* total time in requests */
	uint64_t errors;      /* answers with status 500 and above, and aborts */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC, of the running request; 0: none */
	uint64_t reserved;
	uint64_t started[32]; /* by front-end ordinal: the highest serial that has been started or thrown away */
};

struct wire_page {
	uint32_t magic;
	uint32_t version;
	uint32_t state; /* enum wire_worker_state */
	uint32_t slots;
	uint64_t worker;
	uint64_t started_ns;
	uint32_t pid;
	uint32_t protocol_errors;
	uint32_t shown;	  /* how often it has shown where it is stuck, as it was asked to */
	uint32_t crashed; /* 1 + the slot in whose request the process has crashed; 0: none, or it is not known which */
	uint64_t reserved[10];
	struct wire_slot slot[]; /* at byte 128 */
};

/*
 * A worker's loans: a second memfd from the supervisor, sealed as the page is, that worker and front ends map for
 * writing. Behind the words of struct wire_loans each slot has WIRE_LOANS loans of WIRE_LOAN bytes. The worker writes
 * into one, or into as many that follow each other as it needs, and puts the front end's name into their words. The
 * front end writes 0 into the words when it has done with the bytes: the loans may be used again. It reads none of
 * these words. What a front end had that is gone comes back by itself.
 *
 *   a piece of an answer   announced by a BODY with WIRE_LENT that has nothing behind its head; the front end writes
 *                          the bytes to the client from where they are
 *   a whole answer         a RESPONSE with WIRE_LAST, its message as it would be; posted: its bit is set in `posted`,
 *                          which the front end looks at while it is awake. If it is asleep, as `asleep` says, whoever
 *                          clears that sends a POSTED. The bytes are copied before they are looked at.
 */
struct wire_slot_loans {
	uint32_t borrower[32]; /* by loan. 0: not lent; else WIRE_BORROWER of the front end */
	uint32_t posted[32];   /* by front-end ordinal: a bit for each loan */
};

struct wire_loans {
	uint32_t asleep[32]; /* by front-end ordinal */
	struct wire_slot_loans slot[];
};
/* wire: end */

#define WIRE_LOANS_WORDS(slots)                                                                                        \
	((sizeof(struct wire_loans) + (size_t)(slots) * sizeof(struct wire_slot_loans) + 4095) & ~(size_t)4095)
#define WIRE_LOANS_SIZE(slots) (WIRE_LOANS_WORDS(slots) + (size_t)(slots)*WIRE_LOANS * WIRE_LOAN)
#define WIRE_BORROWER(name)    ((uint32_t)(name).ordinal << 24 | (name).incarnation) /* an incarnation is never 0 */
#define WIRE_PAGE_SIZE(slots)  (sizeof(struct wire_page) + (size_t)(slots) * sizeof(struct wire_slot))

_Static_assert(sizeof(struct wire_head) == 24, "wire_head");
_Static_assert(sizeof(struct wire_field) == 16, "wire_field");
_Static_assert(sizeof(struct wire_request) == 24 + 32 + 24 - 8 + 8 * 16, "wire_request");
_Static_assert(sizeof(struct wire_body) == 48, "wire_body");
_Static_assert(sizeof(struct wire_identity) == 16, "wire_identity");
_Static_assert(sizeof(struct wire_frontend) == 8, "wire_frontend");
_Static_assert(sizeof(struct wire_page) == 128, "wire_page");
_Static_assert(sizeof(struct wire_slot) == 64 + 8 * WIRE_FRONTENDS, "wire_slot");

/* True if [span.at, span.at + span.size) lies within a message of size bytes. */
static inline int wire_span_ok(struct wire_span span, size_t size)
{
	return span.at <= size && span.size <= size - span.at;
}

/* True if count fields at offset lie within the message, aligned, and each name and value too. */
static inline int wire_fields_ok(const void *message, size_t size, uint32_t offset, uint32_t count)
{
	if (count > WIRE_FIELDS || offset % 8 || offset > size || count > (size - offset) / sizeof(struct wire_field))
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		/* Copied: ZeroMQ may deliver a message at any address. */
		struct wire_field field;
		__builtin_memcpy(&field, (const char *)message + offset + i * sizeof(field), sizeof(field));
		struct wire_span name = {field.name, field.name_size};
		struct wire_span value = {field.value, field.value_size};
		if (!wire_span_ok(name, size) || !wire_span_ok(value, size))
			return 0;
	}
	return 1;
}

#endif
