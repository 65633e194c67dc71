/*
 * A body that is read: a file behind a real handle goes by its descriptor, everything else by getline(). PSGI: close()
 * is called when it is done with, whatever happened; also when the application dies, calls exit(), or the client has
 * gone.
 */
#include "plugin.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 65536

struct body {
	struct request *request;
	SV *object;
};

static HV *class_of(pTHX_ SV *object)
{
	SV *target = SvRV(object);

	if (SvOBJECT(target))
		return SvSTASH(target);
	/* Handles without a class have IO::File's methods; perl keeps that with their IO. */
	if (isGV_with_GP(target) && GvIOp((GV *)target))
		return SvSTASH((SV *)GvIOp((GV *)target));
	return NULL;
}

static GV *method(pTHX_ SV *object, SV *name)
{
	HV *class = class_of(aTHX_ object);

	return class ? gv_fetchmethod_sv_flags(class, name, GV_AUTOLOAD) : NULL;
}

/* One value, mortal. */
static SV *call(pTHX_ SV *object, SV *name, I32 flags)
{
	dSP;

	PUSHMARK(SP);
	XPUSHs(object);
	PUTBACK;
	call_sv(name, G_SCALAR | G_METHOD | flags);
	SPAGAIN;
	SV *value = POPs;
	PUTBACK;
	return value;
}

/* From perl's savestack, where mortal values may be gone already. What dies here must not hide what died before. */
static void close_body(pTHX_ void *argument)
{
	struct body *body = argument;
	struct request *request = body->request;

	ENTER;
	SAVETMPS;
	SV *object = sv_2mortal(body->object), *before = sv_mortalcopy(ERRSV);
	Safefree(body);
	if (method(aTHX_ object, request->plugin->word_close)) {
		call(aTHX_ object, request->plugin->word_close, G_EVAL);
		SV *exception = interpreter_exception(aTHX);
		if (exception) {
			STRLEN size;
			const char *text = SvPV(load_text(aTHX_ exception), size);
			request->plugin->host->log(request->call, LP_ERROR, text, size);
		}
		sv_setsv(ERRSV, before);
	}
	FREETMPS;
	LEAVE;
}

/* ---- by descriptor */

/* True if what getline() gives is what lies behind the descriptor. */
static bool is_plain(pTHX_ SV *object, PerlIO *file)
{
	GV *own = method(aTHX_ object, newSVpvs_flags("getline", SVs_TEMP));
	CV *known = get_cv("IO::Handle::getline", 0);

	if (!own || !known || GvCV(own) != known)
		return false;
	if (PerlIOBase(file)->flags & (PERLIO_F_UTF8 | PERLIO_F_CRLF))
		return false;
	for (PerlIO *layer = file; PerlIOValid(layer); layer = PerlIONext(layer))
		if (strNE(PerlIOBase(layer)->tab->name, "perlio") && strNE(PerlIOBase(layer)->tab->name, "unix"))
			return false;
	return true;
}

static IO *io_of(SV *target)
{
	if (isGV_with_GP(target))
		return GvIOp((GV *)target);
	return SvTYPE(target) == SVt_PVIO ? (IO *)target : NULL;
}

/* A regular file's descriptor and the place that the program sees in it, or -1. */
static int descriptor_of(pTHX_ SV *object, int64_t *offset)
{
	IO *io = io_of(SvRV(object));
	PerlIO *file = io ? IoIFP(io) : NULL;
	struct stat st;

	if (!file || !PerlIOValid(file) || SvRMAGICAL(io) || !is_plain(aTHX_ object, file))
		return -1;
	int fd = PerlIO_fileno(file);
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return -1;
	*offset = PerlIO_tell(file);
	return *offset >= 0 ? fd : -1;
}

/*
 * path() names the file that getline() would give. It is taken at its word only if the Content-Length, if there is one,
 * is the file's: an object that gives a part of it has no way to say so.
 */
static int open_path(pTHX_ struct request *request, SV *object)
{
	struct stat st;

	if (!SvOBJECT(SvRV(object)) || !method(aTHX_ object, request->plugin->word_path))
		return -1;
	SV *path = call(aTHX_ object, request->plugin->word_path, 0);
	if (!SvOK(path))
		return -1;
	struct langplugin_text name = answer_bytes(aTHX_ request, path, "the body's path");
	if (name.size == 0 || name.data[0] != '/' || strlen(name.data) != name.size)
		return -1;
	int fd = open(name.data, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (request->left < 0 || request->left == st.st_size))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* LP_FAILED: it could not be read. */
static int send_file(struct request *request, int fd, int64_t offset)
{
	const struct langplugin_host *host = request->plugin->host;
	int64_t length = request->left;
	struct stat st;

	/* Not more than the Content-Length, which is how a part of a file is sent. */
	if (length >= 0 && fstat(fd, &st) == 0 && st.st_size - offset < length)
		length = -1;
	int result = host->send_file(request->call, fd, offset, length);
	request->gone = result != LP_OK && result != LP_FAILED;
	return result;
}

/* ---- by getline() */

static void read_lines(pTHX_ struct request *request, SV *object)
{
	SV *separator = get_sv("/", GV_ADD);

	/* PSGI: blocks rather than lines, where the handle is perl's; an application may have set it already. */
	if (!SvROK(separator)) {
		save_item(separator);
		sv_setsv_mg(separator, sv_2mortal(newRV_noinc(newSViv(BLOCK))));
	}
	for (bool more = true; more;) {
		ENTER;
		SAVETMPS;
		SV *part = call(aTHX_ object, request->plugin->word_getline, 0);
		more = SvOK(part) && answer_write(aTHX_ request, answer_bytes(aTHX_ request, part, "the body"), true);
		FREETMPS;
		LEAVE;
	}
}

void body_send(pTHX_ struct request *request, SV *object)
{
	int64_t offset = 0;

	ENTER;
	struct body *body;
	Newx(body, 1, struct body);
	*body = (struct body){request, newSVsv(object)};
	SAVEDESTRUCTOR_X(close_body, body);
	if (!class_of(aTHX_ object) || !method(aTHX_ object, request->plugin->word_getline))
		answer_die(aTHX_ request, "the body is %s, expected an array, a handle or an object with getline()",
			sv_reftype(SvRV(object), 1));
	int fd = request->decoder || request->bodiless ? -1 : descriptor_of(aTHX_ object, &offset), result = LP_OK;
	if (request->bodiless) {
		answer_end(aTHX_ request);
	} else if (fd >= 0) {
		result = send_file(request, fd, offset);
	} else if (!request->decoder && (fd = open_path(aTHX_ request, object)) >= 0) {
		result = send_file(request, fd, 0);
		int saved = errno;
		close(fd);
		errno = saved;
	} else if (!request->gone) {
		read_lines(aTHX_ request, object);
	}
	if (result == LP_FAILED)
		answer_die(aTHX_ request, "the body's file could not be read: %s", Strerror(errno));
	answer_end(aTHX_ request);
	LEAVE;
}
