/* Answers that workers have posted: see posts.c. */
#ifndef WEBSERVER_ENGINE_POSTS_H
#define WEBSERVER_ENGINE_POSTS_H

#include "channel.h"

int posts_make(struct channel *c);
void posts_free(struct channel *c);
/* Take in what the slots that have something of ours have posted. */
void posts_take(struct engine *e);
void posts_take_slot(struct slot *s);
void posts_take_worker(struct worker *w);
/* Around a turn: who posts within it need not send word. posts_sleep: true if something is there, and is to be taken.
 */
void posts_wake(struct engine *e);
bool posts_sleep(struct engine *e);

#endif
