/*
 * Any bytes as a request's block. What the plugin would see of a block that is accepted must lie in the block's memory,
 * with a NUL behind each text; the body that rides along must lie in the message.
 *
 * sources: langplugins/host/block.c
 *
 * The first byte says what is put right before, so that the checks behind the first ones are reached too; the rest is
 * the message.
 */
#include <stdlib.h>
#include <string.h>

#include "block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void text_ok(const struct block *block, struct langplugin_text text)
{
	must(text.data >= block->memory && text.data < block->memory + block->capacity);
	must(text.size < (size_t)(block->memory + block->capacity - text.data));
	must(text.data[text.size] == 0);
}

static bool is_known(struct langplugin_text name)
{
	for (unsigned i = 1; i < WIRE_KNOWN_COUNT; i++)
		if (name.data == block_known[i].data)
			return true;
	return false;
}

static void inside(const struct block *block, const void *table, size_t count, size_t size)
{
	const char *at = table;

	if (count == 0)
		return;
	must(at >= block->memory && (uintptr_t)at % _Alignof(struct langplugin_field) == 0);
	must(count <= (size_t)(block->memory + block->capacity - at) / size);
}

static void variables_ok(const struct block *block)
{
	const struct langplugin_request *r = &block->request;

	must(r->variable_count <= r->field_count);
	for (size_t i = 0; i < r->variable_count; i++) {
		const struct langplugin_variable *v = &r->variables[i];
		must(v->known < WIRE_KNOWN_COUNT);
		if (v->known != 0)
			must(v->name.data == block_known[v->known].data && v->name.size == block_known[v->known].size);
		else
			text_ok(block, v->name);
		must(v->known != 0 || !is_known(v->name));
		must(v->known != 0 || memcmp(v->name.data, "HTTP_", 5) == 0);
		text_ok(block, v->value);
		/* A name that comes twice would let the second hide the first from whoever checks it. */
		for (size_t k = 0; k < i; k++)
			must(r->variables[k].name.size != v->name.size ||
				memcmp(r->variables[k].name.data, v->name.data, v->name.size) != 0);
	}
}

static void request_ok(const struct block *block)
{
	const struct langplugin_request *r = &block->request;
	const struct langplugin_text texts[] = {r->method, r->target, r->path, r->query, r->script_name, r->path_info,
		r->script_filename, r->document_root, r->host, r->server_name, r->server_port, r->scheme,
		r->remote_addr, r->remote_port, r->server_addr, r->request_id, r->site};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		text_ok(block, texts[i]);
	must(r->protocol.data[r->protocol.size] == 0 && memcmp(r->protocol.data, "HTTP/", 5) == 0);
	inside(block, r->fields, r->field_count, sizeof(r->fields[0]));
	inside(block, r->variables, r->variable_count, sizeof(r->variables[0]));
	for (size_t i = 0; i < r->field_count; i++) {
		text_ok(block, r->fields[i].name);
		text_ok(block, r->fields[i].value);
	}
	must(r->content_length >= -1 && (r->chunked != 0) == (r->content_length < 0));
	variables_ok(block);
}

/* Spans of a block that was thought of: small, in the message, as the engine makes them. */
static void put_right(char *message, size_t size, unsigned what)
{
	struct wire_request head;

	if (size < sizeof(head))
		return;
	memcpy(&head, message, sizeof(head));
	head.head.kind = WIRE_REQUEST;
	head.head.size = (uint32_t)size;
	for (unsigned i = 0; i < WIRE_TEXTS && (what & 2); i++) {
		head.text[i].at %= (uint32_t)size;
		head.text[i].size %= 8;
		if (head.text[i].size > size - head.text[i].at)
			head.text[i].size = 0;
	}
	if (what & 4) {
		head.fields = sizeof(head);
		head.field_count = (uint16_t)((size - sizeof(head)) / sizeof(struct wire_field));
		if (what & 8)
			head.field_count %= 6;
	}
	memcpy(message, &head, sizeof(head));
	for (unsigned i = 0; i < head.field_count && (what & 16) && (what & 4); i++) {
		struct wire_field field;
		char *at = message + head.fields + i * sizeof(field);
		memcpy(&field, at, sizeof(field));
		field.name %= (uint32_t)size;
		field.value %= (uint32_t)size;
		field.name_size %= (what & 32) ? 3 : 12;
		field.value_size %= (what & 32) ? 2 : 40;
		field.known = field.known & 1 ? field.known % (WIRE_KNOWN_COUNT + 2) : 0;
		if (field.name_size > size - field.name)
			field.name_size = 0;
		if (field.value_size > size - field.value)
			field.value_size = 0;
		memcpy(at, &field, sizeof(field));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct block block = {0};
	unsigned what = size > 0 ? data[0] : 0;

	if (size > 0) {
		data++;
		size--;
	}
	/* It ends where the allocation ends, so that a look behind it is seen; and not at an address that fits a field,
	   as ZeroMQ may deliver it. */
	char *memory = malloc(size + 1), *message = memory + 1;
	must(memory != NULL);
	if (size > 0)
		memcpy(message, data, size);
	if (what & 1)
		put_right(message, size, what);
	bool result = block_read(&block, message, size);
	if (result) {
		request_ok(&block);
		must(wire_span_ok(block.first_body, size));
		/* Its memory is used again for the next. */
		struct langplugin_request first = block.request;
		must(block_read(&block, message, size) && block.request.field_count == first.field_count);
		request_ok(&block);
	}
	block_free(&block);
	free(memory);
	return 0;
}
