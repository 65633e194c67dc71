/* The settings of the group, as the configuration has checked them. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

static bool add(char ***list, size_t *count, char *text)
{
	char **grown = text ? realloc(*list, (*count + 2) * sizeof(*grown)) : NULL;

	if (!grown) {
		free(text);
		return false;
	}
	grown[(*count)++] = text;
	grown[*count] = NULL;
	*list = grown;
	return true;
}

static bool has_placeholder(const char *text)
{
	return strstr(text, "{socket}") || strstr(text, "{port}") || strstr(text, "{descriptor}");
}

/* Seconds; 0: no limit. */
static int milliseconds(const char *value)
{
	double seconds = strtod(value, NULL);

	return seconds > 0 ? (int)(seconds * 1000) : -1;
}

static bool variable(struct settings *settings, const char *name, const char *value)
{
	char *text = NULL;

	if (!has_placeholder(value))
		return true; /* it is in the environment already */
	if (asprintf(&text, "%s=%s", name, value) < 0)
		return false;
	return add(&settings->variables, &settings->variable_count, text);
}

static bool take(struct settings *settings, const char *name, const char *value)
{
	if (strcmp(name, "application") == 0) {
		/* The first setting of all, so that it is argv[0]. */
		return !*value || add(&settings->argv, &settings->arguments, strdup(value));
	}
	if (strcmp(name, "arguments") == 0)
		return add(&settings->argv, &settings->arguments, strdup(value));
	if (strncmp(name, "environment.", 12) == 0)
		return variable(settings, name + 12, value);
	if (strcmp(name, "listens_on") == 0)
		settings->listens_on = strcmp(value, "descriptor") == 0 ? LISTENS_DESCRIPTOR
				       : strcmp(value, "port") == 0	? LISTENS_PORT
									: LISTENS_SOCKET;
	else if (strcmp(name, "strip_prefix") == 0)
		settings->strip_prefix = strcmp(value, "yes") == 0;
	else if (strcmp(name, "forwarded") == 0)
		settings->append = strcmp(value, "append") == 0;
	else if (strcmp(name, "keepalive") == 0)
		settings->keepalive = strcmp(value, "yes") == 0;
	else if (strcmp(name, "start_timeout") == 0)
		settings->start_ms = milliseconds(value);
	else if (strcmp(name, "stop_timeout") == 0)
		settings->stop_ms = milliseconds(value);
	else if (strcmp(name, "continue_timeout") == 0)
		settings->continue_ms = milliseconds(value);
	return true;
}

int settings_read(
	struct settings *settings, const struct langplugin_setting *list, size_t count, char *message, size_t size)
{
	settings->keepalive = true;
	settings->start_ms = settings->stop_ms = settings->continue_ms = -1;
	for (size_t i = 0; i < count; i++) {
		if (!take(settings, list[i].name, list[i].value)) {
			snprintf(message, size, "exec: no memory for the setting %s", list[i].name);
			return -1;
		}
	}
	if (settings->arguments == 0) {
		snprintf(message, size, "exec: application is not set: expected the program to run");
		return -1;
	}
	return 0;
}

static void free_list(char **list)
{
	for (char **at = list; at && *at; at++)
		free(*at);
	free(list);
}

void settings_free(struct settings *settings)
{
	free_list(settings->argv);
	free_list(settings->variables);
	memset(settings, 0, sizeof(*settings));
}
