/* stacks.h - where requests are, as text, while they run. */
#ifndef WEBSERVER_HOST_STACKS_H
#define WEBSERVER_HOST_STACKS_H

#include "worker.h"

enum stacks_why {
	STACKS_ASKED, /* all that run, to a descriptor */
	STACKS_SLOW,  /* those that have run for so long and have not been shown yet, to the log */
	STACKS_STUCK  /* those whose time is over, to the log; then they are interrupted, as far as the language can */
};

/* By the keeper; does not wait. fd becomes ours; -1: none. */
void stacks_show(struct worker *worker, enum stacks_why why, uint64_t limit_ns, int fd);

/* ---- frames.c */
/* In the manager: from here on HOST_STACK_SIGNAL has whatever hangs write where it is. */
void frames_prepare(const struct host *host);
/* In a worker that has come up. */
void frames_serve(void);
enum frames_got { FRAMES_WRITTEN, FRAMES_SILENT /* not in time */, FRAMES_OVER /* it runs no more */ };
/* Have a slot's thread write its frames in C, which can then be read from the descriptor. One at a time. */
enum frames_got frames_ask(struct slot *slot, uint64_t serial, uint64_t until);
int frames_descriptor(void);

#endif
