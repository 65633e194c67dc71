/*
 * Whether the program hangs as a whole. One that answers some requests and not others is left alone: what it does with
 * one of them is its own business. One that leaves as many in a row as it can be given at a time, and does not even see
 * that their connections have been ended, has stopped.
 *
 * That takes it a moment, which no slot may spend: a request that is over its time and still there would count as
 * stuck.
 */
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exec.h"

#define NOTICE_MS 500

void silence_begin(struct silence *silence)
{
	pthread_mutex_init(&silence->mutex, NULL);
}

/* With the mutex, or alone. */
static void forget(struct silence *silence)
{
	unsigned count = atomic_exchange(&silence->count, 0);

	for (unsigned i = 0; i < count; i++)
		if (silence->ended[i] >= 0)
			close(silence->ended[i]);
}

void silence_end(struct silence *silence)
{
	if (silence->begun)
		pthread_join(silence->thread, NULL);
	forget(silence);
	pthread_mutex_destroy(&silence->mutex);
}

static void *judge(void *data)
{
	struct plugin *plugin = data;
	struct silence *silence = &plugin->silence;
	struct pollfd fds[SILENCE_MOST];
	unsigned count;

	pthread_mutex_lock(&silence->mutex);
	count = atomic_load(&silence->count);
	for (unsigned i = 0; i < count; i++)
		fds[i] = (struct pollfd){silence->ended[i], POLLIN, 0};
	pthread_mutex_unlock(&silence->mutex);
	bool notices = poll(fds, count, NOTICE_MS) != 0;
	pthread_mutex_lock(&silence->mutex);
	silence->judged = false;
	if (!notices && !silence->answered)
		program_hangs(&plugin->program, count);
	forget(silence);
	pthread_mutex_unlock(&silence->mutex);
	return NULL;
}

/* With the mutex. */
static void begin(struct plugin *plugin)
{
	struct silence *silence = &plugin->silence;

	if (silence->begun)
		pthread_join(silence->thread, NULL); /* it has judged */
	silence->answered = false;
	silence->judged = silence->begun = pthread_create(&silence->thread, NULL, judge, plugin) == 0;
}

void silence_add(struct plugin *plugin, struct lane *lane)
{
	struct silence *silence = &plugin->silence;

	pthread_mutex_lock(&silence->mutex);
	unsigned count = atomic_load(&silence->count);
	if (count < SILENCE_MOST && !silence->judged) {
		if (lane->fd >= 0)
			shutdown(lane->fd, SHUT_WR);
		silence->ended[count] = lane->fd;
		lane->fd = -1;
		atomic_store(&silence->count, ++count);
		if (count >= (unsigned)plugin->host->threads)
			begin(plugin);
	}
	pthread_mutex_unlock(&silence->mutex);
}

void silence_over(struct plugin *plugin)
{
	struct silence *silence = &plugin->silence;

	if (atomic_load_explicit(&silence->count, memory_order_relaxed) == 0)
		return;
	pthread_mutex_lock(&silence->mutex);
	/* What is being looked at stays open until it has been. */
	if (silence->judged)
		silence->answered = true;
	else
		forget(silence);
	pthread_mutex_unlock(&silence->mutex);
}
