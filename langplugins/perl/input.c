/*
 * psgi.input: the request's body, asked for when it is first read. Three kinds:
 *
 *   kept     its length is known and no more than INPUT_KEPT: what has been read stays in the buffer, and seek() works
 *   spooled  its length was not known, and the application has asked for CONTENT_LENGTH: all of it is in a file
 * (spool.c) stream   every other: a buffer that is filled again and again; large reads do not go through it
 *
 * The layer inherits perl's buffer layer (perliol.h): buf to end is what is there, ptr the place in it, posn the offset
 * of buf in the body.
 */
#include "input.h"

#include <unistd.h>

#define BUFFER 16384

/* Signal handlers of the application run while it waits; one of them may close the handle. */
static ssize_t wait_for_body(pTHX_ PerlIO *file, struct langplugin_call *call, const struct langplugin_host *host)
{
	int result = host->wait(call, -1, 0, -1);

	if (PL_sig_pending) {
		despatch_signals();
		if (!PerlIOValid(file) || PerlIOBase(file)->tab != &input_layer)
			return LP_GONE;
	}
	return result < 0 ? result : 0;
}

ssize_t input_fetch(pTHX_ PerlIO *file, char *to, size_t size)
{
	struct input *input = input_of(file);

	if (input->ended)
		return 0;
	if (!input->plugin || !input->plugin->request || input->plugin->request->taken) {
		SETERRNO(EBADF, SS_IVCHAN);
		return -1;
	}
	const struct langplugin_host *host = input->plugin->host;
	struct langplugin_call *call = input->plugin->request->call;
	ssize_t got;
	while ((got = host->read(call, to, size, LP_NOWAIT)) == LP_AGAIN)
		if ((got = wait_for_body(aTHX_ file, call, host)) < 0)
			break;
	/* LP_INVALID: the answer is complete, and what is left of the body is nobody's. */
	if (got == 0 || got == LP_INVALID) {
		input->ended = true;
		return 0;
	}
	if (got < 0) {
		SETERRNO(ECONNRESET, SS_IVCHAN);
		return -1;
	}
	return got;
}

static IV input_fill(pTHX_ PerlIO *file)
{
	struct input *input = input_of(file);
	PerlIOBuf *b = &input->buffer;
	ssize_t got;

	PerlIOBuf_get_base(aTHX_ file);
	if (!input->kept) {
		b->posn += b->end - b->buf;
		b->ptr = b->end = b->buf;
	}
	size_t room = b->bufsiz - (size_t)(b->end - b->buf);
	got = room == 0		  ? 0
	      : input->spool >= 0 ? spool_read(input, b->posn, b->buf, room)
				  : input_fetch(aTHX_ file, b->end, room);
	if (got <= 0) {
		PerlIOBase(file)->flags |= got ? PERLIO_F_ERROR : PERLIO_F_EOF;
		return -1;
	}
	b->end += got;
	PerlIOBase(file)->flags |= PERLIO_F_RDBUF;
	return 0;
}

static SSize_t input_read(pTHX_ PerlIO *file, void *to, Size_t size)
{
	struct input *input = input_of(file);
	PerlIOBuf *b = &input->buffer;
	char *at = to;
	size_t left = size;

	while (left > 0) {
		size_t there = (size_t)(b->end - b->ptr);
		if (there > left)
			there = left;
		if (there > 0) {
			memcpy(at, b->ptr, there);
			b->ptr += there;
		} else if (input->kept || input->spool >= 0 || left < b->bufsiz) {
			if (input_fill(aTHX_ file))
				break;
			continue;
		} else {
			ssize_t got = input_fetch(aTHX_ file, at, left);
			if (got <= 0) {
				PerlIOBase(file)->flags |= got ? PERLIO_F_ERROR : PERLIO_F_EOF;
				break;
			}
			there = (size_t)got;
			b->posn += b->end - b->buf + got;
			b->ptr = b->end = b->buf;
		}
		at += there;
		left -= there;
	}
	return left == size && size > 0 && PerlIOValid(file) && PerlIOBase(file)->flags & PERLIO_F_ERROR
		       ? -1
		       : (SSize_t)(size - left);
}

static Off_t input_tell(pTHX_ PerlIO *file)
{
	PERL_UNUSED_CONTEXT;
	return input_place(input_of(file));
}

static IV refuse(int error)
{
	errno = error;
	return -1;
}

static IV input_seek(pTHX_ PerlIO *file, Off_t offset, int whence)
{
	struct input *input = input_of(file);
	PerlIOBuf *b = &input->buffer;
	Off_t to = offset;

	if (whence == SEEK_CUR)
		to += input_place(input);
	else if (whence == SEEK_END && input->length < 0)
		return refuse(ESPIPE);
	else if (whence == SEEK_END)
		to += (Off_t)input->length;
	if (to < 0)
		return refuse(EINVAL);
	if (input->spool >= 0) {
		if (to < input->spooled)
			return refuse(ESPIPE);
		b->posn = to;
		b->ptr = b->end = b->buf;
	} else {
		if (to < b->posn)
			return refuse(ESPIPE);
		/* Forward is reading. */
		while (to > b->posn + (b->end - b->buf))
			if (input_fill(aTHX_ file))
				return refuse(PerlIOBase(file)->flags & PERLIO_F_ERROR ? ECONNRESET : EINVAL);
		b->ptr = b->buf + (to - b->posn);
	}
	PerlIOBase(file)->flags &= ~(U32)PERLIO_F_EOF;
	return 0;
}

static IV input_pushed(pTHX_ PerlIO *file, const char *mode, SV *argument, PerlIO_funcs *layer)
{
	input_of(file)->spool = -1;
	return PerlIOBuf_pushed(aTHX_ file, mode, argument, layer);
}

static IV input_popped(pTHX_ PerlIO *file)
{
	spool_forget(input_of(file));
	return PerlIOBuf_popped(aTHX_ file);
}

static IV no_descriptor(pTHX_ PerlIO *file)
{
	PERL_UNUSED_CONTEXT;
	PERL_UNUSED_ARG(file);
	return -1;
}

/* There is nothing below to write to. */
static IV input_flush(pTHX_ PerlIO *file)
{
	PERL_UNUSED_CONTEXT;
	PERL_UNUSED_ARG(file);
	return 0;
}

PerlIO *layer_dup(pTHX_ PerlIO *file, PerlIO *of, CLONE_PARAMS *parameters, int flags)
{
	PERL_UNUSED_CONTEXT;
	PERL_UNUSED_ARG(file);
	PERL_UNUSED_ARG(of);
	PERL_UNUSED_ARG(parameters);
	PERL_UNUSED_ARG(flags);
	SETERRNO(EBADF, SS_IVCHAN);
	return NULL;
}

PerlIO_funcs input_layer = {
	.fsize = sizeof(PerlIO_funcs),
	.name = "webserver_input",
	.size = sizeof(struct input),
	.kind = PERLIO_K_BUFFERED | PERLIO_K_RAW | PERLIO_K_FASTGETS,
	.Pushed = input_pushed,
	.Popped = input_popped,
	.Binmode = PerlIOBase_binmode,
	.Fileno = no_descriptor,
	.Dup = layer_dup,
	.Read = input_read,
	.Unread = PerlIOBuf_unread,
	.Seek = input_seek,
	.Tell = input_tell,
	.Close = PerlIOBuf_close,
	.Flush = input_flush,
	.Fill = input_fill,
	.Eof = PerlIOBase_eof,
	.Error = PerlIOBase_error,
	.Clearerr = PerlIOBase_clearerr,
	.Setlinebuf = PerlIOBase_setlinebuf,
	.Get_base = PerlIOBuf_get_base,
	.Get_bufsiz = PerlIOBuf_bufsiz,
	.Get_ptr = PerlIOBuf_get_ptr,
	.Get_cnt = PerlIOBuf_get_cnt,
	.Set_ptrcnt = PerlIOBuf_set_ptrcnt,
};

/* ---- one for each request */

/* The buffer stays from request to request unless it is too small. */
static void prepare(PerlIO *file, struct request *request)
{
	struct input *input = input_of(file);
	PerlIOBuf *b = &input->buffer;
	int64_t length = request->about->content_length;

	input->plugin = request->plugin;
	input->length = length;
	input->kept = length >= 0 && length <= INPUT_KEPT;
	input->ended = length == 0;
	input->spooled = 0;
	size_t size = input->kept && length > BUFFER ? INPUT_KEPT : BUFFER;
	if (b->buf && b->bufsiz < size) {
		Safefree(b->buf);
		b->buf = NULL;
	}
	if (!b->buf)
		b->bufsiz = size;
	b->posn = 0;
	b->ptr = b->end = b->buf;
	PerlIOBase(file)->flags &= ~(U32)PERLIO_F_RDBUF;
}

SV *input_take(pTHX_ struct request *request)
{
	struct plugin *plugin = request->plugin;
	GV *handle = handle_take(aTHX_ & plugin->input, "psgi.input", &input_layer, "r", IoTYPE_RDONLY);

	prepare(handle_file(handle), request);
	return newRV_inc((SV *)handle);
}

PerlIO *input_file(const struct plugin *plugin)
{
	PerlIO *file = plugin->input && GvIOp(plugin->input) ? handle_file(plugin->input) : NULL;

	return file && PerlIOValid(file) && PerlIOBase(file)->tab == &input_layer ? file : NULL;
}

void input_release(pTHX_ struct plugin *plugin)
{
	PerlIO *file = input_file(plugin);

	if (file) {
		spool_forget(input_of(file));
		input_of(file)->plugin = NULL;
		input_of(file)->ended = false;
	}
	if (plugin->input && SvREFCNT(plugin->input) != 1)
		handle_release(aTHX_ & plugin->input);
}
