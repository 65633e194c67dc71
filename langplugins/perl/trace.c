/*
 * Where a request is, and its end when its time is over: asked for from a thread that is not perl's. Perl itself is
 * running, or hangs, and changes what is read here; so everything is read by process_vm_readv(2) from this very
 * process, which says EFAULT where a pointer would be followed into nothing, and what does not look right is left out.
 * Perl's own functions (caller, Carp) would need the interpreter, which the request has.
 *
 * A request is ended as a handler in %SIG would: perl calls PL_signalhook between two operations once PL_sig_pending is
 * set, on its own thread, and dying is allowed there.
 */
#include "plugin.h"

#include <sys/uio.h>
#include <unistd.h>

#define DEPTH  100
#define STACKS 20

static struct plugin *the_plugin; /* there is one interpreter in the process; the hook is given nothing but that */

static bool peek(const void *from, void *to, size_t size)
{
	struct iovec local = {to, size}, remote = {(void *)(uintptr_t)from, size};

	return from && process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size;
}

/* A text that ends somewhere; pages that do not exist may follow it. */
static void peek_text(const char *from, char *to, size_t room)
{
	size_t at = 0;

	while (at + 1 < room && peek(from + at, to + at, 1) && to[at])
		at++;
	to[at] = 0;
	for (size_t i = 0; i < at; i++)
		if ((unsigned char)to[i] < ' ')
			to[i] = '?';
}

static void peek_key(const HEK *from, char *to, size_t room)
{
	HEK key;

	to[0] = 0;
	if (peek(from, &key, offsetof(HEK, hek_key)) && key.hek_len > 0)
		peek_text((const char *)from + offsetof(HEK, hek_key), to,
			(size_t)key.hek_len + 1 < room ? (size_t)key.hek_len + 1 : room);
}

/* The package of a hash; its name lies in a part of its body that only stashes have. */
static void peek_package(const HV *from, char *to, size_t room)
{
	HV hash;
	struct xpvhv_with_aux body;
	HEK *name;

	to[0] = 0;
	if (!peek(from, &hash, sizeof(hash)) || SvTYPE(&hash) != SVt_PVHV || !(hash.sv_flags & SVf_OOK) ||
		!peek(hash.sv_any, &body, sizeof(body)))
		return;
	const struct xpvhv_aux extra = body.xhv_aux;
	name = extra.xhv_name_u.xhvnameu_name;
	if (extra.xhv_name_count && !peek(extra.xhv_name_u.xhvnameu_names, &name, sizeof(name)))
		return;
	peek_key(name, to, room);
}

static void function_name(const CV *from, char *to, size_t room)
{
	char package[128] = "", name[128] = "";
	CV code;
	XPVCV body;
	GV glob;
	XPVGV part;

	snprintf(to, room, "a function");
	if (!peek(from, &code, sizeof(code)) || SvTYPE(&code) != SVt_PVCV || !peek(code.sv_any, &body, sizeof(body)))
		return;
	if (body.xcv_flags & CVf_NAMED) {
		peek_key(body.xcv_gv_u.xcv_hek, name, sizeof(name));
		peek_package(body.xcv_stash, package, sizeof(package));
	} else if (peek(body.xcv_gv_u.xcv_gv, &glob, sizeof(glob)) && SvTYPE(&glob) == SVt_PVGV &&
		   peek(glob.sv_any, &part, sizeof(part))) {
		peek_key(part.xiv_u.xivu_namehek, name, sizeof(name));
		peek_package(part.xnv_u.xgv_stash, package, sizeof(package));
	}
	if (name[0])
		snprintf(to, room, "%s%s%s", package, package[0] ? "::" : "", name);
}

static void line(int fd, const COP *from, const char *what)
{
	char file[512];
	COP cop;

	if (!peek(from, &cop, sizeof(cop)))
		return;
	peek_text(cop.cop_file, file, sizeof(file));
	if (file[0])
		dprintf(fd, "  %s:%u %s\n", file, (unsigned)cop.cop_line, what);
}

/* The frames of one stack, innermost first; *at is where the innermost of them is, and becomes where it was called. */
static void frames(int fd, const PERL_SI *stack, const COP **at, int *depth)
{
	char name[300];

	for (I32 i = stack->si_cxix; i >= 0 && *depth < DEPTH; i--) {
		PERL_CONTEXT context;
		if (!peek(stack->si_cxstack + i, &context, sizeof(context)))
			return;
		U8 type = CxTYPE(&context);
		if (type == CXt_SUB)
			function_name(context.blk_sub.cv, name, sizeof(name));
		else if (type == CXt_EVAL)
			snprintf(name, sizeof(name), "%s", CxTRYBLOCK(&context) ? "eval {}" : "eval or require");
		else
			continue;
		line(fd, *at, name);
		*at = context.blk_oldcop;
		++*depth;
	}
}

void trace_dump(void *state, int fd)
{
	const struct plugin *plugin = state;
	const PerlInterpreter *my_perl = plugin->perl;
	const COP *at = PL_curcop;
	const PERL_SI *next = PL_curstackinfo;
	int depth = 0;

	dprintf(fd, "Perl stack (innermost first):\n");
	for (int stacks = 0; next && stacks < STACKS; stacks++) {
		PERL_SI stack;
		if (!peek(next, &stack, sizeof(stack)))
			break;
		frames(fd, &stack, &at, &depth);
		next = stack.si_prev;
	}
	if (!depth)
		dprintf(fd, "  no code is running\n");
}

/* On perl's thread, in place of what handles signals. */
static void hook(pTHX)
{
	struct plugin *plugin = the_plugin;

	PL_signalhook = plugin->signal_hook;
	plugin->signal_hook(aTHX);
	if (plugin->request && plugin->host->overdue(plugin->request->call))
		croak("the request has run for longer than its request_timeout");
}

/* Its frames can be read at any time: nobody waits for it to tell. */
int trace_ask(void *state)
{
	PerlInterpreter *my_perl = ((struct plugin *)state)->perl;

	/* The other way round it could be called before it is ours. */
	__atomic_store_n(&PL_signalhook, hook, __ATOMIC_SEQ_CST);
	__atomic_store_n(&PL_sig_pending, 1, __ATOMIC_SEQ_CST);
	return -1;
}

void trace_prepare(struct plugin *plugin)
{
	dTHXa(plugin->perl);

	the_plugin = plugin;
	plugin->signal_hook = PL_signalhook;
}
