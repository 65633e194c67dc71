/*
 * worker.h - what a worker is made of. Internal to the host.
 *
 * Owners: the page, the list of front ends and the flags of struct worker are the keeper's to change (mutex); a slot is
 * its own thread's, except for struct recall, which the keeper shares under its mutex; a call is its slot's, except for
 * `cancelled`.
 */
#ifndef WEBSERVER_HOST_WORKER_H
#define WEBSERVER_HOST_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "answer.h"
#include "block.h"
#include "body.h"
#include "host.h"
#include "link.h"
#include "piece.h"
#include "queue.h"
#include "recall.h"

struct host {
	void *library;
	const struct langplugin *plugin;
	void *state; /* the plugin's */
	struct langplugin_host functions;
	int processes;
	int threads;
};

struct slot;

/* The host's side of one request; the plugin knows it by address only. */
struct langplugin_call {
	struct slot *slot;
	struct wire_frontend from;
	struct wire_head head; /* of the request */
	uint64_t deadline_ns;
	atomic_int cancelled; /* set by the keeper too; never cleared while the call lives */
	struct block block;
	struct body body;
	struct answer answer;
};

struct slot {
	struct worker *worker;
	unsigned number;
	int wake;               /* eventfd: a flag in struct worker has changed, or the running call was cancelled */
	pthread_t thread;
	void *plugin_thread;
	struct link link;
	struct queue queue;
	struct recall recall;
	struct pool pool;
	struct wire_slot *page;
	unsigned frontends_seen; /* version of worker->frontends that `link` has */
	bool leaving;            /* WIRE_LEAVING has been sent */
	struct langplugin_call call;
};

struct keeper {
	pthread_t thread;
	int wake; /* eventfd; also written by the handler of SIGTERM */
	struct link link;
};

struct worker {
	struct host *host;
	void *context; /* ZeroMQ's, made after the fork */
	uint32_t generation;
	uint64_t incarnation;
	int control;
	struct wire_page *page;
	unsigned slots;
	struct slot *slot;
	struct keeper keeper;
	pthread_mutex_t mutex;         /* guards frontends */
	struct frontends frontends;
	atomic_uint frontends_version; /* grows when frontends changes */
	atomic_bool retiring;          /* orderly end */
	atomic_bool finished;          /* every slot has said goodbye: the keeper may go */
};

/* worker.c */
uint64_t clock_ns(void);
void worker_wake(int wake);
void worker_awake(int wake);
int worker_report(const struct worker *worker, uint32_t kind, const char *text);

/* slot.c */
int slot_open(struct slot *slot, struct worker *worker, unsigned number);
void slot_run(struct slot *slot); /* until the orderly end */
void slot_close(struct slot *slot);
int slot_drain(struct slot *slot); /* takes in what has arrived; returns how many messages that were */
void slot_sleep(struct slot *slot, uint64_t deadline_ns);
bool call_over(struct langplugin_call *call); /* client or front end gone, or the deadline has passed */

/* keeper.c */
int keeper_open(struct worker *worker);
void *keeper_run(void *worker);

/* load.c */
void host_close(struct host *host);

#endif
