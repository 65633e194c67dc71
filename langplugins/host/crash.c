/*
 * A process's end by a fault of its own: SIGSEGV, abort(3) and the like. What can still be known goes to the log before
 * it ends as it would have: which request its thread was running, the stack of the language, and that of C. The handler
 * that an interpreter has, as Ruby's, comes after ours. One that application code sets is in our place: there are
 * programs that live on after such a signal.
 *
 * The handler does what signal-safety(7) allows and waits for nobody for long. The language's stack is made by the
 * keeper, as for a request that hangs (stacks.c): what has crashed may hold any lock, malloc's or the language's, and
 * who needs that lock as well must be somebody else. An alarm ends what hangs all the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stacks.h"

#define FRAMES	    32
#define ALARM_S	    3
#define LANGUAGE_MS 700	  /* for the keeper to have told of the language's stack; see stacks.c */
#define LOG_MS	    200	  /* for the log to have room for a line */
#define OTHERS_MS   1500  /* a second thread that crashes lets the first one tell */
#define TARGET	    1000  /* letters of a request's target */
#define ROOM	    3500  /* below PIPE_BUF: the line is written at once or not at all */
#define STACK	    65536 /* of a handler: a thread's own may have run over */

static const struct {
	int number;
	const char *name;
} faults[] = {
	{SIGSEGV, "SIGSEGV"},
	{SIGBUS, "SIGBUS"},
	{SIGFPE, "SIGFPE"},
	{SIGILL, "SIGILL"},
	{SIGABRT, "SIGABRT"},
	{SIGSYS, "SIGSYS"},
};
#define FAULTS (sizeof(faults) / sizeof(faults[0]))

static struct {
	struct sigaction before[FAULTS];
	const struct host *host;
	struct worker *worker; /* NULL: it does not serve yet, and has no keeper */
	pid_t owner;	       /* a child that application code forks is none of ours */
	atomic_int thread;     /* that crashes; 0: none */
	atomic_bool asked;     /* the keeper */
	int told;	       /* eventfd: it has */
} crash = {.told = -1};

/* ---- one line, without stdio */

struct line {
	char data[ROOM];
	size_t size;
};

static void add(struct line *line, const char *text, size_t size)
{
	if (size > ROOM - line->size)
		size = ROOM - line->size;
	memcpy(line->data + line->size, text, size);
	line->size += size;
}

static void add_text(struct line *line, const char *text)
{
	add(line, text, strlen(text));
}

static void add_number(struct line *line, uint64_t number, unsigned base)
{
	char digits[24];
	size_t at = sizeof(digits);

	do
		digits[--at] = "0123456789abcdef"[number % base];
	while (number /= base);
	add(line, digits + at, sizeof(digits) - at);
}

/* In quotes of JSON; what it would have to escape is a question mark. */
static void add_quoted(struct line *line, struct langplugin_text text, size_t most)
{
	for (size_t i = 0; i < text.size && i < most; i++) {
		char letter = text.data[i];
		bool plain = letter >= ' ' && letter < 0x7f && letter != '"' && letter != '\\';
		add(line, plain ? &letter : "?", 1);
	}
	if (text.size > most)
		add_text(line, "...");
}

static bool has_room(void)
{
	return poll(&(struct pollfd){STDERR_FILENO, POLLOUT, 0}, 1, LOG_MS) > 0;
}

static void put(const char *data, size_t size)
{
	if (!has_room())
		return;
	ssize_t unused = write(STDERR_FILENO, data, size);
	(void)unused;
}

/* ---- what is known */

/* The slot whose request this thread runs; an event loop runs those of all slots, and it is not known which it is. */
static const struct slot *slot_of(pid_t thread)
{
	const struct slot *found = NULL;

	for (unsigned i = 0; crash.worker && i < crash.worker->slots; i++) {
		const struct slot *slot = &crash.worker->slot[i];
		if (slot->tid != thread || !slot->recall.running)
			continue;
		if (found)
			return NULL;
		found = slot;
	}
	return found;
}

static void put_what(const char *name, const siginfo_t *info, const struct slot *slot)
{
	static const struct langplugin_text none = {"", 0};
	const struct langplugin_request *request = slot ? &slot->call.block.request : NULL;
	struct line line = {.size = 0};

	/* The application may not have ended its line. */
	add_text(&line, "\n\x1e{\"level\":\"error\",\"request\":\"");
	add_quoted(&line, request ? request->request_id : none, 64);
	add_text(&line, "\",\"site\":\"");
	add_quoted(&line, request ? request->site : none, 256);
	add_text(&line, "\",\"text\":\"crashes by ");
	add_text(&line, name);
	if (info->si_code > 0) {
		add_text(&line, " at address 0x");
		add_number(&line, (uint64_t)(uintptr_t)info->si_addr, 16);
	}
	if (request) {
		add_text(&line, " in ");
		add_quoted(&line, request->method, 32);
		add_text(&line, " ");
		add_quoted(&line, request->target, TARGET);
		add_text(&line, " (slot ");
		add_number(&line, slot->number, 10);
		add_text(&line, ", request ");
		add_quoted(&line, request->request_id, 64);
		add_text(&line, ")");
	} else {
		add_text(&line, crash.worker ? ", in a thread that runs no request or those of several slots"
					     : " while it starts");
	}
	add_text(&line, "\"}\n");
	put(line.data, line.size);
}

/* By the keeper, which may be what crashes. */
static void put_language(void)
{
	const struct host *host = crash.host;
	const uint64_t one = 1;

	if (!crash.worker) {
		if (host->state && host->plugin->dump && host->plugin->minor >= 2)
			host->plugin->dump(host->state, STDERR_FILENO);
		return;
	}
	atomic_store(&crash.asked, true);
	if (write(crash.worker->keeper.wake, &one, sizeof(one)) == sizeof(one))
		poll(&(struct pollfd){crash.told, POLLIN, 0}, 1, LANGUAGE_MS);
}

static void put_c(void)
{
	static const char words[] = "in C (innermost first):\n";
	void *frames[FRAMES];
	int count = backtrace(frames, FRAMES);

	put(words, sizeof(words) - 1);
	for (int i = 0; i < count && has_room(); i++)
		backtrace_symbols_fd(frames + i, 1, STDERR_FILENO);
}

static volatile sig_atomic_t fatal; /* the signal that ends this process */

static void unblock(int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Telling takes too long, or what is to be told of lies in ruins. It ends by what it would have ended by. */
static void on_late(int number)
{
	(void)number;
	signal(fatal, SIG_DFL);
	unblock(fatal);
	syscall(SYS_tgkill, getpid(), gettid(), fatal);
}

static void tell(const char *name, const siginfo_t *info, pid_t thread)
{
	const struct sigaction late = {.sa_handler = on_late, .sa_flags = SA_ONSTACK};
	const struct slot *slot = slot_of(thread);

	fatal = info->si_signo;
	sigaction(SIGALRM, &late, NULL);
	unblock(SIGALRM);
	alarm(ALARM_S);
	if (slot)
		__atomic_store_n(&crash.worker->page->crashed, slot->number + 1, __ATOMIC_RELEASE);
	put_what(name, info, slot);
	put_language();
	/* Last, since a stack that has been written over may end it. */
	put_c();
	alarm(0);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	size_t which = 0;
	int none = 0, saved = errno;
	pid_t thread = gettid();

	(void)context;
	while (which < FAULTS - 1 && faults[which].number != number)
		which++;
	if (getpid() == crash.owner) {
		if (atomic_compare_exchange_strong(&crash.thread, &none, thread))
			tell(faults[which].name, info, thread);
		else if (none != thread)
			poll(NULL, 0, OTHERS_MS);
	}
	sigaction(number, &crash.before[which], NULL);
	/* A fault of the processor's happens again, and whoever had a handler sees all of it; the rest has to be sent.
	 */
	if (info->si_code <= 0 || number == SIGSYS)
		syscall(SYS_tgkill, getpid(), thread, number);
	errno = saved;
}

/* ---- by the keeper */

void crash_look(struct worker *worker)
{
	const uint64_t one = 1;

	if (!atomic_exchange(&crash.asked, false))
		return;
	stacks_crashed(worker, atomic_load(&crash.thread));
	ssize_t unused = write(crash.told, &one, sizeof(one));
	(void)unused;
}

/* ---- getting ready */

void crash_thread(void)
{
	stack_t stack;

	/* Some languages give their threads one. */
	if (sigaltstack(NULL, &stack) || !(stack.ss_flags & SS_DISABLE))
		return;
	stack = (stack_t){.ss_size = STACK};
	stack.ss_sp = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack.ss_sp != MAP_FAILED)
		sigaltstack(&stack, NULL);
}

void crash_prepare(const struct host *host)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	void *frame;

	crash.host = host;
	crash.owner = getpid();
	/* Its first call loads a library, which a handler must not. */
	backtrace(&frame, 1);
	crash_thread();
	for (size_t i = 0; i < FAULTS; i++)
		sigaction(faults[i].number, &action, &crash.before[i]);
}

void crash_adopt(void)
{
	crash.owner = getpid();
	atomic_store(&crash.thread, 0);
}

void crash_serve(struct worker *worker)
{
	crash.told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	crash.worker = worker;
}
