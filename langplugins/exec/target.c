/*
 * The request target that the program sees: as it came, if that means the path that the request was routed by.
 *
 * Routes are chosen by the decoded path without dot segments. A target that says the same in other words goes on as it
 * is, so that an encoded slash stays one; but "/public/../admin/x", which has been judged as "/admin/x", goes on as
 * that: a program that compares beginnings of paths would find another one in it than the routes did.
 */
#include "target.h"

#include <string.h>

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986, section 3.3: pchar, and the slash. */
static bool stays(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("/-._~!$&'()*+,;=:@", c));
}

size_t target_encode(struct langplugin_text path, char *to)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t at = 0;

	for (size_t i = 0; i < path.size; i++) {
		if (stays(path.data[i])) {
			to[at++] = path.data[i];
			continue;
		}
		to[at++] = '%';
		to[at++] = digits[(unsigned char)path.data[i] >> 4];
		to[at++] = digits[path.data[i] & 15];
	}
	return at;
}

static bool means(struct langplugin_text raw, struct langplugin_text path)
{
	size_t at = 0;

	for (size_t i = 0; i < raw.size; i++, at++) {
		char c = raw.data[i];
		if (c == '%') {
			int high = i + 2 < raw.size ? hex(raw.data[i + 1]) : -1;
			int low = i + 2 < raw.size ? hex(raw.data[i + 2]) : -1;
			if (high < 0 || low < 0)
				return false;
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (at == path.size || path.data[at] != c)
			return false;
	}
	return at == path.size;
}

/* Of the absolute form (RFC 9112, section 3.2.2), what would have been the origin form. */
static struct langplugin_text without_authority(struct langplugin_text target)
{
	const char *at = strstr(target.data, "://");

	if (target.size == 0 || target.data[0] == '/' || !at)
		return target;
	size_t begin = (size_t)(at - target.data) + 3;
	begin += strcspn(target.data + begin, "/?");
	return (struct langplugin_text){target.data + begin, target.size - begin};
}

size_t target_room(const struct langplugin_request *request)
{
	return request->target.size + 3 * request->path.size + 3 * request->path_info.size + 2;
}

size_t target_make(const struct langplugin_request *request, bool strip_prefix, char *to)
{
	struct langplugin_text target = without_authority(request->target), raw = target;
	size_t size = strcspn(target.data, "?"), mount = request->script_name.size, at = 0;

	if (target.size == 1 && target.data[0] == '*') {
		to[0] = '*';
		return 1;
	}
	raw.size = size < raw.size ? size : raw.size;
	bool as_it_came = means(raw, request->path);
	if (strip_prefix && as_it_came) {
		as_it_came = raw.size >= mount && memcmp(raw.data, request->script_name.data, mount) == 0 &&
			     (raw.size == mount || raw.data[mount] == '/');
		if (as_it_came) {
			raw.data += mount;
			raw.size -= mount;
		}
	}
	if (as_it_came) {
		memcpy(to, raw.data, raw.size);
		at = raw.size;
	} else {
		at = target_encode(strip_prefix ? request->path_info : request->path, to);
	}
	if (at == 0)
		to[at++] = '/';
	memcpy(to + at, target.data + size, target.size - size);
	return at + target.size - size;
}
