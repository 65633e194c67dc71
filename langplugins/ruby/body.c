/*
 * The body: a file that the server sends, an array, what each() yields, or a Rack 3 body that writes to a stream. What
 * fits is handed over with Ruby's lock held, since that does not wait; anything that would is done without it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugin.h"

#define PIECE 262144 /* written at once: what the channel carries in one message */

static ID id_each, id_call, id_to_path, id_to_ary;

struct part {
	const char *data;
	size_t size;
};

static int write_part(struct thread *thread, void *argument)
{
	struct part *part = argument;

	return thread->host->write(thread->call, part->data, part->size, 0);
}

static int flush_waiting(struct thread *thread, void *argument)
{
	(void)argument;
	return thread->host->flush(thread->call, 0);
}

static int end_waiting(struct thread *thread, void *argument)
{
	(void)argument;
	return thread->host->end(thread->call);
}

/* LP_AGAIN of call_wait(): something was raised in this thread, or nearly. */
static int until_done(struct thread *thread, waiting_function *function, void *argument)
{
	int result;

	while ((result = call_wait(thread, function, argument)) == LP_AGAIN)
		rb_thread_check_ints();
	return result;
}

void body_end(struct thread *thread)
{
	if (thread->ended)
		return;
	call_turn(thread);
	int result = call_wait(thread, end_waiting, NULL);
	/* Something is to be raised here: the host ends the answer later. */
	if (result == LP_AGAIN)
		return;
	thread->ended = true;
	if (result == LP_GONE)
		thread->gone = true;
}

bool body_flush(struct thread *thread)
{
	if (thread->gone || thread->ended || thread->no_body)
		return !thread->gone;
	int result = thread->host->flush(thread->call, LP_NOWAIT);
	if (result == LP_AGAIN)
		result = until_done(thread, flush_waiting, NULL);
	if (result == LP_GONE)
		thread->gone = true;
	return !thread->gone;
}

static bool surplus(struct thread *thread)
{
	static const char text[] = "the application's answer is longer than its Content-Length; the rest is cut off";

	if (!thread->gone)
		thread->host->log(thread->call, LP_ERROR, text, sizeof(text) - 1);
	return false;
}

static int put_waiting(struct thread *thread, const char *data, size_t size, VALUE owner)
{
	int result = LP_OK;

	/* Other threads run meanwhile, and could change it. */
	if (!RB_OBJ_FROZEN(owner)) {
		owner = rb_obj_freeze(rb_str_new(data, (long)size));
		data = RSTRING_PTR(owner);
	}
	while (size > 0 && result == LP_OK) {
		struct part part = {data, size < PIECE ? size : PIECE};
		result = until_done(thread, write_part, &part);
		data += part.size;
		size -= part.size;
	}
	RB_GC_GUARD(owner);
	return result;
}

/* The last byte of the Content-Length goes out with the end of the answer, in one message, and before the application
   is asked for more: what it does then keeps no client waiting. */
static bool put_last(struct thread *thread, const char *data, size_t size, VALUE owner)
{
	int result = thread->host->write(thread->call, data, size, LP_NOWAIT);

	if (result == LP_AGAIN)
		result = put_waiting(thread, data, size, owner);
	thread->left = 0;
	if (result == LP_OK)
		body_end(thread);
	else
		thread->gone = true;
	return !thread->gone;
}

bool body_put(struct thread *thread, const char *data, size_t size, VALUE owner, bool flush)
{
	call_turn(thread);
	if (thread->gone)
		return false;
	if (size == 0 || thread->no_body)
		return true;
	if (thread->left == 0 || thread->ended)
		return surplus(thread);
	if (flush && thread->left == (int64_t)size)
		return put_last(thread, data, size, owner);
	int result = thread->host->write(thread->call, data, size, LP_NOWAIT);
	if (result == LP_AGAIN)
		result = put_waiting(thread, data, size, owner);
	if (result == LP_INVALID)
		rb_raise(rb_eIOError, "the answer is over");
	if (thread->left >= 0)
		thread->left = thread->left > (int64_t)size ? thread->left - (int64_t)size : 0;
	if (result != LP_OK)
		thread->gone = true;
	else if (flush)
		body_flush(thread);
	RB_GC_GUARD(owner);
	return !thread->gone;
}

bool body_write(struct thread *thread, VALUE part, bool flush)
{
	if (!RB_TYPE_P(part, T_STRING))
		rb_raise(rb_eTypeError, "the application's body must yield strings, not %" PRIsVALUE,
			rb_obj_class(part));
	if (thread->chunked)
		return chunks_write(thread, part);
	/* What may be waited for must not be changed by another thread meanwhile; the frozen one shares its memory. */
	VALUE owner = RSTRING_LEN(part) > 32768 ? rb_str_new_frozen(part) : part;
	return body_put(thread, RSTRING_PTR(owner), (size_t)RSTRING_LEN(owner), owner, flush);
}

/* ---- the kinds of body */

/* Nothing is computed between its parts, so nothing is gained by sending them apart. */
static void send_array(struct thread *thread, int status, size_t count, bool has_length, VALUE parts)
{
	int64_t length = 0;

	for (long i = 0; i < RARRAY_LEN(parts) && length >= 0; i++) {
		VALUE part = RARRAY_AREF(parts, i);
		length = RB_TYPE_P(part, T_STRING) ? length + RSTRING_LEN(part) : -1;
	}
	answer_head(thread, status, count, has_length, length);
	/* By index: the application may change the array while the lock is given away. */
	for (long i = 0; i < RARRAY_LEN(parts); i++)
		if (!body_write(thread, RARRAY_AREF(parts, i), false))
			return;
}

static VALUE each_part(RB_BLOCK_CALL_FUNC_ARGLIST(part, argument))
{
	(void)argc;
	(void)argv;
	(void)blockarg;
	/* It is on its way before the next is asked for. */
	if (!body_write((struct thread *)argument, part, true))
		rb_iter_break();
	return Qnil;
}

static void send_each(struct thread *thread, VALUE body)
{
	if (thread->no_body || thread->gone)
		return;
	rb_block_call(body, id_each, 0, NULL, each_part, (VALUE)thread);
	if (thread->chunked && !thread->gone)
		chunks_end(thread);
}

static int file_to_send(VALUE body, int64_t *size)
{
	VALUE path = rb_funcallv(body, id_to_path, 0, NULL);
	struct stat st;

	if (!RB_TYPE_P(path, T_STRING))
		return -1;
	int fd = rb_cloexec_open(StringValueCStr(path), O_RDONLY | O_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return -1;
	}
	*size = st.st_size;
	return fd;
}

struct file {
	struct thread *thread;
	int fd, status;
	size_t count;
	bool has_length;
	int64_t length;
};

static int send_waiting(struct thread *thread, void *argument)
{
	struct file *file = argument;

	return thread->host->send_file(thread->call, file->fd, 0, file->length);
}

static VALUE send_opened(VALUE argument)
{
	struct file *file = (struct file *)argument;
	struct thread *thread = file->thread;

	if (thread->left >= 0 && thread->left < file->length)
		file->length = thread->left;
	answer_head(thread, file->status, file->count, file->has_length, file->length);
	if (thread->no_body || thread->gone)
		return Qnil;
	int result = until_done(thread, send_waiting, file);
	if (result == LP_FAILED)
		rb_sys_fail("the answer's file");
	if (result == LP_GONE)
		thread->gone = true;
	return Qnil;
}

static VALUE close_opened(VALUE argument)
{
	close(((struct file *)argument)->fd);
	return Qnil;
}

/* False: there is no such file; each() will say what that means. */
static bool send_path(struct thread *thread, int status, size_t count, bool has_length, VALUE body)
{
	struct file file = {thread, -1, status, count, has_length, 0};

	file.fd = file_to_send(body, &file.length);
	if (file.fd < 0)
		return false;
	rb_ensure(send_opened, (VALUE)&file, close_opened, (VALUE)&file);
	return true;
}

/* SPEC: to_ary gives the whole body, and has closed it. */
static bool send_whole(struct thread *thread, int status, size_t count, bool has_length, VALUE body)
{
	VALUE parts = rb_check_array_type(rb_funcallv(body, id_to_ary, 0, NULL));

	if (NIL_P(parts))
		return false;
	thread->body = Qnil;
	send_array(thread, status, count, has_length, parts);
	RB_GC_GUARD(parts);
	return true;
}

static void send_stream(struct thread *thread, VALUE body)
{
	VALUE stream = stream_of(thread);

	rb_funcallv(body, id_call, 1, &stream);
	thread->streaming = false;
}

void body_send(struct thread *thread, int status, size_t count, bool has_length)
{
	VALUE body = thread->body;

	if (!id_each) {
		id_each = rb_intern("each");
		id_call = rb_intern("call");
		id_to_path = rb_intern("to_path");
		id_to_ary = rb_intern("to_ary");
	}
	if (thread->streaming) {
		send_stream(thread, body);
	} else if (RB_TYPE_P(body, T_ARRAY)) {
		send_array(thread, status, count, has_length, body);
	} else if (thread->chunked || !rb_respond_to(body, id_to_path) ||
		   !send_path(thread, status, count, has_length, body)) {
		if (rb_respond_to(body, id_to_ary) && send_whole(thread, status, count, has_length, body))
			return;
		if (!rb_respond_to(body, id_each) && !rb_respond_to(body, id_call))
			rb_raise(rb_eTypeError, "the body must respond to each or call: %" PRIsVALUE,
				rb_obj_class(body));
		answer_head(thread, status, count, has_length, -1);
		if (rb_respond_to(body, id_each)) {
			send_each(thread, body);
		} else if (!thread->no_body) {
			thread->streaming = true;
			send_stream(thread, body);
		}
	}
}
