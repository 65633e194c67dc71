/*
 * The answer's head and framing (RFC 9112, section 6).
 *
 *   request   answer's length   framing
 *   HEAD      any               none; Content-Length as it would be
 *   any       status 1xx, 204, 304   none
 *   1.1, 1.0  known             Content-Length
 *   1.1       unknown           chunked
 *   1.0       unknown           the end of the connection
 *   Upgrade   status 101        the end of the connection
 *
 * The head goes into the same piece of memory as a small body, so a small answer is one system call. Everything but
 * reply_end, reply_flush and reply_abort only queues: the request cannot end in it. When memory runs out, or the answer
 * is broken, the connection is marked (connection_fail) and closed once nobody is on the stack who may use the request.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "connection.h"
#include "loans.h"
#include "reply.h"

#define CRLF "\r\n"
/* Bytes of interim answers that may wait for a client; what comes beyond them is dropped. */
#define INTERIM_QUEUED 65536

static const char last_chunk[] = "0\r\n\r\n";

static bool name_is(struct engine_text name, const char *lower, size_t size)
{
	return name.size == size && strncasecmp(name.data, lower, size) == 0;
}

static char *put(char *at, const char *data, size_t size)
{
	memcpy(at, data, size);
	return at + size;
}

static char *put_number(char *at, uint64_t number)
{
	char digits[20];
	unsigned n = 0;
	do
		digits[n++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	while (n > 0)
		*at++ = digits[--n];
	return at;
}

static char *put_status_line(char *at, int status, struct engine_text reason)
{
	at = put(at, "HTTP/1.1 ", 9);
	at = put_number(at, (unsigned)status);
	*at++ = ' ';
	at = put(at, reason.data, reason.size);
	return put(at, CRLF, 2);
}

static char *put_fields(char *at, const struct field *fields, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		at = put(at, fields[i].name.data, fields[i].name.size);
		at = put(at, ": ", 2);
		at = put(at, fields[i].value.data, fields[i].value.size);
		at = put(at, CRLF, 2);
	}
	return at;
}

static size_t fields_size(const struct field *fields, size_t count)
{
	size_t size = 0;
	for (size_t i = 0; i < count; i++)
		size += fields[i].name.size + fields[i].value.size + 4;
	return size;
}

static struct engine_text phrase(int status, struct engine_text reason)
{
	if (reason.size > 0)
		return reason;
	const char *registered = status_phrase(status);
	return (struct engine_text){registered, strlen(registered)};
}

int reply_no_memory(struct request *r)
{
	log_entry(request_engine(r), LOG_LEVEL_ERROR, r, "no memory for an answer; the connection is cut");
	connection_fail(r->connection);
	return -1;
}

int reply_inform(struct request *r, int status, const struct field *fields, size_t count)
{
	struct connection *c = r->connection;
	if (c->broken)
		return -1;
	/* A client of version 1.0 does not know them, and after the final head it is too late. */
	if (r->version < 11 || r->state >= REQUEST_REPLYING)
		return 0;
	/* No credit bounds them, and a client that takes none would make them pile up. None but 100 is owed to anybody.
	 */
	if (status != 100 && c->out.queued > INTERIM_QUEUED)
		return 0;
	struct engine_text reason = phrase(status, TEXT(""));
	char *start = output_reserve(c, 9 + 10 + 1 + reason.size + 2 + fields_size(fields, count) + 2);
	if (start == NULL)
		return reply_no_memory(r);
	char *at = put_fields(put_status_line(start, status, reason), fields, count);
	at = put(at, CRLF, 2);
	output_commit(c, (size_t)(at - start));
	r->heads_size += (size_t)(at - start);
	if (status == 100)
		r->continued = true;
	return 0;
}

/* Whether the connection can serve another request after this answer, as far as can be said when its head is made. */
static bool connection_stays(const struct request *r, unsigned flags)
{
	if (!r->keep_alive || (flags & REPLY_CLOSE) || request_engine(r)->draining || r->framing == FRAMING_CLOSE)
		return false;
	if (r->body_done)
		return true;
	/* Whoever waits for 100 may send its body after this answer or not: there is no telling what comes next. */
	if (r->expect && !r->continued)
		return false;
	bool known = r->content_length != UINT64_MAX;
	uint64_t left = known ? r->content_length - r->body_received : 0;
	/* The backend is still reading; what it leaves is thrown away, as far as connection_finish goes. */
	if (r->body_room > 0)
		return left <= LINGER_BYTES;
	return known && left <= DISCARD_LIMIT;
}

static uint8_t framing_for(const struct request *r, int status, uint64_t length)
{
	if (r->is_head || status < 200 || status == 204 || status == 304)
		return FRAMING_NONE;
	if (length != UINT64_MAX)
		return FRAMING_LENGTH;
	return r->version >= 11 ? FRAMING_CHUNKED : FRAMING_CLOSE;
}

int reply_begin(struct request *r, int status, struct engine_text reason, const struct field *fields, size_t count,
	uint64_t length, unsigned flags)
{
	struct connection *c = r->connection;
	struct engine *e = c->engine;
	if (c->broken)
		return -1;
	bool tunnel = flags & REPLY_TUNNEL;
	if (status < 200 && status >= 100 && !tunnel)
		return reply_inform(r, status, fields, count);
	if (r->state >= REQUEST_REPLYING) {
		log_entry(e, LOG_LEVEL_ERROR, r, "a second answer to one request was refused");
		return -1;
	}
	r->status = (uint16_t)status;
	r->reply_length = length;
	r->framing = tunnel ? FRAMING_TUNNEL : framing_for(r, status, length);
	c->keep = !tunnel && connection_stays(r, flags);
	r->state = REQUEST_REPLYING;

	bool has_date = false, has_server = false;
	for (size_t i = 0; i < count; i++) {
		has_date |= name_is(fields[i].name, "date", 4);
		has_server |= name_is(fields[i].name, "server", 6);
	}
	reason = phrase(status, reason);
	size_t server_size = has_server ? 0 : strlen(e->options.server);
	/* Status line, Server, Date, Content-Length or Transfer-Encoding, Connection, the empty line. */
	size_t bound = 9 + 20 + 1 + reason.size + 2 + 10 + server_size + 39 + 40 + 26 + 2 + fields_size(fields, count);
	char *start = output_reserve(c, bound);
	if (start == NULL)
		return reply_no_memory(r);
	char *at = put_status_line(start, status, reason);
	if (server_size > 0) {
		at = put(at, "Server: ", 8);
		at = put(at, e->options.server, server_size);
		at = put(at, CRLF, 2);
	}
	if (!has_date) {
		at = put(at, "Date: ", 6);
		at = put(at, e->date, 29);
		at = put(at, CRLF, 2);
	}
	at = put_fields(at, fields, count);
	if (r->framing == FRAMING_CHUNKED)
		at = put(at, "Transfer-Encoding: chunked\r\n", 28);
	else if (length != UINT64_MAX && status != 204 && (r->framing == FRAMING_LENGTH || r->is_head)) {
		at = put(at, "Content-Length: ", 16);
		at = put_number(at, length);
		at = put(at, CRLF, 2);
	}
	if (tunnel)
		at = put(at, "Connection: Upgrade\r\n", 21);
	else if (!c->keep)
		at = put(at, "Connection: close\r\n", 19);
	else if (r->version < 11)
		at = put(at, "Connection: keep-alive\r\n", 24);
	at = put(at, CRLF, 2);
	output_commit(c, (size_t)(at - start));
	r->heads_size += (size_t)(at - start);
	return 0;
}

int reply_trailers(struct request *r, const struct field *fields, size_t count)
{
	if (!reply_goes_on(r))
		return -1;
	if (r->framing != FRAMING_CHUNKED || !r->te_trailers || count == 0)
		return 0;
	char *start = output_reserve(r->connection, 3 + fields_size(fields, count) + 2);
	if (start == NULL)
		return reply_no_memory(r);
	char *at = put(put_fields(put(start, last_chunk, 3), fields, count), CRLF, 2);
	output_commit(r->connection, (size_t)(at - start));
	r->trailers_sent = true;
	return 0;
}

void reply_shut(struct request *r)
{
	r->shut_wanted = true;
}

/* All that was given has been written. */
void reply_drained(struct request *r)
{
	if (!r->shut_wanted || r->shut_done)
		return;
	r->shut_done = true;
	r->connection->transport->shut(r->connection);
}

int reply_end(struct request *r)
{
	struct connection *c = r->connection;
	if (c->broken || r->state != REQUEST_REPLYING) {
		reply_abort(r);
		return -1;
	}
	if (r->framing == FRAMING_LENGTH && r->reply_body < r->reply_length) {
		log_entry(c->engine, LOG_LEVEL_ERROR, r,
			"the answer ended after %llu of %llu bytes; the connection is cut",
			(unsigned long long)r->reply_body, (unsigned long long)r->reply_length);
		reply_abort(r);
		return -1;
	}
	if (r->framing == FRAMING_CHUNKED && !r->trailers_sent &&
		output_copy(c, last_chunk, sizeof(last_chunk) - 1) < 0) {
		reply_no_memory(r);
		return -1;
	}
	r->state = REQUEST_ENDING;
	r->reply_complete = true;
	return reply_flush(r);
}

uint64_t reply_queued(const struct request *r)
{
	return r->connection->out.queued;
}

int reply_flush(struct request *r)
{
	struct connection *c = r->connection;
	if (c->broken) {
		connection_close(c);
		return -1;
	}
	switch (output_flush(c)) {
	case OUTPUT_FAILED:
		connection_close(c);
		return -1;
	case OUTPUT_MORE:
		connection_expect_output(c, true);
		return 0;
	case OUTPUT_DONE:
		break;
	}
	connection_expect_output(c, false);
	reply_drained(r);
	if (r->reply_complete)
		connection_finish(c);
	return 0;
}

void reply_abort(struct request *r)
{
	connection_close(r->connection);
}
