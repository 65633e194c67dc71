/* Heads that applications write: see written.h. */
#include "written.h"

#include <string.h>

#include "http.h"

static enum written_got wrong(const char *text, const char **why)
{
	*why = text;
	return WRITTEN_WRONG;
}

/* The line at data, without its end; *next: what follows it. NULL: no CR LF is there, or something else ends it. */
static const char *line_end(const char *data, const char *end, const char **next)
{
	const char *lf = memchr(data, '\n', (size_t)(end - data));

	if (!lf || lf == data || lf[-1] != '\r')
		return NULL;
	*next = lf + 1;
	return lf - 1;
}

/* "HTTP/1.1 200 OK" */
static enum written_got status_line(struct written *head, const char *at, const char *end, const char **why)
{
	if (end - at < 13 || memcmp(at, "HTTP/1.", 7) != 0 || (at[7] != '0' && at[7] != '1') || at[8] != ' ' ||
		at[12] != ' ')
		return wrong("its first line is not HTTP/1.1, a status and a reason", why);
	for (unsigned i = 9; i < 12; i++)
		if (at[i] < '0' || at[i] > '9')
			return wrong("its status is not a number of three digits", why);
	head->status = (at[9] - '0') * 100 + (at[10] - '0') * 10 + (at[11] - '0');
	if (head->status < 100)
		return wrong("its status is below 100", why);
	head->reason = (struct langplugin_text){at + 13, (size_t)(end - at - 13)};
	if (!wire_is_value(head->reason.data, head->reason.size))
		return wrong("its reason has a character that may not be there", why);
	return WRITTEN_WHOLE;
}

static struct langplugin_text trimmed(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t'))
		at++;
	while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	return (struct langplugin_text){at, (size_t)(end - at)};
}

static bool read_field(struct langplugin_field *field, const char *at, const char *end)
{
	const char *colon = memchr(at, ':', (size_t)(end - at));

	if (!colon)
		return false;
	field->name = (struct langplugin_text){at, (size_t)(colon - at)};
	field->value = trimmed(colon + 1, end);
	return field->name.size <= UINT16_MAX && wire_is_token(field->name.data, field->name.size) &&
	       wire_is_value(field->value.data, field->value.size);
}

static bool named(const struct langplugin_field *field, const char *lower)
{
	return wire_is_word(field->name.data, field->name.size, lower);
}

/* One field's line: into the list, or what it says about framing. */
static enum written_got take_field(struct written *head, const char *at, const char *end, const char **why)
{
	struct langplugin_field field;

	if (!read_field(&field, at, end))
		return wrong("a field's line is not a name, a colon and a value", why);
	if (named(&field, "content-length")) {
		if (head->length >= 0)
			return wrong("Content-Length comes twice", why);
		head->length = wire_length(field.value.data, field.value.size);
		return head->length < 0 ? wrong("Content-Length is not a number", why) : WRITTEN_WHOLE;
	}
	if (named(&field, "transfer-encoding")) {
		if (head->chunked || !wire_is_word(field.value.data, field.value.size, "chunked"))
			return wrong("Transfer-Encoding is not just chunked", why);
		head->chunked = true;
		return WRITTEN_WHOLE;
	}
	/* How the client's connection goes on is not the application's to say; that it closes its own is no news. */
	if (wire_is_connection_field(field.name.data, field.name.size) &&
		!(head->status == 101 && named(&field, "upgrade")))
		return WRITTEN_WHOLE;
	if (head->count == WRITTEN_FIELDS)
		return wrong("it has too many fields", why);
	head->field[head->count++] = field;
	return WRITTEN_WHOLE;
}

static enum written_got framing_ok(const struct written *head, const char **why)
{
	if (head->length >= 0 && head->chunked)
		return wrong("it has both Content-Length and Transfer-Encoding", why);
	if (head->status < 200 && (head->length >= 0 || head->chunked))
		return wrong("an answer below 200 has no body", why);
	return WRITTEN_WHOLE;
}

enum written_got written_head(struct written *head, const char *data, size_t size, const char **why)
{
	const char *at = data, *end = data + size, *next = NULL, *stop;
	enum written_got got;
	bool first = true;

	head->count = 0;
	head->length = -1;
	head->chunked = false;
	while (at < end) {
		if (!memchr(at, '\n', (size_t)(end - at)))
			break;
		stop = line_end(at, end, &next);
		if (!stop)
			return wrong("a line does not end in CR LF", why);
		if (!first && stop == at) {
			head->size = (size_t)(next - data);
			return framing_ok(head, why);
		}
		got = first ? status_line(head, at, stop, why) : take_field(head, at, stop, why);
		if (got == WRITTEN_WRONG)
			return got;
		first = false;
		at = next;
	}
	return size < WRITTEN_MOST ? WRITTEN_PARTLY : wrong("it is too large", why);
}

bool written_fields(struct written *head, const char *data, size_t size)
{
	const char *at = data, *end = data + size, *next, *stop;

	head->count = 0;
	while (at < end && (stop = line_end(at, end, &next)) != NULL && stop > at) {
		if (head->count == WRITTEN_FIELDS || !read_field(&head->field[head->count++], at, stop))
			return false;
		at = next;
	}
	return true;
}
