/* What the paths of plugin.c have in common, and the plugin that the host sees. */
#include "plugin.h"

void begin(struct run *run, int status, const struct langplugin_field *fields, size_t count, int64_t length)
{
	if (FAULT == KEEPS_STATE && status == 200 && run->application->status)
		status = run->application->status;
	run->host->respond(run->call, status, no_reason, fields, count, length);
	if (FAULT == WRITES_TO_A_FINISHED_CALL && run->application->finished)
		run->host->write(run->application->finished, "stale", 5, 0);
}

int write_out(struct run *run, const char *data, size_t size)
{
	int result = run->host->write(run->call, data, size, 0);

	/* Not for ever: the tests are to end. */
	for (int i = 0; FAULT == GOES_ON_AFTER_GONE && result == LP_GONE && i < 1000; i++) {
		result = run->host->write(run->call, data, size, 0);
		pause_for(10);
	}
	return result != LP_OK;
}

void say(struct run *run, const char *text)
{
	write_out(run, text, strlen(text));
}

ssize_t take(struct run *run, char *to, size_t size)
{
	ssize_t got = run->host->read(run->call, to, size, 0);

	if (FAULT == LOSES_THE_LAST_BYTE && got > 0) {
		char more;
		if (got > 1 && (size_t)got < size && run->host->read(run->call, &more, 1, 0) == 0)
			return got - 1;
	}
	return got < 0 ? -1 : got;
}

void pause_for(long long milliseconds)
{
	struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};

	while (nanosleep(&left, &left))
		;
}

int open_in(struct run *run, const char *name, int flags)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", run->application->scratch, name);
	return open(path, flags | O_CLOEXEC, 0666);
}

void note(struct run *run, const char *name)
{
	int fd = open_in(run, name, O_WRONLY | O_CREAT | O_APPEND);

	if (fd < 0)
		return;
	dprintf(fd, "%s\n", run->token);
	close(fd);
}

void gate(struct run *run)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/go-%s", run->application->scratch, run->token);
	for (int i = 0; i < 2000 && access(path, F_OK); i++)
		pause_for(10);
}

static int plugin_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t size)
{
	struct application *application = calloc(1, sizeof(*application));

	if (!application)
		return -1;
	application->host = host;
	application->scratch = getenv("SCRATCH");
	for (size_t i = 0; i < count; i++)
		if (strcmp(settings[i].name, "settings.scratch") == 0)
			application->scratch = settings[i].value;
	if (!application->scratch) {
		snprintf(message, size, "SCRATCH is not in the group's environment");
		free(application);
		return -1;
	}
	*state = application;
	return 0;
}

static int plugin_handle(void *state, void *thread, struct langplugin_call *call)
{
	struct application *application = state;
	struct run run = {.application = application, .host = application->host, .call = call};

	(void)thread;
	run.request = run.host->request(call);
	const char *watch = strstr(run.request->query.data, "watch=");
	if (watch)
		snprintf(run.token, sizeof(run.token), "%.*s", (int)strcspn(watch + 6, "&"), watch + 6);
	if (FAULT == KEEPS_MEMORY) {
		char *kept = malloc(4096);
		if (kept) {
			memset(kept, 1, 4096);
			memcpy(kept, &application->kept, sizeof(application->kept));
			application->kept = kept;
		}
	}
	if (FAULT == KEEPS_A_DESCRIPTOR && open("/dev/null", O_RDONLY) < 0)
		return LP_DONE;
	if (*run.token)
		note(&run, "begun");
	answer(&run);
	if (*run.token)
		note(&run, "closed");
	application->finished = call;
	return LP_DONE;
}

static void plugin_close(void *state)
{
	free(state);
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	.magic = LANGPLUGIN_MAGIC,
	.major = LANGPLUGIN_MAJOR,
	.minor = LANGPLUGIN_MINOR,
	.size = sizeof(struct langplugin),
	.name = "conformance",
	.version = "1",
	.open = plugin_open,
	.handle = plugin_handle,
	.close = plugin_close,
};
