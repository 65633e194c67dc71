/* A plugin that crashes while its worker starts, and that does not come to an end when it is asked where it is. */
#include <signal.h>
#include <unistd.h>

#include "langplugin.h"

static int crashing_open(const struct langplugin_host *host, const struct langplugin_setting *settings, size_t count,
	void **state, char *message, size_t size)
{
	static int made;

	(void)host, (void)settings, (void)count, (void)message, (void)size;
	*state = &made;
	return 0;
}

static int crashing_after_fork(void *state, char *message, size_t size)
{
	(void)state, (void)message, (void)size;
	return raise(SIGSEGV);
}

static int crashing_handle(void *state, void *thread, struct langplugin_call *call)
{
	(void)state, (void)thread, (void)call;
	return LP_DONE;
}

static void crashing_dump(void *state, int fd)
{
	(void)state, (void)fd;
	for (;;)
		pause();
}

__attribute__((visibility("default"))) const struct langplugin langplugin = {
	LANGPLUGIN_VERSION,
	.traits = LANGPLUGIN_SINGLE_THREAD,
	.name = "crashing",
	.version = "1",
	.open = crashing_open,
	.after_fork = crashing_after_fork,
	.handle = crashing_handle,
	.dump = crashing_dump,
};
