/* Which fields are about one connection, and so go no further (RFC 9110, section 7.6.1). Tables. */
#include <string.h>
#include <strings.h>

#include "exec.h"

bool text_is(struct langplugin_text text, const char *lower)
{
	return strlen(lower) == text.size && strncasecmp(text.data, lower, text.size) == 0;
}

bool field_is_of_connection(struct langplugin_text name)
{
	static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding",
		"upgrade", "http2-settings", "trailer"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (text_is(name, names[i]))
			return true;
	return false;
}

bool list_names(struct langplugin_text list, struct langplugin_text name)
{
	const char *at = list.data, *end = list.data + list.size;

	while (at < end) {
		const char *comma = memchr(at, ',', (size_t)(end - at)), *last = comma ? comma : end;
		const char *next = comma ? comma + 1 : end;
		while (at < last && (*at == ' ' || *at == '\t'))
			at++;
		while (last > at && (last[-1] == ' ' || last[-1] == '\t'))
			last--;
		if ((size_t)(last - at) == name.size && strncasecmp(at, name.data, name.size) == 0)
			return true;
		at = next;
	}
	return false;
}
