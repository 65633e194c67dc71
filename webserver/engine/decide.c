/*
 * Whether a decision that came from Python can be carried out and remembered.
 *
 * Python is trusted to decide, not to be free of mistakes: what is wrong here is refused before it is in the table,
 * where it would be wrong for many requests.
 */
#include <string.h>

#include "decisions.h"
#include "fixed.h"
#include "route.h"
#include "sites.h"

static bool text_ok(struct engine_text text)
{
	return text.size == 0 || text.data != NULL;
}

static bool begins(struct engine_text text, struct engine_text with)
{
	return text.size >= with.size && memcmp(text.data, with.data, with.size) == 0;
}

static bool extension_ok(struct engine_text x)
{
	return text_ok(x) && x.size >= 2 && x.size <= DECISION_EXTENSION && x.data[0] == '.' &&
	       memchr(x.data, '/', x.size) == NULL && memchr(x.data, 0, x.size) == NULL;
}

static bool any_ok(const struct decisions *all, const struct engine_decision *d, const struct engine_choice *c)
{
	(void)all, (void)d, (void)c; /* roots and groups may come and go: who carries it out looks */
	return true;
}

static bool script_ok(const struct decisions *all, const struct engine_decision *d, const struct engine_choice *c)
{
	(void)all;
	return d->extension.size > 0 && c->script.size > 0 && c->script.data[0] == '/' &&
	       memchr(c->script.data, 0, c->script.size) == NULL;
}

static bool run_ok(const struct decisions *all, const struct engine_decision *d, const struct engine_choice *c)
{
	(void)all, (void)d;
	return c->script.size > 0 && c->script.data[0] == '/' && memchr(c->script.data, 0, c->script.size) == NULL;
}

static bool internal_ok(const struct decisions *all, const struct engine_decision *d, const struct engine_choice *c)
{
	(void)all, (void)d;
	return c->script.size > 0 && c->script.data[0] == '/' && memchr(c->script.data, 0, c->script.size) == NULL;
}

static bool status_ok(const struct decisions *all, const struct engine_decision *d, const struct engine_choice *c)
{
	(void)all, (void)d;
	return c->target >= 200 && c->target <= 599;
}

static bool fixed_ok(const struct decisions *all, const struct engine_decision *d, const struct engine_choice *c)
{
	(void)d;
	return fixed_known(all->fixed, c->target);
}

static bool (*const choice_ok[])(
	const struct decisions *, const struct engine_decision *, const struct engine_choice *) = {
	[CHOICE_FILE] = any_ok,
	[CHOICE_GROUP] = any_ok,
	[CHOICE_SCRIPT] = script_ok,
	[CHOICE_INTERNAL] = internal_ok,
	[CHOICE_STATUS] = status_ok,
	[CHOICE_FIXED] = fixed_ok,
	[CHOICE_GREEN] = any_ok,
	[CHOICE_RUN] = run_ok,
};

static bool choices_ok(const struct decisions *all, const struct engine_decision *d)
{
	if (d->choices == NULL || d->choice_count < 1 || d->choice_count > DECISION_CHOICES)
		return false;
	for (size_t i = 0; i < d->choice_count; i++) {
		const struct engine_choice *c = &d->choices[i];
		if (c->kind < CHOICE_FILE || c->kind > CHOICE_RUN || !text_ok(c->script) ||
			!choice_ok[c->kind](all, d, c))
			return false;
	}
	return true;
}

/* What it says it holds for must hold for the request that it was made for. */
static bool scope_ok(const struct request *r, const struct engine_decision *d)
{
	struct engine_text p = d->prefix;
	if (d->extension.size > 0 && !extension_ok(d->extension))
		return false;
	if (d->scope != SCOPE_PREFIX)
		return d->scope == SCOPE_ONCE || d->scope == SCOPE_EXACT;
	if (!text_ok(p) || p.size == 0 || p.data[p.size - 1] != '/' || !begins(r->path, p))
		return false;
	if (d->extension.size > 0 && extension_end(r->path, 0, d->extension) == 0)
		return false;
	if (d->except_prefix_count > DECISION_EXCEPTIONS || d->except_extension_count > DECISION_EXTENSIONS)
		return false;
	for (size_t i = 0; i < d->except_prefix_count; i++)
		if (!text_ok(d->except_prefixes[i]))
			return false;
	for (size_t i = 0; i < d->except_extension_count; i++)
		if (!extension_ok(d->except_extensions[i]))
			return false;
	return true;
}

bool decision_valid(const struct decisions *all, const struct request *r, const struct engine_decision *d)
{
	return site_by_id(all->sites, d->site) != NULL && scope_ok(r, d) && choices_ok(all, d);
}
