/*
 * psgix.io: the connection itself. Nothing is taken over before the handle is used: the first question for its
 * descriptor (sysread, syswrite, fileno, recv, an event loop) or the first read or print makes it the application's,
 * and from then on what the application returns is no longer the answer. A look at the environment, or a copy of it,
 * changes nothing.
 */
#include "plugin.h"

#include <sys/socket.h>
#include <unistd.h>

struct connection {
	struct _PerlIO base;
	struct plugin *plugin; /* NULL: the request is over */
	int fd;		       /* -1: not taken over */
};

static struct connection *connection_of(PerlIO *file)
{
	return PerlIOSelf(file, struct connection);
}

static IV connection_pushed(pTHX_ PerlIO *file, const char *mode, SV *argument, PerlIO_funcs *layer)
{
	connection_of(file)->fd = -1;
	return PerlIOBase_pushed(aTHX_ file, mode, argument, layer);
}

/* The descriptor, or -1 and errno. */
static IV take_over(pTHX_ PerlIO *file)
{
	struct connection *connection = connection_of(file);
	struct plugin *plugin = connection->plugin;

	PERL_UNUSED_CONTEXT;
	if (connection->fd >= 0)
		return connection->fd;
	if (!plugin || !plugin->request || plugin->request->begun || plugin->request->taken) {
		SETERRNO(EBADF, SS_IVCHAN);
		return -1;
	}
	connection->fd = plugin->host->take_over(plugin->request->call);
	plugin->request->taken = connection->fd >= 0;
	return connection->fd;
}

static SSize_t failed(PerlIO *file)
{
	PerlIOBase(file)->flags |= PERLIO_F_ERROR;
	return -1;
}

static SSize_t connection_read(pTHX_ PerlIO *file, void *to, Size_t size)
{
	IV fd = take_over(aTHX_ file);
	ssize_t got;

	if (fd < 0)
		return failed(file);
	while ((got = read((int)fd, to, size)) < 0 && errno == EINTR) {
		if (PL_sig_pending)
			despatch_signals();
		if (!PerlIOValid(file))
			return -1;
	}
	if (got == 0 && size)
		PerlIOBase(file)->flags |= PERLIO_F_EOF;
	return got < 0 ? failed(file) : got;
}

static SSize_t connection_write(pTHX_ PerlIO *file, const void *data, Size_t size)
{
	IV fd = take_over(aTHX_ file);
	size_t done = 0;

	while (fd >= 0 && done < size) {
		ssize_t sent = send((int)fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
		if (sent >= 0) {
			done += (size_t)sent;
		} else if (errno != EINTR) {
			break;
		} else if (PL_sig_pending) {
			despatch_signals();
			if (!PerlIOValid(file))
				return -1;
		}
	}
	return done == size && fd >= 0 ? (SSize_t)done : done ? (SSize_t)done : failed(file);
}

static IV connection_close(pTHX_ PerlIO *file)
{
	struct connection *connection = connection_of(file);
	IV result = PerlIOBase_close(aTHX_ file);

	if (connection->fd >= 0 && close(connection->fd))
		result = -1;
	connection->fd = -1;
	return result;
}

PerlIO_funcs connection_layer = {
	.fsize = sizeof(PerlIO_funcs),
	.name = "webserver_connection",
	.size = sizeof(struct connection),
	.kind = PERLIO_K_RAW,
	.Pushed = connection_pushed,
	.Popped = PerlIOBase_popped,
	.Binmode = PerlIOBase_binmode,
	.Fileno = take_over,
	.Dup = layer_dup,
	.Read = connection_read,
	.Unread = PerlIOBase_unread,
	.Write = connection_write,
	.Close = connection_close,
	.Flush = PerlIOBase_noop_ok,
	.Fill = PerlIOBase_noop_fail,
	.Eof = PerlIOBase_eof,
	.Error = PerlIOBase_error,
	.Clearerr = PerlIOBase_clearerr,
	.Setlinebuf = PerlIOBase_setlinebuf,
};

bool connection_offered(const struct plugin *plugin)
{
	return HOST_HAS(plugin->host, take_over);
}

SV *connection_take(pTHX_ struct plugin *plugin)
{
	GV *handle = handle_take(aTHX_ & plugin->connection, "psgix.io", &connection_layer, "r+", IoTYPE_SOCKET);

	connection_of(handle_file(handle))->plugin = plugin;
	return newRV_inc((SV *)handle);
}

void connection_release(pTHX_ struct plugin *plugin)
{
	PerlIO *file = plugin->connection && GvIOp(plugin->connection) ? handle_file(plugin->connection) : NULL;
	bool used = false;

	if (file && PerlIOValid(file) && PerlIOBase(file)->tab == &connection_layer) {
		connection_of(file)->plugin = NULL;
		used = connection_of(file)->fd >= 0;
	}
	/* A connection is closed with the last reference to it, which may be the application's. */
	if (plugin->connection && (used || SvREFCNT(plugin->connection) != 1))
		handle_release(aTHX_ & plugin->connection);
}
