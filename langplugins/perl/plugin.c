/* Perl as a language plugin: PSGI applications. */
#include "plugin.h"

static void read_settings(struct plugin *plugin)
{
	for (size_t i = 0; i < plugin->setting_count; i++) {
		const char *name = plugin->settings[i].name, *value = plugin->settings[i].value;
		if (strcmp(name, "application") == 0 && *value)
			plugin->application = value;
	}
}

static int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t message_size)
{
	struct plugin *plugin = calloc(1, sizeof(*plugin));

	if (!plugin) {
		snprintf(message, message_size, "perl: no memory");
		return -1;
	}
	plugin->host = host;
	plugin->settings = settings;
	plugin->setting_count = count;
	read_settings(plugin);
	/* What is half started is left to the end of the process. */
	if (interpreter_start(plugin, message, message_size))
		return -1;
	dTHXa(plugin->perl);
	if (functions_make(plugin) || writer_make(plugin) || environ_make(plugin) || errors_standard(aTHX_ plugin)) {
		snprintf(message, message_size, "perl: no memory");
		return -1;
	}
	*state = plugin;
	return load_begin(plugin, message, message_size);
}

static int plugin_preload(void *state, char *message, size_t message_size)
{
	return load_preload(state, message, message_size);
}

static int plugin_after_fork(void *state, char *message, size_t message_size)
{
	struct plugin *plugin = state;

	interpreter_forked(plugin);
	trace_prepare(plugin);
	errors_forked(plugin);
	return load_application(plugin, message, message_size);
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	(void)thread;
	return request_run(state, call);
}

static void plugin_close(void *state)
{
	interpreter_end(state);
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.traits = LANGPLUGIN_SINGLE_THREAD | LANGPLUGIN_MAIN_THREAD,
	.name = "perl",
	.version = PERL_VERSION_STRING,
	.open = plugin_open,
	.preload = plugin_preload,
	.after_fork = plugin_after_fork,
	.handle = plugin_handle,
	.dump = trace_dump,
	.close = plugin_close,
	.ask = trace_ask,
};
