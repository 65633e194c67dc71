/* What programs expect of the SAPI name fpm-fcgi, fastcgi_finish_request and getallheaders; FrankenPHP's headers_send.
 */
#include <string.h>
#include <strings.h>

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

static bool begins(struct langplugin_text name, const char *lower)
{
	size_t size = strlen(lower);
	return name.size >= size && strncasecmp(name.data, lower, size) == 0;
}

/* The headers that are set now as an answer before the answer. What describes a body, or the visitor, is not for it. */
static int inform(struct run *run, int status)
{
	zend_llist *headers = &SG(sapi_headers).headers;
	struct langplugin_field *fields = safe_emalloc(zend_llist_count(headers) + 1, sizeof(*fields), 0);
	size_t count = 0;
	zend_llist_position at;
	for (sapi_header_struct *h = zend_llist_get_first_ex(headers, &at); h;
		h = zend_llist_get_next_ex(headers, &at)) {
		struct langplugin_field *field = &fields[count];
		if (sapi_field(h, field) && !begins(field->name, "content-") && !begins(field->name, "set-cookie") &&
			!begins(field->name, "x-powered-by") && !begins(field->name, "status"))
			count++;
	}
	int result = run->plugin->host->inform(run->call, status, fields, count);
	efree(fields);
	return result;
}

/* headers_send(103) sends early hints; with a final status it sends the head that is set now. */
PHP_FUNCTION(headers_send)
{
	zend_long status = 200;
	ZEND_PARSE_PARAMETERS_START(0, 1)
	Z_PARAM_OPTIONAL
	Z_PARAM_LONG(status)
	ZEND_PARSE_PARAMETERS_END();
	struct run *run = current_run();
	if (status == 100 || status == 101 || status < 100 || status > 599) {
		zend_argument_value_error(1, "must be a status from 102 to 599");
		RETURN_THROWS();
	}
	if (!run || run->ended || SG(headers_sent))
		RETURN_FALSE;
	if (status < 200) {
		if (inform(run, (int)status) == LP_INVALID)
			RETURN_FALSE;
	} else {
		SG(sapi_headers).http_response_code = (int)status;
		if (sapi_send_headers() == FAILURE)
			RETURN_FALSE;
	}
	RETURN_LONG(status);
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

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_MASK_EX(arginfo_send, 0, 0, MAY_BE_LONG | MAY_BE_FALSE)
ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, status, IS_LONG, 0, "200")
ZEND_END_ARG_INFO()

/* clang-format off */
static const zend_function_entry functions[] = {
	PHP_FE(fastcgi_finish_request, arginfo_finish)
	PHP_FE(apache_request_headers, arginfo_headers)
	PHP_FALIAS(getallheaders, apache_request_headers, arginfo_headers)
	PHP_FE(apache_response_headers, arginfo_headers)
	PHP_FE(headers_send, arginfo_send)
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
