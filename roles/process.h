/* SPDX-License-Identifier: MIT */
/* process.h - the real world of one process: its loops and threads, a hub and a buffer of
 * randomness for each, made into the struct role_env that roles are opened with. */
#ifndef ROLES_PROCESS_H
#define ROLES_PROCESS_H

#include <stdbool.h>

#include "roles/role.h"

struct loop;
struct process;

#define PROCESS_LOOPS_MAX 130u
#define PROCESS_OWNED_MAX 32u

/* @conf and @key are kept (conf borrowed, key copied).  The first loop is the caller's
 * thread.  0, -ENOMEM or -errno. */
int	process_open(struct process **out, const struct conf *conf,
	    const uint8_t key[NET_KEY_BYTES]);
/* Add a loop that speaks as @who; the first one added runs in the caller's thread, each
 * other in a thread of its own once process_run() starts them.  NULL: out of memory,
 * descriptors or places. */
struct role_env *process_add(struct process *p, const char *who);
/* Make @dir where it is missing and keep all other processes from calling it theirs, until
 * process_close() or death.  One that is just ending is waited for, for 3 s: blocks.
 *
 *   err	says which directory and, where it can be told, which process has it
 *
 * Returns 0; -EBUSY; -ENOSPC after PROCESS_OWNED_MAX of them; -errno. */
int	process_own(struct process *p, const char *dir, char err[CONF_ERR_MAX]);
/* The same for one file @path that is made for this, for as long as the descriptor *@fd is
 * open; waits for @wait_ms.  *@pid: who has it when that is -EBUSY, 0 when unknown. */
int	process_lock(const char *path, unsigned wait_ms, int *fd, long *pid);
/* Counters of all that lives in this process. */
struct stat_registry *process_stats(struct process *p);
struct loop *process_loop(struct process *p, const struct role_env *env);
/* Run all loops; returns when process_quit() was called and all threads have ended.  0, or
 * -errno when a thread could not be started: then it quits by itself. */
int	process_run(struct process *p);
/* From any thread. */
void	process_quit(struct process *p);
/* A signal tells us to end: is it told again, so that we should not finish anything first?
 * *@told_ns keeps when it was told first; 0 before.  Within a second it is the same word:
 * timeout(1) tells a program, and then the group that it is in. */
bool	process_told_again(struct clock *clock, uint64_t *told_ns);
/* After process_run(), and after all that was opened over the loops is closed. */
void	process_close(struct process *p);

/* Read a cluster key: 64 hex digits in a file that only its owner can read.  0, or
 * -errno / -EINVAL / -EPERM with the reason in @err. */
int	process_key_read(const char *path, uint8_t key[NET_KEY_BYTES],
	    char err[CONF_ERR_MAX]);
/* Make a fresh one (mode 0600); -EEXIST when the file is there. */
int	process_key_make(const char *path, char err[CONF_ERR_MAX]);

#endif
