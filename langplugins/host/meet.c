/*
 * Every front end is to have probed a slot before its thread is an application's, perhaps for long: nobody else
 * answers. Until they have, the worker counts as one that is still to come, and does not relieve another. An event
 * loop's slots answer at any time.
 */
#include "worker.h"

#define MEET_MS 100 /* a request waits this long for front ends that do not know the slot yet */

void slot_meet(struct slot *slot)
{
	uint64_t now = clock_ns(), end = now + MEET_MS * UINT64_C(1000000);

	while (link_meets(&slot->link) && now < end && !atomic_load(&slot->worker->gave_up)) {
		slot_sleep(slot, (int)((end - now) / 1000000) + 1);
		now = clock_ns();
	}
	slot->link.meets = false; /* one that hangs is not waited for again */
}
