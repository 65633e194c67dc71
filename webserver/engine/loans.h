/* Pieces of answers where their workers have written them: see loans.c. */
#ifndef WEBSERVER_ENGINE_LOANS_H
#define WEBSERVER_ENGINE_LOANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loans;

/* Closes fd. NULL, with why in message: it is not what it should be, or there is no memory. */
struct loans *loans_map(int fd, uint32_t slots, char *message, size_t message_size);
/* size bytes from the beginning of a slot's loan, until loans_return; the memory lives as long, whatever becomes of its
   worker. NULL: no worker that keeps the rules lends this. */
const char *loans_borrow(struct loans *loans, uint32_t slot, uint32_t loan, size_t size);
void loans_return(struct loans *loans, const char *bytes, size_t size); /* as they were borrowed */
/* Which of a slot's loans have been posted to the front end with this ordinal since this was asked last: a bit for
 * each. */
uint32_t loans_posted(struct loans *loans, uint32_t slot, uint32_t ordinal);
bool loans_any(const struct loans *loans, uint32_t slot, uint32_t ordinal); /* whether there are any */
/* The message in a loan, of which WIRE_LOAN bytes have room; the loan is given back. Its size, or 0: it is none. */
size_t loans_copy(struct loans *loans, uint32_t slot, uint32_t loan, void *room);
/* Whether who posts is to send word. What has been posted before that is not told of. */
void loans_asleep(struct loans *loans, uint32_t ordinal, bool asleep);
/* The worker is gone. */
void loans_forget(struct loans *loans);

#endif
