/* The SAPI module: how PHP writes, reads and logs. One call at a time, on the worker's only PHP thread. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "plugin.h"

/* PHP's callbacks carry no pointer: the one interpreter of this process belongs to this plugin. */
static struct plugin *the_plugin;

void sapi_set_plugin(struct plugin *plugin)
{
	the_plugin = plugin;
}

struct plugin *sapi_plugin(void)
{
	return the_plugin;
}

static int startup(sapi_module_struct *module)
{
	return php_module_startup(module, &webserver_php_module);
}

static int activate(void)
{
	struct run *run = current_run();
	if (run)
		userini_activate(run);
	return SUCCESS;
}

void sapi_client_gone(struct run *run)
{
	if (run->gone)
		return;
	run->gone = true;
	php_handle_aborted_connection(); /* ends the script unless it asked to go on */
}

static size_t ub_write(const char *data, size_t size)
{
	struct run *run = current_run();
	if (!run) {
		/* Preloading: what a script prints then is for the operator. */
		the_plugin->host->log(NULL, LP_NOTICE, data, size);
		return size;
	}
	if (run->ended || run->gone)
		return size;
	if (run->plugin->host->write(run->call, data, size, 0) == LP_GONE)
		sapi_client_gone(run);
	return size;
}

static void flush(void *context)
{
	struct run *run = context;
	if (!run || run->ended || run->gone || SG(request_info).no_headers)
		return;
	if (sapi_send_headers() == FAILURE)
		return;
	if (run->plugin->host->flush(run->call, 0) == LP_GONE)
		sapi_client_gone(run);
}

/* Fields that belong to the connection, which is not the application's; the server sets them itself. */
static bool is_connection_field(struct langplugin_text name)
{
	static const char *const names[] = {
		"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == name.size && strncasecmp(names[i], name.data, name.size) == 0)
			return true;
	return false;
}

bool sapi_field(const sapi_header_struct *header, struct langplugin_field *field)
{
	const char *colon = memchr(header->header, ':', header->header_len);
	const char *end = header->header + header->header_len;
	if (!colon || colon == header->header)
		return false;
	const char *value = colon + 1;
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	field->name = (struct langplugin_text){header->header, (size_t)(colon - header->header)};
	field->value = (struct langplugin_text){value, (size_t)(end - value)};
	return !is_connection_field(field->name);
}

static struct langplugin_text reason_of(const char *line)
{
	/* "HTTP/1.1 404 Gone Fishing", as header() was given it */
	const char *code = line ? strchr(line, ' ') : NULL;
	const char *reason = code ? strchr(code + 1, ' ') : NULL;
	if (!reason || !reason[1])
		return (struct langplugin_text){"", 0};
	return (struct langplugin_text){reason + 1, strlen(reason + 1)};
}

static int send_headers(sapi_headers_struct *headers)
{
	struct run *run = current_run();
	if (!run || run->ended || SG(request_info).no_headers)
		return SAPI_HEADER_SENT_SUCCESSFULLY;
	size_t count = 0, limit = zend_llist_count(&headers->headers);
	struct langplugin_field *fields = safe_emalloc(limit + 1, sizeof(*fields), 0);
	int status = headers->http_response_code ? headers->http_response_code : 200;
	zend_llist_position at;
	for (sapi_header_struct *h = zend_llist_get_first_ex(&headers->headers, &at); h;
		h = zend_llist_get_next_ex(&headers->headers, &at)) {
		struct langplugin_field *field = &fields[count];
		if (!sapi_field(h, field))
			continue;
		if (field->name.size == 6 && strncasecmp(field->name.data, "status", 6) == 0) {
			/* CGI's way to say it; programs written for FastCGI use it */
			int said = atoi(field->value.data);
			if (said >= 200 && said <= 599)
				status = said;
			continue;
		}
		count++;
	}
	struct langplugin_text reason = reason_of(headers->http_status_line);
	int result = run->plugin->host->respond(run->call, status, reason, fields, count, -1);
	efree(fields);
	if (result == LP_INVALID) {
		static const char text[] = "PHP: the status or a header of this answer is not valid HTTP";
		run->plugin->host->log(run->call, LP_ERROR, text, sizeof(text) - 1);
		run->plugin->host->respond(run->call, 500, (struct langplugin_text){"", 0}, NULL, 0, -1);
	} else if (result == LP_GONE) {
		run->gone = true; /* told to PHP at the next write; here the header code is not ready for a bailout */
	}
	return SAPI_HEADER_SENT_SUCCESSFULLY;
}

static size_t read_post(char *buffer, size_t size)
{
	struct run *run = current_run();
	size_t have = 0;
	/* PHP takes less than it asked for as the end of the body. */
	while (run && have < size) {
		ssize_t got = run->plugin->host->read(run->call, buffer + have, size - have, 0);
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	return have;
}

static char *read_cookies(void)
{
	struct run *run = current_run();
	for (size_t i = 0; run && i < run->request->variable_count; i++) {
		const struct langplugin_variable *v = &run->request->variables[i];
		if (v->name.size == sizeof("HTTP_COOKIE") - 1 && memcmp(v->name.data, "HTTP_COOKIE", v->name.size) == 0)
			return (char *)v->value.data;
	}
	return NULL;
}

static void log_message(const char *message, int syslog_level)
{
	struct run *run = current_run();
	int level = syslog_level <= LOG_ERR ? LP_ERROR : syslog_level == LOG_WARNING ? LP_WARNING : LP_NOTICE;
	the_plugin->host->log(run ? run->call : NULL, level, message, strlen(message));
}

static void register_variables(zval *track_vars_array)
{
	if (current_run())
		variables_register(track_vars_array);
}

static char *get_env(const char *name, size_t size)
{
	return current_run() ? variables_getenv(name, size) : NULL;
}

static void ini_default(HashTable *hash, const char *name, const char *value)
{
	zval entry;
	ZVAL_NEW_STR(&entry, zend_string_init(value, strlen(value), 1));
	zend_hash_str_update(hash, name, strlen(name), &entry);
}

static void ini_defaults(HashTable *hash)
{
	/* A visitor never sees the inside of an application unless its owner says so. */
	ini_default(hash, "display_errors", "0");
	ini_default(hash, "log_errors", "1");
	ini_default(hash, "html_errors", "0");
}

sapi_module_struct webserver_sapi = {
	/* opcache refuses to run under a name that it does not know; php-fpm's promises are kept in functions.c */
	.name = "fpm-fcgi",
	.pretty_name = "webserver",
	.startup = startup,
	.shutdown = php_module_shutdown_wrapper,
	.activate = activate,
	.ub_write = ub_write,
	.flush = flush,
	.getenv = get_env,
	.sapi_error = php_error,
	.send_headers = send_headers,
	.read_post = read_post,
	.read_cookies = read_cookies,
	.register_server_variables = register_variables,
	.log_message = log_message,
	.default_post_reader = NULL,
	.treat_data = NULL,
	.php_ini_ignore_cwd = 1,
	.ini_defaults = ini_defaults,
};
