/*
 * What both ends of the channel know of HTTP and neither takes the other's word for: characters, names of fields that
 * do not belong where they are, and which protocol a client has offered to change to. Pure.
 */
#ifndef WEBSERVER_WIRE_HTTP_H
#define WEBSERVER_WIRE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

/* RFC 9110, sections 5.6.2 and 5.5: bit 0, may be in a token; bit 1, may be in a field value. */
static const uint8_t wire_characters[256] = {
	['\t'] = 2,
	[' '] = 2,
	['!'] = 3,
	['"'] = 2,
	['#' ... '\''] = 3,
	['('] = 2,
	[')'] = 2,
	['*' ... '+'] = 3,
	[','] = 2,
	['-' ... '.'] = 3,
	['/'] = 2,
	['0' ... '9'] = 3,
	[':' ... '@'] = 2,
	['A' ... 'Z'] = 3,
	['[' ... ']'] = 2,
	['^' ... 'z'] = 3,
	['{'] = 2,
	['|'] = 3,
	['}'] = 2,
	['~'] = 3,
	[0x80 ... 0xff] = 2,
};

static inline bool wire_all(const char *data, size_t size, uint8_t bit)
{
	uint8_t seen = 0xff;

	for (size_t i = 0; i < size; i++)
		seen &= wire_characters[(uint8_t)data[i]];
	return (seen & bit) != 0;
}

static inline bool wire_is_token(const char *data, size_t size)
{
	return size > 0 && wire_all(data, size, 1);
}

static inline bool wire_is_value(const char *data, size_t size)
{
	return wire_all(data, size, 2);
}

static inline bool wire_is_word(const char *data, size_t size, const char *lower)
{
	/* Nearly always the first letter decides. */
	return size > 0 && (data[0] | 0x20) == lower[0] && strlen(lower) == size && strncasecmp(data, lower, size) == 0;
}

/* A Content-Length's value; -1: it is not one. */
static inline int64_t wire_length(const char *data, size_t size)
{
	int64_t length = 0;

	if (size == 0 || size > 18)
		return -1;
	for (size_t i = 0; i < size; i++) {
		if (data[i] < '0' || data[i] > '9')
			return -1;
		length = length * 10 + (data[i] - '0');
	}
	return length;
}

static inline bool wire_is_one_of(const char *data, size_t size, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (wire_is_word(data, size, words[i]))
			return true;
	return false;
}

/* RFC 9110, section 7.6.1, and those that frame a message: they are of one connection, and that is the front end's. */
static inline bool wire_is_connection_field(const char *name, size_t size)
{
	static const char *const words[] = {
		"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "proxy-connection"};

	return wire_is_one_of(name, size, words, sizeof(words) / sizeof(words[0]));
}

/* RFC 9110, section 6.5.1: what frames a message, routes it, modifies a request, authenticates, controls an answer or
   says how content is to be taken comes before the content or not at all. */
static inline bool wire_may_be_trailer(const char *name, size_t size)
{
	static const char *const words[] = {"content-length", "host", "cache-control", "expect", "max-forwards",
		"pragma", "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range",
		"authorization", "proxy-authorization", "www-authenticate", "proxy-authenticate", "cookie",
		"set-cookie", "age", "expires", "date", "location", "retry-after", "vary", "warning",
		"content-encoding", "content-type", "content-range"};

	return !wire_is_connection_field(name, size) &&
	       !wire_is_one_of(name, size, words, sizeof(words) / sizeof(words[0]));
}

/*
 * The next protocol of an Upgrade field's list, from *at on: its size, 0 at the end. *at is moved behind it, and *name
 * set to it. (RFC 9110, section 7.8: protocol-name ["/" protocol-version], separated by commas.)
 */
static inline size_t wire_next_protocol(const char *list, size_t size, size_t *at, const char **name)
{
	while (*at < size && (list[*at] == ',' || list[*at] == ' ' || list[*at] == '\t'))
		++*at;
	*name = list + *at;
	while (*at < size && list[*at] != ',')
		++*at;
	size_t length = (size_t)(list + *at - *name);
	while (length > 0 && ((*name)[length - 1] == ' ' || (*name)[length - 1] == '\t'))
		length--;
	return length;
}

/* HTTP/2 in plain text is the front end's to speak: an application that did would get requests past its rules. */
static inline bool wire_is_refused_protocol(const char *name, size_t size)
{
	return wire_is_word(name, size, "h2c");
}

/* True if the list offers anything that may be changed to. */
static inline bool wire_offers(const char *list, size_t size)
{
	const char *name;

	for (size_t at = 0, length; (length = wire_next_protocol(list, size, &at, &name)) > 0;)
		if (!wire_is_refused_protocol(name, length))
			return true;
	return false;
}

/* True if the list offers just this protocol, and it may be changed to. */
static inline bool wire_offers_protocol(const char *list, size_t size, const char *one, size_t one_size)
{
	const char *name;

	for (size_t at = 0, length; (length = wire_next_protocol(list, size, &at, &name)) > 0;)
		if (length == one_size && strncasecmp(name, one, length) == 0)
			return !wire_is_refused_protocol(name, length);
	return false;
}

#endif
