/* For Lua, which has no signals: a function after which the process ignores SIGTERM. */
#include <lauxlib.h>
#include <signal.h>

static int ignore_term(lua_State *L)
{
	(void)L;
	signal(SIGTERM, SIG_IGN);
	return 0;
}

__attribute__((visibility("default"))) int luaopen_deaf(lua_State *L)
{
	lua_pushcfunction(L, ignore_term);
	return 1;
}
