/*
 * One request, in phases. Each of them runs application code, which may die, or call exit() and leave everything at
 * once; the next phase follows all the same.
 */
#include "plugin.h"

#include <signal.h>

/* A delayed answer: a code reference, or an object that is one when it is called. */
static bool is_code(pTHX_ SV *value)
{
	if (!SvROK(value))
		return false;
	if (SvTYPE(SvRV(value)) != SVt_PVCV && SvAMAGIC(value))
		value = amagic_deref_call(value, to_cv_amg);
	return SvROK(value) && SvTYPE(SvRV(value)) == SVt_PVCV;
}

/* PHASE_SERVE, called by perl with G_EVAL: whatever dies in here is the request's exception. */
XS(request_serve)
{
	dXSARGS;
	struct request *request = function_plugin(cv)->request;

	PERL_UNUSED_VAR(items);
	SP -= items;
	PUSHMARK(SP);
	mXPUSHs(newRV_inc((SV *)request->environ));
	PUTBACK;
	call_sv(request->application, G_SCALAR);
	SPAGAIN;
	SV *result = POPs;
	PUTBACK;
	if (!request->taken) {
		if (is_code(aTHX_ result))
			writer_delay(aTHX_ request, result);
		else
			answer_send(aTHX_ request, result, false);
	}
	XSRETURN_EMPTY;
}

static void answer_error(struct request *request)
{
	const struct langplugin_host *host = request->plugin->host;

	if (request->ended || request->taken)
		return;
	request->ended = true;
	host->fail(request->call, 500);
	host->end(request->call);
}

/* A client that goes away in the middle of its request is no mistake of the application's. */
static void report(pTHX_ const struct request *request, SV *exception)
{
	static const char went[] = "the client went away";
	const struct langplugin_host *host = request->plugin->host;
	STRLEN size;
	const char *text = SvPV(load_text(aTHX_ exception), size);
	bool departure = host->cancelled(request->call) && size >= sizeof(went) - 1 &&
			 memcmp(text, went, sizeof(went) - 1) == 0;

	host->log(request->call, departure ? LP_NOTICE : LP_ERROR, text, size);
}

static void serve(pTHX_ struct request *request)
{
	dSP;

	request->handlers = newAV();
	request->environ = environ_of(aTHX_ request);
	PUSHMARK(SP);
	call_sv((SV *)request->plugin->serve, G_VOID | G_EVAL);
	SV *exception = interpreter_exception(aTHX);
	if (exception) {
		request->failed = true;
		report(aTHX_ request, exception);
	}
}

/* What is not complete by now never will be. */
static void conclude(struct request *request)
{
	static const char text[] =
		"the application's function returned without closing its writer: the answer is cut off";
	const struct langplugin_host *host = request->plugin->host;

	if (request->failed) {
		answer_error(request);
	} else if (request->streams && !request->ended && !request->gone) {
		host->log(request->call, LP_ERROR, text, sizeof(text) - 1);
		host->abort(request->call);
	} else if (!request->ended && !request->taken) {
		host->end(request->call);
	}
	request->ended = true;
}

/* psgix.cleanup, then psgix.harakiri, so that a handler can ask for it. */
static void clean(pTHX_ struct request *request)
{
	struct plugin *plugin = request->plugin;
	SV *key = plugin->keys[KEY_HARAKIRI_COMMIT];

	while (av_count(request->handlers) > 0) {
		dSP;
		SV *handler = sv_2mortal(av_shift(request->handlers));
		PUSHMARK(SP);
		mXPUSHs(newRV_inc((SV *)request->environ));
		PUTBACK;
		call_sv(handler, G_VOID | G_DISCARD | G_EVAL);
		SV *exception = interpreter_exception(aTHX);
		if (exception)
			report(aTHX_ request, exception);
	}
	HE *commit = hv_fetch_ent(request->environ, key, 0, SvSHARED_HASH(key));
	if (commit && SvTRUE(HeVAL(commit)))
		raise(SIGTERM); /* the host's orderly end; give_up() is for what has failed */
}

static void drop(pTHX_ struct request *request)
{
	HV *environ = request->environ;
	AV *handlers = request->handlers;

	request->environ = NULL;
	request->handlers = NULL;
	SvREFCNT_dec((SV *)environ);
	SvREFCNT_dec((SV *)handlers);
}

/* Goes on with the phase after the one that was begun last. */
static void run(pTHX_ void *argument)
{
	struct request *request = argument;

	ENTER;
	SAVETMPS;
	while (request->phase != PHASE_OVER) {
		switch (request->phase++) {
		case PHASE_SERVE:
			serve(aTHX_ request);
			break;
		case PHASE_END:
			conclude(request);
			break;
		case PHASE_FREE:
			/* Destructors of what the application has returned, while its environment is still there. */
			FREETMPS;
			break;
		case PHASE_CLEAN:
			clean(aTHX_ request);
			break;
		default:
			drop(aTHX_ request);
		}
	}
	FREETMPS;
	LEAVE;
}

static void exited(struct request *request)
{
	char text[96];
	int status = interpreter_exited(request->plugin);
	int size = snprintf(text, sizeof(text), "the application called exit(%d), which ends its request", status);

	request->plugin->host->log(request->call, LP_WARNING, text, (size_t)size);
	request->failed |= !request->ended;
}

int request_run(struct plugin *plugin, struct langplugin_call *call)
{
	dTHXa(plugin->perl);
	int status = 500;
	struct request request = {.plugin = plugin,
		.call = call,
		.about = plugin->host->request(call),
		.application = plugin->callable,
		.cop = PL_curcop,
		.left = -1};

	interpreter_keep_signals(plugin);
	if (!request.application && !(request.application = load_requested(plugin, call, &status))) {
		plugin->host->fail(call, status);
		return LP_DONE;
	}
	plugin->serial++;
	plugin->request = &request;
	while (interpreter_run(aTHX_ run, &request))
		exited(&request);
	input_release(aTHX_ plugin);
	errors_release(aTHX_ plugin);
	connection_release(aTHX_ plugin);
	plugin->request = NULL;
	return LP_DONE;
}
