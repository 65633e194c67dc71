/* The Range field: see ranges.h. */
#include "ranges.h"

#include <stdbool.h>
#include <string.h>

struct reader {
	const char *at, *end;
};

static void skip_space(struct reader *r)
{
	while (r->at < r->end && (*r->at == ' ' || *r->at == '\t'))
		r->at++;
}

static bool take(struct reader *r, char c)
{
	if (r->at == r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

/* Digits, at least one. What does not fit is as good as the largest number: no file is that long. */
static bool take_number(struct reader *r, uint64_t *value)
{
	const char *start = r->at;
	*value = 0;
	while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
		unsigned digit = (unsigned)(*r->at++ - '0');
		if (*value > (UINT64_MAX - digit) / 10)
			*value = UINT64_MAX;
		else
			*value = *value * 10 + digit;
	}
	return r->at > start;
}

/* "bytes=", the unit in any case (section 14.1). */
static bool take_unit(struct reader *r)
{
	static const char unit[] = "bytes";
	for (size_t i = 0; i < sizeof unit - 1; i++)
		if (r->at == r->end || (*r->at++ | 0x20) != unit[i])
			return false;
	return take(r, '=');
}

/* One int-range or suffix-range. False: wrong syntax. range->size 0: it cannot be satisfied. */
static bool take_range(struct reader *r, uint64_t size, struct range *range)
{
	uint64_t first, last;
	range->size = 0;
	if (take(r, '-')) {
		if (!take_number(r, &last))
			return false;
		range->size = last < size ? last : size;
		range->first = size - range->size;
		return true;
	}
	if (!take_number(r, &first) || !take(r, '-'))
		return false;
	if (!take_number(r, &last))
		last = UINT64_MAX;
	else if (last < first)
		return false;
	if (first < size) {
		range->first = first;
		range->size = (last < size ? last : size - 1) - first + 1;
	}
	return true;
}

/* Adds the range, joined with the one before it if they touch; what came out may in turn touch the one before that. */
static void add(struct range *ranges, size_t *count, struct range next)
{
	while (*count > 0) {
		struct range p = ranges[*count - 1];
		uint64_t p_end = p.first + p.size, next_end = next.first + next.size;
		if (next.first > p_end || p.first > next_end)
			break;
		next.first = p.first < next.first ? p.first : next.first;
		next.size = (p_end > next_end ? p_end : next_end) - next.first;
		--*count;
	}
	ranges[(*count)++] = next;
}

enum ranges_result ranges_parse(
	const char *value, size_t value_size, uint64_t size, struct range *ranges, size_t *count)
{
	struct reader r = {value, value + value_size};
	struct range next;
	uint64_t sum = 0;
	size_t seen = 0;
	*count = 0;
	if (!take_unit(&r) || size == 0)
		return RANGES_WHOLE;
	for (;;) {
		skip_space(&r);
		if (r.at == r.end)
			break;
		if (take(&r, ','))
			continue; /* empty list elements are allowed: section 5.6.1 */
		if (!take_range(&r, size, &next))
			return RANGES_WHOLE;
		skip_space(&r);
		if (r.at < r.end && *r.at != ',')
			return RANGES_WHOLE;
		if (++seen > RANGES_MAX)
			return RANGES_WHOLE;
		if (next.size == 0)
			continue;
		if (next.size > size - sum)
			return RANGES_WHOLE;
		sum += next.size;
		add(ranges, count, next);
	}
	if (seen == 0)
		return RANGES_WHOLE;
	return *count > 0 ? RANGES_PARTS : RANGES_UNSATISFIABLE;
}
