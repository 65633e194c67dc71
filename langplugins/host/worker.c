/* The whole life of a worker: page, application, threads, and the orderly end. Entered once in a forked process. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "stacks.h"

uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void wake_up(int wake)
{
	const uint64_t one = 1;

	/* Full means that it is awake already. */
	if (write(wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		abort();
}

void wake_over(int wake)
{
	uint64_t count;

	while (read(wake, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

int worker_report(const struct worker *worker, uint32_t kind, const char *text)
{
	struct host_report report = {.kind = kind};
	size_t size = strlen(text);

	if (size > sizeof(report.text))
		size = sizeof(report.text);
	memcpy(report.text, text, size);
	report.size = (uint32_t)size;
	size += offsetof(struct host_report, text);
	return send(worker->control, &report, size, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -1;
}

unsigned worker_frontends(struct worker *worker, struct frontends *frontends)
{
	pthread_mutex_lock(&worker->mutex);
	*frontends = worker->frontends;
	unsigned version = atomic_load(&worker->frontends_version);
	pthread_mutex_unlock(&worker->mutex);
	return version;
}

bool worker_has(struct worker *worker, struct wire_frontend name)
{
	bool found = false;

	pthread_mutex_lock(&worker->mutex);
	for (unsigned i = 0; i < worker->frontends.count; i++)
		found |= worker->frontends.item[i].ordinal == name.ordinal &&
			 worker->frontends.item[i].incarnation == name.incarnation;
	pthread_mutex_unlock(&worker->mutex);
	return found;
}

/* TERM asks for the orderly end. The handler may only queue: it marks and wakes the keeper. */
static struct worker *the_worker;

static void on_term(int number)
{
	(void)number;
	int saved = errno;
	atomic_store(&the_worker->retiring, true);
	wake_up(the_worker->keeper.wake);
	errno = saved;
}

/*
 * A child that application code forks has copies of the connections. What it wrote there would be the worker's words,
 * and a worker that dies would seem alive for as long as the child is. So it loses them before it can do anything.
 */
static void in_child(void)
{
	struct worker *worker = the_worker;

	worker->forked = true;
	for (unsigned i = 0; i < worker->slots; i++) {
		link_abandon(&worker->slot[i].link);
		takeover_abandon(&worker->slot[i].call);
		loan_abandon(&worker->slot[i].call);
	}
	worker->loans = NULL;
	async_abandon(worker);
	link_abandon(&worker->keeper.link);
	close(worker->control);
}

static void on_other(int number)
{
	(void)number;
}

/*
 * What a terminal or an operator sends to the whole process group is not for workers. It is caught, not ignored: exec
 * hands ignoring on, and a program that the application starts could then not be interrupted. A handler that the
 * application has set while it was loaded stays, but for TERM.
 */
static void set_signals(void)
{
	static const int unwanted[] = {SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGWINCH};
	struct sigaction action = {.sa_handler = on_other, .sa_flags = SA_RESTART}, before;

	for (size_t i = 0; i < sizeof(unwanted) / sizeof(unwanted[0]); i++)
		if (sigaction(unwanted[i], NULL, &before) == 0 &&
			(before.sa_handler == SIG_IGN || before.sa_handler == SIG_DFL))
			sigaction(unwanted[i], &action, NULL);
	pthread_atfork(NULL, NULL, in_child);
	/* A program whose reader has gone must be able to die of it, too. */
	sigaction(SIGPIPE, &action, NULL);
	action.sa_handler = on_term;
	sigaction(SIGTERM, &action, NULL);
}

static int failed(const struct worker *worker, int code, const char *what)
{
	char text[512];

	snprintf(text, sizeof(text), "%s: %s", what, strerror(errno));
	log_format(NULL, LP_ERROR, "%s", text);
	worker_report(worker, HOST_FAILED, text);
	return code;
}

static int map_page(struct worker *worker, int fd)
{
	size_t size = WIRE_PAGE_SIZE(worker->slots);
	struct stat st;

	if (fstat(fd, &st) || (size_t)st.st_size < size) {
		errno = EINVAL;
		return -1;
	}
	worker->page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (worker->page == MAP_FAILED)
		return -1;
	close(fd);
	worker->page->magic = WIRE_MAGIC;
	worker->page->version = WIRE_VERSION;
	worker->page->slots = worker->slots;
	worker->page->worker = worker->incarnation;
	worker->page->started_ns = clock_ns();
	worker->page->pid = (uint32_t)getpid();
	__atomic_store_n(&worker->page->state, WIRE_STARTING, __ATOMIC_RELEASE);
	return 0;
}

/*
 * A slot computes, and does not take the processor from others by waking up: under SCHED_BATCH (sched(7)) a front end
 * goes on to place all that it has before a slot begins, and a slot answers all that it has before a front end reads.
 * The keeper does not compute, and what it answers is wanted now; what an application starts is its own business, hence
 * the reset. Left alone where somebody has chosen already, or forbids it.
 */
static void schedule(void)
{
	static const struct sched_param none = {0};

	if (sched_getscheduler(0) == SCHED_OTHER)
		sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none);
}

int worker_slot(unsigned number)
{
	struct slot *slot = &the_worker->slot[number];

	schedule();
	crash_thread();
	slot->native = pthread_self();
	slot->tid = gettid();
	if (slot_start(slot))
		return -1;
	slot_run(slot);
	slot_close(slot);
	return 0;
}

int worker_descriptor(void)
{
	return the_worker->async.set;
}

int worker_turn(void)
{
	return async_turn(the_worker);
}

static void *slot_thread(void *argument)
{
	struct slot *slot = argument;

	if (worker_slot(slot->number)) {
		log_format(NULL, LP_ERROR, "slot %u: the plugin could not start a thread", slot->number);
		_exit(HOST_EXIT_SYSTEM);
	}
	return NULL;
}

/*
 * The keeper takes no signals. A slot's thread must: what an application starts from there inherits the thread's mask
 * over exec, and nobody could end it by TERM. Handlers only mark, so that it does not matter which thread they run on.
 */
static int start_thread(pthread_t *thread, void *(*run)(void *), void *argument, const char *name, bool signals)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, signals ? NULL : &all, &before);
	int result = pthread_create(thread, NULL, run, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result == 0)
		pthread_setname_np(*thread, name);
	errno = result;
	return result ? -1 : 0;
}

static int open_sockets(struct worker *worker)
{
	worker->slot = calloc(worker->slots, sizeof(*worker->slot));
	if (!worker->slot || keeper_open(worker))
		return -1;
	if (worker->host->plugin->traits & LANGPLUGIN_ASYNC && async_open(worker))
		return -1;
	for (unsigned i = 0; i < worker->slots; i++)
		if (slot_open(&worker->slot[i], worker, i))
			return -1;
	return 0;
}

static void ready(const struct worker *worker)
{
	uint32_t old = WIRE_STARTING; /* unless the keeper, which runs already, lets it end */

	__atomic_compare_exchange_n(&worker->page->state, &old, WIRE_READY, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	worker_report(worker, HOST_READY, "");
}

/*
 * Begun requests end, others stay in their queues: the front ends run them elsewhere, once this process is gone and its
 * page says that they were not begun.
 */
void worker_give_up(const char *why)
{
	struct worker *worker = the_worker;

	if (!worker || atomic_exchange(&worker->gave_up, true))
		return;
	worker_report(worker, HOST_FAILED, why);
	if (atomic_load(&worker->serving))
		for (unsigned i = 0; i < worker->slots; i++)
			wake_up(worker->slot[i].wake);
}

/* The manager need not look how far a worker is: it is told once. */
void worker_count(struct worker *worker)
{
	if (worker->tell_after && atomic_fetch_add(&worker->finished_requests, 1) + 1 == worker->tell_after)
		worker_report(worker, HOST_WORN, "");
}

/* Threads of ours, one for each slot; the first is this one. */
static int run_slots(struct worker *worker)
{
	char name[16];

	for (unsigned i = 1; i < worker->slots; i++) {
		snprintf(name, sizeof(name), "slot %u", i);
		if (start_thread(&worker->slot[i].thread, slot_thread, &worker->slot[i], name, true))
			return -1;
	}
	ready(worker);
	slot_thread(&worker->slot[0]);
	for (unsigned i = 1; i < worker->slots; i++)
		pthread_join(worker->slot[i].thread, NULL);
	return 0;
}

/* The plugin's event loop, on this thread. */
static int run_loop(struct worker *worker)
{
	const struct host *host = worker->host;

	schedule();
	crash_thread();
	if (slot_start(&worker->slot[0]))
		return -1;
	for (unsigned i = 0; i < worker->slots; i++) {
		worker->slot[i].plugin_thread = worker->slot[0].plugin_thread;
		worker->slot[i].native = pthread_self();
		worker->slot[i].tid = gettid();
	}
	ready(worker);
	host->plugin->run(host->state);
	if (worker->forked)
		_exit(0); /* a child that application code made came back here */
	bool orderly = worker->async.left == 0;
	if (host->plugin->thread_stop)
		host->plugin->thread_stop(host->state, worker->slot[0].plugin_thread);
	async_close(worker);
	errno = ECANCELED;
	return orderly ? 0 : -1;
}

static int serve(struct worker *worker)
{
	const struct host *host = worker->host;

	/* Whoever gives up before this is seen by the slots before they sleep. */
	atomic_store(&worker->serving, true);
	frames_serve();
	crash_serve(worker);
	question_serve();
	if (start_thread(&worker->keeper.thread, keeper_run, worker, "keeper", false))
		return failed(worker, HOST_EXIT_SYSTEM, "the keeper's thread");
	if (host->plugin->traits & LANGPLUGIN_OWN_THREADS) {
		ready(worker);
		host->plugin->run(host->state);
	} else if (host->plugin->traits & LANGPLUGIN_ASYNC) {
		if (run_loop(worker))
			return failed(worker, HOST_EXIT_SYSTEM, "the plugin's event loop");
	} else if (run_slots(worker)) {
		return failed(worker, HOST_EXIT_SYSTEM, "a slot's thread");
	}
	atomic_store(&worker->finished, true);
	wake_up(worker->keeper.wake);
	pthread_join(worker->keeper.thread, NULL);
	__atomic_store_n(&worker->page->state, WIRE_GONE, __ATOMIC_RELEASE);
	return atomic_load(&worker->gave_up) ? HOST_EXIT_GAVE_UP : HOST_EXIT_DONE;
}

int worker_run(struct host *host, const struct host_options *options)
{
	static struct worker worker;
	char message[HOST_TEXT] = "";

	if (options->size != sizeof(*options) || options->count > WIRE_FRONTENDS)
		return HOST_EXIT_SYSTEM;
	crash_adopt();
	the_worker = &worker;
	worker.host = host;
	worker.generation = options->generation;
	worker.incarnation = options->worker;
	worker.control = options->control;
	worker.tell_after = options->tell_after;
	worker.slots = (unsigned)host->functions.threads;
	worker.frontends.count = options->count;
	worker.frontends_version = 1;
	if (options->count)
		memcpy(worker.frontends.item, options->frontend, options->count * sizeof(options->frontend[0]));
	pthread_mutex_init(&worker.mutex, NULL);
	host_title(options->title, options->name);
	if (host_tie(options->manager))
		return HOST_EXIT_ORPHAN;
	worker.keeper.wake = worker.async.set = worker.async.wake = worker.async.idle = -1;
	if (map_page(&worker, options->page))
		return failed(&worker, HOST_EXIT_SYSTEM, "the page");
	loans_map(&worker, options->loans);
	if (host->plugin->after_fork && host->plugin->after_fork(host->state, message, sizeof(message))) {
		worker_report(&worker, HOST_FAILED, message);
		return HOST_EXIT_LOAD;
	}
	if (open_sockets(&worker))
		return failed(&worker, HOST_EXIT_SYSTEM, "the sockets to the front ends");
	/* After the application was loaded, which may have set its own. */
	set_signals();
	int code = serve(&worker);
	if ((code == HOST_EXIT_DONE || code == HOST_EXIT_GAVE_UP) && host->plugin->close) {
		stacks_end();
		host->plugin->close(host->state);
	}
	return code;
}

int host_tie(int32_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		return -1;
	/* It may have died before the line above; its signal would never come. */
	return getppid() == parent ? 0 : -1;
}
