/* SPDX-License-Identifier: MIT */
/* fsd_serve.c - commands that go on: roles, a mount, a whole cluster; a plan of roles
 * (roles/run.h) is made of their options and run, here or in the background.  And the end of
 * a mount. */
#include "fsd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles/dev.h"

/* ---- going into the background: the parent waits until the roles serve ---- */

struct daemon {
	int	    pipe;		/* -1: in the foreground */
	const char *log;		/* where log lines go; NULL: nowhere once it serves */
};

/* The last lines of the log, to the terminal: why the child did not start. */
static void
show_log_end(const char *path)
{
	char text[2048];
	FILE *f = fopen(path, "r");
	size_t n;

	if (f == NULL)
		return;
	if (fseek(f, -(long)sizeof(text) + 1, SEEK_END) != 0)
		rewind(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fprintf(stderr, "fsd: it did not start; the end of %s:\n%s", path, text);
	fclose(f);
}

/* In the parent: does not return.  The child's log lines go to @log from here on; without
 * one they stay on the terminal until the roles serve. */
static int
daemon_start(struct daemon *d, const char *log)
{
	int fds[2], fd;
	pid_t pid;
	char ok = 0;

	d->log = log;
	if (pipe(fds) != 0 || (pid = fork()) < 0) {
		fprintf(stderr, "fsd: cannot go into the background: %s\n",
		    strerror(errno));
		return 1;
	}
	if (pid > 0) {
		int status = 0;

		close(fds[1]);
		if (read(fds[0], &ok, 1) == 1 && ok == 1)
			_exit(0);
		if (log != NULL)
			show_log_end(log);
		if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
		    WEXITSTATUS(status) != 0)
			_exit(WEXITSTATUS(status));
		_exit(1);
	}
	close(fds[0]);
	setsid();
	if ((fd = open("/dev/null", O_RDWR)) >= 0) {
		dup2(fd, STDIN_FILENO);
		if (fd > STDERR_FILENO)
			close(fd);
	}
	if (log != NULL) {
		fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
		if (fd < 0) {
			fprintf(stderr, "fsd: %s: %s\n", log, strerror(errno));
			return 1;
		}
		dup2(fd, STDERR_FILENO);
		close(fd);
	}
	fcntl(fds[1], F_SETFD, FD_CLOEXEC);
	d->pipe = fds[1];
	return 0;
}

/* Everything serves: let the parent go, and the terminal with it. */
static void
daemon_ready(struct daemon *d)
{
	char ok = 1;
	int fd;

	fflush(stdout);
	if (d->pipe < 0)
		return;
	if ((fd = open("/dev/null", O_WRONLY | O_CLOEXEC)) >= 0) {
		dup2(fd, STDOUT_FILENO);
		if (d->log == NULL)
			dup2(fd, STDERR_FILENO);
		close(fd);
	}
	if (write(d->pipe, &ok, 1) != 1)
		return;		/* the parent has gone; go on without it */
	close(d->pipe);
	d->pipe = -1;
}

static void
daemon_is_ready(void *ctx, const struct net_addr *manager)
{
	(void)manager;
	daemon_ready(ctx);
}

/* ---- commands ---- */

int
fsd_cmd_role(const struct args *a)
{
	struct daemon d = { .pipe = -1 };
	struct run_plan plan;
	struct conf c;
	char roles[128], *save = NULL;
	int rc;

	if ((rc = fsd_load_conf(&c, a)) != 0 || (rc = fsd_plan_init(&plan, &c)) != 0)
		return rc;
	snprintf(roles, sizeof(roles), "%s", a->roles);
	for (char *r = strtok_r(roles, ",", &save); r != NULL;
	    r = strtok_r(NULL, ",", &save)) {
		if (strcmp(r, "manager") == 0)
			plan.manager = true;
		else if (strcmp(r, "metadata") == 0)
			plan.metadata = true;
		else if (strcmp(r, "storage") == 0)
			plan.storage_n = 1;
		else
			return fsd_wrong_use("no such role", r);
	}
	if (!plan.manager && !plan.metadata && plan.storage_n == 0)
		return fsd_wrong_use("no role in", a->roles);
	if (plan.storage_n == 1) {
		struct run_storage *s = &plan.storage[0];

		snprintf(s->name, sizeof(s->name), "%s", plan.name);
		snprintf(s->dir, sizeof(s->dir), "%s/storage", c.node_directory);
		s->disks = (const char *const *)c.storage_disks.v;
		s->disk_n = c.storage_disks.n;
		s->port = (uint16_t)c.storage_port;
		if (s->disk_n == 0) {
			fprintf(stderr, "fsd: storage.disks names no disk; make one "
			    "with: fsd disk init PATH\n");
			return EXIT_USE;
		}
	}
	if (a->background && (rc = daemon_start(&d, a->log)) != 0)
		return rc;
	plan.ready = daemon_is_ready;
	plan.ctx = &d;
	rc = run(&plan);
	conf_fini(&c);
	return rc == 0 ? 0 : 1;
}

int
fsd_cmd_mount(const struct args *a)
{
	struct daemon d = { .pipe = -1 };
	struct run_plan plan;
	struct conf c;
	char path[PATH_MAX], *opts, *save = NULL;
	int rc;

	if (a->word_n != 1)
		return fsd_wrong_use("one mount point, please, for", "mount");
	if (realpath(a->words[0], path) == NULL) {
		fprintf(stderr, "fsd: %s: %s\n", a->words[0], strerror(errno));
		return 1;
	}
	if ((rc = fsd_load_conf(&c, a)) != 0 || (rc = fsd_plan_init(&plan, &c)) != 0)
		return rc;
	opts = strdup(a->mount_opts != NULL ? a->mount_opts : "");
	plan.mount_allow_other = geteuid() == 0;
	for (char *o = opts == NULL ? NULL : strtok_r(opts, ",", &save); o != NULL;
	    o = strtok_r(NULL, ",", &save)) {
		if (strcmp(o, "ro") == 0)
			plan.mount_ro = true;
		else if (strcmp(o, "allow_other") == 0)
			plan.mount_allow_other = true;
		else if (strcmp(o, "rw") != 0) {
			rc = fsd_wrong_use("unknown mount option", o);
			free(opts);
			return rc;
		}
	}
	free(opts);
	plan.mount = path;
	if (!a->foreground && (rc = daemon_start(&d, a->log)) != 0)
		return rc;
	plan.ready = daemon_is_ready;
	plan.ctx = &d;
	rc = run(&plan);
	conf_fini(&c);
	return rc == 0 ? 0 : 1;
}

struct dev_args {
	struct daemon daemon;
	struct dev   *dev;
	const char   *dir, *mount;
};

static void
dev_is_ready(void *ctx, const struct net_addr *manager)
{
	struct dev_args *a = ctx;

	if (dev_save(a->dev, manager) != 0)
		fprintf(stderr, "fsd: %s: could not write fsd.conf; other processes "
		    "will not find the cluster\n", a->dir);
	printf("fsd: a cluster of 1 manager, 1 metadata service and 3 storage nodes,"
	    " 3 replicas\n"
	    "  files   %s\n"
	    "  look    fsd admin --config %s/fsd.conf show nodes   (chains, clients, "
	    "space ...)\n"
	    "  log     %s\n"
	    "  stop    fsd umount %s\n", a->mount, a->dir,
	    a->daemon.log != NULL ? a->daemon.log : "this terminal", a->mount);
	daemon_ready(&a->daemon);
}

int
fsd_cmd_dev(const struct args *a)
{
	struct dev_args d = { .daemon = { .pipe = -1 } };
	char dir[PATH_MAX], mount[PATH_MAX], log[PATH_MAX + 8], err[CONF_ERR_MAX];
	struct run_plan plan;
	int rc;

	if (a->word_n != 2)
		return fsd_wrong_use("a directory and a mount point, please, for", "dev");
	for (int i = 0; i < 2; i++) {
		if (mkdir(a->words[i], 0755) != 0 && errno != EEXIST) {
			fprintf(stderr, "fsd: %s: %s\n", a->words[i], strerror(errno));
			return 1;
		}
		if (realpath(a->words[i], i == 0 ? dir : mount) == NULL) {
			fprintf(stderr, "fsd: %s: %s\n", a->words[i], strerror(errno));
			return 1;
		}
	}
	if (dev_open(&d.dev, dir, a->size, a->set, a->set_n, &plan, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return 1;
	}
	plan.mount = mount;
	plan.mount_allow_other = geteuid() == 0;
	d.dir = dir;
	d.mount = mount;
	snprintf(log, sizeof(log), "%s", a->log != NULL ? a->log : "");
	if (a->log == NULL)
		snprintf(log, sizeof(log), "%s/log", dir);
	if (!a->foreground && (rc = daemon_start(&d.daemon, log)) != 0)
		return rc;
	plan.ready = dev_is_ready;
	plan.ctx = &d;
	rc = run(&plan);
	dev_close(d.dev);
	return rc == 0 ? 0 : 1;
}

/* Is @path the mount point of an fsd file system? */
static bool
is_mounted(const char *path)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	struct mntent *m;
	bool found = false;

	if (f == NULL)
		return false;
	while ((m = getmntent(f)) != NULL)
		if (strcmp(m->mnt_dir, path) == 0)
			found = strcmp(m->mnt_type, "fuse.fsd") == 0;
	endmntent(f);
	return found;
}

int
fsd_cmd_umount(const struct args *a)
{
	char path[PATH_MAX];
	const char *given = a->words[0];

	if (a->word_n != 1)
		return fsd_wrong_use("one mount point, please, for", "umount");
	/* The daemon may be dead: the path itself cannot be relied on then. */
	if (realpath(given, path) == NULL)
		snprintf(path, sizeof(path), "%s", given);
	if (!is_mounted(path)) {
		fprintf(stderr, "fsd: %s: no fsd file system is mounted there\n", path);
		return 1;
	}
	if (geteuid() != 0) {
		execlp("fusermount3", "fusermount3", a->lazy ? "-uz" : "-u", path,
		    (char *)NULL);
		fprintf(stderr, "fsd: fusermount3: %s\n", strerror(errno));
		return 1;
	}
	if (umount2(path, a->lazy ? MNT_DETACH : 0) != 0) {
		fprintf(stderr, "fsd: %s: %s%s\n", path, strerror(errno),
		    errno == EBUSY ? "; something uses it (fuser -m), or try --lazy"
		    : "");
		return 1;
	}
	return 0;
}
