/* SPDX-License-Identifier: MIT */
/* format.h - `fsd disk init`: make a data disk. */
#ifndef ROLES_FORMAT_H
#define ROLES_FORMAT_H

#include "conf/conf.h"

/* Make @path a data disk of @size bytes (text with a unit; NULL: nine tenths of what its
 * file system has free).  0; or -errno with the reason in @err; -EEXIST when there is one. */
int	format_disk(const char *path, const char *size, char err[CONF_ERR_MAX]);

#endif
