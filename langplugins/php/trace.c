/*
 * Where a script is, and its end when its time is over. Asked for from a thread that is not PHP's, while the script
 * runs, or hangs, and goes on afterwards.
 *
 * A script that computes is asked to tell itself: PHP looks at vm_interrupt at each jump backwards and each call, and
 * what the hook sees is true; of a frame that runs the line would be that of its last call. One that hangs in a
 * function written in C does not come there. Then the frames stand still and are read from outside, by
 * process_vm_readv(2) from this very process, which says EFAULT where a pointer would be followed into nothing.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"

#define DEPTH	100
#define HOOK_MS 150 /* for the script to tell itself */

static atomic_int dump_to = -1;
static atomic_bool stop;
static sem_t dumped;
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
	int fd = atomic_exchange(&dump_to, -1);

	if (fd >= 0) {
		write_frames(fd);
		sem_post(&dumped);
	}
	if (next_hook)
		next_hook(frame);
	if (atomic_exchange(&stop, false))
		zend_error_noreturn(E_ERROR, "The request has run for longer than its request_timeout");
}

static void ask(void)
{
	zend_atomic_bool_store(&EG(vm_interrupt), true);
}

static bool has_told(int milliseconds)
{
	struct timespec until;
	int result;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += milliseconds * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	do
		result = sem_clockwait(&dumped, CLOCK_MONOTONIC, &until);
	while (result && errno == EINTR);
	return result == 0;
}

void trace_dump(void *state, int fd)
{
	(void)state;
	if (!EG(current_execute_data)) {
		dprintf(fd, "PHP: no script is running\n");
		return;
	}
	while (sem_trywait(&dumped) == 0)
		; /* of an earlier one that was late */
	atomic_store(&dump_to, fd);
	ask();
	if (has_told(HOOK_MS))
		return;
	if (atomic_exchange(&dump_to, -1) >= 0)
		write_frames(fd);
	else
		has_told(HOOK_MS); /* it is telling just now */
}

void trace_interrupt(void *state, struct langplugin_call *call)
{
	(void)state;
	(void)call;
	atomic_store(&stop, true);
	ask();
}

void trace_begin(void)
{
	atomic_store(&stop, false);
}

void trace_watch(void)
{
	sem_init(&dumped, 0, 0);
	next_hook = zend_interrupt_function;
	zend_interrupt_function = hook;
}
