/* How a plain socket moves bytes, and the addresses at its two ends. */
#include <sys/sendfile.h>
#include <unistd.h>

#include "loop.h"
#include "transport.h"

static ssize_t socket_receive(struct connection *c, void *data, size_t size)
{
	return recv(c->poll.fd, data, size, 0);
}

static ssize_t socket_send(struct connection *c, const struct msghdr *message, int flags)
{
	if (message->msg_iovlen == 1)
		return send(c->poll.fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len, flags);
	return sendmsg(c->poll.fd, message, flags);
}

static ssize_t socket_send_file(struct connection *c, int fd, off_t *offset, size_t size)
{
	return sendfile(c->poll.fd, fd, offset, size);
}

static void socket_shut(struct connection *c)
{
	shutdown(c->poll.fd, SHUT_WR);
}

static void socket_close(struct connection *c)
{
	poll_forget(c->engine, &c->poll);
	close(c->poll.fd);
	c->poll.fd = -1;
}

const struct transport socket_transport = {
	.receive = socket_receive,
	.send = socket_send,
	.send_file = socket_send_file,
	.shut = socket_shut,
	.close = socket_close,
};

static void address_text(int family, const void *address, char *text)
{
	const unsigned char *bytes = address;
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	/* A dual-stack listener shows an IPv4 client as ::ffff:a.b.c.d; nobody who compares addresses wants that. */
	if (family == AF_INET6 && __builtin_memcmp(bytes, mapped, sizeof(mapped)) == 0) {
		family = AF_INET;
		bytes += 12;
	}
	if (inet_ntop(family, bytes, text, INET6_ADDRSTRLEN) == NULL)
		text[0] = '\0';
}

const char *connection_remote(const struct connection *c)
{
	struct connection *mine = (struct connection *)c;
	if (c->remote[0] == '\0' && (c->family == AF_INET || c->family == AF_INET6))
		address_text(c->family, c->remote_address, mine->remote);
	return c->remote;
}

uint16_t connection_remote_port(const struct connection *c)
{
	return c->remote_port;
}

const char *connection_server(const struct connection *c)
{
	struct connection *mine = (struct connection *)c;
	if (c->server[0] != '\0' || (c->family != AF_INET && c->family != AF_INET6) || c->poll.fd < 0)
		return c->server;
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} local;
	socklen_t size = sizeof(local);
	if (getsockname(c->poll.fd, &local.any, &size) == 0)
		address_text(c->family,
			c->family == AF_INET ? (void *)&local.in.sin_addr : (void *)&local.in6.sin6_addr, mine->server);
	return c->server;
}

uint16_t connection_server_port(const struct connection *c)
{
	return c->server_port;
}
