/* A request's body of unknown length in a file, once the application has asked how long it is. */
#include "input.h"

#include <fcntl.h>
#include <unistd.h>

void spool_forget(struct input *input)
{
	if (input->spool >= 0)
		close(input->spool);
	input->spool = -1;
}

ssize_t spool_read(struct input *input, Off_t at, char *to, size_t size)
{
	ssize_t got;

	while ((got = pread(input->spool, to, size, at - input->spooled)) < 0 && errno == EINTR)
		;
	return got;
}

static int open_spool(void)
{
	const char *directory = getenv("TMPDIR");
	char name[PATH_MAX];

	if (!directory || directory[0] != '/')
		directory = "/tmp";
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	if (snprintf(name, sizeof(name), "%s/webserver-XXXXXX", directory) >= (int)sizeof(name)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(name, O_CLOEXEC);
	if (fd >= 0)
		unlink(name);
	return fd;
}

static bool write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t put = write(fd, data, size);
		if (put < 0 && errno != EINTR)
			return false;
		if (put > 0) {
			data += put;
			size -= (size_t)put;
		}
	}
	return true;
}

/* All that is left of the body into a file; the place in the body stays. False and errno. */
static bool receive(pTHX_ PerlIO *file)
{
	struct input *input = input_of(file);
	PerlIOBuf *b = &input->buffer;
	int fd = open_spool();
	bool good = fd >= 0;

	if (!good)
		return false;
	PerlIOBuf_get_base(aTHX_ file);
	Off_t place = input_place(input), from = b->posn, to = b->posn + (b->end - b->buf);
	good = write_all(fd, b->buf, (size_t)(b->end - b->buf));
	while (good) {
		b->ptr = b->end = b->buf;
		ssize_t got = input_fetch(aTHX_ file, b->buf, b->bufsiz);
		if (got <= 0) {
			good = got == 0;
			break;
		}
		good = write_all(fd, b->buf, (size_t)got);
		to += got;
	}
	b->ptr = b->end = b->buf;
	b->posn = place;
	if (!good) {
		int saved = errno;
		close(fd);
		errno = saved;
		return false;
	}
	input->spool = fd;
	input->spooled = from;
	input->length = to;
	return true;
}

/* Perl has asked for the value of CONTENT_LENGTH. */
static int length_get(pTHX_ SV *value, MAGIC *magic)
{
	struct plugin *plugin = (struct plugin *)(void *)magic->mg_ptr;
	PerlIO *file = plugin ? input_file(plugin) : NULL;
	UV serial = SvUV(magic->mg_obj);

	if (!file || serial != plugin->serial || !input_of(file)->plugin)
		return 0;
	if (input_of(file)->length < 0 && !receive(aTHX_ file))
		Perl_croak(aTHX_ "the request's body could not be read for its CONTENT_LENGTH: %s", Strerror(errno));
	sv_setiv(value, (IV)input_of(file)->length);
	return 0;
}

/* The application knows better. */
static int length_set(pTHX_ SV *value, MAGIC *magic)
{
	PERL_UNUSED_CONTEXT;
	PERL_UNUSED_ARG(value);
	magic->mg_ptr = NULL;
	return 0;
}

static const MGVTBL length_magic = {.svt_get = length_get, .svt_set = length_set};

/*
 * Applications read as much as CONTENT_LENGTH says, and a chunked body has none. So it gets one when it is looked at:
 * the body is received first, as servers of Perl applications do. One that is never looked at, or that is read to its
 * end without it, is not.
 */
SV *input_length(pTHX_ struct request *request)
{
	SV *value = newSV_type(SVt_PVMG);
	SV *serial = newSVuv(request->plugin->serial);

	sv_magicext(value, serial, PERL_MAGIC_ext, &length_magic, (const char *)(void *)request->plugin, 0);
	SvREFCNT_dec(serial);
	return value;
}
