/* Applications. What is not hot is written in Ruby: two files whose text lies in this object. */
#include <stdio.h>
#include <string.h>

#include "plugin.h"

__asm__(".pushsection .rodata\n"
	"loader_source: .incbin \"langplugins/ruby/loader.rb\"\n"
	".byte 0\n"
	"streams_source: .incbin \"langplugins/ruby/streams.rb\"\n"
	".byte 0\n"
	".popsection\n");
extern const char loader_source[] __attribute__((visibility("hidden")));
extern const char streams_source[] __attribute__((visibility("hidden")));

VALUE load_call(struct plugin *plugin, const char *name, int argc, const VALUE *argv)
{
	return rb_funcallv(plugin->loader, rb_intern(name), argc, argv);
}

static VALUE text_or_nil(const char *text)
{
	return text ? rb_str_new_cstr(text) : Qnil;
}

static void run_source(const char *source)
{
	rb_funcall(rb_mKernel, rb_intern("eval"), 4, rb_utf8_str_new_cstr(source), Qnil, rb_str_new_cstr("<webserver>"),
		INT2FIX(1));
}

static VALUE log_error(VALUE self, VALUE text)
{
	(void)self;
	StringValue(text);
	the_plugin->host->log(NULL, LP_ERROR, RSTRING_PTR(text), (size_t)RSTRING_LEN(text));
	return Qnil;
}

void load_begin(struct plugin *plugin)
{
	VALUE module = rb_define_module("Webserver");
	VALUE arguments[] = {
		plugin->arguments, text_or_nil(plugin->application), plugin->watch < 0 ? Qnil : INT2FIX(plugin->watch)};

	rb_define_singleton_method(module, "log_error", log_error, 1);
	input_define(module);
	errors_define(plugin, module);
	stream_define(module);
	callables_define(module);
	hijack_define(module);
	request_define();
	rb_require("monitor");
	run_source(loader_source);
	run_source(streams_source);
	plugin->loader = rb_const_get(module, rb_intern("Loader"));
	environ_make(plugin);
	load_call(plugin, "start", 3, arguments);
}

void load_preload(struct plugin *plugin)
{
	VALUE arguments[] = {plugin->preload, text_or_nil(plugin->application)};

	if (RARRAY_LEN(plugin->preload))
		load_call(plugin, "preload", 2, arguments);
}

void load_application(struct plugin *plugin)
{
	load_call(plugin, "after_fork", 0, NULL);
	if (plugin->application) {
		VALUE path = rb_str_new_cstr(plugin->application);
		plugin->callable = load_call(plugin, "load", 1, &path);
	}
	plugin->rewinds = RTEST(load_call(plugin, "rewinds?", 0, NULL));
	VALUE rewinds = plugin->rewinds ? Qtrue : Qfalse;
	plugin->no_input = load_call(plugin, "no_input", 1, &rewinds);
}

VALUE load_requested(struct plugin *plugin, const struct langplugin_request *request)
{
	VALUE path = rb_external_str_new(request->script_filename.data, (long)request->script_filename.size);

	return load_call(plugin, "requested", 1, &path);
}

/* ---- exceptions */

VALUE load_error(void)
{
	VALUE error = rb_errinfo();

	rb_set_errinfo(Qnil);
	return !RB_SPECIAL_CONST_P(error) && RTEST(rb_obj_is_kind_of(error, rb_eException)) ? error : Qnil;
}

struct report {
	struct plugin *plugin;
	VALUE error;
};

static VALUE make_report(VALUE argument)
{
	struct report *report = (struct report *)argument;
	VALUE pair = load_call(report->plugin, "report", 1, &report->error);

	Check_Type(pair, T_ARRAY);
	for (long i = 0; i < 2; i++)
		Check_Type(rb_ary_entry(pair, i), T_STRING);
	return pair;
}

void load_report(struct plugin *plugin, struct langplugin_call *call, VALUE error, char *message, size_t message_size)
{
	static const char ended[] = "Ruby: a thread was ended by its own hand, or by a throw that nobody caught";
	static const char lost[] = "Ruby: an exception that could not be put into words";
	struct report report = {plugin, error};
	const char *without = NIL_P(error) ? ended : lost;
	VALUE pair = Qnil;
	int state = 1;

	if (!NIL_P(error) && !NIL_P(plugin->loader))
		pair = protect(make_report, (VALUE)&report, &state);
	if (state) {
		rb_set_errinfo(Qnil);
		plugin->host->log(call, LP_ERROR, without, strlen(without));
		if (message)
			snprintf(message, message_size, "ruby: %s", without);
		return;
	}
	VALUE whole = RARRAY_AREF(pair, 0), line = RARRAY_AREF(pair, 1);
	plugin->host->log(call, LP_ERROR, RSTRING_PTR(whole), (size_t)RSTRING_LEN(whole));
	if (message)
		snprintf(message, message_size, "ruby: %.*s", (int)RSTRING_LEN(line), RSTRING_PTR(line));
	RB_GC_GUARD(pair);
}
