/* psgi.input as input.c and spool.c share it. */
#ifndef WEBSERVER_PERL_INPUT_H
#define WEBSERVER_PERL_INPUT_H

#include "plugin.h"

struct input {
	PerlIOBuf buffer;
	struct plugin *plugin; /* NULL: the request is over */
	int64_t length;	       /* -1: not known */
	bool kept;
	bool ended;    /* the host has no more */
	int spool;     /* descriptor, or -1 */
	Off_t spooled; /* what comes before this offset is not in it */
};

static inline struct input *input_of(PerlIO *file)
{
	return PerlIOSelf(file, struct input);
}

/* The reader's place in the body. */
static inline Off_t input_place(const struct input *input)
{
	return input->buffer.posn + (input->buffer.ptr - input->buffer.buf);
}

/* Bytes from the host: above 0; 0 at the end; -1 and errno. */
ssize_t input_fetch(pTHX_ PerlIO *file, char *to, size_t size);
/* The layer of the last request's handle; NULL: closed. */
PerlIO *input_file(const struct plugin *plugin);

ssize_t spool_read(struct input *input, Off_t at, char *to, size_t size);
void spool_forget(struct input *input);

#endif
