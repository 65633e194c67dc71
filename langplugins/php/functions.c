/* What programs expect of the SAPI name fpm-fcgi, and early hints' sibling: fastcgi_finish_request, getallheaders. */
#include <string.h>

#include "plugin.h"
#include <ext/standard/head.h>

/* End the answer now and go on without the client. */
PHP_FUNCTION(fastcgi_finish_request)
{
	ZEND_PARSE_PARAMETERS_NONE();
	struct run *run = current_run();
	if (!run || run->ended)
		RETURN_FALSE;
	php_output_end_all();
	php_header();
	int result = run->plugin->host->end(run->call);
	run->ended = true;
	SG(headers_sent) = 1;
	RETURN_BOOL(result == LP_OK);
}

PHP_FUNCTION(apache_request_headers)
{
	ZEND_PARSE_PARAMETERS_NONE();
	struct run *run = current_run();
	array_init(return_value);
	for (size_t i = 0; run && i < run->request->field_count; i++) {
		const struct langplugin_field *f = &run->request->fields[i];
		zend_string *name = zend_string_init(f->name.data, f->name.size, 0);
		zval value;
		ZVAL_STRINGL(&value, f->value.data, f->value.size);
		zend_symtable_update(Z_ARRVAL_P(return_value), name, &value);
		zend_string_release(name);
	}
}

static void collect(void *header, void *array)
{
	sapi_header_struct *h = header;
	const char *colon = memchr(h->header, ':', h->header_len);
	if (!colon)
		return;
	const char *value = colon + 1, *end = h->header + h->header_len;
	while (value < end && *value == ' ')
		value++;
	zend_string *name = zend_string_init(h->header, (size_t)(colon - h->header), 0);
	zval entry;
	ZVAL_STRINGL(&entry, value, (size_t)(end - value));
	zend_symtable_update(Z_ARRVAL_P((zval *)array), name, &entry);
	zend_string_release(name);
}

PHP_FUNCTION(apache_response_headers)
{
	ZEND_PARSE_PARAMETERS_NONE();
	array_init(return_value);
	zend_llist_apply_with_argument(&SG(sapi_headers).headers, collect, return_value);
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_finish, 0, 0, _IS_BOOL, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_headers, 0, 0, IS_ARRAY, 0)
ZEND_END_ARG_INFO()

/* clang-format off */
static const zend_function_entry functions[] = {
	PHP_FE(fastcgi_finish_request, arginfo_finish)
	PHP_FE(apache_request_headers, arginfo_headers)
	PHP_FALIAS(getallheaders, apache_request_headers, arginfo_headers)
	PHP_FE(apache_response_headers, arginfo_headers)
	PHP_FE_END
};
/* clang-format on */

/* After the script's own last functions. PHP would now read what is left of the body, and ask the client for it. */
static PHP_RSHUTDOWN_FUNCTION(webserver)
{
	(void)type;
	(void)module_number;
	SG(post_read) = 1;
	return SUCCESS;
}

zend_module_entry webserver_php_module = {
	STANDARD_MODULE_HEADER,
	"webserver",
	functions,
	NULL,
	NULL,
	NULL,
	PHP_RSHUTDOWN(webserver),
	NULL,
	"1.0",
	STANDARD_MODULE_PROPERTIES,
};
