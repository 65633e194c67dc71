/*
 * What the thread of an event loop has kept of large bodies is given back when nothing has come for a while: a timer in
 * its set, which runs while there is any. Threads of slots see to it by themselves (link_wait).
 */
#include <sys/timerfd.h>
#include <unistd.h>

#include "worker.h"

int pause_open(struct async *async)
{
	async->idle = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return async->idle < 0 ? -1 : 0;
}

void pause_begin(struct async *async)
{
	static const struct itimerspec pause = {.it_value = {MESSAGES_MS / 1000, MESSAGES_MS % 1000 * 1000000}};

	if (async->timed || !messages_kept())
		return;
	async->moved = false;
	async->timed = timerfd_settime(async->idle, 0, &pause, NULL) == 0;
}

void pause_over(struct async *async)
{
	uint64_t times;

	if (read(async->idle, &times, sizeof(times)) != sizeof(times))
		return;
	async->timed = false;
	if (!async->moved)
		messages_forget();
}
