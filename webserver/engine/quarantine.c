/*
 * Requests that end workers. What a worker was running when it died is suspected; a request that was running so often,
 * `quarantine` times in a row and within a minute, is answered with 503 for a while and not run, so that it costs the
 * group no more workers. A request is what a client can send again: site, method and target, in one group.
 *
 * Beside a worker's death by such a request die others, of the same worker's other slots. They are suspected like it
 * and acquitted by the first time that one of them ends well, which the guilty one never does. A client that does not
 * wait for the answer changes nothing: what it asked for is kept until its worker is done with it.
 *
 * Front ends tell each other of deaths and acquittals (EVENT_SUSPECT, EVENT_CLEARED, by way of the supervisor), or a
 * request would cost as many workers in each of them. While nobody is suspected all of this is one comparison.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "loop.h"
#include "quarantine.h"

#define SUSPECTS      128		    /* at once; then the oldest that is not in quarantine goes */
#define IN_A_ROW_NS   UINT64_C(60000000000) /* from the first death that counts to the last */
#define LASTS_NS      UINT64_C(60000000000)
#define LOOK_AGAIN_NS UINT64_C(1000000000) /* between two looks for what can be forgotten */
#define TARGET_SHOWN  200		   /* bytes of it in a line of the log */

struct suspect {
	struct list node; /* the latest last */
	uint32_t group;
	uint32_t deaths;    /* in a row */
	uint64_t since_ns;  /* the first of them */
	uint64_t latest_ns; /* when it was last heard of */
	uint64_t until_ns;  /* 0: not in quarantine */
	uint64_t token;
	size_t size;
	char text[]; /* site, method and target, each but the last with a NUL behind it */
};

struct quarantine {
	struct list suspects;
	unsigned count;
	uint64_t token;
	uint64_t looked_ns;
};

int quarantine_make(struct channel *c)
{
	c->quarantine = calloc(1, sizeof(*c->quarantine));
	if (c->quarantine == NULL)
		return -1;
	list_init(&c->quarantine->suspects);
	return 0;
}

static void forget(struct quarantine *q, struct suspect *s)
{
	list_remove(&s->node);
	q->count--;
	free(s);
}

void quarantine_free(struct channel *c)
{
	struct quarantine *q = c->quarantine;

	while (q != NULL && q->count > 0)
		forget(q, list_entry(q->suspects.next, struct suspect, node));
	free(q);
	c->quarantine = NULL;
}

/* ---- what a request is called */

static const char *site_of(const struct request *r)
{
	return r->site == NULL ? "" : r->site->name;
}

static size_t name_size(const struct request *r)
{
	return strlen(site_of(r)) + 1 + r->method.size + 1 + r->target.size;
}

static void name_write(const struct request *r, char *to)
{
	size_t site = strlen(site_of(r)) + 1;

	memcpy(to, site_of(r), site);
	memcpy(to + site, r->method.data, r->method.size);
	to[site + r->method.size] = 0;
	memcpy(to + site + r->method.size + 1, r->target.data, r->target.size);
}

static bool is(const struct suspect *s, uint32_t group, const char *text, size_t size)
{
	return s->group == group && s->size == size && memcmp(s->text, text, size) == 0;
}

static bool is_request(const struct suspect *s, uint32_t group, const struct request *r)
{
	if (s->group != group || s->size != name_size(r))
		return false;
	size_t site = strlen(site_of(r)) + 1;
	const char *method = s->text + site, *target = method + r->method.size + 1;
	return memcmp(s->text, site_of(r), site) == 0 && memcmp(method, r->method.data, r->method.size) == 0 &&
	       target[-1] == 0 && memcmp(target, r->target.data, r->target.size) == 0;
}

/* Lists what is still of interest: what was not heard of for as long as a row may last, and is free, is forgotten. */
static void expire(struct engine *e, struct quarantine *q)
{
	for (struct list *n = q->suspects.next, *next; n != &q->suspects; n = next) {
		struct suspect *s = list_entry(n, struct suspect, node);
		next = n->next;
		if (e->now_ns - s->latest_ns >= IN_A_ROW_NS && e->now_ns >= s->until_ns + IN_A_ROW_NS)
			forget(q, s);
	}
}

static struct suspect *find(struct quarantine *q, uint32_t group, const char *text, size_t size)
{
	for (struct list *n = q->suspects.next; n != &q->suspects; n = n->next)
		if (is(list_entry(n, struct suspect, node), group, text, size))
			return list_entry(n, struct suspect, node);
	return NULL;
}

static struct suspect *find_request(struct quarantine *q, uint32_t group, const struct request *r)
{
	for (struct list *n = q->suspects.next; n != &q->suspects; n = n->next)
		if (is_request(list_entry(n, struct suspect, node), group, r))
			return list_entry(n, struct suspect, node);
	return NULL;
}

/* ---- deaths */

static struct suspect *suspect_new(struct engine *e, uint32_t group, const char *text, size_t size)
{
	struct quarantine *q = e->channel->quarantine;

	expire(e, q);
	for (struct list *n = q->suspects.next; q->count >= SUSPECTS && n != &q->suspects; n = n->next) {
		if (list_entry(n, struct suspect, node)->until_ns > e->now_ns)
			continue;
		forget(q, list_entry(n, struct suspect, node));
		break;
	}
	struct suspect *s = q->count < SUSPECTS ? calloc(1, sizeof(*s) + size) : NULL;
	if (s == NULL)
		return NULL;
	s->group = group;
	s->since_ns = e->now_ns;
	s->size = size;
	s->token = ++q->token;
	memcpy(s->text, text, size);
	list_append(&q->suspects, &s->node);
	q->count++;
	return s;
}

/* One line for the operator, with what it takes to find the request. */
static void tell(struct engine *e, const struct group *g, const struct suspect *s, const char *cause)
{
	const char *method = s->text + strlen(s->text) + 1, *target = method + strlen(method) + 1;
	size_t shown = s->size - (size_t)(target - s->text);

	log_entry(e, LOG_LEVEL_ERROR, NULL,
		"group \"%s\": %s %.*s of site %s was running in each of %u workers that died within a minute, the "
		"last of which was %s; for %u s it is answered with 503 and not run (quarantine = %u)",
		g->name, method, (int)(shown < TARGET_SHOWN ? shown : TARGET_SHOWN), target, s->text, s->deaths, cause,
		(unsigned)(LASTS_NS / 1000000000), g->quarantine);
}

static struct suspect *died(
	struct engine *e, const struct group *g, const char *text, size_t size, const char *cause, bool here)
{
	struct suspect *s = find(e->channel->quarantine, g->id, text, size);

	if (s == NULL)
		s = suspect_new(e, g->id, text, size);
	if (s == NULL)
		return NULL;
	if (s->deaths == 0 || e->now_ns - s->since_ns > IN_A_ROW_NS) {
		/* One that has been in quarantine is tried once, not as often as one that is new. */
		s->deaths = s->until_ns != 0 && g->quarantine > 1 ? g->quarantine - 1 : 0;
		s->since_ns = e->now_ns;
	}
	s->deaths++;
	s->latest_ns = e->now_ns;
	if (s->deaths >= g->quarantine && s->until_ns <= e->now_ns) {
		s->until_ns = e->now_ns + LASTS_NS;
		if (here)
			tell(e, g, s, cause);
	}
	return s;
}

void quarantine_keep(struct exchange *x)
{
	size_t size = name_size(x->request);
	char *name = x->group->quarantine > 0 && x->ran.data == NULL ? malloc(size) : NULL;

	if (name == NULL)
		return;
	name_write(x->request, name);
	x->ran = (struct engine_text){name, size};
}

void quarantine_died(struct exchange *x, const char *cause)
{
	struct engine *e = exchange_engine(x);

	if (x->group->quarantine == 0)
		return;
	if (x->request != NULL)
		quarantine_keep(x);
	struct suspect *s = x->ran.data != NULL ? died(e, x->group, x->ran.data, x->ran.size, cause, true) : NULL;
	if (s == NULL || e->options.frontends <= 1)
		return;
	struct engine_event *event = event_push(e, EVENT_SUSPECT);
	event->group = x->group->id;
	event->token = s->token;
}

/* ---- what ends well, and what is not run */

bool quarantine_is_empty(const struct channel *c)
{
	return c->quarantine->count == 0;
}

void quarantine_ended(struct exchange *x)
{
	struct engine *e = exchange_engine(x);
	struct quarantine *q = e->channel->quarantine;
	struct suspect *s = x->request != NULL	  ? find_request(q, x->group->id, x->request)
			    : x->ran.data != NULL ? find(q, x->group->id, x->ran.data, x->ran.size)
						  : NULL;

	if (s == NULL || s->deaths == 0)
		return;
	/* Its name is still asked for, by whoever hears of the event. */
	s->deaths = 0;
	s->until_ns = 0;
	if (e->options.frontends <= 1)
		return;
	struct engine_event *event = event_push(e, EVENT_CLEARED);
	event->group = x->group->id;
	event->token = s->token;
}

bool quarantine_refuses(struct request *r, const struct group *g)
{
	struct engine *e = request_engine(r);
	struct quarantine *q = e->channel->quarantine;
	if (e->now_ns - q->looked_ns >= LOOK_AGAIN_NS) {
		q->looked_ns = e->now_ns;
		expire(e, q);
	}
	const struct suspect *s = g->quarantine > 0 ? find_request(q, g->id, r) : NULL;
	char why[160];

	if (s == NULL || s->until_ns <= e->now_ns)
		return false;
	unsigned seconds = (unsigned)((s->until_ns - e->now_ns + 999999999) / 1000000000);
	snprintf(why, sizeof(why), "group \"%s\": in quarantine: it was running in %u workers when they died", g->name,
		s->deaths);
	r->group_name = g->name;
	answer_status(r, 503, why, seconds);
	return true;
}

/* ---- what Python may ask and say */

struct engine_text engine_suspect(engine *e, uint64_t token)
{
	struct quarantine *q = e->channel->quarantine;

	for (struct list *n = q->suspects.next; n != &q->suspects; n = n->next) {
		const struct suspect *s = list_entry(n, struct suspect, node);
		if (s->token == token)
			return (struct engine_text){s->text, s->size};
	}
	return (struct engine_text){"", 0};
}

int engine_suspected(engine *e, uint32_t group, struct engine_text name)
{
	const struct group *g = group_find(e, group);

	/* What tell() and others read as three texts must be three. */
	if (g == NULL || g->quarantine == 0 || name.size < 3 || name.size > WIRE_BLOCK ||
		memchr(name.data, 0, name.size) == NULL)
		return ENGINE_INVALID;
	size_t site = strlen(name.data) + 1;
	if (site >= name.size || memchr(name.data + site, 0, name.size - site) == NULL)
		return ENGINE_INVALID;
	engine_clock(e);
	died(e, g, name.data, name.size, "", false);
	return ENGINE_OK;
}

int engine_cleared(engine *e, uint32_t group, struct engine_text name)
{
	struct suspect *s = find(e->channel->quarantine, group, name.data, name.size);

	if (s == NULL)
		return ENGINE_STALE;
	s->deaths = 0;
	s->until_ns = 0;
	return ENGINE_OK;
}
