/* SPDX-License-Identifier: MIT */
/* perm.h - may this user do that: classic permission bits, as Linux decides. */
#ifndef META_PERM_H
#define META_PERM_H

#include <stdbool.h>

#include "meta/inode.h"

enum { PERM_X = 1, PERM_W = 2, PERM_R = 4 };

/* 0 or -EACCES; @want is a set of PERM_*.  Root may all, but execute only what has
 * an execute bit. */
int	perm_check(const struct inode *in, const struct msg_ctx *who, unsigned want);
/* Their group or one of their supplementary groups. */
bool	perm_in_group(const struct msg_ctx *who, uint32_t gid);
static inline bool
perm_root(const struct msg_ctx *who)
{
	return who->uid == 0;
}
static inline bool
perm_owner(const struct inode *in, const struct msg_ctx *who)
{
	return perm_root(who) || who->uid == in->uid;
}
/* May take @in's entry out of @dir, as far as the sticky bit goes: 0 or -EPERM. */
int	perm_sticky(const struct inode *dir, const struct inode *in,
	    const struct msg_ctx *who);
/* PERM_* for an open with these Linux flags. */
unsigned perm_of_open(uint32_t flags);
/* What is left of @mode when someone writes to the file or changes its owner: setuid
 * goes, and setgid where it means setgid. */
uint32_t perm_drop_suid(const struct inode *in, const struct msg_ctx *who,
	    uint32_t mode);

#endif
