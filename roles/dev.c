/* SPDX-License-Identifier: MIT */
/* dev.c - what a development cluster keeps below its directory:
 *
 *	DIR/fsd.conf  key  log  lock	how to reach it; what it said
 *	DIR/state/			manager and metadata
 *	DIR/node1/ ...			node ids of the storage nodes
 *	DIR/disk1/ ...			one data disk each */
#include "roles/dev.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "roles/format.h"
#include "roles/process.h"

#define DISK_MAX	(16ull << 30)	/* default size of a disk, at most ... */
#define DISK_MIN	(64ull << 20)	/* ... and at least, as format_disk() has it */

#define LOCK_WAIT_MS	10000u

struct dev {
	int	    lock;			/* held while the cluster runs */
	char	    dir[RUN_PATH_MAX];
	struct conf conf;
	char	    disk[DEV_NODES][RUN_PATH_MAX + 16];
	const char *disk_list[DEV_NODES];
};

static int
set(struct dev *d, const char *name, char err[CONF_ERR_MAX], const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static int
set(struct dev *d, const char *name, char err[CONF_ERR_MAX], const char *fmt, ...)
{
	char value[RUN_PATH_MAX + 64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	return conf_set(&d->conf, name, value, err);
}

/* One process a directory.  One that is just ending is waited for, so that unmounting and
 * starting again in one breath works. */
static int
take_lock(struct dev *d, char err[CONF_ERR_MAX])
{
	char path[RUN_PATH_MAX + 16];
	long pid;
	int rc;

	snprintf(path, sizeof(path), "%s/lock", d->dir);
	rc = process_lock(path, LOCK_WAIT_MS, &d->lock, &pid);
	if (rc == -EBUSY && pid > 0)
		snprintf(err, CONF_ERR_MAX, "%s: a cluster runs there already, as process "
		    "%ld; stop it with: fsd umount MOUNT", d->dir, pid);
	else if (rc == -EBUSY)
		snprintf(err, CONF_ERR_MAX, "%s: a cluster runs there already; stop it "
		    "with: fsd umount MOUNT", d->dir);
	else if (rc != 0)
		snprintf(err, CONF_ERR_MAX, "%s: %s", path, strerror(-rc));
	return rc;
}

/* Options: what an earlier start saved, else defaults; then where things are, which is
 * always below this directory; then --set.  *port_set: the manager's port is one of these. */
static int
options(struct dev *d, const char *const *sets, unsigned set_n, bool *port_set,
    char err[CONF_ERR_MAX])
{
	char path[RUN_PATH_MAX + 16];
	int rc;

	snprintf(path, sizeof(path), "%s/fsd.conf", d->dir);
	if (access(path, F_OK) == 0 && (rc = conf_load(&d->conf, path, err)) != 0)
		return rc;
	if ((rc = set(d, "cluster.key_file", err, "%s/key", d->dir)) != 0 ||
	    (rc = set(d, "node.name", err, "dev")) != 0 ||
	    (rc = set(d, "node.directory", err, "%s/state", d->dir)) != 0 ||
	    (rc = set(d, "metadata.port", err, "0")) != 0 ||
	    (rc = set(d, "storage.port", err, "0")) != 0)
		return rc;
	for (unsigned i = 0; i < set_n; i++) {
		const char *eq = strchr(sets[i], '=');
		char name[128];

		if (eq == NULL || (size_t)(eq - sets[i]) >= sizeof(name)) {
			snprintf(err, CONF_ERR_MAX, "--set wants section.option=value, "
			    "not '%s'", sets[i]);
			return -EINVAL;
		}
		snprintf(name, sizeof(name), "%.*s", (int)(eq - sets[i]), sets[i]);
		if ((rc = conf_set(&d->conf, name, eq + 1, err)) != 0)
			return rc;
		*port_set |= strcmp(name, "manager.port") == 0;
	}
	return conf_check(&d->conf, err);
}

static int
key(struct dev *d, uint8_t out[NET_KEY_BYTES], char err[CONF_ERR_MAX])
{
	int rc;

	if (access(d->conf.cluster_key_file, F_OK) != 0 &&
	    (rc = process_key_make(d->conf.cluster_key_file, err)) != 0)
		return rc;
	return process_key_read(d->conf.cluster_key_file, out, err);
}

/* Disks that are not there yet are made: a tenth of the free space each.  It is taken at once,
 * and others live on this file system too. */
static int
disks(struct dev *d, const char *size, char err[CONF_ERR_MAX])
{
	struct statvfs fs;
	char text[32];
	int rc;

	if (statvfs(d->dir, &fs) != 0) {
		rc = -errno;
		snprintf(err, CONF_ERR_MAX, "%s: %s", d->dir, strerror(errno));
		return rc;
	}
	if (size == NULL) {
		uint64_t bytes = (uint64_t)fs.f_bavail * fs.f_frsize / 10;

		/* Disks that are there already need none of what is free now. */
		if (bytes > DISK_MAX)
			bytes = DISK_MAX;
		if (bytes < DISK_MIN)
			bytes = DISK_MIN;
		snprintf(text, sizeof(text), "%" PRIu64, bytes & ~UINT64_C(0xfffff));
		size = text;
	}
	for (unsigned i = 0; i < DEV_NODES; i++) {
		snprintf(d->disk[i], sizeof(d->disk[i]), "%s/disk%u", d->dir, i + 1);
		d->disk_list[i] = d->disk[i];
		rc = format_disk(d->disk[i], size, err);
		if (rc != 0 && rc != -EEXIST)
			return rc;
	}
	return 0;
}

int
dev_open(struct dev **out, const char *dir, const char *size,
    const char *const *sets, unsigned set_n, struct run_plan *plan,
    char err[CONF_ERR_MAX])
{
	struct dev *d = calloc(1, sizeof(*d));
	bool port_set = false;
	int rc = -ENOMEM;

	*out = NULL;
	snprintf(err, CONF_ERR_MAX, "out of memory");
	if (d == NULL || conf_init(&d->conf) != 0) {
		free(d);
		return rc;
	}
	memset(plan, 0, sizeof(*plan));
	snprintf(d->dir, sizeof(d->dir), "%s", dir);
	d->lock = -1;
	if ((rc = take_lock(d, err)) != 0 ||
	    (rc = options(d, sets, set_n, &port_set, err)) != 0 ||
	    (rc = key(d, plan->key, err)) != 0 || (rc = disks(d, size, err)) != 0) {
		dev_close(d);
		return rc;
	}
	plan->conf = &d->conf;
	plan->manager = plan->metadata = true;
	/* Several of these clusters may run on one machine; dev_save() tells the port. */
	plan->any_port = !port_set;
	snprintf(plan->name, sizeof(plan->name), "dev");
	snprintf(plan->dir, sizeof(plan->dir), "%s/state", dir);
	plan->storage_n = DEV_NODES;
	for (unsigned i = 0; i < DEV_NODES; i++) {
		struct run_storage *s = &plan->storage[i];

		snprintf(s->name, sizeof(s->name), "node%u", i + 1);
		if ((size_t)snprintf(s->dir, sizeof(s->dir), "%s/node%u", dir,
		    i + 1) >= sizeof(s->dir)) {
			snprintf(err, CONF_ERR_MAX, "%s: path is too long", dir);
			dev_close(d);
			return -ENAMETOOLONG;
		}
		s->disks = &d->disk_list[i];
		s->disk_n = 1;
	}
	*out = d;
	return 0;
}

int
dev_save(struct dev *d, const struct net_addr *manager)
{
	char path[RUN_PATH_MAX + 16], temp[RUN_PATH_MAX + 16];
	char addr[NET_ADDR_TEXT], port[8], err[CONF_ERR_MAX];
	FILE *f;

	net_addr_text(manager, addr);
	snprintf(port, sizeof(port), "%u", manager->port);
	if (conf_set(&d->conf, "manager.addresses", addr, err) != 0 ||
	    conf_set(&d->conf, "manager.port", port, err) != 0)
		return -EINVAL;
	snprintf(path, sizeof(path), "%s/fsd.conf", d->dir);
	snprintf(temp, sizeof(temp), "%s/fsd.conf.new", d->dir);
	if ((f = fopen(temp, "w")) == NULL)
		return -errno;
	conf_print(&d->conf, f);
	if (fclose(f) != 0 || rename(temp, path) != 0)
		return -errno;
	return 0;
}

void
dev_close(struct dev *d)
{
	if (d == NULL)
		return;
	if (d->lock >= 0)
		close(d->lock);
	conf_fini(&d->conf);
	free(d);
}
