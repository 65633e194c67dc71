/* Names of request fields: one pass over a name checks that it is a token and finds the number of a known one. */
#include <stdlib.h>
#include <string.h>

#include "fields.h"
#include "http1.h"

/* Far more places than names, so that most are found at once and most unknown ones end at an empty place. */
#define PLACES 512

struct names {
	uint8_t place[PLACES]; /* number of a known field, 0: empty */
};

_Static_assert(WIRE_KNOWN_COUNT < 256, "numbers of known fields fit a byte");

static const struct engine_text known[] = {{"", 0},
#define X(symbol, name, cgi) {name, sizeof(name) - 1},
	WIRE_KNOWN_FIELDS(X)
#undef X
};

const unsigned char token_characters[256] = {
	['!'] = 1,
	['#'] = 1,
	['$'] = 1,
	['%'] = 1,
	['&'] = 1,
	['\''] = 1,
	['*'] = 1,
	['+'] = 1,
	['-'] = 1,
	['.'] = 1,
	['^'] = 1,
	['_'] = 1,
	['`'] = 1,
	['|'] = 1,
	['~'] = 1,
	['0' ... '9'] = 1,
	['A' ... 'Z'] = 1,
	['a' ... 'z'] = 1,
};

/* Letters to lower case, "-" and digits as they are. Other token characters may change; they are in no known name. */
static inline unsigned char fold(char c)
{
	return (unsigned char)c | 0x20;
}

static inline uint32_t mix(uint32_t hash, unsigned char c)
{
	return (hash ^ c) * 0x01000193;
}

static inline uint32_t place_of(uint32_t hash)
{
	return (hash ^ hash >> 15) % PLACES;
}

static bool same(const char *name, const char *lower, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (fold(name[i]) != (unsigned char)lower[i])
			return false;
	return true;
}

struct names *names_make(void)
{
	struct names *names = calloc(1, sizeof(*names));
	if (names == NULL)
		return NULL;
	for (unsigned number = 1; number < WIRE_KNOWN_COUNT; number++) {
		uint32_t hash = 0;
		for (size_t i = 0; i < known[number].size; i++)
			hash = mix(hash, (unsigned char)known[number].data[i]);
		uint32_t at = place_of(hash);
		while (names->place[at] != 0)
			at = (at + 1) % PLACES;
		names->place[at] = (uint8_t)number;
	}
	return names;
}

void names_free(struct names *names)
{
	free(names);
}

int name_known(const struct names *names, const char *name, size_t size)
{
	uint32_t hash = 0;
	bool underscore = false;
	unsigned char all = 1;
	if (size == 0)
		return FIELD_BAD;
	for (size_t i = 0; i < size; i++) {
		all &= token_characters[(unsigned char)name[i]];
		underscore |= name[i] == '_';
		hash = mix(hash, fold(name[i]));
	}
	if (!all)
		return FIELD_BAD;
	/* "X_Y" and "X-Y" become the same CGI variable, and "Proxy" becomes HTTP_PROXY, which libraries of applications
	   take for the operator's. By the others Rack (CVE-2025-61780), Plack and their like learn from a proxy how to
	   name files to it: that is us, and whoever else says them would choose files. */
	if (underscore || (size == 5 && same(name, "proxy", 5)) ||
		(size == 15 && (same(name, "x-sendfile-type", 15) || same(name, "x-accel-mapping", 15))))
		return FIELD_HIDDEN;
	for (uint32_t at = place_of(hash); names->place[at] != 0; at = (at + 1) % PLACES) {
		const struct engine_text *candidate = &known[names->place[at]];
		if (candidate->size == size && same(name, candidate->data, size))
			return names->place[at];
	}
	return 0;
}
