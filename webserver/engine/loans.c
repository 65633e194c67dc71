/*
 * What workers lend: memory that they have written a piece of an answer into, and that goes to the client from there,
 * or a whole answer.
 *
 * The worker is not believed: which of its loans are here is our own record, no word of the file is read, and what it
 * writes into bytes that it has lent changes its own answer. The file is sealed, so that nothing of it can be cut off
 * under us. A worker's end leaves what it has lent: the memory goes with the last piece.
 */
#include "loans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sealed.h"
#include "wire.h"

_Static_assert(WIRE_LOANS == 32, "a slot's loans are the bits of a word");

struct loans {
	struct wire_loans *map;
	char *bytes; /* of the first loan */
	size_t size;
	uint32_t slots, uses; /* uses: pieces that are here, and the worker */
	uint32_t here[];      /* by slot: a bit for each loan */
};

struct loans *loans_map(int fd, uint32_t slots, char *message, size_t message_size)
{
	size_t size = WIRE_LOANS_SIZE(slots);
	struct loans *loans = NULL;

	if (slots == 0 || slots > WIRE_SLOTS)
		snprintf(message, message_size, "%u slots are not possible", slots);
	else if ((loans = calloc(1, sizeof(*loans) + slots * sizeof(loans->here[0]))) == NULL)
		snprintf(message, message_size, "no memory for a worker's loans");
	if (loans == NULL) {
		close(fd);
		return NULL;
	}
	void *map = sealed_map(fd, size, PROT_READ | PROT_WRITE, "memory of loans", message, message_size);
	if (map == NULL) {
		free(loans);
		return NULL;
	}
	*loans = (struct loans){
		.map = map, .bytes = (char *)map + WIRE_LOANS_WORDS(slots), .size = size, .slots = slots, .uses = 1};
	return loans;
}

static void unuse(struct loans *loans)
{
	if (--loans->uses > 0)
		return;
	munmap(loans->map, loans->size);
	free(loans);
}

/* The bits of the loans that size bytes from the beginning of one lie in. */
static uint32_t bits_of(uint32_t loan, size_t size)
{
	return (uint32_t)((1ull << (size + WIRE_LOAN - 1) / WIRE_LOAN) - 1) << loan;
}

const char *loans_borrow(struct loans *loans, uint32_t slot, uint32_t loan, size_t size)
{
	if (loans == NULL || slot >= loans->slots || loan >= WIRE_LOANS || size == 0 || size > WIRE_PIECE ||
		(size_t)loan * WIRE_LOAN + size > (size_t)WIRE_LOANS * WIRE_LOAN ||
		loans->here[slot] & bits_of(loan, size))
		return NULL;
	loans->here[slot] |= bits_of(loan, size);
	loans->uses++;
	return loans->bytes + ((size_t)slot * WIRE_LOANS + loan) * WIRE_LOAN;
}

void loans_return(struct loans *loans, const char *bytes, size_t size)
{
	size_t number = (size_t)(bytes - loans->bytes) / WIRE_LOAN;
	uint32_t *word = &loans->map->slot[number / WIRE_LOANS].borrower[number % WIRE_LOANS];

	loans->here[number / WIRE_LOANS] &= ~bits_of(number % WIRE_LOANS, size);
	for (size_t left = (size + WIRE_LOAN - 1) / WIRE_LOAN; left > 0; left--)
		__atomic_store_n(word++, 0, __ATOMIC_RELEASE);
	unuse(loans);
}

uint32_t loans_posted(struct loans *loans, uint32_t slot, uint32_t ordinal)
{
	uint32_t *posted = &loans->map->slot[slot].posted[ordinal];

	if (__atomic_load_n(posted, __ATOMIC_RELAXED) == 0)
		return 0;
	return __atomic_exchange_n(posted, 0, __ATOMIC_ACQUIRE);
}

bool loans_any(const struct loans *loans, uint32_t slot, uint32_t ordinal)
{
	return __atomic_load_n(&loans->map->slot[slot].posted[ordinal], __ATOMIC_SEQ_CST) != 0;
}

size_t loans_copy(struct loans *loans, uint32_t slot, uint32_t loan, void *room)
{
	const char *from = loans->bytes + ((size_t)slot * WIRE_LOANS + loan) * WIRE_LOAN;
	struct wire_head head;

	/* Read once: what the worker makes of it afterwards is not looked at. */
	memcpy(&head, from, sizeof(head));
	size_t size = head.size >= sizeof(head) && head.size <= WIRE_LOAN ? head.size : 0;
	if (size > 0) {
		memcpy(room, &head, sizeof(head));
		memcpy((char *)room + sizeof(head), from + sizeof(head), size - sizeof(head));
	}
	__atomic_store_n(&loans->map->slot[slot].borrower[loan], 0, __ATOMIC_RELEASE);
	return size;
}

void loans_asleep(struct loans *loans, uint32_t ordinal, bool asleep)
{
	__atomic_store_n(&loans->map->asleep[ordinal], asleep, __ATOMIC_SEQ_CST);
}

void loans_forget(struct loans *loans)
{
	if (loans != NULL)
		unuse(loans);
}
