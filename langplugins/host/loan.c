/*
 * Pieces of answers in memory that front ends see too: they go to the client from there, where a message is copied into
 * a socket, out of it and into the next. Whose turn it is to write there stands in wire.h.
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
}

static uint32_t *words_of(const struct slot *slot)
{
	return (uint32_t *)(void *)slot->worker->loans + slot->number * WIRE_LOANS;
}

static char *bytes_of(const struct slot *slot, int loan)
{
	return slot->worker->loans + WIRE_LOANS_WORDS(slot->worker->slots) +
	       ((size_t)slot->number * WIRE_LOANS + (size_t)loan) * WIRE_LOAN;
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
	if (bytes != answer->gathered)
		memmove(bytes, answer->gathered, answer->gathered_size);
	answer->loan = loan;
	answer->gathered = bytes;
	return true;
}

/* The words of the loans that what is gathered lies in. */
static void mark(struct langplugin_call *call, uint32_t borrower)
{
	uint32_t *word = words_of(call->slot) + call->answer.loan;

	for (int left = needed(call->answer.gathered_size); left > 0; left--)
		__atomic_store_n(word++, borrower, __ATOMIC_RELEASE);
}

void loan_lend(struct langplugin_call *call)
{
	mark(call, WIRE_BORROWER(call->from));
}

void loan_keep(struct langplugin_call *call)
{
	mark(call, 0);
}

void loan_gone(struct langplugin_call *call)
{
	call->answer.loan = -1;
	call->answer.gathered = call->answer.own;
}

void loan_abandon(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;

	if (answer->loan < 0 || !answer->own)
		return;
	memcpy(answer->own, answer->gathered, answer->gathered_size < GATHER ? answer->gathered_size : GATHER);
	loan_gone(call);
}
