/* See sweep.c. */
#ifndef EXEC_SWEEP_H
#define EXEC_SWEEP_H

/* Kill all children and whoever becomes one by their deaths, and collect them. The caller is a subreaper. */
void sweep(void);

#endif
