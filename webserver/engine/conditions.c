/* Conditional requests: see conditions.h. */
#include "conditions.h"

#include <string.h>

#include "dates.h"

struct reader {
	const char *at, *end;
};

static void skip_space(struct reader *r)
{
	while (r->at < r->end && (*r->at == ' ' || *r->at == '\t'))
		r->at++;
}

/* entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE (section 8.8.3). tag is what stands from quote to quote, both included. */
static bool take_etag(struct reader *r, bool *weak, struct engine_text *tag)
{
	*weak = r->end - r->at >= 2 && r->at[0] == 'W' && r->at[1] == '/';
	if (*weak)
		r->at += 2;
	const char *start = r->at;
	if (r->at == r->end || *r->at++ != '"')
		return false;
	while (r->at < r->end && *r->at != '"') {
		unsigned char c = (unsigned char)*r->at++;
		if (c < 0x21 || c == 0x7f)
			return false;
	}
	if (r->at == r->end)
		return false;
	r->at++;
	*tag = (struct engine_text){start, (size_t)(r->at - start)};
	return true;
}

static bool same(struct engine_text a, struct engine_text b)
{
	return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

/* The tag for comparisons that a weak one always fails (section 8.8.3.2), and for those where weakness is no matter. */
static struct engine_text strong(struct engine_text etag)
{
	return etag.size > 0 && etag.data[0] == '"' ? etag : (struct engine_text){"", 0};
}

static struct engine_text opaque(struct engine_text etag)
{
	return etag.size > 2 && etag.data[0] == 'W' ? (struct engine_text){etag.data + 2, etag.size - 2} : etag;
}

bool etag_list_has(struct engine_text list, struct engine_text etag, bool weak_comparison)
{
	struct reader r = {list.data, list.data + list.size};
	bool found = false, weak;
	struct engine_text tag;
	skip_space(&r);
	if (r.end - r.at >= 1 && *r.at == '*') {
		r.at++;
		skip_space(&r);
		return r.at == r.end;
	}
	for (;;) {
		skip_space(&r);
		if (r.at == r.end)
			return found;
		if (*r.at == ',') {
			r.at++;
			continue;
		}
		if (!take_etag(&r, &weak, &tag))
			return false;
		if (same(tag, etag) && (weak_comparison || !weak))
			found = true;
		skip_space(&r);
		if (r.at < r.end && *r.at != ',')
			return false;
	}
}

static bool any_line_has(const struct engine_text *lines, size_t count, struct engine_text etag, bool weak_comparison)
{
	if (count > CONDITION_LINES)
		return false;
	for (size_t i = 0; i < count; i++)
		if (etag_list_has(lines[i], etag, weak_comparison))
			return true;
	return false;
}

/* Each condition: absent, or true or false. A date that is none counts as absent (sections 13.1.3, 13.1.4). */
enum truth { ABSENT, TRUE, FALSE };

static enum truth truth(bool value)
{
	return value ? TRUE : FALSE;
}

static enum truth if_match(const struct conditions *c, const struct validators *v)
{
	return c->if_match_count == 0 ? ABSENT
				      : truth(any_line_has(c->if_match, c->if_match_count, strong(v->etag), false));
}

static enum truth if_none_match(const struct conditions *c, const struct validators *v)
{
	return c->if_none_match_count == 0
		       ? ABSENT
		       : truth(!any_line_has(c->if_none_match, c->if_none_match_count, opaque(v->etag), true));
}

static enum truth if_unmodified_since(const struct conditions *c, const struct validators *v)
{
	int64_t date;
	struct engine_text t = c->if_unmodified_since;
	return t.data == NULL || !date_parse(t.data, t.size, v->now, &date) ? ABSENT : truth(v->modified <= date);
}

static enum truth if_modified_since(const struct conditions *c, const struct validators *v)
{
	int64_t date;
	struct engine_text t = c->if_modified_since;
	return t.data == NULL || !date_parse(t.data, t.size, v->now, &date) ? ABSENT : truth(v->modified > date);
}

/* Section 13.1.5: strong comparison; a date is strong only if the file was at rest for a second (section 8.8.2.2). */
static enum truth if_range(const struct conditions *c, const struct validators *v)
{
	struct engine_text t = c->if_range, tag;
	int64_t date;
	bool weak;
	if (t.data == NULL)
		return ABSENT;
	struct reader r = {t.data, t.data + t.size};
	if (take_etag(&r, &weak, &tag))
		return truth(r.at == r.end && !weak && same(tag, strong(v->etag)));
	return truth(date_parse(t.data, t.size, v->now, &date) && date == v->modified && v->modified < v->now);
}

/*
 * Section 13.2.2, step by step: the first line whose condition says something other than GO_ON decides. A line
 * does not count when the one that replaces it was there.
 */
enum { GO_ON = -1 };

static const struct {
	enum truth (*condition)(const struct conditions *, const struct validators *);
	int replaced_by; /* the line that, when its field is there, makes this one not count; -1: none */
	int when_true, when_false;
} steps[] = {
	/* 1 */ {if_match, -1, GO_ON, CONDITION_FAILED},
	/* 2 */ {if_unmodified_since, 0, GO_ON, CONDITION_FAILED},
	/* 3 */ {if_none_match, -1, GO_ON, CONDITION_NOT_MODIFIED}, /* GET and HEAD; other methods never come here */
	/* 4 */ {if_modified_since, 2, GO_ON, CONDITION_NOT_MODIFIED},
	/* 5 */ {if_range, -1, CONDITION_PROCEED, CONDITION_WHOLE},
};

enum condition_result conditions_check(const struct conditions *c, const struct validators *v)
{
	enum truth was[sizeof steps / sizeof *steps];
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		bool counts = steps[i].replaced_by < 0 || was[steps[i].replaced_by] == ABSENT;
		was[i] = counts ? steps[i].condition(c, v) : ABSENT;
		int result = was[i] == TRUE ? steps[i].when_true : was[i] == FALSE ? steps[i].when_false : GO_ON;
		if (result != GO_ON)
			return (enum condition_result)result;
	}
	return CONDITION_PROCEED;
}
