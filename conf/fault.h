/* SPDX-License-Identifier: MIT */
/* fault.h - living through I/O errors of mapped files.
 *
 * A page of a mapped file that cannot be read, because the device failed or the file was
 * cut, is told by SIGBUS in the middle of whatever touched it.  What touches such memory
 * runs under a guard, which turns that into an error. */
#ifndef CONF_FAULT_H
#define CONF_FAULT_H

/* Install the handler for this process, if that has not been done.  Faults outside guards
 * do what they did before. Any thread. 0 or -errno. */
int	fault_init(void);

/* Run @fn(@arg) and return what it returns, or -EFAULT when it was cut short by a fault or
 * by fault_raise().  What it was about to do is then undone by nobody: @fn must only use
 * what is given up as a whole afterwards, and hold no lock of others.  May nest. */
int	fault_guard(int (*fn)(void *arg), void *arg);

/* Cut the innermost guard of this thread short; returns when there is none. */
void	fault_raise(void);

#endif
