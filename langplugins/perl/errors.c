/*
 * psgi.errors, and standard error: whole lines go to the group's error log with the request's id. A line without an end
 * is kept until it has one, or the request is over.
 *
 * On standard error the layer lies on top of perl's own. Descriptor 2 stays what it is for programs that the
 * application runs; and once the application has sent it somewhere else, the lines go there.
 */
#include "plugin.h"

#include <sys/stat.h>
#include <unistd.h>

#define LONGEST 32768 /* of what is kept without an end */

struct errors {
	struct _PerlIO base;
	struct plugin *plugin; /* NULL: the request is over */
	char *text;
	size_t size, room;
	struct stat pipe; /* what descriptor 2 was */
};

static struct errors *errors_of(PerlIO *file)
{
	return PerlIOSelf(file, struct errors);
}

static void say(struct errors *errors, const char *text, size_t size)
{
	const struct plugin *plugin = errors->plugin;

	if (plugin && size)
		plugin->host->log(plugin->request ? plugin->request->call : NULL, LP_NOTICE, text, size);
}

static bool reserve(struct errors *errors, size_t size)
{
	if (size <= errors->room)
		return true;
	char *text = realloc(errors->text, size);
	if (!text)
		return false;
	errors->text = text;
	errors->room = size;
	return true;
}

static void take(struct errors *errors, const char *data, size_t size)
{
	const char *end = memrchr(data, '\n', size);
	size_t whole = end ? (size_t)(end - data) + 1 : 0;

	if (whole && errors->size && reserve(errors, errors->size + whole)) {
		memcpy(errors->text + errors->size, data, whole);
		say(errors, errors->text, errors->size + whole);
	} else if (whole) {
		say(errors, data, whole);
	}
	if (whole)
		errors->size = 0;
	data += whole;
	size -= whole;
	if (errors->size + size > LONGEST) {
		say(errors, errors->text, errors->size);
		say(errors, data, size);
		errors->size = 0;
	} else if (size && reserve(errors, errors->size + size)) {
		memcpy(errors->text + errors->size, data, size);
		errors->size += size;
	}
}

static bool redirected(const struct errors *errors)
{
	struct stat now;

	return fstat(STDERR_FILENO, &now) == 0 &&
	       (now.st_dev != errors->pipe.st_dev || now.st_ino != errors->pipe.st_ino);
}

static SSize_t errors_write(pTHX_ PerlIO *file, const void *data, Size_t size)
{
	struct errors *errors = errors_of(file);
	PerlIO *below = PerlIONext(file);

	if (PerlIOValid(below) && redirected(errors))
		return PerlIO_write(below, data, size);
	if (!errors->plugin) {
		SETERRNO(EBADF, SS_IVCHAN);
		PerlIOBase(file)->flags |= PERLIO_F_ERROR;
		return -1;
	}
	take(errors, data, size);
	return (SSize_t)size;
}

/* Not what has no end yet: print with $| set flushes after each piece of a line. */
static IV errors_flush(pTHX_ PerlIO *file)
{
	PerlIO *below = PerlIONext(file);

	return PerlIOValid(below) ? PerlIO_flush(below) : 0;
}

static void finish(struct errors *errors)
{
	say(errors, errors->text, errors->size);
	errors->size = 0;
}

static IV errors_popped(pTHX_ PerlIO *file)
{
	struct errors *errors = errors_of(file);

	finish(errors);
	free(errors->text);
	errors->text = NULL;
	errors->room = 0;
	return PerlIOBase_popped(aTHX_ file);
}

/* A copy of standard error is what lies below; of psgi.errors, which has no descriptor, there is none. */
static PerlIO *errors_dup(pTHX_ PerlIO *file, PerlIO *of, CLONE_PARAMS *parameters, int flags)
{
	PerlIO *below = PerlIONext(of);

	if (PerlIOValid(below) && PerlIOBase(below)->tab->Dup)
		return PerlIOBase(below)->tab->Dup(aTHX_ file, below, parameters, flags);
	SETERRNO(EBADF, SS_IVCHAN);
	return NULL;
}

PerlIO_funcs errors_layer = {
	.fsize = sizeof(PerlIO_funcs),
	.name = "webserver_errors",
	.size = sizeof(struct errors),
	.kind = PERLIO_K_RAW,
	.Pushed = PerlIOBase_pushed,
	.Popped = errors_popped,
	.Binmode = PerlIOBase_binmode,
	.Fileno = PerlIOBase_fileno,
	.Dup = errors_dup,
	.Write = errors_write,
	.Close = PerlIOBase_close,
	.Flush = errors_flush,
	.Eof = PerlIOBase_eof,
	.Error = PerlIOBase_error,
	.Clearerr = PerlIOBase_clearerr,
	.Setlinebuf = PerlIOBase_setlinebuf,
};

SV *errors_take(pTHX_ struct plugin *plugin)
{
	GV *handle = handle_take(aTHX_ & plugin->errors, "psgi.errors", &errors_layer, "w", IoTYPE_WRONLY);

	errors_of(handle_file(handle))->plugin = plugin;
	return newRV_inc((SV *)handle);
}

void errors_release(pTHX_ struct plugin *plugin)
{
	PerlIO *file = plugin->errors && GvIOp(plugin->errors) ? handle_file(plugin->errors) : NULL;

	if (file && PerlIOValid(file) && PerlIOBase(file)->tab == &errors_layer) {
		struct errors *errors = errors_of(file);
		finish(errors);
		errors->plugin = NULL;
	}
	if (plugin->errors && SvREFCNT(plugin->errors) != 1)
		handle_release(aTHX_ & plugin->errors);
	file = plugin->standard_error;
	if (PerlIOValid(file) && PerlIOBase(file)->tab == &errors_layer)
		finish(errors_of(file));
}

int errors_standard(pTHX_ struct plugin *plugin)
{
	PerlIO *file = PerlIO_stderr();

	if (!PerlIO_push(aTHX_ file, &errors_layer, "w", NULL))
		return -1;
	PerlIOBase(file)->flags |= PERLIO_F_OPEN;
	errors_of(file)->plugin = plugin;
	plugin->standard_error = file;
	/* Standard output is the same pipe: line by line, as it is printed. */
	PerlIO_setlinebuf(PerlIO_stdout());
	errors_forked(plugin);
	return 0;
}

/* A worker's pipe is not its manager's. */
void errors_forked(struct plugin *plugin)
{
	PerlIO *file = plugin->standard_error;

	if (PerlIOValid(file) && PerlIOBase(file)->tab == &errors_layer)
		fstat(STDERR_FILENO, &errors_of(file)->pipe);
}
