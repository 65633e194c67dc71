/*
 * Names that programs have. Such a file is run by the group that a route gives it to, or not answered at all: its
 * source may hold passwords, and a route that a reload has taken away must not turn it into a download.
 *
 * What counts is the name's end, whatever case it is written in (.PHP is no route's, and just as secret), also below
 * what editors and people put behind a name when they keep a copy of it.
 */
#define _GNU_SOURCE /* O_PATH, in fcntl.h */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "files.h"

/* a.php~, a.php.bak, and "#a.php#", whose beginning does not matter here. Repeated: a.php.bak~ */
static const struct engine_text copies[] = {
	TEXT("~"),
	TEXT("#"),
	TEXT("."),
	TEXT(" "),
	TEXT(".bak"),
	TEXT(".old"),
	TEXT(".orig"),
	TEXT(".save"),
	TEXT(".rej"),
	TEXT(".swp"),
	TEXT(".swo"),
	TEXT(".swn"),
	TEXT(".tmp"),
	TEXT(".copy"),
};

static bool ends_in(struct engine_text name, struct engine_text end)
{
	return name.size >= end.size && strncasecmp(name.data + name.size - end.size, end.data, end.size) == 0;
}

/* The name without what marks it as a copy; shorter, or as it was. */
static struct engine_text original(struct engine_text name)
{
	for (size_t i = 0; i < sizeof copies / sizeof *copies; i++)
		if (ends_in(name, copies[i]))
			return (struct engine_text){name.data, name.size - copies[i].size};
	return name;
}

bool root_holds_source(const struct root *root, struct engine_text path)
{
	const char *slash = path.size > 0 ? memrchr(path.data, '/', path.size) : NULL;
	struct engine_text name = path;
	if (slash != NULL)
		name = (struct engine_text){slash + 1, (size_t)(path.data + path.size - slash - 1)};
	for (;;) {
		for (size_t i = 0; i < root->script_count; i++)
			if (ends_in(name, root->scripts[i]))
				return true;
		struct engine_text shorter = original(name);
		if (shorter.size == name.size)
			return false;
		name = shorter;
	}
}

bool root_holds_source_at(const struct root *root, int fd)
{
	static const struct engine_text gone = TEXT(
		" (deleted)"); /* the kernel's word behind a name that has no file */
	char link[32], text[FILES_PATH];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, text, sizeof text);
	if (size < 0 || (size_t)size == sizeof text)
		return true; /* nobody can say what it is */
	struct engine_text path = {text, (size_t)size};
	if (ends_in(path, gone))
		path.size -= gone.size;
	return root_holds_source(root, path);
}
