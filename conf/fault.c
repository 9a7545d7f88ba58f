/* SPDX-License-Identifier: MIT */
/* fault.c - SIGBUS to an error: the handler jumps back to the guard of its thread.
 *
 * The signal is synchronous: it comes in the thread that touched the page, at the very
 * instruction, so jumping out of the handler is a jump out of the guarded code.  SA_NODEFER
 * leaves the signal unblocked for the next time. */
#include "conf/fault.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

struct guard {
	sigjmp_buf    back;
	struct guard *up;
};

static _Thread_local struct guard *innermost;
static struct sigaction before;
static int init_rc;

static void
caught(int signo)
{
	fault_raise();
	/* Not ours: it strikes again at the same place when we return. */
	sigaction(signo, &before, NULL);
}

static void
install(void)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = caught;
	sa.sa_flags = SA_NODEFER;
	sigemptyset(&sa.sa_mask);
	init_rc = sigaction(SIGBUS, &sa, &before) != 0 ? -errno : 0;
}

int
fault_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, install);
	return init_rc;
}

void
fault_raise(void)
{
	struct guard *g = innermost;

	if (g != NULL)
		siglongjmp(g->back, 1);
}

int
fault_guard(int (*fn)(void *arg), void *arg)
{
	struct guard g;
	int rc;

	g.up = innermost;
	if (sigsetjmp(g.back, 0) != 0) {
		innermost = g.up;
		return -EFAULT;
	}
	innermost = &g;
	rc = fn(arg);
	innermost = g.up;
	return rc;
}
