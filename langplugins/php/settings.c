/* The settings of the group: its script, what to preload, arguments. ini.c has the ini values. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

static int say(char *message, size_t size, const char *format, const char *what)
{
	snprintf(message, size, format, what);
	return -1;
}

static int add_argument(struct plugin *plugin, const char *value)
{
	/* Place 0 is the script's, which each request has. */
	size_t count = plugin->argument_count ? (size_t)plugin->argument_count : 1;
	char **more = realloc(plugin->arguments, (count + 1) * sizeof(*more));

	if (!more)
		return -1;
	plugin->arguments = more;
	more[0] = NULL;
	more[count] = strdup(value);
	plugin->argument_count = (int)count + 1;
	return more[count] ? 0 : -1;
}

/* `preload` may come once for each script. */
static int join(char **place, const char *value)
{
	char *before = *place, *joined = NULL;

	if (asprintf(&joined, "%s%s%s", before ? before : "", before ? ":" : "", value) < 0)
		return -1;
	free(before);
	*place = joined;
	return 0;
}

int settings_read(struct plugin *plugin, const struct langplugin_setting *settings, size_t count, char *message,
	size_t message_size)
{
	for (size_t i = 0; i < count; i++) {
		const char *name = settings[i].name, *value = settings[i].value;
		int result = 0;
		if (strncmp(name, "ini.", 4) == 0) {
			if (ini_add(plugin, name + 4, value, message, message_size))
				return -1;
		} else if (strcmp(name, "application") == 0 && *value) {
			free(plugin->application);
			plugin->application = strdup(value);
			result = plugin->application ? 0 : -1;
		} else if (strcmp(name, "preload") == 0 && *value) {
			result = join(&plugin->preload, value);
		} else if (strcmp(name, "arguments") == 0) {
			result = add_argument(plugin, value);
		}
		if (result)
			return say(message, message_size, "php: no memory for '%s'", name);
	}
	/* $argv is made only if php.ini says so, and Debian's does not. */
	return plugin->argument_count ? ini_add(plugin, "register_argc_argv", "1", message, message_size) : 0;
}

void settings_free(struct plugin *plugin)
{
	free(plugin->application);
	free(plugin->preload);
	free(plugin->ini);
	for (int i = 1; i < plugin->argument_count; i++)
		free(plugin->arguments[i]);
	free(plugin->arguments);
}
