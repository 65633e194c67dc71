/*
 * Answers in memory that front ends see too. A large piece goes to the client from there, where a message is copied
 * into a socket, out of it and into the next; an answer that is one message is found there by a front end that is
 * awake, without a system call on either side. Whose turn it is to write stands in wire.h.
 *
 * It is nothing to wait for. Where no loan is free, or the memory could not be mapped, the bytes go as they always may:
 * in the message. The lowest that are free are taken, so that a client that keeps up is served from the same few pages.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

_Static_assert(GATHER <= WIRE_LOAN && WIRE_PIECE % WIRE_LOAN == 0, "what is gathered fits in one");

void loans_map(struct worker *worker, int fd)
{
	size_t size = WIRE_LOANS_SIZE(worker->slots);
	struct stat st;
	void *map = MAP_FAILED;

	if (fstat(fd, &st) == 0 && (size_t)st.st_size >= size)
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	/* A group may be allowed less address space than that. */
	worker->loans = map == MAP_FAILED ? NULL : map;
	worker->loans_bytes = map == MAP_FAILED ? NULL : (char *)map + WIRE_LOANS_WORDS(worker->slots);
}

static uint32_t *words_of(const struct slot *slot)
{
	return slot->worker->loans->slot[slot->number].borrower;
}

static char *bytes_of(const struct slot *slot, int loan)
{
	return slot->worker->loans_bytes + ((size_t)slot->number * WIRE_LOANS + (size_t)loan) * WIRE_LOAN;
}

static int needed(size_t size)
{
	return (int)((size + WIRE_LOAN - 1) / WIRE_LOAN);
}

/* The first of so many free ones in a row, or -1. */
static int find(const uint32_t *words, int count)
{
	int run = 0;

	for (int i = 0; i < WIRE_LOANS; i++) {
		run = __atomic_load_n(&words[i], __ATOMIC_ACQUIRE) == 0 ? run + 1 : 0;
		if (run == count)
			return i - count + 1;
	}
	return -1;
}

/* Front ends that are gone write nothing any more. One that only this connection has lost is still in the list. */
static void take_back(const struct slot *slot)
{
	struct frontends now;
	uint32_t *words = words_of(slot);

	worker_frontends(slot->worker, &now);
	for (int i = 0; i < WIRE_LOANS; i++) {
		uint32_t borrower = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
		bool there = false;
		for (unsigned k = 0; k < now.count; k++)
			there |= borrower == WIRE_BORROWER(now.item[k]);
		if (!there)
			__atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);
	}
}

static int search(struct slot *slot, int count)
{
	int loan = find(words_of(slot), count);

	if (loan < 0 && slot->loans_seen != slot->frontends_seen) {
		slot->loans_seen = slot->frontends_seen;
		take_back(slot);
		loan = find(words_of(slot), count);
	}
	return loan;
}

bool loan_gather(struct langplugin_call *call, size_t size)
{
	struct answer *answer = &call->answer;
	struct slot *slot = call->slot;
	size_t total = answer->gathered_size + size;

	if (answer->loan >= 0 && total <= WIRE_LOAN)
		return true;
	/* The head takes what is there along: one message for most answers. */
	if (answer->state != ANSWER_SENT || !slot->worker->loans)
		return false;
	int loan = search(slot, needed(total));
	if (loan < 0) {
		loan_abandon(call);
		return false;
	}
	char *bytes = bytes_of(slot, loan);
	if (answer->gathered_size && bytes != answer->gathered)
		memmove(bytes, answer->gathered, answer->gathered_size);
	answer->loan = loan;
	answer->gathered = bytes;
	return true;
}

static void mark(const struct slot *slot, int loan, size_t size, uint32_t borrower)
{
	uint32_t *word = words_of(slot) + loan;

	for (int left = needed(size); left > 0; left--)
		__atomic_store_n(word++, borrower, __ATOMIC_RELEASE);
}

void loan_lend(struct langplugin_call *call)
{
	mark(call->slot, call->answer.loan, call->answer.gathered_size, WIRE_BORROWER(call->from));
}

void loan_keep(struct langplugin_call *call)
{
	mark(call->slot, call->answer.loan, call->answer.gathered_size, 0);
}

void loan_gone(struct langplugin_call *call)
{
	call->answer.loan = -1;
	call->answer.gathered = call->answer.own;
}

void loan_abandon(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;

	/* Or nothing has been gathered at all. */
	if (answer->loan < 0 || !answer->own || !answer->gathered)
		return;
	memcpy(answer->own, answer->gathered, answer->gathered_size < GATHER ? answer->gathered_size : GATHER);
	loan_gone(call);
}

/* ---- whole answers */

int loan_post(struct langplugin_call *call, const struct iovec *parts, unsigned count, size_t size)
{
	struct slot *slot = call->slot;
	struct wire_loans *loans = slot->worker->loans;
	unsigned ordinal = call->from.ordinal;

	/* What it has said of this request before is in the socket, and must be read before. */
	if (!loans || call->spoke || size > WIRE_LOAN)
		return LP_AGAIN;
	if (!link_knows(&slot->link, call->from))
		return LP_GONE;
	int loan = search(slot, 1);
	if (loan < 0)
		return LP_AGAIN;
	char *to = bytes_of(slot, loan);
	for (unsigned i = 0; i < count; i++) {
		if (parts[i].iov_len > 0)
			memcpy(to, parts[i].iov_base, parts[i].iov_len);
		to += parts[i].iov_len;
	}
	mark(slot, loan, size, WIRE_BORROWER(call->from));
	/* The front end says that it sleeps, then looks at what is posted; here it is the other way round. So one of
	   the two sees what the other has done. */
	__atomic_fetch_or(&loans->slot[slot->number].posted[ordinal], 1u << loan, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&loans->asleep[ordinal], __ATOMIC_SEQ_CST) == 0 ||
		__atomic_exchange_n(&loans->asleep[ordinal], 0, __ATOMIC_SEQ_CST) == 0)
		return LP_OK;
	return link_say_head(&slot->link, call->from, WIRE_POSTED, 0, 0, slot->number, 0);
}

void loan_forget(struct slot *slot, unsigned ordinal)
{
	if (slot->worker->loans)
		__atomic_store_n(&slot->worker->loans->slot[slot->number].posted[ordinal], 0, __ATOMIC_RELAXED);
}
