/*
 * Where a script is, and its end when its time is over. Asked for from a thread that is not PHP's, while the script
 * runs, or hangs, and goes on afterwards.
 *
 * A script that computes is asked to tell itself: PHP looks at vm_interrupt at each jump backwards and each call, and
 * what the hook sees is true; of a frame that runs the line would be that of its last call. One that hangs in a
 * function written in C does not come there. Then the frames stand still and are read from outside, by
 * process_vm_readv(2) from this very process, which says EFAULT where a pointer would be followed into nothing.
 */
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "plugin.h"

#define DEPTH 100

static void (*next_hook)(zend_execute_data *frame);

static bool peek(const void *from, void *to, size_t size)
{
	struct iovec local = {to, size}, remote = {(void *)(uintptr_t)from, size};

	return from && process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static void peek_string(const zend_string *from, char *to, size_t room)
{
	size_t size = 0;

	to[0] = 0;
	if (!peek(from ? &from->len : NULL, &size, sizeof(size)))
		return;
	size = size < room ? size : room - 1;
	if (!peek(from->val, to, size))
		size = 0;
	to[size] = 0;
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)to[i] < ' ')
			to[i] = '?';
}

static void peek_frame(int fd, const zend_execute_data *frame)
{
	const zend_function *function = frame->func;
	zend_string *name = NULL, *file = NULL;
	zend_class_entry *scope = NULL;
	char names[128], classes[128] = "", files[512];
	zend_uchar type;
	uint32_t line = 0;

	if (!function || !peek(&function->type, &type, sizeof(type)))
		return;
	peek(&function->common.function_name, &name, sizeof(name));
	peek_string(name, names, sizeof(names));
	if (peek(&function->common.scope, &scope, sizeof(scope)) && scope && peek(&scope->name, &name, sizeof(name)))
		peek_string(name, classes, sizeof(classes));
	const char *called = names[0] ? names : "main", *between = classes[0] ? "::" : "";
	if (type != ZEND_USER_FUNCTION) {
		dprintf(fd, "  [internal] %s%s%s()\n", classes, between, called);
		return;
	}
	if (!peek(&function->op_array.filename, &file, sizeof(file)) || !frame->opline)
		return;
	peek(&frame->opline->lineno, &line, sizeof(line));
	peek_string(file, files, sizeof(files));
	dprintf(fd, "  %s:%u %s%s%s()\n", files, line, classes, between, called);
}

static void write_frames(int fd)
{
	const zend_execute_data *at = EG(current_execute_data);
	zend_execute_data frame;

	dprintf(fd, "PHP stack (innermost first):\n");
	for (int depth = 0; depth < DEPTH && peek(at, &frame, sizeof(frame)); depth++, at = frame.prev_execute_data)
		peek_frame(fd, &frame);
}

/* Called by PHP on its own thread, between two instructions. */
static void hook(zend_execute_data *frame)
{
	const struct langplugin_host *host = sapi_plugin()->host;
	struct run *run = current_run();
	int fd = host->asked();

	if (fd >= 0) {
		write_frames(fd);
		close(fd);
	}
	if (next_hook)
		next_hook(frame);
	if (run && host->overdue(run->call))
		zend_error_noreturn(E_ERROR, "The request has run for longer than its request_timeout");
}

int trace_ask(void *state)
{
	(void)state;
	zend_atomic_bool_store(&EG(vm_interrupt), true);
	return EG(current_execute_data) ? 0 : -1;
}

void trace_dump(void *state, int fd)
{
	(void)state;
	if (EG(current_execute_data))
		write_frames(fd);
	else
		dprintf(fd, "PHP: no script is running\n");
}

void trace_watch(void)
{
	next_hook = zend_interrupt_function;
	zend_interrupt_function = hook;
}
