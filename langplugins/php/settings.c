/* The settings of the group: its script and what to preload. ini.c has the ini values. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

static int say(char *message, size_t size, const char *format, const char *what)
{
	snprintf(message, size, format, what);
	return -1;
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
		}
		if (result)
			return say(message, message_size, "php: no memory for '%s'", name);
	}
	return 0;
}

void settings_free(struct plugin *plugin)
{
	free(plugin->application);
	free(plugin->preload);
	free(plugin->ini);
}
