/* SPDX-License-Identifier: MIT */
/* dev.h - a whole cluster in one process below one directory: its options, key and disks are
 * made at the first start and used again at the next. */
#ifndef ROLES_DEV_H
#define ROLES_DEV_H

#include "roles/run.h"

#define DEV_NODES 3u

struct dev;

/* Prepare @dir (absolute) and fill @plan, which borrows from *out.  @size: of each disk at
 * the first start, as text, NULL for the default; @set: "section.option=value".  0; or
 * -errno with the reason in @err. */
int	dev_open(struct dev **out, const char *dir, const char *size,
	    const char *const *set, unsigned set_n, struct run_plan *plan,
	    char err[CONF_ERR_MAX]);
/* Write @dir/fsd.conf, with which other processes reach the cluster. 0 or -errno. */
int	dev_save(struct dev *d, const struct net_addr *manager);
void	dev_close(struct dev *d);

#endif
