/*
 * rb_protect() in a build with the address sanitizer. Ruby leaves frames by a jump of its own, which the sanitizer does
 * not see: it takes what the next functions keep there for what those frames held. So what lies below is forgotten
 * whenever we are back from Ruby.
 */
#include "plugin.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>

#define BELOW 131072 /* bytes of the stack; deeper than what our frames and Ruby's need between two of these */

__attribute__((noinline, no_sanitize("address"))) static void forget_frames(void)
{
	char *here = __builtin_frame_address(0);

	__asan_unpoison_memory_region(here - BELOW, BELOW - 128);
}
#endif

VALUE protect(VALUE (*function)(VALUE argument), VALUE argument, int *state)
{
	VALUE result = rb_protect(function, argument, state);
#ifdef __SANITIZE_ADDRESS__
	forget_frames();
#endif
	return result;
}
