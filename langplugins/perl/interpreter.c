/*
 * The one interpreter. It is started in the manager, forked with it, and ended in the worker: END blocks and
 * destructors of what was preloaded are each worker's, never the manager's.
 *
 * exit() in application code ends the request and not the process: perl unwinds all of its stacks and jumps to the
 * innermost JMPENV, and the one here is where perl_run() would have its own. In a child that application code has
 * forked, exit() is the end of that child, with its END blocks, as in every perl program.
 */
#include "plugin.h"

#include <signal.h>
#include <unistd.h>

extern char **environ;
EXTERN_C void boot_DynaLoader(pTHX_ CV *cv);

#define TERM_LOOK_NS 1000000000u

/* The one extension that is in libperl itself; it loads all others. */
static void bootstrap(pTHX)
{
	newXS("DynaLoader::boot_DynaLoader", boot_DynaLoader, __FILE__);
}

int interpreter_start(struct plugin *plugin, char *message, size_t size)
{
	static char program[] = "webserver", option[] = "-e", script[] = "0";
	static char *arguments[] = {program, option, script, NULL};
	int count = 3;
	char **vector = arguments;

	PERL_SYS_INIT3(&count, &vector, &environ);
	PerlInterpreter *my_perl = perl_alloc();
	if (!my_perl) {
		snprintf(message, size, "perl: no memory for an interpreter");
		return -1;
	}
	plugin->perl = my_perl;
	plugin->pid = getpid();
	perl_construct(my_perl);
	/* An assignment to $0 does not write over the process's title, which is the host's. */
	PL_origalen = 1;
	PL_exit_flags |= PERL_EXIT_DESTRUCT_END;
	if (perl_parse(my_perl, bootstrap, count, vector, NULL) || perl_run(my_perl)) {
		snprintf(message, size, "perl: the interpreter did not start; see the lines above (PERL5OPT?)");
		return -1;
	}
	return 0;
}

/* END blocks, destructors, buffers. A destructor that calls exit() ends that, and only that. Returns the exit status.
 */
static int destruct(struct plugin *plugin)
{
	dTHXa(plugin->perl);
	int jumped;
	dJMPENV;

	JMPENV_PUSH(jumped);
	if (jumped == 0)
		perl_destruct(plugin->perl);
	JMPENV_POP;
	return (int)STATUS_EXIT;
}

void interpreter_end(struct plugin *plugin)
{
	PERL_SET_CONTEXT(plugin->perl);
	destruct(plugin);
}

int interpreter_run(pTHX_ void (*what)(pTHX_ void *argument), void *argument)
{
	const I32 scopes = PL_scopestack_ix;
	const SSize_t stack = PL_stack_sp - PL_stack_base, marks = PL_markstack_ptr - PL_markstack;
	COP *const cop = PL_curcop;
	int jumped;
	dJMPENV;

	JMPENV_PUSH(jumped);
	if (jumped == 0) {
		what(aTHX_ argument);
	} else {
		/* What is left here can run destructors, and they can call exit() again: then it goes on from above. */
		while (PL_scopestack_ix > scopes)
			LEAVE;
		FREETMPS;
		PL_stack_sp = PL_stack_base + stack;
		PL_markstack_ptr = PL_markstack + marks;
		PL_curcop = cop;
	}
	JMPENV_POP;
	return jumped != 0;
}

int interpreter_exited(struct plugin *plugin)
{
	dTHXa(plugin->perl);
	int status = (int)STATUS_EXIT;

	if (getpid() != plugin->pid)
		_exit(destruct(plugin));
	STATUS_ALL_SUCCESS;
	return status;
}

void interpreter_forked(struct plugin *plugin)
{
	dTHXa(plugin->perl);

	plugin->pid = getpid();
	/* Else all workers would have the random numbers that preloaded code has begun. */
	PL_srand_called = FALSE;
}

/*
 * `local $SIG{TERM}` gives back what perl knows, which is the default action, and kill(1) would then end this worker in
 * the middle of a request. One system call for each request would be seen in the rate, so it is one a second.
 */
void interpreter_keep_signals(struct plugin *plugin)
{
	uint64_t now = now_ns();
	struct sigaction action;

	if (plugin->term_seen_ns && now - plugin->term_seen_ns < TERM_LOOK_NS)
		return;
	sigaction(SIGTERM, NULL, &action);
	if (!plugin->term_seen_ns)
		plugin->term = action;
	else if (action.sa_handler != plugin->term.sa_handler)
		sigaction(SIGTERM, &plugin->term, NULL);
	plugin->term_seen_ns = now;
}

SV *interpreter_exception(pTHX)
{
	SV *error = ERRSV;

	/* An object is one whatever its class says of its truth. */
	return SvROK(error) || SvTRUE_NN(error) ? error : NULL;
}
