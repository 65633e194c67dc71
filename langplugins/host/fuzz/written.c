/*
 * Any bytes as an answer that an application writes by hand. A head that is taken lies in the bytes that were given,
 * ends in an empty line, and says in one way at most how its body is framed; no field of it could end a line, be taken
 * for two, or say how the client's connection goes on. And what was taken of a beginning is taken of the whole.
 *
 * sources: langplugins/host/written.c
 */
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "written.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void inside(struct langplugin_text text, const char *data, size_t size)
{
	must(text.data >= data && text.data <= data + size && text.size <= (size_t)(data + size - text.data));
	must(wire_is_value(text.data, text.size));
}

static void fields_ok(const struct written *head, const char *data, size_t size)
{
	must(head->count <= WRITTEN_FIELDS);
	for (size_t i = 0; i < head->count; i++) {
		inside(head->field[i].name, data, size);
		inside(head->field[i].value, data, size);
		must(wire_is_token(head->field[i].name.data, head->field[i].name.size));
	}
}

static void head_ok(const struct written *head, const char *data, size_t size)
{
	must(head->size <= size && head->size >= 4 && memcmp(data + head->size - 4, "\r\n\r\n", 4) == 0);
	must(head->status >= 100 && head->status <= 999 && !(head->length >= 0 && head->chunked));
	inside(head->reason, data, head->size);
	fields_ok(head, data, head->size);
	for (size_t i = 0; i < head->count; i++) {
		struct langplugin_text name = head->field[i].name;
		bool upgrade = wire_is_word(name.data, name.size, "upgrade");
		must(!wire_is_connection_field(name.data, name.size) || (upgrade && head->status == 101));
		must(!wire_is_word(name.data, name.size, "content-length"));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct written whole, part;
	const char *why = NULL;
	/* It ends where the allocation ends, so that a look behind it is seen. */
	char *copy = malloc(size + 1);

	must(copy != NULL);
	memcpy(copy, data, size);
	enum written_got got = written_head(&whole, copy, size, &why);
	must((got == WRITTEN_WRONG) == (why != NULL));
	if (got == WRITTEN_WHOLE)
		head_ok(&whole, copy, size);
	if (written_fields(&part, copy, size))
		fields_ok(&part, copy, size);
	/* Short of its end it is no head, and not another one. */
	for (size_t some = 0; got == WRITTEN_WHOLE && some < whole.size; some += 1 + some / 8)
		must(written_head(&part, copy, some, &why) == WRITTEN_PARTLY);
	if (got == WRITTEN_WHOLE)
		must(written_head(&part, copy, whole.size, &why) == WRITTEN_WHOLE && part.size == whole.size);
	free(copy);
	return 0;
}
