/*
 * The access log: one record for each request, collected and written in batches.
 *
 * combined   remote - - [day/month/year:time zone] "request line" status bytes "referer" "user agent"
 * json       one object a line, with host, site, group, duration and request id besides
 *
 * A request that was refused has a record like any other; if it could not be understood, with its request line as it
 * came. One that got no answer at all (the client went away first) has the status "-", 0 in JSON. "complete" in JSON is
 * false for an answer that was cut off. bytes counts the answer's content, without its head. The time is when the
 * record was made, as the answer ended.
 *
 * Nobody waits for the log. What does not fit is dropped, whole lines, counted in the statistics and told once a
 * minute.
 */
#define _GNU_SOURCE /* F_SETPIPE_SZ, tm_gmtoff */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "engine.h"
#include "escape.h"
#include "fields.h"
#include "pipe.h"
#include "reply.h"

#define BUFFER	    (1u << 20)	/* only what a slow reader leaves is ever touched */
#define BATCH	    (32u << 10) /* written at the end of a turn from this size on */
#define DELAY_NS    UINT64_C(1000000000)
#define RETRY_NS    UINT64_C(5000000)
#define REPORT_NS   UINT64_C(60000000000)
#define FIELD	    8192u /* bytes of one value that are logged */
#define FIXED_PART  2048u /* bytes of a record beside the strangers' values: numbers, names, time */
#define NAME	    100u  /* bytes of a site's or group's name */
#define FAREWELL_MS 200	  /* that the last records are given when the engine ends */

struct access_log {
	struct pollable poll; /* in the epoll set while the pipe is full */
	struct line_pipe pipe;
	bool json;
	struct timer timer;
	struct timer_queue *delay;
	bool full;	  /* the pipe took less than there was */
	uint64_t dropped; /* not told yet */
	uint64_t reported_ns;
	int64_t second; /* that the texts below are for */
	char local[32]; /* 22/Nov/2026:23:59:59 +0000 */
	char utc[24];	/* 2026-11-22T23:59:59 */
};

/* ---- writing */

static void report(engine *e, struct access_log *log)
{
	if (log->dropped == 0 || (log->reported_ns != 0 && e->now_ns - log->reported_ns < REPORT_NS))
		return;
	log_entry(e, LOG_LEVEL_WARNING, NULL, "access log: %llu records dropped, the logger does not keep up",
		(unsigned long long)log->dropped);
	log->dropped = 0;
	log->reported_ns = e->now_ns;
}

static void count_dropped(engine *e, struct access_log *log, uint64_t lines)
{
	e->stats.access_dropped += lines;
	log->dropped += lines;
}

static void write_out(engine *e, struct access_log *log)
{
	count_dropped(e, log, line_pipe_write(&log->pipe));
	bool full = line_pipe_waiting(&log->pipe) > 0;
	if (full && !log->full)
		full = poll_add(e, &log->poll, EPOLLOUT) == 0; /* if not, the timer tries again */
	else if (!full && log->full)
		poll_remove(e, &log->poll);
	log->full = full;
	report(e, log);
}

static void pipe_ready(engine *e, struct pollable *self, uint32_t events)
{
	(void)self, (void)events;
	write_out(e, e->access);
}

static void delay_over(engine *e, struct timer *timer)
{
	struct access_log *log = e->access;
	write_out(e, log);
	if (line_pipe_waiting(&log->pipe) > 0 || log->dropped > 0)
		timer_arm(e, log->delay, timer);
}

void access_flush(engine *e)
{
	struct access_log *log = e->access;
	if (log != NULL && line_pipe_waiting(&log->pipe) >= BATCH && !log->full)
		write_out(e, log);
}

int access_make(engine *e)
{
	int fd = e->options.access_fd;
	if (fd < 0)
		return 0;
	struct access_log *log = calloc(1, sizeof *log);
	if (log == NULL || line_pipe_make(&log->pipe, fd, BUFFER) < 0) {
		free(log);
		return -1;
	}
	fcntl(fd, F_SETPIPE_SZ, BUFFER); /* fewer lost when the logger is late; refused where it is not a pipe */
	log->poll.fd = fd;
	log->poll.ready = pipe_ready;
	log->json = e->options.access_json != 0;
	log->second = INT64_MIN;
	log->delay = timer_queue(e, DELAY_NS, delay_over);
	if (log->delay == NULL) {
		line_pipe_free(&log->pipe);
		free(log);
		return -1;
	}
	e->access = log;
	return 0;
}

void access_free(engine *e)
{
	struct access_log *log = e->access;
	if (log == NULL)
		return;
	struct pollfd p = {.fd = log->pipe.fd, .events = POLLOUT};
	line_pipe_write(&log->pipe);
	for (int waits = 0; waits < 4 && line_pipe_waiting(&log->pipe) > 0; waits++)
		if (poll(&p, 1, FAREWELL_MS / 4) > 0)
			line_pipe_write(&log->pipe);
	timer_disarm(&log->timer);
	if (log->full)
		poll_remove(e, &log->poll);
	line_pipe_free(&log->pipe);
	free(log);
	e->access = NULL;
}

/* ---- one record */

static void set_time(struct access_log *log, int64_t now)
{
	static const char months[12][4] = {
		"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t seconds = (time_t)now;
	struct tm local, utc;
	if (log->second == now)
		return;
	log->second = now;
	localtime_r(&seconds, &local);
	gmtime_r(&seconds, &utc);
	unsigned zone = (unsigned)labs(local.tm_gmtoff) / 60;
	/* The remainders tell the compiler that nothing outgrows its place. */
	snprintf(log->local, sizeof log->local, "%02u/%s/%04u:%02u:%02u:%02u %c%02u%02u", (unsigned)local.tm_mday % 100,
		months[(unsigned)local.tm_mon % 12], (unsigned)(local.tm_year + 1900) % 10000,
		(unsigned)local.tm_hour % 100, (unsigned)local.tm_min % 100, (unsigned)local.tm_sec % 100,
		local.tm_gmtoff < 0 ? '-' : '+', zone / 60 % 100, zone % 60);
	snprintf(log->utc, sizeof log->utc, "%04u-%02u-%02uT%02u:%02u:%02u", (unsigned)(utc.tm_year + 1900) % 10000,
		(unsigned)(utc.tm_mon + 1) % 100, (unsigned)utc.tm_mday % 100, (unsigned)utc.tm_hour % 100,
		(unsigned)utc.tm_min % 100, (unsigned)utc.tm_sec % 100);
}

typedef char *escape_function(char *out, size_t room, const char *data, size_t size);

/* A record being made: its values and the place they go to. */
struct record {
	char *at;
	escape_function *escape;
	struct engine_text line, method, target, host, referer, agent;
	const char *remote, *site, *group;
	unsigned version, status;
	uint64_t bytes, id, duration_ns, wall_ns;
	bool complete;
};

static void put(struct record *w, const char *text)
{
	size_t size = strlen(text);
	memcpy(w->at, text, size);
	w->at += size;
}

static void put_escaped(struct record *w, struct engine_text t)
{
	w->at = w->escape(w->at, t.size * ESCAPE_MOST, t.data, t.size);
}

static void put_name(struct record *w, const char *name)
{
	size_t size = strnlen(name, NAME);
	w->at = w->escape(w->at, NAME * ESCAPE_MOST, name, size);
}

static void put_number(struct record *w, uint64_t number)
{
	char digits[20];
	unsigned n = 0;
	do
		digits[n++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	while (n > 0)
		*w->at++ = digits[--n];
}

static void put_request_line(struct record *w)
{
	if (w->line.size > 0) {
		put_escaped(w, w->line); /* it could not be understood */
		return;
	}
	if (w->method.size == 0) {
		put(w, "-"); /* nothing came of it */
		return;
	}
	put_escaped(w, w->method);
	put(w, " ");
	put_escaped(w, w->target);
	if (w->version > 0) {
		put(w, " HTTP/");
		put_number(w, w->version / 10);
		put(w, ".");
		put_number(w, w->version % 10);
	}
}

static void put_or_dash(struct record *w, struct engine_text t)
{
	if (t.size == 0)
		put(w, "-");
	else
		put_escaped(w, t);
}

static void put_combined(struct record *w, const struct access_log *log)
{
	put(w, w->remote[0] == 0 ? "-" : w->remote);
	put(w, " - - [");
	put(w, log->local);
	put(w, "] \"");
	put_request_line(w);
	put(w, "\" ");
	if (w->status == 0)
		put(w, "-");
	else
		put_number(w, w->status);
	put(w, " ");
	put_number(w, w->bytes);
	put(w, " \"");
	put_or_dash(w, w->referer);
	put(w, "\" \"");
	put_or_dash(w, w->agent);
	put(w, "\"\n");
}

static void put_decimals(struct record *w, unsigned number, int digits)
{
	char *end = w->at + digits;
	for (char *p = end; p > w->at; number /= 10)
		*--p = (char)('0' + number % 10);
	w->at = end;
}

static void put_json(struct record *w, const struct access_log *log)
{
	static const char hex[] = "0123456789abcdef";
	put(w, "{\"time\":\"");
	put(w, log->utc);
	put(w, ".");
	put_decimals(w, (unsigned)(w->wall_ns % 1000000000 / 1000000), 3);
	put(w, "Z\",\"remote\":\"");
	put(w, w->remote);
	put(w, "\",\"host\":\"");
	put_escaped(w, w->host);
	put(w, "\",\"site\":\"");
	put_name(w, w->site);
	put(w, "\",\"group\":\"");
	put_name(w, w->group);
	put(w, "\",\"request\":\"");
	put_request_line(w);
	put(w, "\",\"status\":");
	put_number(w, w->status);
	put(w, ",\"bytes\":");
	put_number(w, w->bytes);
	put(w, ",\"duration\":");
	put_number(w, w->duration_ns / 1000000000);
	put(w, ".");
	put_decimals(w, (unsigned)(w->duration_ns % 1000000000 / 1000), 6);
	put(w, ",\"referer\":\"");
	put_escaped(w, w->referer);
	put(w, "\",\"user_agent\":\"");
	put_escaped(w, w->agent);
	put(w, "\",\"id\":\"");
	for (int shift = 60; shift >= 0; shift -= 4)
		*w->at++ = hex[w->id >> shift & 15];
	put(w, w->complete ? "\",\"complete\":true}\n" : "\",\"complete\":false}\n");
}

static struct engine_text at_most(struct engine_text t)
{
	return (struct engine_text){t.data, t.size < FIELD ? t.size : FIELD};
}

/* One pass over the fields; the first of each counts. */
static void find_fields(const struct request *r, struct record *w)
{
	for (uint32_t i = r->field_count; i-- > 0;)
		if (r->fields[i].known == WIRE_FIELD_REFERER)
			w->referer = at_most(r->fields[i].value);
		else if (r->fields[i].known == WIRE_FIELD_USER_AGENT)
			w->agent = at_most(r->fields[i].value);
}

void access_record(struct request *r)
{
	engine *e = request_engine(r);
	struct access_log *log = e->access;
	if (log == NULL)
		return;
	uint64_t sent = r->bytes_out > r->heads_size ? r->bytes_out - r->heads_size : 0;
	struct record w = {
		.escape = log->json ? escape_json : escape_combined,
		.line = at_most(r->line),
		.method = at_most(r->method),
		.target = at_most(r->target),
		.host = at_most(r->server_name),
		.remote = connection_remote(r->connection),
		.site = r->site == NULL ? "" : r->site->name,
		.group = r->group_name == NULL ? "" : r->group_name,
		.version = r->version,
		.status = r->status,
		/* What was given to the answer, unless the client cannot have had that much. */
		.bytes = r->framing == FRAMING_NONE ? 0
			 : r->reply_body < sent	    ? r->reply_body
						    : sent,
		.id = r->id,
		.duration_ns = e->now_ns > r->arrived_ns ? e->now_ns - r->arrived_ns : 0,
		.wall_ns = e->now_wall_ns,
		.complete = r->reply_complete && reply_queued(r) == 0,
	};
	find_fields(r, &w);
	size_t strangers = w.line.size + w.method.size + w.target.size + w.host.size + w.referer.size + w.agent.size;
	w.at = line_pipe_reserve(&log->pipe, FIXED_PART + ESCAPE_MOST * strangers);
	if (w.at == NULL && !log->full) {
		write_out(e, log);
		w.at = line_pipe_reserve(&log->pipe, FIXED_PART + ESCAPE_MOST * strangers);
	}
	if (w.at == NULL) {
		count_dropped(e, log, 1);
	} else {
		set_time(log, e->now_wall);
		if (log->json)
			put_json(&w, log);
		else
			put_combined(&w, log);
		line_pipe_commit(&log->pipe, w.at);
	}
	if (!list_linked(&log->timer.node))
		timer_arm(e, log->delay, &log->timer);
}
