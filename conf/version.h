/* SPDX-License-Identifier: MIT */
/* version.h - of the release, the wire and the disk. */
#ifndef CONF_VERSION_H
#define CONF_VERSION_H

#define FSD_RELEASE	"0.1.0"
#define FSD_WIRE	3u	/* N talks to N-1; 2: connections may move to RDMA; 3: servers
				 * ask before they send large replies */
#define FSD_DISK	1u	/* a reader refuses anything newer */

#endif
