/*
 * Where a request goes: the remembered decision, or Python's answer, and its choices one after the other.
 *
 * Owns e->decisions: the table of decisions, the sites and the fixed answers. Which host or path goes where is nowhere
 * in here; it carries out what the table says.
 */
#include "route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decisions.h"
#include "files.h"
#include "fixed.h"
#include "sites.h"

#define LOGGED	  256 /* bytes of a text that a line of the error log has */
#define INTERNALS 8   /* times that one request is routed again; more is a loop in the configuration */

int decisions_make(engine *e)
{
	struct decisions *all = calloc(1, sizeof *all);
	if (all == NULL)
		return -1;
	e->decisions = all;
	all->table = decisions_new(e->limits.decisions);
	all->sites = sites_new();
	all->fixed = fixed_new();
	if (all->table != NULL && all->sites != NULL && all->fixed != NULL)
		return 0;
	decisions_free(e);
	return -1;
}

void decisions_free(engine *e)
{
	struct decisions *all = e->decisions;
	if (all == NULL)
		return;
	if (all->table != NULL)
		decisions_delete(all->table);
	sites_delete(all->sites);
	fixed_delete(all->fixed);
	free(all);
	e->decisions = NULL;
}

int engine_site(engine *e, uint32_t id, const char *name, const char *document_root, uint64_t max_body)
{
	return site_set(e->decisions->sites, id, name, document_root, max_body);
}

int engine_sendfile(engine *e, uint32_t site, const uint32_t *roots, size_t count)
{
	return site_sendfile(e->decisions->sites, site, roots, count);
}

void engine_site_forget(engine *e, uint32_t id)
{
	site_forget(e->decisions->sites, id);
}

void engine_forget_all(engine *e)
{
	decisions_clear(e->decisions->table);
}

int engine_fixed(
	engine *e, uint32_t id, int status, const struct engine_field *fields, size_t count, struct engine_text body)
{
	return fixed_set(e->decisions->fixed, id, status, fields, count, body);
}

/* ---- what a choice does; each may end the request */

static struct engine_text from(struct engine_text text, size_t at)
{
	return (struct engine_text){text.data + at, text.size - at};
}

static struct engine_text upto(struct engine_text text, size_t size)
{
	return (struct engine_text){text.data, size < text.size ? size : text.size};
}

static void choose_file(struct request *r, const struct choice *c)
{
	static_start(r, c->target, from(r->path, c->strip));
}

static void choose_group(struct request *r, const struct choice *c)
{
	size_t name = c->strip;
	if (name > 0 && r->path.data[name - 1] == '/')
		name--;
	group_start(r, c->target, upto(r->path, name), from(r->path, name), TEXT(""));
}

static void choose_script(struct request *r, const struct choice *c)
{
	size_t end = extension_end(r->path, c->strip, r->decision->extension);
	if (end == 0) {
		route_next(r, "no part of the path ends in the script's extension");
		return;
	}
	if (!path_allowed(upto(from(r->path, 1), end - 1), c->flags & CHOICE_DOTFILES ? ROOT_DOTFILES : 0)) {
		route_next(r, "a name that begins with a dot, and dotfiles = deny");
		return;
	}
	/* The root's path, then the script's: the path begins with "/", so the root must not end with one. */
	struct engine_text root = c->script;
	while (root.size > 0 && root.data[root.size - 1] == '/')
		root.size--;
	char *file = request_alloc(r, root.size + end);
	if (file == NULL) {
		answer_status(r, 503, "no memory for the script's path", 1);
		return;
	}
	if (root.size > 0)
		memcpy(file, root.data, root.size);
	memcpy(file + root.size, r->path.data, end);
	r->script_end = (uint32_t)end;
	group_start(r, c->target, upto(r->path, end), from(r->path, end), (struct engine_text){file, root.size + end});
}

static void choose_run(struct request *r, const struct choice *c)
{
	size_t name = c->strip;
	if (name > 0 && r->path.data[name - 1] == '/')
		name--;
	/* The decision, and its text with it, is the request's until it is over: no other choice follows a group. */
	group_start(r, c->target, upto(r->path, name), from(r->path, name), c->script);
}

static void choose_internal(struct request *r, const struct choice *c)
{
	char *path = request_alloc(r, c->script.size); /* the decision goes when the request is routed again */
	if (path == NULL) {
		answer_status(r, 503, "no memory for an internal path", 1);
		return;
	}
	memcpy(path, c->script.data, c->script.size);
	route_internal(r, (struct engine_text){path, c->script.size});
}

static void choose_status(struct request *r, const struct choice *c)
{
	char why[1024];
	struct engine_text reason = c->script.size > 0 ? c->script : TEXT("the route says so");
	snprintf(why, sizeof why, "%.*s: %.*s%.*s", (int)upto(reason, LOGGED).size, reason.data,
		(int)upto(r->server_name, LOGGED).size, r->server_name.data, (int)upto(r->path, LOGGED).size,
		r->path.data);
	answer_status(r, (int)c->target, c->target < 400 ? NULL : why, 0);
}

static void choose_fixed(struct request *r, const struct choice *c)
{
	fixed_answer(r, request_engine(r)->decisions->fixed, c->target);
}

static void choose_green(struct request *r, const struct choice *c)
{
	green_start(r, c->target);
}

static void (*const carry_out[])(struct request *r, const struct choice *c) = {
	[CHOICE_FILE] = choose_file,
	[CHOICE_GROUP] = choose_group,
	[CHOICE_SCRIPT] = choose_script,
	[CHOICE_INTERNAL] = choose_internal,
	[CHOICE_STATUS] = choose_status,
	[CHOICE_FIXED] = choose_fixed,
	[CHOICE_GREEN] = choose_green,
	[CHOICE_RUN] = choose_run,
};

/* ---- one request */

const struct choice *route_choice(const struct request *r)
{
	if (r->decision == NULL || r->choice >= r->decision->choice_count)
		return NULL;
	return &r->decision->choices[r->choice];
}

bool decision_gathers(const struct decision *d)
{
	return d->gather;
}

struct engine_text decision_extension(const struct decision *d)
{
	return d->extension;
}

static void try_choice(struct request *r, const char *why)
{
	const struct choice *c;
	while ((c = route_choice(r)) != NULL && c->strip > r->path.size)
		r->choice++;
	if (c == NULL)
		answer_status(r, 404, why, 0);
	else
		carry_out[c->kind](r, c);
}

bool route_is_last(const struct request *r)
{
	return r->decision == NULL || r->choice + 1 >= r->decision->choice_count;
}

void route_next(struct request *r, const char *why)
{
	r->choice++;
	try_choice(r, why);
}

/* Takes the reference. */
static void follow(struct request *r, struct decision *d)
{
	if (r->decision != NULL)
		decision_release(r->decision);
	r->decision = d;
	r->site = d->site;
	r->choice = 0;
	r->script_end = 0;
	try_choice(r, "no choice of the decision is for this path");
}

/* Keys are compared with memcmp, which may not be given NULL. */
static struct engine_text present(struct engine_text text)
{
	return text.data == NULL ? TEXT("") : text;
}

void route_start(struct request *r)
{
	engine *e = request_engine(r);
	struct decision *d = decisions_find(e->decisions->table, present(r->server_name), present(r->path), r->method);
	if (d == NULL) {
		e->stats.decisions_asked++;
		r->state = REQUEST_DECIDING;
		event_push(e, EVENT_DECIDE)->token = request_token(r);
		return;
	}
	e->stats.decisions_hit++;
	follow(r, decision_ref(d));
}

void route_internal(struct request *r, struct engine_text path)
{
	if (++r->internals > INTERNALS) {
		answer_status(r, 500, "routed internally more than 8 times: the routes of this site form a loop", 0);
		return;
	}
	r->path = path;
	route_start(r);
}

int engine_decide(engine *e, uint64_t token, const struct engine_decision *from_python)
{
	struct request *r = request_by_token(e, token);
	if (r == NULL || r->state != REQUEST_DECIDING)
		return ENGINE_STALE;
	if (!decision_valid(e->decisions, r, from_python))
		return ENGINE_INVALID;
	struct site *site = site_by_id(e->decisions->sites, from_python->site);
	decisions_limit(e->decisions->table, e->limits.decisions); /* a reload may have changed it */
	struct decision *d = decisions_add(
		e->decisions->table, from_python, site, present(r->server_name), present(r->path), r->method);
	if (d == NULL)
		return ENGINE_SYSTEM;
	follow(r, d);
	engine_again(e);
	return ENGINE_OK;
}
