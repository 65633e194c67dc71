/*
 * The handles in a request's environment are real ones, so that read(), readline(), print() and the methods of
 * IO::Handle work on them: globs without a name in any package, whose PerlIO layer calls the host. Making one costs as
 * much as the rest of the environment; so each is used again by the next request, unless the application has kept,
 * changed or closed it.
 */
#include "plugin.h"

PerlIO *handle_file(GV *handle)
{
	return IoIFP(GvIOp(handle));
}

static bool untouched(GV *handle, const PerlIO_funcs *layer)
{
	if (SvREFCNT(handle) != 1 || SvOBJECT(handle) || SvMAGICAL(handle) || GvREFCNT(handle) != 1 || GvHV(handle) ||
		GvAV(handle) || GvCV(handle))
		return false;
	IO *io = GvIOp(handle);
	if (!io || SvREFCNT(io) != 1 || SvMAGICAL(io) || !IoIFP(io) || !PerlIOValid(IoIFP(io)))
		return false;
	return PerlIOBase(IoIFP(io))->tab == layer && !*PerlIONext(IoIFP(io));
}

static GV *make(pTHX_ const char *name, PerlIO_funcs *layer, const char *mode, char type)
{
	GV *handle = (GV *)newSV(0);

	gv_init_pvn(handle, gv_stashpvs("Webserver", GV_ADD), name, strlen(name), 0);
	IO *io = GvIOn(handle);
	PerlIO *file = PerlIO_push(aTHX_ PerlIO_allocate(aTHX), layer, mode, NULL);
	if (file) {
		PerlIOBase(file)->flags |= PERLIO_F_OPEN;
		IoIFP(io) = file;
		IoOFP(io) = type == IoTYPE_RDONLY ? NULL : file;
		IoTYPE(io) = type;
	}
	return handle;
}

GV *handle_take(pTHX_ GV **kept, const char *name, PerlIO_funcs *layer, const char *mode, char type)
{
	if (*kept && untouched(*kept, layer)) {
		IO *io = GvIOp(*kept);
		PerlIOBase(IoIFP(io))->flags &= ~(U32)(PERLIO_F_EOF | PERLIO_F_ERROR | PERLIO_F_UTF8 | PERLIO_F_CRLF);
		IoLINES(io) = 0;
		IoFLAGS(io) = 0;
		return *kept;
	}
	handle_release(aTHX_ kept);
	*kept = make(aTHX_ name, layer, mode, type);
	return *kept;
}

void handle_release(pTHX_ GV **kept)
{
	SvREFCNT_dec((SV *)*kept);
	*kept = NULL;
}
