/*
 * Whether the program hangs as a whole. One that answers some requests and not others is left alone: what it does with
 * one of them is its own business. One that leaves as many in a row as it can be given at a time, and does not even see
 * that their connections have been ended, has stopped.
 *
 * To see it takes it a moment, which no slot may spend: a request that is over its time and still there would count as
 * stuck. So a thread looks, for as long as there is something to look at. Each connection is closed after its moment: a
 * program that writes a late answer to it must not wait for somebody to read it.
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exec.h"

#define NOTICE_NS 500000000u

void silence_begin(struct silence *silence)
{
	pthread_mutex_init(&silence->mutex, NULL);
}

/* With the mutex, or alone. */
static void forget(struct silence *silence)
{
	for (unsigned i = 0; i < silence->ended_count; i++)
		if (silence->ended[i].fd >= 0)
			close(silence->ended[i].fd);
	silence->ended_count = silence->blind = 0;
	atomic_store(&silence->count, 0);
	silence->answered = false;
}

void silence_end(struct silence *silence)
{
	if (silence->begun)
		pthread_join(silence->thread, NULL);
	forget(silence);
	pthread_mutex_destroy(&silence->mutex);
}

/* The oldest stand first, and what has come since stands behind. Those whose moment is over saw nothing. */
static void close_old(struct silence *silence, unsigned looked_at)
{
	uint64_t now = clock_now();
	unsigned old = 0;

	while (old < looked_at && silence->ended[old].until <= now)
		if (silence->ended[old++].fd >= 0)
			close(silence->ended[old - 1].fd);
	silence->ended_count -= old;
	silence->blind += old;
	memmove(silence->ended, silence->ended + old, silence->ended_count * sizeof(silence->ended[0]));
}

static int milliseconds_until(uint64_t then)
{
	uint64_t now = clock_now();

	return then > now ? (int)((then - now) / 1000000u) + 1 : 0;
}

static void *look(void *data)
{
	struct plugin *plugin = data;
	struct silence *silence = &plugin->silence;
	struct pollfd fds[SILENCE_MOST];

	pthread_mutex_lock(&silence->mutex);
	while (silence->ended_count > 0) {
		unsigned count = silence->ended_count;
		for (unsigned i = 0; i < count; i++)
			fds[i] = (struct pollfd){silence->ended[i].fd, POLLIN, 0};
		int wait = milliseconds_until(silence->ended[0].until);
		pthread_mutex_unlock(&silence->mutex);
		/* Nobody else closes them meanwhile. */
		bool notices = poll(fds, count, wait) > 0;
		pthread_mutex_lock(&silence->mutex);
		close_old(silence, count);
		if (notices || silence->answered) {
			forget(silence);
		} else if (silence->blind >= (unsigned)plugin->host->threads) {
			program_hangs(&plugin->program, silence->blind);
			forget(silence);
		}
	}
	silence->looks = false;
	pthread_mutex_unlock(&silence->mutex);
	return NULL;
}

void silence_add(struct plugin *plugin, struct lane *lane)
{
	struct silence *silence = &plugin->silence;

	pthread_mutex_lock(&silence->mutex);
	if (silence->ended_count < SILENCE_MOST) {
		if (lane->fd >= 0)
			shutdown(lane->fd, SHUT_WR);
		silence->ended[silence->ended_count++] = (struct ended){lane->fd, clock_now() + NOTICE_NS};
		lane->fd = -1;
		atomic_fetch_add(&silence->count, 1);
	}
	if (!silence->looks) {
		if (silence->begun)
			pthread_join(silence->thread, NULL); /* it has seen the end of the last ones */
		silence->looks = silence->begun = pthread_create(&silence->thread, NULL, look, plugin) == 0;
		if (!silence->looks)
			forget(silence);
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
	if (silence->looks)
		silence->answered = true;
	else
		forget(silence);
	pthread_mutex_unlock(&silence->mutex);
}
