/*
 * Process titles as setproctitle(3) of the BSDs gives them: written over the arguments and the environment that the
 * kernel put on the stack. The environment is copied away first. /proc/self/stat says where both lie.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "host.h"

extern char **environ;

#define ARG_START 48 /* proc(5), fields of /proc/self/stat */
#define ENV_END	  51

/* Fields ARG_START to ENV_END; false: unknown. */
static int find(unsigned long where[4])
{
	char line[2048];
	FILE *file = fopen("/proc/self/stat", "re");
	if (!file)
		return 0;
	size_t size = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[size] = 0;
	/* The name in field 2 may hold anything, also ")". */
	char *at = strrchr(line, ')'), *rest = NULL;
	int field = 2;
	if (!at)
		return 0;
	for (char *word = strtok_r(at + 1, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		field++;
		if (field >= ARG_START && field <= ENV_END)
			where[field - ARG_START] = strtoul(word, NULL, 10);
	}
	return field >= ENV_END && where[0] && where[0] < where[1] && where[1] <= where[2] && where[2] <= where[3];
}

static int move_environment(unsigned long from, unsigned long to)
{
	for (char **entry = environ; entry && *entry; entry++) {
		if ((unsigned long)*entry < from || (unsigned long)*entry >= to)
			continue;
		char *copy = strdup(*entry);
		if (!copy)
			return 0;
		*entry = copy;
	}
	return 1;
}

void host_title(const char *title, const char *name)
{
	unsigned long where[4] = {0};

	prctl(PR_SET_NAME, name);
	if (!find(where) || !move_environment(where[2], where[3]))
		return;
	char *to = (char *)where[0]; // NOLINT: the kernel says so
	size_t room = where[3] - where[0], size = strlen(title);
	if (size >= room)
		size = room - 1;
	memset(to, 0, room);
	memcpy(to, title, size);
	/* A title that goes beyond the arguments is read to its NUL only if their last byte is none. */
}
