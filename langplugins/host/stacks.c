/*
 * Where requests are: of one that runs for too long, and for whoever asks. The keeper is told, and must not wait; so a
 * thread is made for it, which gathers what can be known (the request's line and id, what its thread waits for, the
 * stacks of the language, and in C if the request is to be ended) and hands it on as one text, to the log or to a
 * descriptor. Each step has its time: what hangs itself is left out.
 *
 * A slot's thread gets a signal (frames.c) only where its request is to be ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stacks.h"

/* All but the log takes 0.67 s at most: beyond the supervisor's SHOW_WAIT, within its SHOW_MORE. */
#define ROOM	   49152 /* bytes of one text */
#define ASKED_MS   220	 /* for the language to begin to tell */
#define WRITING_MS 150	 /* for what has begun */
#define C_MS	   60	 /* for a thread to write its frames in C, if there are others */
#define C_ALL_MS   120	 /* for all of them together */
#define C_ALONE_MS 300	 /* for one that is alone: it may only wait for a processor */
#define LOG_MS	   300	 /* for the log to take it */
#define HEARD_MS   50	 /* for the language to hear that requests are to end */
#define END_MS	   1000	 /* for a job to end before the language does */
#define JOBS	   4	 /* threads of this kind at a time */
#define TARGET	   1000	 /* letters of a request's target */

struct job {
	struct worker *worker;
	enum stacks_why why;
	uint64_t limit_ns;
	int fd;	      /* STACKS_ASKED: where to write */
	pid_t thread; /* STACKS_CRASHED: which one it is */
};

/* One job at a time; others wait for it. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static atomic_int jobs;
static struct {
	size_t size;
	char data[ROOM];
	uint64_t chosen[WIRE_SLOTS]; /* serials of the requests that are meant; 0: none */
	char request[64], site[256]; /* of the first of them; the site if it is that of all */
} text;

/* ---- the text */

__attribute__((format(printf, 1, 2))) static void add(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	int size = vsnprintf(text.data + text.size, ROOM - text.size, format, arguments);
	va_end(arguments);
	if (size > 0)
		text.size += (size_t)size < ROOM - text.size ? (size_t)size : ROOM - text.size - 1;
}

static int left_ms(uint64_t until)
{
	uint64_t now = clock_ns();

	return now < until ? (int)((until - now) / 1000000) + 1 : 0;
}

/* What comes through a pipe until its last writer has closed it (true), or the time is over. What is too much is lost.
 */
static bool gather(int fd, uint64_t until)
{
	char piece[4096];

	for (;;) {
		ssize_t size = read(fd, piece, sizeof(piece));
		if (size > 0)
			add("%.*s", (int)size, piece);
		else if (size == 0 || (errno != EAGAIN && errno != EINTR))
			return true;
		else if (errno == EAGAIN && poll(&(struct pollfd){fd, POLLIN, 0}, 1, left_ms(until)) == 0)
			return false;
	}
}

/* What a thread does in the kernel, as proc(5) has it: the process's own threads may be looked at. */
static void add_thread(pid_t tid)
{
	char path[64], state[512] = "", place[64] = "";
	const char *letter;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
		ssize_t unused = read(fd, state, sizeof(state) - 1);
		(void)unused;
		close(fd);
	}
	snprintf(path, sizeof(path), "/proc/self/task/%d/wchan", (int)tid);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
		ssize_t unused = read(fd, place, sizeof(place) - 1);
		(void)unused;
		close(fd);
	}
	letter = strrchr(state, ')');
	if (letter && strncmp(letter, ") R", 3) == 0)
		add("  its thread (%d) computes\n", (int)tid);
	else if (letter)
		add("  its thread (%d) waits%s%s\n", (int)tid, place[0] && strcmp(place, "0") != 0 ? " in " : "",
			place[0] && strcmp(place, "0") != 0 ? place : "");
}

/* ---- the requests */

static bool is_meant(const struct job *job, struct slot *slot, uint64_t ran, uint64_t now)
{
	struct langplugin_call *call = &slot->call;
	uint64_t deadline = __atomic_load_n(&call->block.deadline_ns, __ATOMIC_RELAXED);

	if (job->why == STACKS_ASKED)
		return true;
	if (job->why == STACKS_CRASHED)
		return slot->tid == job->thread;
	if (call->answer.tunnel || (job->why == STACKS_SLOW && slot->shown_slow == slot->recall.running))
		return false;
	return ran >= job->limit_ns || (job->why == STACKS_STUCK && deadline && deadline <= now);
}

static void keep(char *to, size_t room, struct langplugin_text from)
{
	snprintf(to, room, "%.*s", (int)(from.size < room ? from.size : room - 1), from.data);
}

static void add_request(const struct job *job, struct slot *slot, uint64_t ran)
{
	static const char *const words[] = {
		[STACKS_ASKED] = "",
		[STACKS_SLOW] = ", longer than slow_request, and goes on",
		[STACKS_STUCK] = ", longer than request_timeout, and is stopped",
		[STACKS_CRASHED] = ", and ends by a crash",
	};
	static const char *const phases[] = {
		[WIRE_READING] = "; it waits for its client's body",
		[WIRE_WRITING] = "; it waits for its client to take the answer",
		[WIRE_TUNNEL] = "; it is a tunnel",
	};
	const struct langplugin_request *request = &slot->call.block.request;
	uint32_t phase = __atomic_load_n(&slot->page->phase, __ATOMIC_RELAXED);
	const char *does = phase < sizeof(phases) / sizeof(phases[0]) && phases[phase] ? phases[phase] : "";

	if (!text.request[0]) {
		keep(text.request, sizeof(text.request), request->request_id);
		keep(text.site, sizeof(text.site), request->site);
	}
	add("%s %.*s%s has run for %.2f s%s (slot %u, request %s)%s\n", request->method.data, TARGET,
		request->target.data, request->target.size > TARGET ? "..." : "", (double)ran / 1e9, words[job->why],
		slot->number, request->request_id.data, does);
}

/* A stack may show every thread, and what is about requests of several sites belongs in no site's log. */
static void mind_sites(const struct worker *worker)
{
	for (unsigned i = 0; i < worker->slots && text.site[0]; i++) {
		struct slot *slot = &worker->slot[i];
		pthread_mutex_lock(&slot->recall.mutex);
		if (slot->recall.running &&
			strncmp(text.site, slot->call.block.request.site.data, sizeof(text.site) - 1) != 0)
			text.site[0] = 0;
		pthread_mutex_unlock(&slot->recall.mutex);
	}
}

/* Those that the job is about, each with its line. Under the lock their requests stay. Returns how many. */
static unsigned choose(const struct job *job)
{
	struct worker *worker = job->worker;
	unsigned count = 0;

	text.size = 0;
	text.request[0] = text.site[0] = 0;
	for (unsigned i = 0; i < worker->slots; i++) {
		struct slot *slot = &worker->slot[i];
		text.chosen[i] = 0;
		pthread_mutex_lock(&slot->recall.mutex);
		uint64_t now = clock_ns(), ran = now - slot->recall.since;
		if (slot->recall.running && is_meant(job, slot, ran, now)) {
			text.chosen[i] = slot->recall.running;
			slot->shown_slow = slot->recall.running;
			add_request(job, slot, ran);
			count++;
		}
		pthread_mutex_unlock(&slot->recall.mutex);
		if (text.chosen[i] && job->why != STACKS_CRASHED)
			add_thread(slot->tid);
	}
	mind_sites(worker);
	return count;
}

/* ---- the stacks */

/* What its own threads tell. False: nothing, and they do not run, or it is not their way. */
static bool add_told(const struct host *host)
{
	size_t before = text.size;
	int from = question_put(host);

	if (from < 0)
		return false;
	bool over = gather(from, clock_ns() + ASKED_MS * 1000000ull);
	bool taken = !question_take_back();
	if (taken && !over)
		gather(from, clock_ns() + WRITING_MS * 1000000ull);
	close(from);
	return text.size > before || (taken && !over);
}

static void add_language(const struct job *job)
{
	const struct host *host = job->worker->host;
	int ends[2];

	if (add_told(host) || !host->plugin->dump)
		return;
	if (host->plugin->minor < 2 && job->why != STACKS_STUCK && job->why != STACKS_CRASHED) {
		add("its plugin shows stacks only of a process that is to be ended\n");
		return;
	}
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return;
	host->plugin->dump(host->state, ends[1]);
	close(ends[1]);
	gather(ends[0], 0);
	close(ends[0]);
	if (text.size && text.data[text.size - 1] != '\n')
		add("\n");
}

static void add_c(const struct job *job)
{
	struct slot *slots = job->worker->slot;
	unsigned chosen = 0;

	for (unsigned i = 0; i < job->worker->slots; i++)
		chosen += text.chosen[i] != 0;
	uint64_t end = clock_ns() + (chosen > 1 ? C_ALL_MS : C_ALONE_MS) * 1000000ull;
	for (unsigned i = 0; i < job->worker->slots && clock_ns() < end; i++) {
		uint64_t until = chosen > 1 ? clock_ns() + C_MS * 1000000ull : end;
		if (i && slots[i].tid == slots[i - 1].tid)
			break; /* an event loop's slots are one thread */
		enum frames_got got = text.chosen[i] ? frames_ask(&slots[i], text.chosen[i], until < end ? until : end)
						     : FRAMES_OVER;
		if (got == FRAMES_OVER)
			continue;
		add("slot %u in C (innermost first):\n", i);
		if (got == FRAMES_SILENT)
			add("  its thread takes no signal\n");
		gather(frames_descriptor(), 0);
	}
}

/* ---- one job */

static void to_descriptor(int fd)
{
	uint64_t until = clock_ns() + LOG_MS * 1000000ull;

	for (size_t at = 0; at < text.size;) {
		ssize_t size = write(fd, text.data + at, text.size - at);
		if (size > 0)
			at += (size_t)size;
		else if (size < 0 && errno == EAGAIN && poll(&(struct pollfd){fd, POLLOUT, 0}, 1, left_ms(until)) > 0)
			continue;
		else if (size >= 0 || errno != EINTR)
			return;
	}
}

static void to_log(int level)
{
	const struct langplugin_text request = {text.request, strlen(text.request)};
	const struct langplugin_text site = {text.site, strlen(text.site)};

	log_lines(level, request, site, text.data, text.size, LOG_MS);
	text.size = 0;
}

/* Takes the lock of the slot, under which it is this request still; else false. */
static bool hold(struct slot *slot, uint64_t serial)
{
	pthread_mutex_lock(&slot->recall.mutex);
	if (serial && slot->recall.running == serial)
		return true;
	pthread_mutex_unlock(&slot->recall.mutex);
	return false;
}

/*
 * They are cancelled, though no front end may be there to say so, and the language ends them if it can. Then their
 * system calls come back, so that it sees what it has been asked.
 */
static void interrupt_calls(const struct job *job)
{
	const struct worker *worker = job->worker;

	for (unsigned i = 0; i < worker->slots; i++)
		if (hold(&worker->slot[i], text.chosen[i])) {
			atomic_store(&worker->slot[i].call.cancelled, 1);
			atomic_store(&worker->slot[i].call.overdue, 1);
			pthread_mutex_unlock(&worker->slot[i].recall.mutex);
		}
	if (question_ask(worker->host))
		question_heard(clock_ns() + HEARD_MS * 1000000ull);
	for (unsigned i = 0; i < worker->slots; i++)
		if (hold(&worker->slot[i], text.chosen[i])) {
			wake_up(worker->slot[i].wake);
			pthread_kill(worker->slot[i].native, HOST_STACK_SIGNAL);
			pthread_mutex_unlock(&worker->slot[i].recall.mutex);
		}
}

static void *run(void *argument)
{
	struct job *job = argument;
	struct worker *worker = job->worker;

	pthread_mutex_lock(&turn);
	unsigned count = choose(job);
	if (count || job->why == STACKS_ASKED) {
		if (!count)
			add("it runs no request\n");
		add_language(job);
		if (job->why == STACKS_ASKED)
			to_descriptor(job->fd);
		else
			to_log(LP_WARNING);
	}
	if (job->why == STACKS_STUCK) {
		add_c(job);
		to_log(LP_WARNING);
		/* From here on it may be killed. */
		__atomic_fetch_add(&worker->page->shown, 1, __ATOMIC_RELEASE);
		interrupt_calls(job);
	}
	pthread_mutex_unlock(&turn);
	if (job->fd >= 0)
		close(job->fd);
	free(job);
	atomic_fetch_sub(&jobs, 1);
	return NULL;
}

void stacks_show(struct worker *worker, enum stacks_why why, uint64_t limit_ns, int fd)
{
	struct job *job = atomic_fetch_add(&jobs, 1) < JOBS ? malloc(sizeof(*job)) : NULL;

	if (!job) {
		atomic_fetch_sub(&jobs, 1);
		if (fd >= 0)
			close(fd);
		return;
	}
	*job = (struct job){worker, why, limit_ns, fd, 0};
	/* Where no thread can be had the keeper does it: what is stuck is worth more than what may be recalled. */
	if (thread_detached(run, job))
		run(job);
}

void stacks_crashed(struct worker *worker, pid_t thread)
{
	const struct job job = {worker, STACKS_CRASHED, 0, -1, thread};

	pthread_mutex_lock(&turn);
	choose(&job);
	add_language(&job);
	to_log(LP_ERROR);
	pthread_mutex_unlock(&turn);
}

void stacks_end(void)
{
	uint64_t until = clock_ns() + END_MS * 1000000ull;
	const struct timespec at = {(time_t)(until / 1000000000), (long)(until % 1000000000)};

	/* Never given back. A job that hangs in the language for longer is left to itself. */
	pthread_mutex_clocklock(&turn, CLOCK_MONOTONIC, &at);
}
