/* SPDX-License-Identifier: MIT */
/* fsd.c - the one executable: arguments in, a plan of roles out (roles/run.h).
 *
 *	fsd --role=R[,R...]   serve          fsd dev DIR MOUNT     a whole cluster here
 *	fsd mount MOUNT       use it         fsd umount MOUNT
 *	fsd disk init PATH    fsd key PATH   fsd admin ...   fsd bench ...   fsd help
 *
 * Exit status: 0 done; 1 failed; 2 wrong use or options. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/err.h"
#include "conf/log.h"
#include "conf/version.h"
#include "net/msg.h"
#include "roles/admin.h"
#include "roles/check.h"
#include "roles/bench.h"
#include "roles/dev.h"
#include "roles/format.h"
#include "roles/process.h"
#include "roles/run.h"

#define EXIT_USE	2
#define CONF_DEFAULT	"/etc/fsd.conf"

/* What the options before and after the command said. */
struct args {
	const char *config;		/* NULL: /etc/fsd.conf when it is there */
	const char *roles;
	const char *set[64];		/* section.option=value */
	unsigned    set_n;
	const char *mount_opts;
	const char *size, *raw, *log, *listen, *time;
	bool	    foreground, background, json, lazy, print_config, repair, discard;
	const char *prefer;
	char	  **words;		/* what is left */
	int	    word_n;
};

static void
usage(FILE *to)
{
	fputs("usage: fsd --role=ROLE[,ROLE...] [--config FILE] [--set SECTION.OPTION=VALUE]\n"
	    "           [--background] [--log FILE]\n"
	    "       fsd dev [--foreground] [--log FILE] [--size BYTES] DIR MOUNT\n"
	    "       fsd mount [-o ro,allow_other] [--config FILE] [--foreground] [--log FILE] MOUNT\n"
	    "       fsd umount [--lazy] MOUNT\n"
	    "       fsd disk init [--size BYTES] PATH\n"
	    "       fsd key FILE\n"
	    "       fsd admin [--config FILE] [--json] COMMAND...   (see fsd help admin)\n"
	    "       fsd check [--config FILE] [--repair [--discard] [--prefer tail|TARGET]]\n"
	    "           [--json]\n"
	    "       fsd bench [--config FILE] [--raw DIR] [--time SECONDS] [CASE...]\n"
	    "       fsd bench net serve [--config FILE] [--listen ADDR]\n"
	    "       fsd bench net [--config FILE] [--time SECONDS] [ADDR] [CASE...]\n"
	    "       fsd --print-config [--config FILE]\n"
	    "       fsd help [TOPIC]    fsd --help    fsd --version\n"
	    "roles: manager, metadata, storage\n", to);
}

static int
wrong_use(const char *what, const char *which)
{
	fprintf(stderr, "fsd: %s '%s'\n", what, which);
	usage(stderr);
	return EXIT_USE;
}

static int
help(const char *topic)
{
	if (topic == NULL) {
		usage(stdout);
		fputs("topics: options, proto, admin, errors; see also fsd(1), fsd.conf(5), "
		    "fsd-admin(8), fsd-design(7)\n", stdout);
		return 0;
	}
	if (strcmp(topic, "options") == 0)
		conf_help(stdout, false);
	else if (strcmp(topic, "admin") == 0)
		admin_help(stdout);
	else if (strcmp(topic, "errors") == 0) {
#define X(name, code, next, text) \
		printf("%-22s %6d  %-8s %s\n", #name, code, #next, text);
		ERR_TABLE(X)
#undef X
	} else if (strcmp(topic, "proto") == 0) {
		const struct msg_method *m;

		for (unsigned i = 0; (m = msg_method_at(i)) != NULL; i++) {
			printf("0x%04x %s.%s (%s)\n", m->id, m->service, m->name,
			    m->retry);
			for (const struct msg_row *r = m->request->rows;
			    r->name != NULL; r++)
				printf("  > %-14s %-16s %s\n", r->type, r->name,
				    r->help);
			for (const struct msg_row *r = m->reply->rows;
			    r->name != NULL; r++)
				printf("  < %-14s %-16s %s\n", r->type, r->name,
				    r->help);
		}
	} else
		return wrong_use("no help on", topic);
	return 0;
}

/* Options file, then --set. Prints what is wrong; 0 or EXIT_USE. */
static int
load_conf(struct conf *c, const struct args *a)
{
	const char *path = a->config != NULL ? a->config : CONF_DEFAULT;
	char err[CONF_ERR_MAX];

	if (conf_init(c) != 0) {
		fprintf(stderr, "fsd: out of memory\n");
		return EXIT_USE;
	}
	if ((a->config != NULL || access(path, F_OK) == 0) &&
	    conf_load(c, path, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return EXIT_USE;
	}
	for (unsigned i = 0; i < a->set_n; i++) {
		const char *eq = strchr(a->set[i], '=');
		char name[128];

		if (eq == NULL || (size_t)(eq - a->set[i]) >= sizeof(name))
			return wrong_use("--set wants section.option=value, not",
			    a->set[i]);
		snprintf(name, sizeof(name), "%.*s", (int)(eq - a->set[i]),
		    a->set[i]);
		if (conf_set(c, name, eq + 1, err) != 0) {
			fprintf(stderr, "fsd: --set %s\n", err);
			return EXIT_USE;
		}
	}
	if (c->node_name[0] == '\0') {
		char host[64] = "node";

		gethostname(host, sizeof(host) - 1);
		if (conf_set(c, "node.name", host, err) != 0)
			conf_set(c, "node.name", "node", err);
	}
	if (conf_check(c, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return EXIT_USE;
	}
	log_format_json(c->log_format == 1);
	return 0;
}

/* Addresses and key: what every plan needs of the options. 0 or EXIT_USE. */
static int
plan_init(struct run_plan *p, const struct conf *c)
{
	char err[CONF_ERR_MAX];

	memset(p, 0, sizeof(*p));
	p->conf = c;
	for (unsigned i = 0; i < c->manager_addresses.n; i++) {
		const char *text = c->manager_addresses.v[i], *why;

		if (p->manager_n == sizeof(p->managers) / sizeof(p->managers[0]) ||
		    net_addr_parse(text, strlen(text), &p->managers[p->manager_n],
		    &why) != 0) {
			fprintf(stderr, "fsd: manager.addresses: '%s': %s\n", text,
			    why);
			return EXIT_USE;
		}
		p->manager_n++;
	}
	if (process_key_read(c->cluster_key_file, p->key, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return EXIT_USE;
	}
	snprintf(p->name, sizeof(p->name), "%s", c->node_name);
	snprintf(p->dir, sizeof(p->dir), "%s", c->node_directory);
	return 0;
}

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

static int
cmd_role(const struct args *a)
{
	struct daemon d = { .pipe = -1 };
	struct run_plan plan;
	struct conf c;
	char roles[128], *save = NULL;
	int rc;

	if ((rc = load_conf(&c, a)) != 0 || (rc = plan_init(&plan, &c)) != 0)
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
			return wrong_use("no such role", r);
	}
	if (!plan.manager && !plan.metadata && plan.storage_n == 0)
		return wrong_use("no role in", a->roles);
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

static int
cmd_mount(const struct args *a)
{
	struct daemon d = { .pipe = -1 };
	struct run_plan plan;
	struct conf c;
	char path[PATH_MAX], *opts, *save = NULL;
	int rc;

	if (a->word_n != 1)
		return wrong_use("one mount point, please, for", "mount");
	if (realpath(a->words[0], path) == NULL) {
		fprintf(stderr, "fsd: %s: %s\n", a->words[0], strerror(errno));
		return 1;
	}
	if ((rc = load_conf(&c, a)) != 0 || (rc = plan_init(&plan, &c)) != 0)
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
			rc = wrong_use("unknown mount option", o);
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

static int
cmd_dev(const struct args *a)
{
	struct dev_args d = { .daemon = { .pipe = -1 } };
	char dir[PATH_MAX], mount[PATH_MAX], log[PATH_MAX + 8], err[CONF_ERR_MAX];
	struct run_plan plan;
	int rc;

	if (a->word_n != 2)
		return wrong_use("a directory and a mount point, please, for", "dev");
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

static int
cmd_umount(const struct args *a)
{
	char path[PATH_MAX];
	const char *given = a->words[0];

	if (a->word_n != 1)
		return wrong_use("one mount point, please, for", "umount");
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

static int
cmd_disk(const struct args *a)
{
	char err[CONF_ERR_MAX];

	if (a->word_n != 2 || strcmp(a->words[0], "init") != 0)
		return wrong_use("disk knows", "init PATH");
	if (format_disk(a->words[1], a->size, err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return 1;
	}
	return 0;
}

static int
cmd_key(const struct args *a)
{
	char err[CONF_ERR_MAX];

	if (a->word_n != 1)
		return wrong_use("one file, please, for", "key");
	if (process_key_make(a->words[0], err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		return 1;
	}
	return 0;
}

struct admin_run {
	struct process *p;
	int		rc;
};

static void
admin_done(void *ctx, int rc)
{
	struct admin_run *r = ctx;

	r->rc = rc;
	process_quit(r->p);
}

/* For who asks a few questions: not worth opening devices. */
static int
load_few(struct conf *c, const struct args *a)
{
	char err[CONF_ERR_MAX];
	int rc = load_conf(c, a);

	if (rc == 0 && conf_set(c, "rdma.devices", "none", err) != 0) {
		fprintf(stderr, "fsd: %s\n", err);
		rc = 1;
	}
	return rc;
}

static int
cmd_admin(const struct args *a)
{
	struct admin_run r = { .rc = -ETIMEDOUT };
	struct admin *admin = NULL;
	struct run_plan plan;
	struct role_env *env;
	struct conf c;
	bool told;
	int rc;

	if ((rc = load_few(&c, a)) != 0 || (rc = plan_init(&plan, &c)) != 0)
		return rc;
	if (process_open(&r.p, &c, plan.key) != 0 ||
	    (env = process_add(r.p, "admin")) == NULL) {
		fprintf(stderr, "fsd: cannot start: %s\n", strerror(errno));
		return 1;
	}
	rc = admin_open(&admin, env, plan.managers, plan.manager_n,
	    (const char *const *)a->words, (unsigned)a->word_n, a->json, stdout,
	    admin_done, &r);
	if (rc == 0) {
		(void)process_run(r.p);
		told = strcmp(a->words[0], "show") == 0 && (r.rc == -EMSGSIZE ||
		    (r.rc == -ENOENT && a->word_n == 3));
		if (r.rc != 0 && !told)
			fprintf(stderr, "fsd admin: %s%s\n",
			    r.rc == -ETIMEDOUT ? "no answer: " : "", err_text(r.rc));
		rc = r.rc == 0 ? 0 : 1;
	} else
		rc = EXIT_USE;
	admin_close(admin);
	process_close(r.p);
	conf_fini(&c);
	return rc;
}

static int
check_how(const struct args *a, struct check_how *how)
{
	char *end;
	unsigned long target;

	*how = (struct check_how){ .repair = a->repair, .discard = a->discard,
	    .json = a->json };
	if (!a->repair && (a->discard || a->prefer != NULL))
		return wrong_use("only with --repair:", a->discard ? "--discard" :
		    "--prefer");
	if (a->prefer == NULL)
		return 0;
	how->prefer_tail = strcmp(a->prefer, "tail") == 0;
	if (how->prefer_tail)
		return 0;
	errno = 0;
	target = strtoul(a->prefer, &end, 10);
	if (errno != 0 || *end != '\0' || target == 0 || target > UINT32_MAX)
		return wrong_use("--prefer wants tail or a target, not", a->prefer);
	how->prefer = (target_id)target;
	return 0;
}

/* Exit status: 0 no faults are left, 1 some are, 3 it could not be ended. */
static int
cmd_check(const struct args *a)
{
	struct admin_run r = { .rc = -ETIMEDOUT };
	struct check *check = NULL;
	struct run_plan plan;
	struct check_conf cc;
	struct check_how how;
	struct conf c;
	int rc;

	if (a->word_n > 0)
		return wrong_use("check takes no", a->words[0]);
	if ((rc = check_how(a, &how)) != 0)
		return rc;
	if ((rc = load_few(&c, a)) != 0 || (rc = plan_init(&plan, &c)) != 0)
		return rc;
	cc = (struct check_conf){ .managers = plan.managers,
	    .manager_n = plan.manager_n, .how = how, .to = stdout };
	if (process_open(&r.p, &c, plan.key) != 0 ||
	    (cc.env = process_add(r.p, "check")) == NULL) {
		fprintf(stderr, "fsd: cannot start: %s\n", strerror(errno));
		return 1;
	}
	rc = check_open(&check, &cc, admin_done, &r);
	if (rc == 0) {
		(void)process_run(r.p);
		rc = r.rc;
	}
	if (rc != 0 && rc != -EUCLEAN)
		fprintf(stderr, "fsd check: not ended: %s\n", err_text(rc));
	check_close(check);
	process_close(r.p);
	conf_fini(&c);
	return rc == 0 ? 0 : rc == -EUCLEAN ? 1 : 3;
}

static void
bench_listens(void *ctx, const struct net_addr *at)
{
	char text[NET_ADDR_TEXT];

	(void)ctx;
	net_addr_text(at, text);
	printf("fsd bench: serving at %s; on the other node: fsd bench net %s\n", text, text);
	fflush(stdout);
}

/* --time, or @seconds; 0: told that it is wrong. */
static unsigned
bench_seconds(const struct args *a, unsigned seconds)
{
	unsigned long n = a->time != NULL ? strtoul(a->time, NULL, 10) : seconds;

	if (n >= 1 && n <= 3600)
		return (unsigned)n;
	wrong_use("--time wants 1 to 3600 seconds, not", a->time);
	return 0;
}

/* fsd bench net serve; ... ADDR [CASE...]; ... [CASE...] for both ends here. */
static int
cmd_bench_net(const struct args *a)
{
	const char *const *words = (const char *const *)a->words + 1, *why;
	unsigned seconds = bench_seconds(a, 2);
	unsigned n = (unsigned)a->word_n - 1;
	bool serve = n == 1 && strcmp(words[0], "serve") == 0;
	char listen[NET_ADDR_TEXT];
	struct net_addr at, to;
	struct run_plan plan;
	struct conf c;
	int rc;

	if (seconds == 0)
		return EXIT_USE;
	if ((rc = load_conf(&c, a)) != 0)
		return rc;
	snprintf(listen, sizeof(listen), strchr(c.node_address, ':') != NULL ?
	    "[%s]:0" : "%s:0", c.node_address);
	if (a->listen != NULL)
		snprintf(listen, sizeof(listen), "%s", a->listen);
	if (net_addr_parse(listen, strlen(listen), &at, &why) != 0 ||
	    at.kind > NET_ADDR_TCP6)
		return wrong_use("--listen wants ip:port, not", listen);
	if (serve) {
		if ((rc = plan_init(&plan, &c)) == 0)
			rc = bench_net_serve(&c, plan.key, &at, bench_listens, NULL);
	} else if (n > 0 && net_addr_parse(words[0], strlen(words[0]), &to, NULL) == 0 &&
	    to.kind <= NET_ADDR_TCP6) {
		if ((rc = plan_init(&plan, &c)) == 0)
			rc = bench_net(&c, plan.key, &to, seconds, words + 1,
			    n - 1);
	} else {
		rc = bench_net_both(&c, &at, seconds, words, n);
	}
	conf_fini(&c);
	return rc;
}

static int
cmd_bench(const struct args *a)
{
	unsigned seconds = bench_seconds(a, 3);
	struct run_plan plan;
	struct conf c;
	int rc;

	if (seconds == 0)
		return EXIT_USE;
	if (a->word_n > 0 && strcmp(a->words[0], "net") == 0)
		return cmd_bench_net(a);
	if ((rc = load_conf(&c, a)) != 0 || (rc = plan_init(&plan, &c)) != 0)
		return rc;
	rc = bench_run(&c, plan.key, plan.managers, plan.manager_n,
	    a->raw, seconds, (const char *const *)a->words, (unsigned)a->word_n);
	conf_fini(&c);
	return rc;
}

static int
cmd_help(const struct args *a)
{
	return help(a->word_n > 0 ? a->words[0] : NULL);
}

static const struct {
	const char *name;
	int	  (*run)(const struct args *);
} commands[] = {
	{ "dev",    cmd_dev },    { "mount", cmd_mount }, { "umount", cmd_umount },
	{ "disk",   cmd_disk },   { "key",   cmd_key },	  { "admin",  cmd_admin },
	{ "check",  cmd_check },  { "bench",  cmd_bench },
	{ "help",   cmd_help },
};

/* 0, or the exit status for wrong use. */
static int
parse_args(struct args *a, int argc, char **argv)
{
	static const struct option opts[] = {
		{ "role", required_argument, NULL, 'r' },
		{ "config", required_argument, NULL, 'c' },
		{ "set", required_argument, NULL, 's' },
		{ "size", required_argument, NULL, 'S' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "background", no_argument, NULL, 'b' },
		{ "log", required_argument, NULL, 'L' },
		{ "raw", required_argument, NULL, 'R' },
		{ "listen", required_argument, NULL, 'A' },
		{ "time", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },
		{ "lazy", no_argument, NULL, 'l' },
		{ "repair", no_argument, NULL, 'x' },
		{ "discard", no_argument, NULL, 'd' },
		{ "prefer", required_argument, NULL, 'P' },
		{ "print-config", no_argument, NULL, 'p' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	int ch;

	while ((ch = getopt_long(argc, argv, "c:o:fh", opts, NULL)) != -1) {
		switch (ch) {
		case 'r':
			a->roles = optarg;
			break;
		case 'c':
			a->config = optarg;
			break;
		case 's':
			if (a->set_n == sizeof(a->set) / sizeof(a->set[0]))
				return wrong_use("too many --set, at", optarg);
			a->set[a->set_n++] = optarg;
			break;
		case 'S':
			a->size = optarg;
			break;
		case 'L':
			a->log = optarg;
			break;
		case 'R':
			a->raw = optarg;
			break;
		case 'A':
			a->listen = optarg;
			break;
		case 't':
			a->time = optarg;
			break;
		case 'o':
			a->mount_opts = optarg;
			break;
		case 'f':
			a->foreground = true;
			break;
		case 'b':
			a->background = true;
			break;
		case 'j':
			a->json = true;
			break;
		case 'l':
			a->lazy = true;
			break;
		case 'x':
			a->repair = true;
			break;
		case 'd':
			a->discard = true;
			break;
		case 'P':
			a->prefer = optarg;
			break;
		case 'p':
			a->print_config = true;
			break;
		case 'V':
			printf("fsd %s (wire %u, disk %u)\n", FSD_RELEASE, FSD_WIRE,
			    FSD_DISK);
			exit(0);
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			return EXIT_USE;
		}
	}
	a->words = argv + optind;
	a->word_n = argc - optind;
	return 0;
}

int
main(int argc, char **argv)
{
	struct rlimit files;
	struct args a = { 0 };
	int rc;

	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;	/* one per connection */
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if ((rc = parse_args(&a, argc, argv)) != 0)
		return rc;
	if (a.print_config) {
		struct conf c;

		if ((rc = load_conf(&c, &a)) == 0)
			conf_print(&c, stdout);
		conf_fini(&c);
		return rc;
	}
	if (a.roles != NULL)
		return a.word_n == 0 ? cmd_role(&a) :
		    wrong_use("--role takes no command, not", a.words[0]);
	if (a.word_n == 0) {
		usage(stderr);
		return EXIT_USE;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, a.words[0]) == 0) {
			a.words++;
			a.word_n--;
			return commands[i].run(&a);
		}
	}
	return wrong_use("unknown command", a.words[0]);
}
