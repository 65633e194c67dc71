/*
 * The engine's own answers: one small page for each status, redirects, and the registered phrases.
 *
 * The page says no more than the status; the true cause goes to the error log, with the request's id, which the page
 * names so that the two can be brought together.
 */
#include <stdio.h>
#include <string.h>

#include "connection.h"

static const struct {
	uint16_t status;
	const char *phrase;
} phrases[] = {
	{100, "Continue"},
	{101, "Switching Protocols"},
	{102, "Processing"},
	{103, "Early Hints"},
	{200, "OK"},
	{201, "Created"},
	{202, "Accepted"},
	{203, "Non-Authoritative Information"},
	{204, "No Content"},
	{205, "Reset Content"},
	{206, "Partial Content"},
	{207, "Multi-Status"},
	{208, "Already Reported"},
	{226, "IM Used"},
	{300, "Multiple Choices"},
	{301, "Moved Permanently"},
	{302, "Found"},
	{303, "See Other"},
	{304, "Not Modified"},
	{305, "Use Proxy"},
	{307, "Temporary Redirect"},
	{308, "Permanent Redirect"},
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{402, "Payment Required"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{406, "Not Acceptable"},
	{407, "Proxy Authentication Required"},
	{408, "Request Timeout"},
	{409, "Conflict"},
	{410, "Gone"},
	{411, "Length Required"},
	{412, "Precondition Failed"},
	{413, "Content Too Large"},
	{414, "URI Too Long"},
	{415, "Unsupported Media Type"},
	{416, "Range Not Satisfiable"},
	{417, "Expectation Failed"},
	{421, "Misdirected Request"},
	{422, "Unprocessable Content"},
	{423, "Locked"},
	{424, "Failed Dependency"},
	{425, "Too Early"},
	{426, "Upgrade Required"},
	{428, "Precondition Required"},
	{429, "Too Many Requests"},
	{431, "Request Header Fields Too Large"},
	{451, "Unavailable For Legal Reasons"},
	{500, "Internal Server Error"},
	{501, "Not Implemented"},
	{502, "Bad Gateway"},
	{503, "Service Unavailable"},
	{504, "Gateway Timeout"},
	{505, "HTTP Version Not Supported"},
	{506, "Variant Also Negotiates"},
	{507, "Insufficient Storage"},
	{508, "Loop Detected"},
	{510, "Not Extended"},
	{511, "Network Authentication Required"},
};

const char *status_phrase(int status)
{
	size_t low = 0, high = sizeof(phrases) / sizeof(phrases[0]);
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (phrases[middle].status == status)
			return phrases[middle].phrase;
		if (phrases[middle].status < status)
			low = middle + 1;
		else
			high = middle;
	}
	return "";
}

/* 5xx is ours or the application's to mend, but for what the client asked beyond HTTP/1.1; 4xx is the client's doing
   and worth a line, not an alarm. Every site has links that lead nowhere, and clients that ask for what has changed. */
static int level_of(int status)
{
	switch (status) {
	case 404:
	case 405:
	case 410:
	case 412:
	case 416:
	case 421:
		return LOG_LEVEL_NOTICE;
	case 501:
	case 505:
		return LOG_LEVEL_WARNING;
	default:
		return status >= 500 ? LOG_LEVEL_ERROR : status >= 400 ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE;
	}
}

void answer_status(struct request *r, int status, const char *why, unsigned retry_after)
{
	struct engine *e = request_engine(r);
	if (why != NULL)
		log_entry(e, level_of(status), r, "%d: %s", status, why);
	if (r->state >= REQUEST_REPLYING) {
		reply_abort(r);
		return;
	}
	char page[512], seconds[12];
	const char *phrase = status_phrase(status);
	int size = snprintf(page, sizeof(page),
		"<!DOCTYPE html>\n<html lang=\"en\"><head><title>%d %s</title></head>\n"
		"<body><h1>%d %s</h1><p>Request %016llx</p></body></html>\n",
		status, phrase, status, phrase, (unsigned long long)r->id);
	struct field fields[3];
	size_t count = 0;
	if (status >= 200 && status != 204 && status != 304)
		fields[count++] = (struct field){
			.name = TEXT("Content-Type"), .value = TEXT("text/html; charset=utf-8")};
	else
		size = 0;
	if (status == 405)
		fields[count++] = (struct field){.name = TEXT("Allow"), .value = TEXT("GET, HEAD, OPTIONS")};
	if (retry_after > 0) {
		int digits = snprintf(seconds, sizeof(seconds), "%u", retry_after);
		fields[count++] = (struct field){.name = TEXT("Retry-After"), .value = {seconds, (size_t)digits}};
	}
	if (reply_begin(r, status, TEXT(""), fields, count, (uint64_t)size, 0) == 0 &&
		(size == 0 || reply_data(r, page, (size_t)size) == 0))
		reply_end(r);
}

/* Characters of a path that need no escape in a Location field (RFC 3986: pchar and "/"). */
static bool path_character(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("-._~!$&'()*+,;=:@/", c) != NULL);
}

void answer_redirect(struct request *r, int status, struct engine_text path)
{
	static const char hex[] = "0123456789ABCDEF";
	char *location = request_alloc(r, 3 * path.size + 4 + r->query.size);
	if (location == NULL) {
		answer_status(r, 500, "no memory for a redirect", 0);
		return;
	}
	char *at = location;
	/* "//x" would be read as a host. */
	if (path.size >= 2 && path.data[0] == '/' && path.data[1] == '/') {
		*at++ = '/';
		*at++ = '.';
	}
	for (size_t i = 0; i < path.size; i++) {
		unsigned char c = (unsigned char)path.data[i];
		if (path_character(c)) {
			*at++ = (char)c;
			continue;
		}
		*at++ = '%';
		*at++ = hex[c >> 4];
		*at++ = hex[c & 15];
	}
	if (r->query.size > 0) {
		*at++ = '?';
		memcpy(at, r->query.data, r->query.size);
		at += r->query.size;
	}
	struct field field = {.name = TEXT("Location"), .value = {location, (size_t)(at - location)}};
	if (reply_begin(r, status, TEXT(""), &field, 1, 0, 0) == 0)
		reply_end(r);
}
