/*
 * PHP as a language plugin: started once in the manager, so that extensions, opcache's shared memory and compiled
 * scripts are made before the fork; then one request after another in each worker.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "plugin.h"
#include <main/php_output.h>
#include <Zend/zend_exceptions.h>
#include <Zend/zend_signal.h>
#include <ext/standard/head.h>

static int say(char *message, size_t size, const char *format, const char *what)
{
	snprintf(message, size, format, what);
	return -1;
}

static int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t message_size)
{
	if (host->threads > 1)
		return say(message, message_size, "php: %s", "this PHP is not thread-safe: set threads = 1");
	struct plugin *plugin = calloc(1, sizeof(*plugin));
	if (!plugin)
		return say(message, message_size, "php: %s", strerror(ENOMEM));
	plugin->host = host;
	if (settings_read(plugin, settings, count, message, message_size)) {
		settings_free(plugin);
		free(plugin);
		return -1;
	}
	sapi_set_plugin(plugin);
	signal(SIGPIPE, SIG_IGN);
	zend_signal_startup();
	/* The worker host owns the process's signals; PHP takes SIGPROF for max_execution_time and no other. */
	SIGG(reset) = 0;
	sapi_startup(&webserver_sapi);
	webserver_sapi.ini_entries = plugin->ini; /* sapi_startup clears it */
	if (webserver_sapi.startup(&webserver_sapi) == FAILURE) {
		sapi_shutdown();
		settings_free(plugin);
		free(plugin);
		return say(message, message_size, "php: %s", "the interpreter did not start; see the lines above");
	}
	plugin->started = true;
	/* Not shut down after this: what is half started is left to the end of the process. */
	if (ini_check(settings, count, message, message_size))
		return -1;
	userini_make(plugin);
	script_watch();
	transfer_watch();
	trace_watch();
	if (variables_make(plugin))
		return say(message, message_size, "php: %s", strerror(ENOMEM));
	*state = plugin;
	return 0;
}

/* Compile one script into opcache's shared memory, without running it. Called within a request. */
static bool compile_script(const char *path)
{
	zval function, argument, result;
	ZVAL_STRING(&function, "opcache_compile_file");
	ZVAL_STRING(&argument, path);
	ZVAL_UNDEF(&result);
	bool done = call_user_function(NULL, NULL, &function, &result, 1, &argument) == SUCCESS && !EG(exception) &&
		    Z_TYPE(result) == IS_TRUE;
	if (EG(exception))
		zend_clear_exception();
	zval_ptr_dtor(&result);
	zval_ptr_dtor(&argument);
	zval_ptr_dtor(&function);
	return done;
}

/* The first mistake in a script, or that it could not be compiled for some other reason. */
static int say_why(const char *path, char *message, size_t message_size)
{
	char text[1024];
	const char *file = PG(last_error_file) ? ZSTR_VAL(PG(last_error_file)) : "";

	if (!PG(last_error_message) || !PG(last_error_lineno) || strcmp(file, path) != 0)
		return say(message, message_size, "php: preload: '%s' could not be compiled (is opcache on?)", path);
	snprintf(text, sizeof(text), "%s:%d: %s", path, PG(last_error_lineno), ZSTR_VAL(PG(last_error_message)));
	return say(message, message_size, "php: preload: %s", text);
}

static int plugin_preload(void *state, char *message, size_t message_size)
{
	struct plugin *plugin = state;
	char *list = plugin->preload ? strdup(plugin->preload) : NULL;
	if (!list)
		return 0;
	volatile int result = 0;
	SG(server_context) = NULL;
	SG(request_info).no_headers = 1;
	if (php_request_startup() == FAILURE) {
		free(list);
		return say(message, message_size, "php: %s", "the request for preloading did not start");
	}
	SG(headers_sent) = 1;
	char *at = NULL;
	for (char *path = strtok_r(list, ":", &at); path && !result; path = strtok_r(NULL, ":", &at)) {
		volatile bool done = false;
		zend_try
		{
			done = compile_script(path);
		}
		zend_end_try();
		if (!done)
			result = say_why(path, message, message_size);
	}
	php_request_shutdown(NULL);
	SG(request_info).no_headers = 0;
	free(list);
	return result;
}

static int plugin_after_fork(void *state, char *message, size_t message_size)
{
	struct plugin *plugin = state;
	struct stat st;
	if (plugin->application && stat(plugin->application, &st)) {
		snprintf(message, message_size, "php: application %s: %s", plugin->application, strerror(errno));
		return -1;
	}
	return 0;
}

static void answer_plain(struct run *run, int status)
{
	const struct langplugin_host *host = run->plugin->host;
	const char *text = status == 403 ? "Access denied.\n" : "File not found.\n";
	const struct langplugin_field type = {{"Content-Type", 12}, {"text/plain; charset=utf-8", 25}};
	char line[512];
	int size = snprintf(line, sizeof(line), "%d: %.400s: %s", status, run->script,
		status == 403 ? "it may not be read" : "no such file");
	host->log(run->call, status == 403 ? LP_WARNING : LP_NOTICE, line, (size_t)size);
	host->respond(run->call, status, (struct langplugin_text){"", 0}, &type, 1, (int64_t)strlen(text));
	host->write(run->call, text, strlen(text), 0);
}

static void describe(struct run *run)
{
	const struct langplugin_request *request = run->request;
	const struct langplugin_host *host = run->plugin->host;
	const struct langplugin_text *type = host->variable(run->call, "CONTENT_TYPE", 12);
	const struct langplugin_text *authorization = host->variable(run->call, "HTTP_AUTHORIZATION", 18);
	SG(server_context) = run;
	SG(request_info).request_method = request->method.data;
	SG(request_info).query_string = (char *)request->query.data;
	SG(request_info).request_uri = (char *)request->target.data;
	/* Not PHP's own: it is looked at and never freed there. */
	SG(request_info).path_translated = (char *)run->script;
	SG(options) |= SAPI_OPTION_NO_CHDIR;
	SG(request_info).content_type = type ? type->data : NULL;
	SG(request_info).content_length = request->content_length > 0 ? (zend_long)request->content_length : 0;
	SG(request_info).proto_num = request->protocol.size && request->protocol.data[request->protocol.size - 1] == '0'
					     ? 1000
					     : 1001;
	SG(request_info).argc = 0;
	SG(request_info).argv = NULL;
	SG(request_info).cookie_data = NULL;
	SG(sapi_headers).http_response_code = 200;
	php_handle_auth_data(authorization ? authorization->data : NULL);
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	(void)thread;
	struct plugin *plugin = state;
	struct run run = {.plugin = plugin, .call = call, .request = plugin->host->request(call)};
	run.script = plugin->application ? plugin->application : run.request->script_filename.data;
	int status = script_ready(plugin, run.script);
	if (status) {
		answer_plain(&run, status);
		return LP_DONE;
	}
	volatile bool started = false;
	/* Without a body there is no input to limit: one timer is set for the request instead of two. */
	const zend_long input_time = PG(max_input_time);
	if (run.request->content_length <= 0 && !run.request->chunked)
		PG(max_input_time) = -1;
	zend_first_try
	{
		describe(&run);
		if (php_request_startup() == SUCCESS) {
			started = true;
			zend_file_handle script;
			zend_stream_init_filename(&script, run.script);
			script.primary_script = 1;
			CG(skip_shebang) = 1;
			php_execute_script(&script);
			zend_destroy_file_handle(&script);
		}
	}
	zend_end_try();
	if (started) {
		php_request_shutdown(NULL);
	} else {
		static const char text[] = "PHP: the request did not start";
		plugin->host->log(call, LP_ERROR, text, sizeof(text) - 1);
	}
	PG(max_input_time) = input_time;
	SG(request_info).path_translated = NULL;
	SG(server_context) = NULL;
	return LP_DONE;
}

static void plugin_close(void *state)
{
	struct plugin *plugin = state;
	if (plugin->started) {
		userini_free(plugin);
		variables_free(plugin);
		php_module_shutdown();
		sapi_shutdown();
	}
	sapi_set_plugin(NULL);
	settings_free(plugin);
	free(plugin);
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.traits = LANGPLUGIN_SINGLE_THREAD,
	.name = "php",
	.version = PHP_VERSION,
	.open = plugin_open,
	.preload = plugin_preload,
	.after_fork = plugin_after_fork,
	.handle = plugin_handle,
	.dump = trace_dump,
	.close = plugin_close,
	.ask = trace_ask,
};
