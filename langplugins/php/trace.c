/*
 * Where a stuck script is: written from a thread that is not PHP's, in a process that is about to be ended. The frames
 * may change while they are read, so the depth is bounded and nothing is followed but what a frame must have.
 */
#include <stdio.h>
#include <unistd.h>

#include "plugin.h"

#define DEPTH 100

void trace_dump(void *state, int fd)
{
	(void)state;
	zend_execute_data *frame = EG(current_execute_data);
	if (!frame) {
		dprintf(fd, "PHP: no script is running\n");
		return;
	}
	dprintf(fd, "PHP stack (innermost first):\n");
	for (int depth = 0; frame && depth < DEPTH; depth++, frame = frame->prev_execute_data) {
		zend_function *function = frame->func;
		if (!function)
			continue;
		const char *name = function->common.function_name ? ZSTR_VAL(function->common.function_name) : "main";
		const char *class = function->common.scope ? ZSTR_VAL(function->common.scope->name) : "";
		if (function->type == ZEND_USER_FUNCTION && frame->opline && function->op_array.filename)
			dprintf(fd, "  %s:%u %s%s%s()\n", ZSTR_VAL(function->op_array.filename), frame->opline->lineno,
				class, *class ? "::" : "", name);
		else
			dprintf(fd, "  [internal] %s%s%s()\n", class, *class ? "::" : "", name);
	}
}
