/* SPDX-License-Identifier: MIT */
/* perm.c - permission bits. */
#include "meta/perm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* The kernel opens what it is about to execute with this flag (FMODE_EXEC in
 * include/linux/fs.h); it reaches a FUSE server unchanged. */
#define OPEN_EXEC	0x20u

bool
perm_in_group(const struct msg_ctx *who, uint32_t gid)
{
	if (who->gid == gid)
		return true;
	for (uint32_t i = 0; i < who->groups.n; i++)
		if (who->groups.v[i] == gid)
			return true;
	return false;
}

int
perm_check(const struct inode *in, const struct msg_ctx *who, unsigned want)
{
	unsigned have;

	if (perm_root(who)) {
		if ((want & PERM_X) != 0 && !S_ISDIR(in->mode) &&
		    (in->mode & 0111) == 0)
			return -EACCES;
		return 0;
	}
	if (who->uid == in->uid)
		have = in->mode >> 6;
	else if (perm_in_group(who, in->gid))
		have = in->mode >> 3;
	else
		have = in->mode;
	return (want & ~have & 7) == 0 ? 0 : -EACCES;
}

int
perm_sticky(const struct inode *dir, const struct inode *in,
    const struct msg_ctx *who)
{
	if ((dir->mode & S_ISVTX) == 0 || perm_root(who) ||
	    who->uid == in->uid || who->uid == dir->uid)
		return 0;
	return -EPERM;
}

unsigned
perm_of_open(uint32_t flags)
{
	unsigned want;

	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		want = (flags & OPEN_EXEC) != 0 ? PERM_X : PERM_R;
		break;
	case O_WRONLY:
		want = PERM_W;
		break;
	default:
		want = PERM_R | PERM_W;
		break;
	}
	if ((flags & O_TRUNC) != 0)
		want |= PERM_W;
	return want;
}

uint32_t
perm_drop_suid(const struct inode *in, const struct msg_ctx *who, uint32_t mode)
{
	if (S_ISDIR(in->mode))
		return mode;
	/* Without group execute the bit once meant mandatory locking: it goes only
	 * where the writer could not have set it (setattr_should_drop_sgid() in
	 * fs/attr.c of Linux). */
	if ((mode & S_ISGID) != 0 && ((mode & S_IXGRP) != 0 ||
	    (!perm_root(who) && !perm_in_group(who, in->gid))))
		mode &= ~(uint32_t)S_ISGID;
	return mode & ~(uint32_t)S_ISUID;
}
