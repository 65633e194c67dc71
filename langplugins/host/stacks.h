/* stacks.h - where requests are, as text, while they run. */
#ifndef WEBSERVER_HOST_STACKS_H
#define WEBSERVER_HOST_STACKS_H

#include <semaphore.h>

#include "worker.h"

enum stacks_why {
	STACKS_ASKED,  /* all that run, to a descriptor */
	STACKS_SLOW,   /* those that have run for so long and have not been shown yet, to the log */
	STACKS_STUCK,  /* those whose time is over, to the log; then they are interrupted, as far as the language can */
	STACKS_CRASHED /* the one in which the process crashes, to the log */
};

/* By the keeper; does not wait. fd becomes ours; -1: none. */
void stacks_show(struct worker *worker, enum stacks_why why, uint64_t limit_ns, int fd);
/* The language ends: nobody asks it any more. */
void stacks_end(void);

/* By the keeper, at once: of the requests that this thread runs. */
void stacks_crashed(struct worker *worker, pid_t thread);

/* ---- frames.c */
/* In the manager: from here on HOST_STACK_SIGNAL has whatever hangs write where it is. */
void frames_prepare(const struct host *host);
/* In a worker that has come up. */
void frames_serve(void);
enum frames_got { FRAMES_WRITTEN, FRAMES_SILENT /* not in time */, FRAMES_OVER /* it runs no more */ };
/* Have a slot's thread write its frames in C, which can then be read from the descriptor. One at a time. */
enum frames_got frames_ask(struct slot *slot, uint64_t serial, uint64_t until);
int frames_descriptor(void);

/* ---- crash.c */
/* In the manager, once the plugin is open: from here on a process that crashes says where. */
void crash_prepare(const struct host *host);
/* In a new worker: what crashes is this process. */
void crash_adopt(void);
/* In a worker that has come up, before its threads: they crash with requests, and the keeper will be there. */
void crash_serve(struct worker *worker);
/* On each thread that runs application code: the handler has a stack of its own. */
void crash_thread(void);
/* The keeper was woken: does somebody crash? */
void crash_look(struct worker *worker);

/* ---- question.c */
/* In a worker that has come up. */
void question_serve(void);
/* Have the language come to where it tells (asked(), overdue()). Does not wait. False: it cannot be asked. */
bool question_ask(const struct host *host);
/* The ask() of that has returned. */
bool question_heard(uint64_t until);
/* Ask where its requests are. To be read to the end and closed; -1: it cannot be asked. */
int question_put(const struct host *host);
/* False: there is none any more, somebody has taken it. */
bool question_take_back(void);
/* For whoever comes by; from a handler of a signal. */
void question_leave(int fd);
/* As asked() and overdue() in langplugin.h. */
int question_asked(void);
int question_overdue(struct langplugin_call *call);

bool semaphore_wait(sem_t *semaphore, uint64_t until);
/* A thread that gets no signals. 0 or -1. */
int thread_detached(void *(*run)(void *argument), void *argument);

#endif
