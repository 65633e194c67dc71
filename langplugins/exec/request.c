/*
 * A request's head as the program gets it: what came, without what belongs to the client's connection, and with what
 * only this side can know: where the request came from, which the client must not be able to say itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "exec.h"

bool stretch_add(struct stretch *stretch, const char *data, size_t size)
{
	if (stretch->room - stretch->end < size) {
		size_t room = (stretch->end + size + 4095) & ~(size_t)4095;
		char *grown = realloc(stretch->data, room);
		if (!grown)
			return false;
		stretch->data = grown;
		stretch->room = room;
	}
	if (size)
		memcpy(stretch->data + stretch->end, data, size);
	stretch->end += size;
	return true;
}

struct head {
	struct stretch *to;
	bool failed;
};

static void put(struct head *head, const char *data, size_t size)
{
	head->failed |= !stretch_add(head->to, data, size);
}

static void put_text(struct head *head, struct langplugin_text text)
{
	put(head, text.data, text.size);
}

static void put_string(struct head *head, const char *text)
{
	put(head, text, strlen(text));
}

static void put_field(struct head *head, const char *name, struct langplugin_text value)
{
	put_string(head, name);
	put_string(head, ": ");
	put_text(head, value);
	put_string(head, "\r\n");
}

static bool begins(struct langplugin_text name, const char *with)
{
	size_t size = strlen(with);

	return name.size >= size && strncasecmp(name.data, with, size) == 0;
}

/* Said anew below, in whatever form it came. */
static bool is_ours(
	struct langplugin_text name, const struct settings *settings, const struct langplugin_request *request)
{
	static const char *const always[] = {"host", "content-length", "expect"};
	static const char *const trusted[] = {"forwarded", "x-real-ip", "x-request-id"};

	for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
		if (text_is(name, always[i]))
			return true;
	if (text_is(name, "trailer"))
		return !request->chunked;
	if (settings->append)
		return text_is(name, "x-forwarded-for") || text_is(name, "forwarded") ||
		       (settings->strip_prefix && text_is(name, "x-forwarded-prefix"));
	for (size_t i = 0; i < sizeof(trusted) / sizeof(trusted[0]); i++)
		if (text_is(name, trusted[i]))
			return true;
	return begins(name, "x-forwarded-");
}

static bool named_by_connection(const struct langplugin_request *request, struct langplugin_text name)
{
	for (size_t i = 0; i < request->field_count; i++)
		if (text_is(request->fields[i].name, "connection") && list_names(request->fields[i].value, name))
			return true;
	return false;
}

static bool has(const struct langplugin_request *request, const char *name)
{
	for (size_t i = 0; i < request->field_count; i++)
		if (text_is(request->fields[i].name, name))
			return true;
	return false;
}

static void put_fields(struct head *head, const struct langplugin_request *request, const struct settings *settings)
{
	for (size_t i = 0; i < request->field_count; i++) {
		struct langplugin_text name = request->fields[i].name;
		bool trailer = text_is(name, "trailer");
		if (is_ours(name, settings, request) || (field_is_of_connection(name) && !trailer) ||
			named_by_connection(request, name))
			continue;
		put_text(head, name);
		put_string(head, ": ");
		put_text(head, request->fields[i].value);
		put_string(head, "\r\n");
	}
}

/* What came, as one list, then what we know. */
static void put_list(struct head *head, const struct langplugin_request *request, const char *name, const char *ours)
{
	bool any = false;

	put_string(head, name);
	put_string(head, ": ");
	for (size_t i = 0; i < request->field_count; i++) {
		if (!text_is(request->fields[i].name, name))
			continue;
		put_string(head, any ? ", " : "");
		put_text(head, request->fields[i].value);
		any = true;
	}
	put_string(head, any && *ours ? ", " : "");
	put_string(head, ours);
	put_string(head, "\r\n");
}

/* RFC 7239, section 6: an IPv6 address is in brackets, and both in quotes. */
static void put_forwarded(struct head *head, const struct langplugin_request *request)
{
	char ours[256];
	const char *address = request->remote_addr.data;

	if (!*address)
		snprintf(ours, sizeof(ours), "for=unknown;proto=%.8s", request->scheme.data);
	else
		snprintf(ours, sizeof(ours),
			strchr(address, ':') ? "for=\"[%.64s]\";proto=%.8s" : "for=%.64s;proto=%.8s", address,
			request->scheme.data);
	put_list(head, request, "Forwarded", ours);
}

/* A path is said as in a target; decoded, it could end the line. */
static void put_prefix(struct head *head, struct langplugin_text path)
{
	char *text = malloc(3 * path.size);

	head->failed |= !text;
	if (text)
		put_field(head, "X-Forwarded-Prefix", (struct langplugin_text){text, target_encode(path, text)});
	free(text);
}

static void put_origin(struct head *head, const struct langplugin_request *request, const struct settings *settings)
{
	struct langplugin_text host = request->host.size ? request->host : request->server_name;

	if (settings->append) {
		if (request->remote_addr.size || has(request, "x-forwarded-for"))
			put_list(head, request, "X-Forwarded-For", request->remote_addr.data);
		/* A program that reads this one reads it before the others: a chain without its last link would lie. */
		if (has(request, "forwarded"))
			put_forwarded(head, request);
	} else if (request->remote_addr.size) {
		put_field(head, "X-Forwarded-For", request->remote_addr);
	}
	if (!settings->append || !has(request, "x-forwarded-proto"))
		put_field(head, "X-Forwarded-Proto", request->scheme);
	if (!settings->append || !has(request, "x-forwarded-host"))
		put_field(head, "X-Forwarded-Host", host);
	if (!settings->append || !has(request, "x-forwarded-port"))
		put_field(head, "X-Forwarded-Port", request->server_port);
	if (settings->strip_prefix && request->script_name.size)
		put_prefix(head, request->script_name);
	if (!settings->append || !has(request, "x-request-id"))
		put_field(head, "X-Request-ID", request->request_id);
}

static void put_connection(struct head *head, const struct langplugin_request *request, const struct settings *settings,
	enum framing framing)
{
	const char *words[3], *between = "";
	size_t count = 0;

	if (framing == FRAMED_TUNNEL) {
		put_field(head, "Upgrade", request->upgrade);
		words[count++] = "upgrade";
	}
	if (request->takes_trailers) {
		put_string(head, "TE: trailers\r\n");
		words[count++] = "te";
	}
	if (!settings->keepalive && framing != FRAMED_TUNNEL)
		words[count++] = "close";
	if (count == 0)
		return;
	put_string(head, "Connection: ");
	for (size_t i = 0; i < count; i++) {
		put_string(head, between);
		put_string(head, words[i]);
		between = ", ";
	}
	put_string(head, "\r\n");
}

static void put_framing(struct head *head, const struct langplugin_request *request, enum framing framing)
{
	char text[64];

	if (framing == FRAMED_CHUNKED) {
		put_string(head, "Transfer-Encoding: chunked\r\n");
	} else if (framing == FRAMED_LENGTH || has(request, "content-length")) {
		snprintf(text, sizeof(text), "Content-Length: %lld\r\n", (long long)request->content_length);
		put_string(head, text);
	}
	if (request->expects_continue)
		put_string(head, "Expect: 100-continue\r\n");
}

int request_make(struct stretch *to, const struct langplugin_request *request, const struct settings *settings,
	enum framing *framing)
{
	struct head head = {to, false};
	struct langplugin_text host = request->host.size ? request->host : request->server_name;

	to->begin = to->end = 0;
	*framing = request->chunked		 ? FRAMED_CHUNKED
		   : request->content_length > 0 ? FRAMED_LENGTH
		   : request->upgrade.size	 ? FRAMED_TUNNEL
						 : FRAMED_NOT;
	put_text(&head, request->method);
	put_string(&head, " ");
	char *target = malloc(target_room(request));
	if (!target)
		return -1;
	put(&head, target, target_make(request, settings->strip_prefix, target));
	free(target);
	put_string(&head, " HTTP/1.1\r\n");
	put_field(&head, "Host", host);
	put_fields(&head, request, settings);
	put_origin(&head, request, settings);
	put_connection(&head, request, settings, *framing);
	put_framing(&head, request, *framing);
	put_string(&head, "\r\n");
	return head.failed ? -1 : 0;
}
