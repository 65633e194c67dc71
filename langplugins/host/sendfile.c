/*
 * A file's bytes on their way to a front end, from the page cache into the socket: sendfile(2) on a unix socket hands
 * pages over, where read and write copy each byte twice.
 *
 * A piece is begun only when the socket has room for all of it, so that it usually goes in one call. Whatever happens
 * in the middle of one (no room after all, the file shorter than it was, a disk's error), its other bytes follow: a
 * message that is not as long as its head says would make the front end take the next one's head for a file's content.
 */
#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

/* The rest of a piece behind what is kept. False: the connection is lost. */
static bool keep_rest(struct link *link, struct peer *peer, int fd, int64_t offset, size_t size, bool *torn)
{
	char *to = link_room(link, peer, size);
	size_t done = 0;

	if (!to)
		return false;
	while (done < size) {
		ssize_t got = pread(fd, to + done, size - done, offset + (int64_t)done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		done += (size_t)got;
	}
	if (done < size) {
		memset(to + done, 0, size - done);
		*torn = true;
	}
	peer->filled += size;
	return true;
}

/* Whether the piece goes in at once. The kernel says so when a quarter of the buffer is taken at most. */
static bool has_room(const struct peer *peer)
{
	struct pollfd now = {peer->fd, POLLOUT, 0};

	return poll(&now, 1, 0) != 0; /* also when it is closed: the write says so */
}

/* Bytes of the head that were written, or -1: the connection is gone. */
static ssize_t write_head(struct link *link, struct peer *peer, struct iovec *parts, unsigned count)
{
	const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
	ssize_t sent;

	do
		sent = sendmsg(peer->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE);
	while (sent < 0 && errno == EINTR);
	if (sent < 0 && errno != EAGAIN) {
		link_lose(link, peer);
		return -1;
	}
	return sent < 0 ? 0 : sent;
}

/* Bytes of the file that were written, or -1: the connection is gone. */
static ssize_t write_file(struct link *link, struct peer *peer, int fd, int64_t offset, size_t size)
{
	off_t at = offset;
	size_t done = 0;

	while (done < size) {
		ssize_t sent = sendfile(peer->fd, fd, &at, size - done);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)) {
			link_lose(link, peer);
			return -1;
		}
		if (sent <= 0)
			break; /* no room, the end, or nothing that sendfile can do: the other way goes on */
		done += (size_t)sent;
	}
	return (ssize_t)done;
}

int link_send_file(struct link *link, struct wire_frontend to, const struct iovec *parts, unsigned count, int fd,
	int64_t offset, size_t size, bool *torn)
{
	struct peer *peer = link_knows(link, to) ? &link->peer[to.ordinal] : NULL;
	struct iovec all[1 + LINK_PARTS];
	char head[ZMTP_FRAME_HEAD];
	size_t before = 0;

	if (!peer || (peer->filled > 0 && !link_write(link, peer)))
		return LP_GONE;
	if (peer->filled > 0)
		return LP_AGAIN;
	if (!has_room(peer)) {
		peer->awaited = link->changed = true;
		return LP_AGAIN;
	}
	for (unsigned i = 0; i < count; i++) {
		all[1 + i] = parts[i];
		before += parts[i].iov_len;
	}
	all[0] = (struct iovec){head, zmtp_frame_head(head, before + size)};
	before += all[0].iov_len;
	ssize_t sent = write_head(link, peer, all, 1 + count);
	if (sent < 0)
		return LP_GONE;
	if ((size_t)sent < before) {
		bool kept = link_keep(link, peer, all, 1 + count, (size_t)sent, before);
		return kept && keep_rest(link, peer, fd, offset, size, torn) ? LP_OK : LP_GONE;
	}
	sent = write_file(link, peer, fd, offset, size);
	if (sent < 0)
		return LP_GONE;
	if ((size_t)sent == size)
		return LP_OK;
	return keep_rest(link, peer, fd, offset + sent, size - (size_t)sent, torn) ? LP_OK : LP_GONE;
}

/* ---- the answer */

static int fail(struct langplugin_call *call, int number)
{
	answer_abort(call);
	errno = number;
	return LP_FAILED;
}

static int shorter(struct langplugin_call *call)
{
	log_format(call, LP_ERROR, "a file became shorter while it was sent; the answer is cut off");
	return fail(call, EIO);
}

/* Fits beside what is gathered: read there. */
static int gather(struct langplugin_call *call, int fd, int64_t offset, size_t size)
{
	struct answer *answer = &call->answer;

	for (size_t done = 0; done < size;) {
		ssize_t got = pread(fd, answer->gathered + answer->gathered_size, size - done, offset + (int64_t)done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(call, errno);
		if (got == 0)
			return shorter(call);
		answer->gathered_size += (size_t)got;
		answer->given += (size_t)got;
		done += (size_t)got;
	}
	return LP_OK;
}

int answer_send_file(struct langplugin_call *call, int fd, int64_t offset, int64_t length)
{
	struct answer *answer = &call->answer;
	struct stat st;
	int result;

	if (offset < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return LP_INVALID;
	if ((result = answer_ready(call)) != LP_OK)
		return result;
	/* What is not there at the beginning was not promised by anybody: a Content-Length that wants it is found
	   wanting at the end. */
	int64_t there = st.st_size > offset ? st.st_size - offset : 0;
	size_t size = answer_within_length(call, (size_t)(length < 0 || length > there ? there : length));
	if (answer->no_body || size == 0) {
		answer->given += size;
		return LP_OK;
	}
	/* Its bytes go behind others' in a message, not in a loan. */
	if (answer->loan >= 0) {
		if ((result = answer_flush(call, GOES_ON)) != LP_OK)
			return result;
		loan_gone(call);
	}
	while (size > 0) {
		if (answer->gathered_size + size <= GATHER)
			return gather(call, fd, offset, size);
		size_t part = WIRE_PIECE - answer->gathered_size;
		bool torn = false;
		if (part > size)
			part = size;
		if ((result = answer_send_piece(call, fd, offset, part, &torn)) != LP_OK)
			return result;
		answer->given += part;
		if (torn || fstat(fd, &st) || st.st_size < offset + (int64_t)part)
			return shorter(call); /* what was handed over may have been zeros since */
		offset += (int64_t)part;
		size -= part;
	}
	return LP_OK;
}
