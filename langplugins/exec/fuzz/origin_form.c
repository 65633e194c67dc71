/*
 * Any request target that the front end takes: what the program sees means the path that the request was routed by, or,
 * without the mount's prefix, the rest of it; it is a valid target, with the query as it came.
 *
 * sources: langplugins/exec/target.c webserver/engine/target.c
 * flags: -Wno-unused-function
 *
 * The first byte says whether the prefix goes, and how long it is.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "../target.h"
#include "http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
	if (!condition)
		abort();
}

static struct langplugin_text copy(const char *data, size_t size)
{
	char *text = malloc(size + 1);
	must(text != NULL);
	memcpy(text, data, size);
	text[size] = 0;
	return (struct langplugin_text){text, size};
}

static bool same(struct engine_text one, struct langplugin_text other)
{
	return one.size == other.size && memcmp(one.data, other.data, one.size) == 0;
}

/* The path that a target means; false: the front end refuses it. */
static bool path_of(struct engine_text target, char *room, struct target *parts, struct engine_text *path)
{
	const char *why;

	return target_split(target, parts, &why) == 0 && target_path(parts->path, room, path, &why) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 2000)
		return 0;
	bool strip = data[0] & 1;
	struct engine_text raw = {(const char *)data + 1, size - 1}, path, again;
	struct target parts, made_parts;
	char room[4096], other_room[16384], *made;
	if (memchr(raw.data, 0, raw.size) || !path_of(raw, room, &parts, &path))
		return 0;
	struct langplugin_request request = {0};
	request.target = copy(raw.data, raw.size);
	request.path = copy(path.data, path.size);
	request.query = copy(parts.query.data, parts.query.size);
	/* A mount ends before a slash, or at the end. */
	size_t mount = (size_t)(data[0] >> 1) % (path.size + 1);
	while (mount > 0 && mount < path.size && path.data[mount] != '/')
		mount--;
	if (mount == path.size && mount > 0 && path.data[mount - 1] == '/')
		mount = 0;
	request.script_name = copy(path.data, mount);
	request.path_info = copy(path.data + mount, path.size - mount);
	made = malloc(target_room(&request));
	must(made != NULL);
	size_t made_size = target_make(&request, strip, made);
	must(made_size > 0 && made_size <= target_room(&request));
	must(path_of((struct engine_text){made, made_size}, other_room, &made_parts, &again));
	must(same(made_parts.query, request.query) && made_parts.authority.data == NULL);
	struct langplugin_text wanted = strip && path.data[0] == '/' ? request.path_info : request.path;
	if (wanted.size == 0)
		wanted = (struct langplugin_text){"/", 1};
	must(same(again, wanted));
	free(made);
	free((char *)(uintptr_t)request.target.data);
	free((char *)(uintptr_t)request.path.data);
	free((char *)(uintptr_t)request.query.data);
	free((char *)(uintptr_t)request.script_name.data);
	free((char *)(uintptr_t)request.path_info.data);
	return 0;
}
