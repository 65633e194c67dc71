/*
 * Delayed answers: the application returns a code reference, which is called with a responder. The responder takes a
 * whole answer, or status and headers alone, and then gives back a writer.
 *
 * Responder and writer belong to one request; kept longer, they die instead of writing into somebody else's answer.
 * Once the application's function has returned, nothing calls it again: a stream whose writer it has not closed by then
 * would be cut short without anybody noticing, so its connection is cut.
 */
#include "plugin.h"

/* In the string of a value that is the writer itself, or hangs on the responder. */
struct token {
	struct plugin *plugin;
	uint64_t serial;
	bool closed;
};

static SV *token_new(pTHX_ struct plugin *plugin)
{
	SV *value = newSV(sizeof(struct token));

	SvPOK_on(value);
	SvCUR_set(value, sizeof(struct token));
	*(struct token *)(void *)SvPVX(value) = (struct token){plugin, plugin->serial, false};
	SvREADONLY_on(value);
	return value;
}

/* The token's request. Dies if it is over, or if this is a thread of the application's own (threads.pm). */
static struct request *request_of(pTHX_ const struct token *token, const char *what)
{
	struct plugin *plugin = token->plugin;

	if (plugin->perl != aTHX || !plugin->request || plugin->serial != token->serial)
		Perl_croak(aTHX_ "%s of a request that is over was called", what);
	if (plugin->request->taken)
		Perl_croak(aTHX_ "%s was called, and the connection has been taken over by psgix.io", what);
	return plugin->request;
}

XS(respond);
XS(respond)
{
	dXSARGS;
	const struct token *token = CvXSUBANY(cv).any_ptr;
	struct request *request = request_of(aTHX_ token, "the responder");

	if (items != 1)
		Perl_croak(aTHX_ "the responder takes one argument, the answer");
	if (request->answered)
		Perl_croak(aTHX_ "the responder was called a second time");
	SV *writer = answer_send(aTHX_ request, ST(0), true);
	if (!writer)
		XSRETURN_EMPTY;
	ST(0) = writer;
	XSRETURN(1);
}

static struct token *token_of(pTHX_ SV *writer)
{
	if (!SvROK(writer) || !sv_derived_from(writer, "Webserver::Writer") || !SvPOK(SvRV(writer)) ||
		SvCUR(SvRV(writer)) != sizeof(struct token))
		Perl_croak(aTHX_ "a method of Webserver::Writer was called on what is none");
	return (struct token *)(void *)SvPVX(SvRV(writer));
}

XS(writer_write);
XS(writer_write)
{
	dXSARGS;
	if (items != 2)
		Perl_croak(aTHX_ "$writer->write(bytes) was called with %d arguments", (int)items - 1);
	struct token *token = token_of(aTHX_ ST(0));
	struct request *request = request_of(aTHX_ token, "write() of a writer");
	if (token->closed)
		Perl_croak(aTHX_ "write() was called on a writer that is closed");
	struct langplugin_text bytes = {"", 0};
	SvGETMAGIC(ST(1));
	if (SvOK(ST(1)))
		bytes = answer_bytes(aTHX_ request, ST(1), "write()");
	/* Else an endless stream would go on for nobody, and its worker with it. */
	if (!answer_write(aTHX_ request, bytes, true) && request->gone)
		Perl_croak(aTHX_ "the client went away before its answer was complete");
	XSRETURN_IV((IV)bytes.size);
}

XS(writer_close);
XS(writer_close)
{
	dXSARGS;
	if (items != 1)
		Perl_croak(aTHX_ "$writer->close was called with arguments");
	struct token *token = token_of(aTHX_ ST(0));
	if (!token->closed) {
		struct request *request = request_of(aTHX_ token, "close() of a writer");
		token->closed = true;
		request->streams = false;
		answer_end(aTHX_ request);
	}
	XSRETURN_YES;
}

int writer_make(struct plugin *plugin)
{
	dTHXa(plugin->perl);

	newXS("Webserver::Writer::write", writer_write, "<webserver>");
	newXS("Webserver::Writer::close", writer_close, "<webserver>");
	return 0;
}

SV *writer_new(pTHX_ struct request *request)
{
	SV *writer = sv_2mortal(newRV_noinc(token_new(aTHX_ request->plugin)));

	SvREADONLY_off(SvRV(writer));
	sv_bless(writer, gv_stashpvs("Webserver::Writer", GV_ADD));
	SvREADONLY_on(SvRV(writer));
	request->streams = true;
	return writer;
}

void writer_delay(pTHX_ struct request *request, SV *callback)
{
	static const MGVTBL holder;
	SV *token = token_new(aTHX_ request->plugin);
	CV *responder = newXS(NULL, respond, "<webserver>");
	SV *reference = sv_2mortal(newRV_noinc((SV *)responder));
	dSP;

	sv_magicext((SV *)responder, token, PERL_MAGIC_ext, &holder, NULL, 0);
	SvREFCNT_dec(token);
	CvXSUBANY(responder).any_ptr = SvPVX(token);
	PUSHMARK(SP);
	XPUSHs(reference);
	PUTBACK;
	call_sv(callback, G_VOID | G_DISCARD);
	if (!request->answered && !request->taken)
		answer_die(aTHX_ request, "the application's function returned without calling the responder");
}
