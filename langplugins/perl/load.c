/* Applications. What is not hot is written in Perl: loader.pl, whose text lies in this object. */
#include "plugin.h"

#include <unistd.h>

__asm__(".pushsection .rodata\n"
	"perl_loader_source: .incbin \"langplugins/perl/loader.pl\"\n"
	".byte 0\n"
	".popsection\n");
extern const char perl_loader_source[] __attribute__((visibility("hidden")));

/* A call of one of loader.pl's functions, or, without a name, its compilation. */
struct task {
	struct plugin *plugin;
	const char *function;
	SV *argument[4]; /* given away */
	SV *result;	 /* the caller's */
	SV *failure;	 /* text; the caller's; NULL: none */
};

static void run(pTHX_ void *argument)
{
	struct task *task = argument;
	dSP;

	ENTER;
	SAVETMPS;
	if (task->function) {
		PUSHMARK(SP);
		for (size_t i = 0; i < C_ARRAY_LENGTH(task->argument) && task->argument[i]; i++)
			XPUSHs(sv_2mortal(task->argument[i]));
		PUTBACK;
		call_pv(task->function, G_SCALAR | G_EVAL);
	} else {
		eval_sv(sv_2mortal(newSVpvf("#line 1 \"<webserver>\"\n%s", perl_loader_source)), G_SCALAR);
	}
	SPAGAIN;
	SV *result = POPs;
	PUTBACK;
	SV *exception = interpreter_exception(aTHX);
	if (exception)
		task->failure = newSVsv(load_text(aTHX_ exception));
	else
		task->result = newSVsv(result);
	FREETMPS;
	LEAVE;
}

/* 0: task->result is there. */
static int perform(struct task *task, const char *what)
{
	dTHXa(task->plugin->perl);

	PERL_SET_CONTEXT(aTHX);
	if (interpreter_run(aTHX_ run, task))
		task->failure = newSVpvf("%s called exit(%d)", what, interpreter_exited(task->plugin));
	return task->failure ? -1 : 0;
}

/* All of it to the log; to the message its first line, which names the file and the line. */
static int report(struct task *task, struct langplugin_call *call, char *message, size_t size)
{
	dTHXa(task->plugin->perl);
	STRLEN length;
	const char *text = SvPV(task->failure, length);

	task->plugin->host->log(call, LP_ERROR, text, length);
	if (message) {
		const char *end = memchr(text, '\n', length);
		snprintf(message, size, "perl: %.*s", (int)(end ? (STRLEN)(end - text) : length), text);
	}
	SvREFCNT_dec(task->failure);
	return -1;
}

SV *load_text(pTHX_ SV *value)
{
	if (!SvROK(value))
		return sv_mortalcopy(value);
	dSP;
	PUSHMARK(SP);
	XPUSHs(value);
	PUTBACK;
	call_pv("Webserver::_text", G_SCALAR | G_EVAL | G_KEEPERR);
	SPAGAIN;
	SV *text = POPs;
	PUTBACK;
	return text;
}

static SV *texts(pTHX_ const struct plugin *plugin, const char *name)
{
	AV *list = newAV();

	for (size_t i = 0; i < plugin->setting_count; i++)
		if (strcmp(plugin->settings[i].name, name) == 0)
			av_push(list, newSVpv(plugin->settings[i].value, 0));
	return newRV_noinc((SV *)list);
}

static SV *application_name(pTHX_ const struct plugin *plugin)
{
	return plugin->application ? newSVpv(plugin->application, 0) : newSV(0);
}

static int call(struct plugin *plugin, struct task task, const char *what, char *message, size_t size)
{
	dTHXa(plugin->perl);

	task.plugin = plugin;
	if (perform(&task, what))
		return report(&task, NULL, message, size);
	SvREFCNT_dec(task.result);
	return 0;
}

int load_begin(struct plugin *plugin, char *message, size_t size)
{
	dTHXa(plugin->perl);

	plugin->scripts = newHV();
	return call(plugin, (struct task){.function = NULL}, "the loader", message, size) ||
			       call(plugin,
				       (struct task){.function = "Webserver::_begin",
					       .argument = {application_name(aTHX_ plugin),
						       texts(aTHX_ plugin, "perl_path"),
						       texts(aTHX_ plugin, "arguments"), texts(aTHX_ plugin, "watch")}},
				       "the loader", message, size)
		       ? -1
		       : 0;
}

int load_preload(struct plugin *plugin, char *message, size_t size)
{
	dTHXa(plugin->perl);

	return call(plugin,
		(struct task){.function = "Webserver::_preload",
			.argument = {texts(aTHX_ plugin, "preload"), application_name(aTHX_ plugin)}},
		"a module or file of preload", message, size);
}

int load_application(struct plugin *plugin, char *message, size_t size)
{
	dTHXa(plugin->perl);
	struct task task = {.plugin = plugin, .function = "Webserver::_load"};

	if (call(plugin, (struct task){.function = "Webserver::_forked"}, "a hook of Webserver::after_fork", message,
		    size))
		return -1;
	if (!plugin->application)
		return 0;
	task.argument[0] = newSVpv(plugin->application, 0);
	if (perform(&task, plugin->application))
		return report(&task, NULL, message, size);
	plugin->callable = task.result;
	return 0;
}

/* ---- requested files */

/* A script runs where it lies. 0, or the status that says why not. */
static int enter(struct langplugin_text path)
{
	char directory[PATH_MAX];
	const char *slash = memrchr(path.data, '/', path.size);
	size_t size = slash ? (size_t)(slash - path.data) : 0;

	if (size >= sizeof(directory))
		return 404;
	memcpy(directory, size ? path.data : "/", size ? size : 1);
	directory[size ? size : 1] = 0;
	return chdir(directory) == 0 ? 0 : errno == EACCES ? 403 : 404;
}

static SV *load_again(struct plugin *plugin, struct langplugin_call *call, struct langplugin_text path, SV *mark)
{
	dTHXa(plugin->perl);
	struct task task = {.plugin = plugin, .function = "Webserver::_requested"};
	bool known = hv_exists(plugin->scripts, path.data, (I32)path.size);

	task.argument[0] = newSVpvn(path.data, path.size);
	task.argument[1] = newSViv(known);
	if (perform(&task, path.data)) {
		report(&task, call, NULL, 0);
		return NULL;
	}
	AV *entry = newAV();
	av_push(entry, SvREFCNT_inc(mark));
	av_push(entry, task.result);
	(void)hv_store(plugin->scripts, path.data, (I32)path.size, newRV_noinc((SV *)entry), 0);
	return task.result;
}

SV *load_requested(struct plugin *plugin, struct langplugin_call *call, int *status)
{
	dTHXa(plugin->perl);
	struct langplugin_text path = plugin->host->request(call)->script_filename;
	char text[LANGPLUGIN_MARK];

	*status = plugin->host->mark(call, path.data, text);
	if (!*status)
		*status = enter(path);
	if (*status)
		return NULL;
	*status = 500;
	size_t size = strlen(text);
	SV **known = hv_fetch(plugin->scripts, path.data, (I32)path.size, 0);
	if (known && SvROK(*known)) {
		SV **entry = AvARRAY((AV *)SvRV(*known));
		if (SvCUR(entry[0]) == size && memcmp(SvPVX(entry[0]), text, size) == 0)
			return entry[1];
	}
	SV *mark = newSVpvn(text, size);
	SV *application = load_again(plugin, call, path, mark);
	SvREFCNT_dec(mark);
	return application;
}
