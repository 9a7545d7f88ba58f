/* SPDX-License-Identifier: MIT */
/* role.c - what all roles do alike. */
#include "roles/role.h"

#include <errno.h>
#include <stdlib.h>

#include "conf/err.h"
#include "net/msg_core.h"
#include "net/serve.h"

#define TEXT_MAX	(NET_MSG_MAX - 64)	/* what is around it in a message is less */

void
role_stats_call(const struct role_env *env, struct net_req *req)
{
	struct msg_stats_rep rep = { 0 };
	size_t n;
	char *text = stat_text(env->stats, TEXT_MAX, &n);

	if (text != NULL) {
		rep.process = env->stats != NULL ? env->stats->process : 0;
		rep.text = (struct msg_str){ text, (uint32_t)n };
	}
	net_reply(req, text != NULL ? 0 : ERR_BUSY, text != NULL ? &rep : NULL, NULL, 0,
	    NULL, NULL);
	free(text);
}

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
