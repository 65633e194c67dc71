/* Ruby as a language plugin: Rack applications in a Ruby that is embedded into the group's processes. */
#include <errno.h>
#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "plugin.h"

#include <ruby/version.h>

struct plugin *the_plugin;

static void mark(void *pointer)
{
	struct plugin *plugin = pointer;

	rb_gc_mark(plugin->arguments);
	rb_gc_mark(plugin->preload);
	rb_gc_mark(plugin->loader);
	rb_gc_mark(plugin->callable);
	rb_gc_mark(plugin->common);
	rb_gc_mark(plugin->errors);
	rb_gc_mark(plugin->no_input);
	rb_gc_mark(plugin->fork_error);
	for (int i = 0; plugin->threads && i < plugin->host->threads; i++)
		if (plugin->threads[i].plugin)
			thread_mark(&plugin->threads[i]);
}

static const rb_data_type_t plugin_type = {
	"Webserver::Plugin", {mark, RUBY_NEVER_FREE, NULL, NULL, {NULL}}, NULL, NULL, 0};

static int keep(char **place, const char *value)
{
	free(*place);
	*place = strdup(value);
	return *place ? 0 : -1;
}

struct settings {
	struct plugin *plugin;
	const struct langplugin_setting *setting;
	size_t count;
};

static VALUE open_guarded(VALUE argument)
{
	struct settings *settings = (struct settings *)argument;
	struct plugin *plugin = settings->plugin;

	plugin->self = TypedData_Wrap_Struct(rb_cObject, &plugin_type, plugin);
	rb_gc_register_mark_object(plugin->self);
	plugin->arguments = rb_ary_new();
	plugin->preload = rb_ary_new();
	for (size_t i = 0; i < settings->count; i++) {
		const char *name = settings->setting[i].name, *value = settings->setting[i].value;
		if (strcmp(name, "arguments") == 0)
			rb_ary_push(plugin->arguments, rb_external_str_new_cstr(value));
		else if (strcmp(name, "preload") == 0)
			rb_ary_push(plugin->preload, rb_external_str_new_cstr(value));
		else if (strcmp(name, "watch") == 0)
			plugin->watch = atoi(value);
		else if (strcmp(name, "application") == 0 && *value && keep(&plugin->application, value))
			rb_memerror();
	}
	ruby_script(plugin->application ? plugin->application : "webserver");
	load_begin(plugin);
	return Qnil;
}

/*
 * As the program `ruby` would start with an empty script: so that RUBYOPT, RUBYLIB and the gems are looked at. In a
 * locale without a word about characters, text is UTF-8.
 */
static int start_ruby(char *message, size_t message_size)
{
	static char name[] = "webserver", option[] = "-e", script[] = "", utf8[] = "-EUTF-8";
	static char *arguments[5];
	bool plain = strcmp(nl_langinfo(CODESET), "ANSI_X3.4-1968") == 0;
	int count = 0, status;
	char **list = arguments;

	arguments[count++] = name;
	if (plain)
		arguments[count++] = utf8;
	arguments[count++] = option;
	arguments[count++] = script;
	ruby_sysinit(&count, &list);
	if (ruby_setup()) {
		snprintf(message, message_size, "ruby: it could not be started");
		return -1;
	}
	void *node = ruby_options(count, list);
	if (!ruby_executable_node(node, &status)) {
		snprintf(message, message_size,
			"ruby: it could not be started; what it has written to the log says why (RUBYOPT, RUBYLIB?)");
		return -1;
	}
	return 0;
}

static int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t message_size)
{
	/* Ruby finds the beginning of the main thread's stack by itself, so that the frame does not matter. */
	RUBY_INIT_STACK;
	struct plugin *plugin = calloc(1, sizeof(*plugin));
	int failed;

	if (!plugin)
		return -1;
	plugin->host = host;
	plugin->arguments = plugin->preload = plugin->loader = plugin->callable = plugin->common = Qnil;
	plugin->errors = plugin->no_input = plugin->fork_error = Qnil;
	plugin->wake = plugin->watch = -1;
	the_plugin = plugin;
	*state = plugin;
	if (start_ruby(message, message_size))
		return -1;
	protect(open_guarded, (VALUE) & (struct settings){plugin, settings, count}, &failed);
	if (failed)
		load_report(plugin, NULL, load_error(), message, message_size);
	return failed ? -1 : 0;
}

struct step {
	struct plugin *plugin;
	void (*function)(struct plugin *plugin);
};

static VALUE run_step(VALUE argument)
{
	struct step *step = (struct step *)argument;

	step->function(step->plugin);
	return Qnil;
}

static int guarded(struct plugin *plugin, void (*function)(struct plugin *plugin), char *message, size_t message_size)
{
	int failed;

	protect(run_step, (VALUE) & (struct step){plugin, function}, &failed);
	if (failed)
		load_report(plugin, NULL, load_error(), message, message_size);
	return failed ? -1 : 0;
}

static int plugin_preload(void *state, char *message, size_t message_size)
{
	return guarded(state, load_preload, message, message_size);
}

static VALUE fork_guarded(VALUE argument)
{
	load_call((struct plugin *)argument, "before_fork", 0, NULL);
	return rb_funcall(rb_mProcess, rb_intern("fork"), 0);
}

/*
 * Ruby forks itself: its timer, its pipes for signals and its list of threads are taken down before and set up again
 * after, and libraries that hook a fork are told. Those of today hook Process._fork, which Process.fork comes to; older
 * ones, such as Rails 6.1, Process.fork alone. rb_thread_atfork() alone, in a child that another has forked, renews the
 * threads only: the child would then use a timer that it does not have, and abort.
 */
static pid_t plugin_fork(void *state)
{
	struct plugin *plugin = state;
	pid_t self = getpid();
	int failed;
	VALUE pid = protect(fork_guarded, (VALUE)plugin, &failed);

	if (getpid() != self) {
		if (failed)
			plugin->fork_error = load_error();
		return 0;
	}
	if (!failed)
		return NUM2PIDT(pid);
	load_report(plugin, NULL, load_error(), NULL, 0);
	errno = EAGAIN;
	return -1;
}

static int plugin_after_fork(void *state, char *message, size_t message_size)
{
	struct plugin *plugin = state;

	plugin->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct thread *threads = calloc((size_t)plugin->host->threads, sizeof(*threads));
	if (plugin->wake < 0 || !threads) {
		snprintf(message, message_size, "ruby: %s", strerror(errno));
		return -1;
	}
	plugin->threads = threads;
	stacks_prepare();
	if (!NIL_P(plugin->fork_error)) {
		load_report(plugin, NULL, plugin->fork_error, message, message_size);
		return -1;
	}
	return guarded(plugin, load_application, message, message_size);
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	(void)state;
	return request_run(thread, call);
}

/* at_exit, and finalizers: files that are still open are written. */
static void plugin_close(void *state)
{
	(void)state;
	ruby_cleanup(0);
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.traits = LANGPLUGIN_OWN_THREADS,
	.name = "ruby",
	.version = ruby_version,
	.open = plugin_open,
	.preload = plugin_preload,
	.after_fork = plugin_after_fork,
	.thread_start = threads_start,
	.thread_stop = threads_stop,
	.handle = plugin_handle,
	.dump = stacks_dump,
	.close = plugin_close,
	.run = threads_run,
	.fork = plugin_fork,
	.ask = stacks_ask,
};
