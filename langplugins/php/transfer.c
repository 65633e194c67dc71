/*
 * readfile() and fpassthru() of a large plain file, when nothing stands between a script and its client: no output
 * buffer, no filter. Then its bytes need not pass through PHP. In every other case PHP's own functions do it.
 *
 * connection_aborted() and connection_status() tell the truth here, not only after the next output.
 */
#include <sys/stat.h>

#include "plugin.h"
#include <ext/standard/file.h>
#include <ext/standard/head.h>
#include <main/php_network.h>
#include <main/php_output.h>

#define LARGE 65536 /* below this a copy costs less than all of this */

static zif_handler php_readfile, php_fpassthru, php_aborted, php_status;

/*
 * True if what a script prints now reaches the client as it is and soon: there is no buffer, or the one of php.ini's
 * output_buffering = 4096, which passes on what is larger.
 */
static bool is_direct(void)
{
	const php_output_handler *handler = php_output_get_active_handler();

	return php_output_get_level() == 0 ||
	       (php_output_get_level() == 1 && handler && handler->size > 0 &&
		       zend_string_equals_literal(handler->name, "default output handler"));
}

/* True: sent, or as much of it as the client took. */
static bool send_stream(php_stream *stream, zend_long *size)
{
	struct run *run = current_run();
	struct stat st;
	int fd;

	if (!run || run->ended || run->gone || SG(request_info).no_headers || !is_direct() ||
		!php_stream_is(stream, PHP_STREAM_IS_STDIO) || stream->readfilters.head ||
		php_stream_cast(stream, PHP_STREAM_AS_FD | PHP_STREAM_CAST_INTERNAL, (void **)&fd, 0) != SUCCESS)
		return false;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size - stream->position < LARGE)
		return false;
	if (php_output_get_level() > 0)
		php_output_flush();
	if (!php_header() || run->gone)
		return false;
	*size = (zend_long)(st.st_size - stream->position);
	int result = run->plugin->host->send_file(run->call, fd, stream->position, -1);
	if (result == LP_FAILED)
		php_error_docref(NULL, E_WARNING, "the file became shorter, or could not be read, while it was sent");
	else if (result == LP_GONE)
		sapi_client_gone(run);
	return true;
}

static void sending_readfile(INTERNAL_FUNCTION_PARAMETERS)
{
	char *name;
	size_t name_size;
	bool use_include_path = false;
	zval *zcontext = NULL;
	zend_long size;

	if (!current_run() || !is_direct()) {
		php_readfile(INTERNAL_FUNCTION_PARAM_PASSTHRU);
		return;
	}
	ZEND_PARSE_PARAMETERS_START(1, 3)
	Z_PARAM_PATH(name, name_size)
	Z_PARAM_OPTIONAL
	Z_PARAM_BOOL(use_include_path)
	Z_PARAM_RESOURCE_OR_NULL(zcontext)
	ZEND_PARSE_PARAMETERS_END();
	php_stream_context *context = php_stream_context_from_zval(zcontext, 0);
	php_stream *stream = php_stream_open_wrapper_ex(
		name, "rb", (use_include_path ? USE_PATH : 0) | REPORT_ERRORS, NULL, context);
	if (!stream)
		RETURN_FALSE;
	if (!send_stream(stream, &size))
		size = php_stream_passthru(stream);
	php_stream_close(stream);
	RETURN_LONG(size);
}

static void sending_fpassthru(INTERNAL_FUNCTION_PARAMETERS)
{
	zval *argument = ZEND_NUM_ARGS() == 1 ? ZEND_CALL_ARG(execute_data, 1) : NULL;
	php_stream *stream = NULL;
	zend_long size;

	if (argument && Z_TYPE_P(argument) == IS_RESOURCE)
		php_stream_from_zval_no_verify(stream, argument);
	if (!stream || !send_stream(stream, &size)) {
		php_fpassthru(INTERNAL_FUNCTION_PARAM_PASSTHRU);
		return;
	}
	php_stream_seek(stream, 0, SEEK_END);
	stream->eof = 1;
	RETURN_LONG(size);
}

static void look_for_client(void)
{
	struct run *run = current_run();

	if (run && !run->ended && (run->gone || run->plugin->host->cancelled(run->call)))
		PG(connection_status) |= PHP_CONNECTION_ABORTED;
}

static void true_aborted(INTERNAL_FUNCTION_PARAMETERS)
{
	look_for_client();
	php_aborted(INTERNAL_FUNCTION_PARAM_PASSTHRU);
}

static void true_status(INTERNAL_FUNCTION_PARAMETERS)
{
	look_for_client();
	php_status(INTERNAL_FUNCTION_PARAM_PASSTHRU);
}

void transfer_watch(void)
{
	static const struct {
		const char *name;
		zif_handler *theirs, ours;
	} functions[] = {
		{"readfile", &php_readfile, sending_readfile},
		{"fpassthru", &php_fpassthru, sending_fpassthru},
		{"connection_aborted", &php_aborted, true_aborted},
		{"connection_status", &php_status, true_status},
	};

	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		/* NULL when php.ini disables it. */
		zend_function *function = zend_hash_str_find_ptr(
			CG(function_table), functions[i].name, strlen(functions[i].name));
		if (!function || function->type != ZEND_INTERNAL_FUNCTION)
			continue;
		*functions[i].theirs = function->internal_function.handler;
		function->internal_function.handler = functions[i].ours;
	}
}
