/* $_SERVER and getenv(): the CGI variables of RFC 3875 as php-fpm gives them, and the group's own environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

int variables_make(struct plugin *plugin)
{
	/* Names come back with each request by number; making their strings once spares an allocation and a hash each.
	 */
	unsigned count = plugin->host->known_count;
	plugin->names = calloc(count ? count : 1, sizeof(*plugin->names));
	if (!plugin->names)
		return -1;
	for (unsigned i = 1; i < count; i++) {
		zend_string *name = zend_string_init(plugin->host->known[i].data, plugin->host->known[i].size, 1);
		zend_string_hash_val(name);
		GC_MAKE_PERSISTENT_LOCAL(name);
		plugin->names[i] = name;
	}
	return 0;
}

void variables_free(struct plugin *plugin)
{
	for (unsigned i = 1; plugin->names && i < plugin->host->known_count; i++)
		if (plugin->names[i])
			zend_string_release_ex(plugin->names[i], 1);
	free(plugin->names);
	plugin->names = NULL;
}

/* PHP's input filters see each value, as under every other server; they may replace it. */
static void add(zval *array, zend_string *key, struct langplugin_text value)
{
	size_t size = value.size;
	char *data = estrndup(value.data, value.size);
	if (sapi_module.input_filter(PARSE_SERVER, ZSTR_VAL(key), &data, value.size, &size)) {
		zval entry;
		ZVAL_STRINGL_FAST(&entry, data, size);
		zend_hash_update(Z_ARRVAL_P(array), key, &entry);
	}
	efree(data);
}

static void add_named(zval *array, const char *name, size_t name_size, struct langplugin_text value)
{
	zend_string *key = zend_string_init(name, name_size, 0);
	add(array, key, value);
	zend_string_release(key);
}

#define ADD(array, name, value) add_named(array, name, sizeof(name) - 1, value)
#define LITERAL(text)		((struct langplugin_text){text, sizeof(text) - 1})

static struct langplugin_text joined(struct langplugin_text a, struct langplugin_text b)
{
	char *data = emalloc(a.size + b.size + 1);
	memcpy(data, a.data, a.size);
	memcpy(data + a.size, b.data, b.size);
	data[a.size + b.size] = 0;
	return (struct langplugin_text){data, a.size + b.size};
}

/* The variables that are not made of request fields: name and where the value stands in the request. */
static const struct {
	const char *name;
	size_t offset;
	bool even_if_empty;
} from_request[] = {
	{"QUERY_STRING", offsetof(struct langplugin_request, query), true},
	{"REQUEST_METHOD", offsetof(struct langplugin_request, method), true},
	{"SCRIPT_NAME", offsetof(struct langplugin_request, script_name), true},
	{"REQUEST_URI", offsetof(struct langplugin_request, target), true},
	{"DOCUMENT_URI", offsetof(struct langplugin_request, path), true},
	{"DOCUMENT_ROOT", offsetof(struct langplugin_request, document_root), true},
	{"SERVER_PROTOCOL", offsetof(struct langplugin_request, protocol), true},
	{"REQUEST_SCHEME", offsetof(struct langplugin_request, scheme), true},
	{"REMOTE_ADDR", offsetof(struct langplugin_request, remote_addr), true},
	{"REMOTE_PORT", offsetof(struct langplugin_request, remote_port), true},
	{"SERVER_ADDR", offsetof(struct langplugin_request, server_addr), true},
	{"SERVER_PORT", offsetof(struct langplugin_request, server_port), true},
	{"SERVER_NAME", offsetof(struct langplugin_request, server_name), true},
	{"PATH_INFO", offsetof(struct langplugin_request, path_info), false},
	{"REQUEST_ID", offsetof(struct langplugin_request, request_id), false},
};

static struct langplugin_text text_at(const struct langplugin_request *request, size_t offset)
{
	return *(const struct langplugin_text *)((const char *)request + offset);
}

void variables_register(zval *array)
{
	struct run *run = current_run();
	const struct langplugin_request *request = run->request;

	php_import_environment_variables(array);
	ADD(array, "GATEWAY_INTERFACE", LITERAL("CGI/1.1"));
	ADD(array, "SERVER_SOFTWARE", LITERAL("webserver"));
	ADD(array, "REDIRECT_STATUS", LITERAL("200"));
	for (size_t i = 0; i < sizeof(from_request) / sizeof(from_request[0]); i++) {
		struct langplugin_text value = text_at(request, from_request[i].offset);
		if (value.size || from_request[i].even_if_empty)
			add_named(array, from_request[i].name, strlen(from_request[i].name), value);
	}
	ADD(array, "SCRIPT_FILENAME", ((struct langplugin_text){run->script, strlen(run->script)}));
	struct langplugin_text self = joined(request->script_name, request->path_info);
	ADD(array, "PHP_SELF", self);
	efree((char *)self.data);
	if (request->path_info.size) {
		struct langplugin_text translated = joined(request->document_root, request->path_info);
		ADD(array, "PATH_TRANSLATED", translated);
		efree((char *)translated.data);
	}
	char deadline[32];
	uint64_t ends = run->plugin->host->deadline(run->call);
	if (ends) {
		/* On the clock of hrtime(), in seconds. */
		int size = snprintf(deadline, sizeof(deadline), "%.6f", (double)ends / 1e9);
		ADD(array, "WEBSERVER_DEADLINE", ((struct langplugin_text){deadline, (size_t)size}));
	}
	if (request->scheme.size == 5)
		ADD(array, "HTTPS", LITERAL("on"));
	for (size_t i = 0; i < request->variable_count; i++) {
		const struct langplugin_variable *v = &request->variables[i];
		if (v->known && v->known < run->plugin->host->known_count)
			add(array, run->plugin->names[v->known], v->value);
		else
			add_named(array, v->name.data, v->name.size, v->value);
	}
}

/* getenv("REMOTE_ADDR") works under php-fpm, so it does here. The caller copies the value. */
char *variables_getenv(const char *name, size_t size)
{
	const struct run *run = current_run();
	for (size_t i = 0; i < sizeof(from_request) / sizeof(from_request[0]); i++)
		if (strlen(from_request[i].name) == size && memcmp(from_request[i].name, name, size) == 0)
			return (char *)text_at(run->request, from_request[i].offset).data;
	/* HTTP_PROXY must never come from a request: the engine drops the field "Proxy" before this. */
	for (size_t i = 0; i < run->request->variable_count; i++) {
		const struct langplugin_variable *v = &run->request->variables[i];
		if (v->name.size == size && memcmp(v->name.data, name, size) == 0)
			return (char *)v->value.data;
	}
	return NULL;
}
