/*
 * The front end's error log: one line for each entry, to descriptor 2.
 *
 * A line is the byte 0x1e (RS), a JSON object {"level", "request", "site", "text"}, and a newline; the byte tells the
 * logger that the engine made the line, and not a stray write of some library. A line is at most PIPE_BUF bytes, so the
 * pipe takes it whole or not at all. Nobody waits for the log: what does not fit is dropped, counted, and told with the
 * next line that fits.
 *
 * What is said again and again is said ten times a second, then counted, so that one broken disk or one client cannot
 * fill the logs. Two entries are equal if their texts are, whichever request they are about. Of errors, the line that
 * tells the count names the requests: each that was refused is in one line, whatever happens to how many. Clients
 * choose the paths that texts are made of, so what is their doing (warnings and notices about requests) has a limit of
 * its own besides.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "escape.h"
#include "hash.h"

#define EQUAL_A_SECOND 10
#define STRANGERS      1000 /* a second: lines that strangers can cause, of any text */
#define SECOND_NS      UINT64_C(1000000000)
#define KINDS	       64 /* texts that are watched; two that share a place push each other out */
#define TEXT_SIZE      2048
#define SITE_SIZE      128
#define NAMED	       180 /* requests in one line: 17 bytes each, which leaves room for the text in PIPE_BUF */
#define RS	       '\x1e'

struct kind {
	uint64_t hash; /* 0: free */
	uint64_t since_ns;
	unsigned seen;
	unsigned suppressed;
	int level;
	char text[200]; /* its beginning, for telling how often it was suppressed */
	unsigned named;
	uint64_t requests[NAMED]; /* of errors, those that were not told */
};

struct error_log {
	struct hash_key key;
	uint64_t dropped;
	struct timer timer;
	struct timer_queue *after; /* tells what was suppressed when nothing equal follows */
	struct kind kinds[KINDS];
	uint64_t strangers_since_ns;
	unsigned strangers, left_out;
};

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning", [LOG_LEVEL_NOTICE] = "notice"};

/* ---- one line */

/* Takes all or nothing. The descriptor may be shared with others who want it to block, so it is asked first; there is
   room for PIPE_BUF bytes when a pipe is writable at all. */
static bool write_line(const char *line, size_t size)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return false;
	ssize_t wrote;
	do
		wrote = write(STDERR_FILENO, line, size);
	while (wrote < 0 && errno == EINTR);
	return wrote == (ssize_t)size;
}

static char *put(char *at, const char *text)
{
	size_t size = strlen(text);
	memcpy(at, text, size);
	return at + size;
}

static bool emit(int level, const struct request *r, const char *text)
{
	static const char end[] = "\"}\n";
	char line[PIPE_BUF], *at = line;
	*at++ = RS;
	at = put(at, "{\"level\":\"");
	at = put(at, level_names[level]);
	if (r != NULL)
		at += sprintf(at, "\",\"request\":\"%016llx", (unsigned long long)r->id);
	if (r != NULL && r->site != NULL) {
		at = put(at, "\",\"site\":\"");
		at = escape_json(at, SITE_SIZE * ESCAPE_MOST, r->site->name, strnlen(r->site->name, SITE_SIZE));
	}
	at = put(at, "\",\"text\":\"");
	at = escape_json(at, (size_t)(line + sizeof line - at) - sizeof end, text, strlen(text));
	at = put(at, end);
	return write_line(line, (size_t)(at - line));
}

static void say(engine *e, int level, const struct request *r, const char *text)
{
	struct error_log *log = e->errors;
	char lost[96];
	if (log != NULL && log->dropped > 0) {
		snprintf(lost, sizeof lost, "%llu lines of this log were dropped, the logger does not keep up",
			(unsigned long long)log->dropped);
		if (emit(LOG_LEVEL_WARNING, NULL, lost))
			log->dropped = 0;
	}
	if (!emit(level, r, text) && log != NULL)
		log->dropped++;
}

/* ---- what is said again and again */

static void tell_suppressed(engine *e, struct kind *k)
{
	char text[340 + 17 * NAMED];
	if (k->suppressed == 0)
		return;
	int at = snprintf(text, 300, "%u more like this: %s", k->suppressed, k->text);
	for (unsigned i = 0; i < k->named; i++)
		at += sprintf(text + at, "%s%016llx", i == 0 ? " (requests " : " ", (unsigned long long)k->requests[i]);
	if (k->named > 0)
		strcpy(text + at, ")");
	k->suppressed = k->named = 0;
	say(e, k->level, NULL, text);
}

static void tell_left_out(engine *e)
{
	struct error_log *log = e->errors;
	char text[128];
	if (log->left_out == 0)
		return;
	snprintf(text, sizeof text, "%u more lines about requests were left out: over %d in a second", log->left_out,
		STRANGERS);
	log->left_out = 0;
	say(e, LOG_LEVEL_WARNING, NULL, text);
}

static void second_over(engine *e, struct timer *timer)
{
	struct error_log *log = e->errors;
	bool waiting = false;
	if (e->now_ns - log->strangers_since_ns >= SECOND_NS)
		tell_left_out(e);
	else
		waiting = log->left_out > 0;
	for (int i = 0; i < KINDS; i++) {
		struct kind *k = &log->kinds[i];
		if (k->suppressed == 0)
			continue;
		if (e->now_ns - k->since_ns >= SECOND_NS)
			tell_suppressed(e, k);
		else
			waiting = true;
	}
	if (waiting)
		timer_arm(e, log->after, timer);
}

/* Whether the text may be said now. */
static bool allowed(engine *e, int level, const struct request *r, const char *text)
{
	struct error_log *log = e->errors;
	uint64_t hash = hash_bytes(&log->key, (uint64_t)level, text, strlen(text)) | 1;
	struct kind *k = &log->kinds[(hash * log->key.mix) >> 58];
	if (k->hash != hash || e->now_ns - k->since_ns >= SECOND_NS) {
		tell_suppressed(e, k);
		k->hash = hash;
		k->since_ns = e->now_ns;
		k->seen = 0;
		k->level = level;
		snprintf(k->text, sizeof k->text, "%.199s", text);
	}
	if (k->seen++ < EQUAL_A_SECOND)
		return true;
	k->suppressed++;
	if (level == LOG_LEVEL_ERROR && r != NULL) {
		k->requests[k->named++] = r->id;
		if (k->named == NAMED)
			tell_suppressed(e, k);
	}
	if (!list_linked(&log->timer.node))
		timer_arm(e, log->after, &log->timer);
	return false;
}

static bool within_rate(engine *e, int level, const struct request *r)
{
	struct error_log *log = e->errors;
	if (level == LOG_LEVEL_ERROR || r == NULL)
		return true;
	if (e->now_ns - log->strangers_since_ns >= SECOND_NS) {
		tell_left_out(e);
		log->strangers_since_ns = e->now_ns;
		log->strangers = 0;
	}
	if (log->strangers++ < STRANGERS)
		return true;
	log->left_out++;
	if (!list_linked(&log->timer.node))
		timer_arm(e, log->after, &log->timer);
	return false;
}

_Static_assert(KINDS == 1 << (64 - 58), "the shift in allowed() makes an index below KINDS");

void log_entry(engine *e, int level, const struct request *r, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (level < LOG_LEVEL_ERROR || level > LOG_LEVEL_NOTICE)
		level = LOG_LEVEL_ERROR;
	e->stats.errors_logged++;
	/* While the engine is made or taken down there is no state. */
	if (e->errors == NULL || (allowed(e, level, r, text) && within_rate(e, level, r)))
		say(e, level, r, text);
}

int errors_make(engine *e)
{
	struct error_log *log = calloc(1, sizeof *log);
	if (log == NULL)
		return -1;
	log->after = timer_queue(e, SECOND_NS, second_over);
	if (hash_key_make(&log->key) < 0 || log->after == NULL) {
		free(log);
		return -1;
	}
	e->errors = log;
	return 0;
}

void errors_free(engine *e)
{
	struct error_log *log = e->errors;
	if (log == NULL)
		return;
	timer_disarm(&log->timer);
	for (int i = 0; i < KINDS; i++)
		tell_suppressed(e, &log->kinds[i]);
	tell_left_out(e);
	e->errors = NULL;
	free(log);
}
