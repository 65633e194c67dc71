/* Strangers' bytes made safe for log lines: see escape.h. */
#include "escape.h"

#include <stdbool.h>
#include <string.h>

static const char hex[] = "0123456789abcdef";

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* The part at the beginning that needs no escape. */
static size_t plain_size(const char *data, size_t size)
{
	size_t n = 0;
	while (n < size && is_plain((unsigned char)data[n]))
		n++;
	return n;
}

char *escape_combined(char *out, size_t room, const char *data, size_t size)
{
	while (size > 0) {
		size_t n = plain_size(data, size);
		if (n > 0) {
			n = n < room ? n : room;
			memcpy(out, data, n);
			out += n;
			room -= n;
			data += n;
			size -= n;
			if (room == 0)
				break;
			continue;
		}
		if (room < 4)
			break;
		unsigned char c = (unsigned char)*data;
		char text[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};
		memcpy(out, text, 4);
		out += 4;
		room -= 4;
		data++;
		size--;
	}
	return out;
}

/* The length of the well-formed UTF-8 sequence at the beginning (RFC 3629 section 4); 0: none. */
static size_t sequence_size(const unsigned char *s, size_t size)
{
	static const struct {
		unsigned char first, last, second_first, second_last;
		size_t size;
	} forms[] = {
		{0xc2, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3},
		{0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},
		{0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		if (s[0] < forms[i].first || s[0] > forms[i].last)
			continue;
		if (size < forms[i].size || s[1] < forms[i].second_first || s[1] > forms[i].second_last)
			return 0;
		for (size_t k = 2; k < forms[i].size; k++)
			if (s[k] < 0x80 || s[k] > 0xbf)
				return 0;
		return forms[i].size;
	}
	return 0;
}

/* One character that is not plain. taken: the bytes read. Returns the bytes put into text. */
static size_t json_character(const unsigned char *s, size_t size, char text[6], size_t *taken)
{
	static const char pairs[] = "\"\"\\\\\nn\rr\tt"; /* the character, then its letter */
	*taken = 1;
	for (const char *p = pairs; *p != 0; p += 2)
		if ((unsigned char)*p == s[0]) {
			text[0] = '\\';
			text[1] = p[1];
			return 2;
		}
	if (s[0] < 0x80) {
		char code[6] = {'\\', 'u', '0', '0', hex[s[0] >> 4], hex[s[0] & 15]};
		memcpy(text, code, 6);
		return 6;
	}
	size_t sequence = sequence_size(s, size);
	if (sequence == 0) {
		memcpy(text, "\\ufffd", 6);
		return 6;
	}
	memcpy(text, s, sequence);
	*taken = sequence;
	return sequence;
}

char *escape_json(char *out, size_t room, const char *data, size_t size)
{
	while (size > 0) {
		char text[6];
		size_t taken = plain_size(data, size), n = taken;
		if (n > 0) {
			n = n < room ? n : room;
			memcpy(out, data, n);
			if (n < taken)
				return out + n;
		} else {
			n = json_character((const unsigned char *)data, size, text, &taken);
			if (n > room)
				break;
			memcpy(out, text, n);
		}
		out += n;
		room -= n;
		data += taken;
		size -= taken;
	}
	return out;
}
