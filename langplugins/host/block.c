/* A request's block as the plugin sees it. See block.h. */
#include "block.h"

#include <stdlib.h>
#include <string.h>

#define X(symbol, name, cgi) [WIRE_FIELD_##symbol] = {cgi, sizeof(cgi) - 1},
const struct langplugin_text block_known[WIRE_KNOWN_COUNT] = {[0] = {"", 0}, WIRE_KNOWN_FIELDS(X)};
#undef X

struct arena {
	char *at;
};

/* Texts in the message have no NUL behind them; a plugin's do. */
static struct langplugin_text keep(struct arena *arena, const char *data, size_t size)
{
	char *to = arena->at;

	memcpy(to, data, size);
	to[size] = 0;
	arena->at += size + 1;
	return (struct langplugin_text){to, size};
}

static struct langplugin_text keep_number(struct arena *arena, unsigned number)
{
	char digits[12];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + number % 10);
	while ((number /= 10) != 0);
	return keep(arena, digits + at, sizeof(digits) - at);
}

static char cgi_letter(char c)
{
	return c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static struct langplugin_text cgi_name(struct arena *arena, struct langplugin_text name)
{
	char *to = arena->at;

	memcpy(to, "HTTP_", 5);
	for (size_t i = 0; i < name.size; i++)
		to[5 + i] = cgi_letter(name.data[i]);
	to[5 + name.size] = 0;
	arena->at += name.size + 6;
	return (struct langplugin_text){to, name.size + 5};
}

/* RFC 9110, section 5.3: values of one name are a list; RFC 6265, section 5.4: cookies are joined by semicolons. */
static void join(struct arena *arena, struct langplugin_variable *variable, struct langplugin_text more)
{
	const char *between = variable->known == WIRE_FIELD_COOKIE ? "; " : ", ";
	char *to = arena->at;

	memcpy(to, variable->value.data, variable->value.size);
	memcpy(to + variable->value.size, between, 2);
	memcpy(to + variable->value.size + 2, more.data, more.size);
	size_t size = variable->value.size + 2 + more.size;
	to[size] = 0;
	variable->value = (struct langplugin_text){to, size};
	arena->at += size + 1;
}

static struct langplugin_variable *same(
	struct langplugin_variable *variables, size_t count, struct langplugin_text name)
{
	for (size_t i = 0; i < count; i++)
		if (variables[i].name.size == name.size && memcmp(variables[i].name.data, name.data, name.size) == 0)
			return &variables[i];
	return NULL;
}

/* Of the message's field table. Copied: ZeroMQ may deliver a message at any address. */
static struct wire_field wire_at(const char *table, size_t i)
{
	struct wire_field field;

	memcpy(&field, table + i * sizeof(field), sizeof(field));
	return field;
}

static unsigned known_of(struct wire_field field)
{
	return field.known < WIRE_KNOWN_COUNT ? field.known : 0;
}

static size_t read_variables(struct arena *arena, const char *wire, const struct langplugin_field *fields, size_t count,
	struct langplugin_variable *variables)
{
	size_t made = 0;
	uint64_t seen[(WIRE_KNOWN_COUNT + 63) / 64] = {0};
	bool other = false; /* a name without a number: only a liar's is a known one's */

	for (size_t i = 0; i < count; i++) {
		struct wire_field field = wire_at(wire, i);
		unsigned known = known_of(field);
		struct langplugin_text name = known ? block_known[known] : cgi_name(arena, fields[i].name);
		struct langplugin_variable *before = NULL;
		if (!known || other || seen[known / 64] >> (known % 64) & 1)
			before = same(variables, made, name);
		if (known)
			seen[known / 64] |= (uint64_t)1 << (known % 64);
		else
			other = true;
		if (before)
			join(arena, before, fields[i].value);
		else
			variables[made++] = (struct langplugin_variable){name, fields[i].value, known};
	}
	return made;
}

/* Bytes that the texts can take at most: each once, names once more with "HTTP_", values once more for each joining. */
static size_t bound(size_t size, size_t count)
{
	return size * 3 + count * 32 + WIRE_TEXTS + 64;
}

static bool reserve(struct block *block, size_t size)
{
	if (size <= block->capacity)
		return true;
	size = (size + 16383) & ~(size_t)16383;
	free(block->memory);
	block->memory = malloc(size);
	block->capacity = block->memory ? size : 0;
	return block->memory != NULL;
}

/* A chain of n fields of one name is joined n-1 times, each time copying what was joined before. */
static size_t joined_bound(const char *wire, size_t count)
{
	size_t sum = 0, total = 0;

	for (size_t i = 0; i < count; i++) {
		total += wire_at(wire, i).value_size + 3;
		sum += total;
	}
	return sum;
}

static bool same_cgi_name(struct langplugin_text a, struct langplugin_text b)
{
	if (a.size != b.size)
		return false;
	for (size_t i = 0; i < a.size; i++)
		if (cgi_letter(a.data[i]) != cgi_letter(b.data[i]))
			return false;
	return true;
}

/* What follows "HTTP_" in its variable's name; nothing for the two variables that do not begin so. */
static struct langplugin_text rest_of_name(struct wire_field field, const char *message)
{
	struct langplugin_text known = block_known[known_of(field)];

	if (!known_of(field))
		return (struct langplugin_text){message + field.name, field.name_size};
	if (known.size < 5 || memcmp(known.data, "HTTP_", 5) != 0)
		return (struct langplugin_text){NULL, SIZE_MAX};
	return (struct langplugin_text){known.data + 5, known.size - 5};
}

/* True if two fields make one variable: "a-b" and "A_b" do, though an honest front end sends no underscore. */
static bool repeats(const char *wire, size_t count, const char *message)
{
	uint64_t seen[(WIRE_KNOWN_COUNT + 63) / 64] = {0};
	size_t others = 0; /* before the first of these there is nothing to compare a known one with */

	for (size_t i = 0; i < count; i++) {
		struct wire_field field = wire_at(wire, i);
		unsigned known = known_of(field);
		if (known) {
			if (seen[known / 64] >> (known % 64) & 1)
				return true;
			seen[known / 64] |= (uint64_t)1 << (known % 64);
		} else {
			others++;
		}
		struct langplugin_text name = rest_of_name(field, message);
		for (size_t k = 0; k < i && others > 0 && name.data != NULL; k++) {
			struct wire_field before = wire_at(wire, k);
			if (known && known_of(before))
				continue;
			if (same_cgi_name(rest_of_name(before, message), name))
				return true;
		}
	}
	return false;
}

bool block_read(struct block *block, const void *message, size_t size)
{
	const char *bytes = message;
	struct wire_request head;

	if (size < sizeof(head))
		return false;
	memcpy(&head, message, sizeof(head));
	if (head.head.size != size || head.head.kind != WIRE_REQUEST ||
		!wire_fields_ok(message, size, head.fields, (uint32_t)head.field_count + head.trailer_count))
		return false;
	for (unsigned i = 0; i < WIRE_TEXTS; i++)
		if (!wire_span_ok(head.text[i], size))
			return false;
	size_t count = head.field_count;
	const char *wire = bytes + head.fields;
	/* Spans may overlap, so their sum is not bounded by the size. */
	size_t sum = 0;
	for (unsigned i = 0; i < WIRE_TEXTS; i++)
		sum += i == WIRE_FIRST_BODY ? 0 : head.text[i].size;
	for (size_t i = 0; i < count; i++) {
		struct wire_field field = wire_at(wire, i);
		sum += (size_t)field.name_size + field.value_size;
	}
	if (sum > size)
		return false;
	size_t tables = count * (sizeof(struct langplugin_field) + sizeof(struct langplugin_variable));
	size_t texts = bound(sum, count) + (repeats(wire, count, bytes) ? joined_bound(wire, count) : 0);
	if (!reserve(block, tables + texts))
		return false;
	struct langplugin_field *fields = (struct langplugin_field *)(void *)block->memory;
	struct langplugin_variable *variables = (struct langplugin_variable *)(void *)(fields + count);
	struct arena arena = {block->memory + tables};
	struct langplugin_request *to = &block->request;
	const struct {
		enum wire_text from;
		struct langplugin_text *to;
	} texts_of[] = {
		{WIRE_METHOD, &to->method},
		{WIRE_TARGET, &to->target},
		{WIRE_PATH, &to->path},
		{WIRE_QUERY, &to->query},
		{WIRE_SCRIPT_NAME, &to->script_name},
		{WIRE_PATH_INFO, &to->path_info},
		{WIRE_SCRIPT_FILENAME, &to->script_filename},
		{WIRE_DOCUMENT_ROOT, &to->document_root},
		{WIRE_HOST, &to->host},
		{WIRE_SERVER_NAME, &to->server_name},
		{WIRE_SCHEME, &to->scheme},
		{WIRE_REMOTE_ADDR, &to->remote_addr},
		{WIRE_SERVER_ADDR, &to->server_addr},
		{WIRE_SITE, &to->site},
		{WIRE_REQUEST_ID, &to->request_id},
	};
	for (size_t i = 0; i < sizeof(texts_of) / sizeof(texts_of[0]); i++) {
		struct wire_span span = head.text[texts_of[i].from];
		*texts_of[i].to = keep(&arena, bytes + span.at, span.size);
	}
	for (size_t i = 0; i < count; i++) {
		struct wire_field field = wire_at(wire, i);
		fields[i].name = keep(&arena, bytes + field.name, field.name_size);
		fields[i].value = keep(&arena, bytes + field.value, field.value_size);
	}
	to->variable_count = read_variables(&arena, wire, fields, count, variables);
	to->variables = variables;
	to->fields = fields;
	to->field_count = count;
	to->remote_port = keep_number(&arena, head.remote_port);
	to->server_port = keep_number(&arena, head.server_port);
	to->protocol = head.version == 10   ? (struct langplugin_text){"HTTP/1.0", 8}
		       : head.version == 20 ? (struct langplugin_text){"HTTP/2", 6}
					    : (struct langplugin_text){"HTTP/1.1", 8};
	to->head = (head.head.flags & WIRE_HEAD) != 0;
	to->content_length = head.content_length > INT64_MAX ? -1 : (int64_t)head.content_length;
	to->chunked = to->content_length < 0;
	to->expects_continue = (head.head.flags & WIRE_EXPECT) != 0;
	to->takes_trailers = (head.head.flags & WIRE_TRAILERS) != 0;
	const struct langplugin_variable *upgrade = head.head.flags & WIRE_UPGRADE
							    ? same(variables, to->variable_count,
								      block_known[WIRE_FIELD_UPGRADE])
							    : NULL;
	to->upgrade = upgrade ? upgrade->value : (struct langplugin_text){"", 0};
	block->first_body = head.text[WIRE_FIRST_BODY];
	block->trailers = head.fields + (uint32_t)(count * sizeof(struct wire_field));
	block->trailer_count = head.trailer_count;
	block->response_window = head.response_window;
	block->deadline_ns = head.deadline_ns;
	return true;
}

void block_free(struct block *block)
{
	free(block->memory);
	block->memory = NULL;
	block->capacity = 0;
}
