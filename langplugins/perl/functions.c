/* Code references in the environment. They speak of the request that runs now, whenever they were taken. */
#include "plugin.h"

CV *function_new(pTHX_ struct plugin *plugin, const char *name, XSUBADDR_t function)
{
	CV *cv = newXS(name, function, "<webserver>");

	CvXSUBANY(cv).any_ptr = plugin;
	return cv;
}

/* In a thread of the application's own (threads.pm) there is no request. */
static struct request *running(pTHX_ const struct plugin *plugin)
{
	return plugin->perl == aTHX ? plugin->request : NULL;
}

/* psgix.logger->({level => ..., message => ...}) */
XS(log_message);
XS(log_message)
{
	static const struct {
		const char *word;
		int level;
	} levels[] = {{"debug", LP_NOTICE}, {"info", LP_NOTICE}, {"warn", LP_WARNING}, {"error", LP_ERROR},
		{"fatal", LP_ERROR}};
	dXSARGS;
	struct plugin *plugin = function_plugin(cv);
	struct request *request = running(aTHX_ plugin);

	if (items != 1 || !SvROK(ST(0)) || SvTYPE(SvRV(ST(0))) != SVt_PVHV)
		Perl_croak(aTHX_ "psgix.logger: a hash of level and message is expected");
	SV **level = hv_fetchs((HV *)SvRV(ST(0)), "level", 0);
	SV **message = hv_fetchs((HV *)SvRV(ST(0)), "message", 0);
	int known = -1;
	for (size_t i = 0; level && i < C_ARRAY_LENGTH(levels); i++)
		if (strEQ(SvPV_nolen(*level), levels[i].word))
			known = levels[i].level;
	if (known < 0)
		Perl_croak(aTHX_ "psgix.logger: level is one of debug, info, warn, error and fatal");
	STRLEN size;
	const char *text = message ? SvPV(*message, size) : "";
	if (message)
		plugin->host->log(request ? request->call : NULL, known, text, size);
	XSRETURN_YES;
}

/* psgix.informational->(status, [fields]) */
XS(inform);
XS(inform)
{
	dXSARGS;
	struct plugin *plugin = function_plugin(cv);
	struct request *request = running(aTHX_ plugin);
	struct langplugin_field small[ANSWER_FIELDS], *fields;
	const struct langplugin_field *bad = NULL;

	if (items != 2 || !SvROK(ST(1)) || SvTYPE(SvRV(ST(1))) != SVt_PVAV)
		Perl_croak(aTHX_ "psgix.informational: a status and an array of headers are expected");
	if (!request || request->taken)
		Perl_croak(aTHX_ "psgix.informational: there is no request that it could be sent for");
	if (request->answered)
		Perl_croak(aTHX_ "psgix.informational: the answer itself has begun");
	size_t count = answer_fields(aTHX_ request, (AV *)SvRV(ST(1)), small, &fields);
	int status = (int)SvIV(ST(0));
	int result = plugin->host->inform(request->call, status, fields, count);
	if (result == LP_INVALID) {
		const char *why = answer_objection(fields, count, &bad);
		if (bad)
			Perl_croak(aTHX_ "psgix.informational: the header \"%s\" %s", bad->name.data, why);
		Perl_croak(aTHX_ "psgix.informational: %d cannot be sent before the answer", status);
	}
	ST(0) = boolSV(result == LP_OK);
	XSRETURN(1);
}

/* webserver.cancelled->(): true once nobody waits for the answer, or the deadline has passed. */
XS(is_cancelled);
XS(is_cancelled)
{
	dXSARGS;
	struct plugin *plugin = function_plugin(cv);
	struct request *request = running(aTHX_ plugin);

	PERL_UNUSED_VAR(items);
	EXTEND(SP, 1);
	ST(0) = boolSV(!request || plugin->host->cancelled(request->call));
	XSRETURN(1);
}

int functions_make(struct plugin *plugin)
{
	dTHXa(plugin->perl);

	plugin->logger = function_new(aTHX_ plugin, "Webserver::_log", log_message);
	plugin->informational = function_new(aTHX_ plugin, "Webserver::_inform", inform);
	plugin->cancelled = function_new(aTHX_ plugin, "Webserver::_cancelled", is_cancelled);
	plugin->serve = function_new(aTHX_ plugin, "Webserver::_serve", request_serve);
	plugin->word_getline = newSVpvs_share("getline");
	plugin->word_close = newSVpvs_share("close");
	plugin->word_path = newSVpvs_share("path");
	return 0;
}
