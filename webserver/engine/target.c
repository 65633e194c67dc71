/*
 * The request target (RFC 9112, section 3.2) and its path. Pure functions.
 *
 * A path is decoded first and then freed of dot segments, so that nothing hides behind an escape: "%2e%2e" climbs and
 * "%2F" separates, as for every WSGI and CGI application that gets a decoded path. Empty segments go, but for the one
 * at the end. A path that climbs above the root, or holds a NUL, is refused rather than mended.
 */
#include <string.h>

#include "http1.h"

/* RFC 1035, section 2.3.4, with a dot at the end. What is remembered about a host holds its name, so strangers must not
   make that long. */
#define HOST_LONGEST 254

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int refuse(int status, const char *text, const char **why)
{
	*why = text;
	return status;
}

static bool begins_with(struct engine_text text, const char *lower, size_t size)
{
	if (text.size < size)
		return false;
	for (size_t i = 0; i < size; i++)
		if ((text.data[i] | 0x20) != (lower[i] | 0x20))
			return false;
	return true;
}

int target_split(struct engine_text target, struct target *parts, const char **why)
{
	*parts = (struct target){.path = {"/", 1}, .query = {"", 0}};
	for (size_t i = 0; i < target.size; i++)
		if ((signed char)target.data[i] <= ' ' || target.data[i] == 0x7f ||
			target.data[i] == '#') /* above 127 is below 0 */
			return refuse(400, "the request target has a character that is not allowed in a URI", why);
	if (text_is(target, "*", 1)) {
		parts->path = target;
		return 0;
	}
	if (target.data[0] != '/') {
		size_t scheme = begins_with(target, "http://", 7) ? 7 : begins_with(target, "https://", 8) ? 8 : 0;
		if (scheme == 0)
			return refuse(400, "the request target is neither a path nor an http URI", why);
		size_t end = scheme;
		while (end < target.size && target.data[end] != '/' && target.data[end] != '?')
			end++;
		parts->authority = (struct engine_text){target.data + scheme, end - scheme};
		target.data += end;
		target.size -= end;
	}
	const char *mark = memchr(target.data, '?', target.size);
	size_t path = mark != NULL ? (size_t)(mark - target.data) : target.size;
	if (mark != NULL)
		parts->query = (struct engine_text){mark + 1, target.size - path - 1};
	if (path > 0)
		parts->path = (struct engine_text){target.data, path};
	return 0;
}

bool target_path_is_plain(struct engine_text raw)
{
	for (size_t i = 0; i < raw.size; i++) {
		if (raw.data[i] == '%')
			return false;
		if (raw.data[i] == '/' && i + 1 < raw.size && (raw.data[i + 1] == '.' || raw.data[i + 1] == '/'))
			return false;
	}
	return true;
}

static int decode(struct engine_text raw, char *room, size_t *size, const char **why)
{
	size_t out = 0;
	for (size_t i = 0; i < raw.size; i++) {
		char c = raw.data[i];
		if (c == '%') {
			int high = i + 2 < raw.size ? hex(raw.data[i + 1]) : -1;
			int low = i + 2 < raw.size ? hex(raw.data[i + 2]) : -1;
			if (high < 0 || low < 0)
				return refuse(400, "the path has a % that two hexadecimal digits do not follow", why);
			c = (char)(high << 4 | low);
			if (c == '\0')
				return refuse(400, "the path has an encoded NUL", why);
			i += 2;
		}
		room[out++] = c;
	}
	*size = out;
	return 0;
}

int target_path(struct engine_text raw, char *room, struct engine_text *path, const char **why)
{
	if (target_path_is_plain(raw)) {
		*path = raw;
		return 0;
	}
	size_t size, out = 0;
	int status = decode(raw, room, &size, why);
	if (status != 0)
		return status;
	/* In place: what is written never overtakes what is read. Each round takes one segment with its leading "/".
	   Slashes that follow one another are one: every file system and many applications take them so, and a route
	   for "/private" must not be walked around by "//private". */
	for (size_t i = 0; i < size;) {
		const char *next = memchr(room + i + 1, '/', size - i - 1);
		size_t end = next != NULL ? (size_t)(next - room) : size;
		size_t segment = end - i - 1;
		bool last = end == size;
		if (segment == 1 && room[i + 1] == '.') {
			if (last)
				room[out++] = '/';
		} else if (segment == 2 && room[i + 1] == '.' && room[i + 2] == '.') {
			if (out == 0)
				return refuse(400, "the path climbs above the root", why);
			do
				out--;
			while (room[out] != '/');
			if (last)
				room[out++] = '/';
		} else if (segment == 0) {
			if (last)
				room[out++] = '/';
		} else {
			memmove(room + out, room + i, end - i);
			out += end - i;
		}
		i = end;
	}
	if (out == 0)
		room[out++] = '/';
	*path = (struct engine_text){room, out};
	return 0;
}

/* reg-name of RFC 3986 without escapes and delimiters: no name that resolves has one, and names are compared as they
   are. */
static bool name_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
	       c == '_' || c == '~';
}

/* Bytes of the host at the beginning of authority; 0: there is none, or it is not valid. */
static size_t host_size(struct engine_text authority)
{
	if (authority.size > 0 && authority.data[0] == '[') {
		char text[INET6_ADDRSTRLEN];
		struct in6_addr address;
		const char *close = memchr(authority.data, ']', authority.size);
		size_t size = close != NULL ? (size_t)(close - authority.data) - 1 : 0;
		if (size == 0 || size >= sizeof(text))
			return 0;
		memcpy(text, authority.data + 1, size);
		text[size] = '\0';
		return inet_pton(AF_INET6, text, &address) == 1 ? size + 2 : 0;
	}
	size_t at = 0;
	for (; at < authority.size && name_character(authority.data[at]); at++)
		if (authority.data[at] == '.' && (at == 0 || authority.data[at - 1] == '.'))
			return 0; /* an empty label */
	return at;
}

bool authority_valid(struct engine_text authority, struct engine_text *name)
{
	size_t at = host_size(authority);
	if (at == 0 || at > HOST_LONGEST)
		return false;
	*name = (struct engine_text){authority.data, at};
	if (authority.data[at - 1] == '.')
		name->size--;
	if (at == authority.size)
		return true;
	if (authority.data[at] != ':' || authority.size - at > 6)
		return false;
	unsigned port = 0;
	for (at++; at < authority.size; at++) {
		if (authority.data[at] < '0' || authority.data[at] > '9')
			return false;
		port = port * 10 + (unsigned)(authority.data[at] - '0');
	}
	return port <= 65535;
}
