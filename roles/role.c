/* SPDX-License-Identifier: MIT */
/* role.c - what all roles do alike. */
#include "roles/role.h"

#include <errno.h>

int
role_uid_file(const struct role_env *env, struct disk_dir *dir, const char *name,
    struct uid128 *out)
{
	struct uid128 uid;
	int rc;

	/* blob() keeps what is in the file, or makes it from these. */
	env->random(env->ctx, &uid, sizeof(uid));
	rc = dir->ops->blob(dir, name, &uid, sizeof(uid), true);
	if (rc == 0 && uid128_zero(&uid))
		rc = -EIO;	/* a file system that lost the bytes, not the name */
	if (rc == 0)
		*out = uid;
	return rc;
}
