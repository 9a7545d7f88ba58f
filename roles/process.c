/* SPDX-License-Identifier: MIT */
/* process.c - loops, threads, hubs, keys of a real process. */
#include "roles/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chunk/disk_uring.h"
#include "conf/err.h"
#include "net/local.h"
#include "net/loop.h"
#include "net/rdma.h"
#include "net/rdma_port.h"
#include "net/tcp.h"

#define OWN_WAIT_MS	3000u
#define LOCK_PAUSE_MS	50u
#define TOLD_AGAIN_NS	NS_PER_S

struct process_loop {
	struct process	 *process;
	struct loop	 *loop;
	struct rand	  rand;
	struct net_hub	 *hub;
	struct role_env	  env;
	pthread_t	  thread;
	bool		  started;
	struct clock_post stop;
};

struct process {
	const struct conf  *conf;
	uint8_t		    key[NET_KEY_BYTES];
	struct process_loop *loops[PROCESS_LOOPS_MAX];
	unsigned	    loop_n;
	struct stat_registry stats;
	struct net_rdma_load rdma_load;
	atomic_bool	    quitting;
	int		    owned[PROCESS_OWNED_MAX];	/* locked files */
	unsigned	    owned_n;
};

static void
random_bytes(void *ctx, void *out, size_t n)
{
	(void)ctx;
	randombytes_buf(out, n);
}

static int
open_dir(void *ctx, const char *path, bool create, struct disk_dir **out)
{
	struct process_loop *l = ctx;

	return disk_uring_open_dir(out, l->loop, path, create);
}

int
process_open(struct process **out, const struct conf *conf,
    const uint8_t key[NET_KEY_BYTES])
{
	struct process *p;

	*out = NULL;
	if (sodium_init() < 0)
		return -EIO;
	if ((p = calloc(1, sizeof(*p))) == NULL)
		return -ENOMEM;
	p->conf = conf;
	memcpy(p->key, key, NET_KEY_BYTES);
	stat_registry_init(&p->stats);
	randombytes_buf(&p->stats.process, sizeof(p->stats.process));
	*out = p;
	return 0;
}

static void
loop_free(struct process_loop *l)
{
	net_hub_close(l->hub);
	if (l->loop != NULL)
		loop_close(l->loop);
	free(l);
}

/* RDMA when there is any; said once, by the first loop. */
static int
rdma_open(struct process_loop *l)
{
	const struct conf *conf = l->process->conf;
	struct net_rdma_conf rdma = {
		.devices = conf->rdma_devices, .stats = &l->process->stats,
		.credits = (uint32_t)conf->rdma_credits,
		.load = &l->process->rdma_load,
		.traffic_class = (uint8_t)conf->rdma_traffic_class,
		.service_level = (uint8_t)conf->rdma_service_level,
		.spin_us = (uint32_t)conf->rdma_spin_us
	};
	bool first = l->process->loop_n == 0;
	struct net_transport *t;
	char devices[256];
	const char *bad;
	unsigned bad_n;
	int rc;

	if (strcmp(conf->rdma_devices, "none") == 0)
		return 0;
	if (first && !net_rdma_names_check(conf->rdma_devices, &bad, &bad_n))
		log_warn(&l->env.log, "rdma.devices names what is no device, port or subnet",
		    "item=\"%.*s\"", (int)bad_n, bad);
	if ((rc = net_rdma_open(&t, l->loop, &l->env.log, &rdma)) != 0)
		return rc;
	net_hub_add(l->hub, t);
	net_rdma_devices(t, devices, sizeof(devices));
	if (first && *devices != '\0')
		log_info(&l->env.log, "RDMA", "devices=\"%s\"", devices);
	else if (first && *conf->rdma_devices != '\0')
		log_warn(&l->env.log, "none of the named RDMA devices, over TCP",
		    "devices=\"%s\"", conf->rdma_devices);
	else if (first)
		log_info(&l->env.log, "no RDMA device, over TCP", "%s", "");
	return 0;
}

static int
hub_open(struct process_loop *l)
{
	struct process *p = l->process;
	struct net_hub_conf hc = {
		.clock = loop_clock(l->loop), .rand = &l->rand, .log = &l->env.log,
		.calls_max = (uint32_t)p->conf->net_requests_max,
		.idle_ms = (uint32_t)p->conf->net_idle,
		.receive_window = p->conf->net_receive_window,
		.cluster = p->conf->cluster_name, .stats = &p->stats,
	};
	struct net_transport *t;
	int rc;

	memcpy(hc.key, p->key, NET_KEY_BYTES);
	if ((rc = net_hub_open(&l->hub, &hc)) != 0)
		return rc;
	if ((rc = net_tcp_open(&t, l->loop, &l->env.log, &p->stats)) != 0)
		return rc;
	net_hub_add(l->hub, t);
	if ((rc = net_local_open(&t, loop_clock(l->loop))) != 0)
		return rc;
	net_hub_add(l->hub, t);
	return rdma_open(l);
}

struct role_env *
process_add(struct process *p, const char *who)
{
	struct process_loop *l;
	uint64_t seed;
	int rc;

	if (p->loop_n == PROCESS_LOOPS_MAX || (l = calloc(1, sizeof(*l))) == NULL)
		return NULL;
	l->process = p;
	log_init(&l->env.log, who);
	l->env.log.level = (enum log_level)p->conf->log_level;
	randombytes_buf(&seed, sizeof(seed));
	rand_seed(&l->rand, seed);
	if ((rc = loop_open(&l->loop)) != 0 || (rc = hub_open(l)) != 0) {
		log_error(&l->env.log, "cannot make a loop", "error=\"%s\"",
		    err_text(rc));
		loop_free(l);
		return NULL;
	}
	l->env.clock = loop_clock(l->loop);
	l->env.rand = &l->rand;
	l->env.hub = l->hub;
	l->env.conf = p->conf;
	l->env.random = random_bytes;
	l->env.dir = open_dir;
	l->env.ctx = l;
	l->env.pid = (uint64_t)getpid();
	l->env.stats = &p->stats;
	p->loops[p->loop_n++] = l;
	return &l->env;
}

struct stat_registry *
process_stats(struct process *p)
{
	return &p->stats;
}

struct loop *
process_loop(struct process *p, const struct role_env *env)
{
	(void)p;
	return ((struct process_loop *)env->ctx)->loop;
}

static void *
thread_main(void *arg)
{
	struct process_loop *l = arg;
	char name[16];

	snprintf(name, sizeof(name), "%.15s", l->env.log.who);
	pthread_setname_np(pthread_self(), name);
	loop_run(l->loop);
	return NULL;
}

static void
stop_here(struct clock_post *post)
{
	loop_stop(container_of(post, struct process_loop, stop)->loop);
}

int
process_run(struct process *p)
{
	int rc = 0;

	assert(p->loop_n > 0);
	for (unsigned i = 1; i < p->loop_n; i++) {
		struct process_loop *l = p->loops[i];

		rc = -pthread_create(&l->thread, NULL, thread_main, l);
		if (rc != 0) {
			log_error(&l->env.log, "cannot start a thread", "error=\"%s\"",
			    err_text(rc));
			process_quit(p);
			break;
		}
		l->started = true;
	}
	loop_run(p->loops[0]->loop);
	for (unsigned i = 1; i < p->loop_n; i++)
		if (p->loops[i]->started)
			pthread_join(p->loops[i]->thread, NULL);
	return rc;
}

bool
process_told_again(struct clock *clock, uint64_t *told_ns)
{
	if (*told_ns == 0) {
		*told_ns = clock_now(clock);
		return false;
	}
	return clock_now(clock) - *told_ns >= TOLD_AGAIN_NS;
}

void
process_quit(struct process *p)
{
	if (atomic_exchange(&p->quitting, true))
		return;
	for (unsigned i = 0; i < p->loop_n; i++)
		clock_post(p->loops[i]->env.clock, &p->loops[i]->stop, stop_here);
}

void
process_close(struct process *p)
{
	if (p == NULL)
		return;
	/* Hubs first: a local connection has an end on another loop. */
	for (unsigned i = 0; i < p->loop_n; i++) {
		net_hub_close(p->loops[i]->hub);
		p->loops[i]->hub = NULL;
	}
	for (unsigned i = 0; i < p->loop_n; i++)
		loop_free(p->loops[i]);
	while (p->owned_n > 0)
		close(p->owned[--p->owned_n]);
	stat_registry_fini(&p->stats);
	sodium_memzero(p->key, sizeof(p->key));
	free(p);
}

/* ---- one process a directory ---- */

/* Who has the lock wrote his number there. */
static long
owner(int fd)
{
	char text[24] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	return pid > 0 ? pid : 0;
}

int
process_lock(const char *path, unsigned wait_ms, int *fd, long *pid)
{
	char text[24];
	int n, rc;

	*pid = 0;
	if ((*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
		return -errno;
	for (unsigned waited = 0; flock(*fd, LOCK_EX | LOCK_NB) != 0;
	    waited += LOCK_PAUSE_MS) {
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		if (rc == -EINTR || (rc == -EBUSY && waited < wait_ms)) {
			poll(NULL, 0, LOCK_PAUSE_MS);
			continue;
		}
		*pid = owner(*fd);
		close(*fd);
		*fd = -1;
		return rc;
	}
	/* For who is refused to read; nothing else depends on it, so a file system that is
	 * full is no reason not to start. */
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(*fd, 0) == 0)
		(void)!pwrite(*fd, text, (size_t)n, 0);
	return 0;
}

int
process_own(struct process *p, const char *dir, char err[CONF_ERR_MAX])
{
	char path[PATH_MAX], who[48] = "another process";
	long pid = 0;
	int rc;

	if (p->owned_n == PROCESS_OWNED_MAX)
		rc = -ENOSPC;
	else if ((size_t)snprintf(path, sizeof(path), "%s/lock", dir) >= sizeof(path))
		rc = -ENAMETOOLONG;
	else if ((rc = disk_uring_make_dir(dir)) == 0 &&
	    (rc = process_lock(path, OWN_WAIT_MS, &p->owned[p->owned_n], &pid)) == 0) {
		p->owned_n++;
		return 0;
	}
	if (pid > 0)
		snprintf(who, sizeof(who), "process %ld", pid);
	if (rc == -EBUSY)
		snprintf(err, CONF_ERR_MAX, "%s: in use by %s", dir, who);
	else
		snprintf(err, CONF_ERR_MAX, "%s: %s", dir, err_text(rc));
	return rc;
}

/* ---- keys ---- */

int
process_key_read(const char *path, uint8_t key[NET_KEY_BYTES],
    char err[CONF_ERR_MAX])
{
	char text[2 * NET_KEY_BYTES + 2];
	struct stat st;
	ssize_t n;
	size_t bytes;
	int fd, rc = 0;

	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
		rc = -errno;
		snprintf(err, CONF_ERR_MAX, "%s: %s%s", path, strerror(errno),
		    errno == ENOENT ? "; make one with: fsd key FILE" : "");
		return rc;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		snprintf(err, CONF_ERR_MAX, "%s: not a file", path);
		rc = -EINVAL;
	} else if ((st.st_mode & 077) != 0) {
		snprintf(err, CONF_ERR_MAX, "%s: others may read the cluster key; "
		    "chmod 600 it", path);
		rc = -EPERM;
	} else if ((n = read(fd, text, sizeof(text))) < 0) {
		rc = -errno;
		snprintf(err, CONF_ERR_MAX, "%s: %s", path, strerror(errno));
	} else if ((n == 2 * NET_KEY_BYTES + 1 && text[n - 1] != '\n') ||
	    n < (ssize_t)(2 * NET_KEY_BYTES) || n > (ssize_t)(2 * NET_KEY_BYTES + 1) ||
	    sodium_hex2bin(key, NET_KEY_BYTES, text, 2 * NET_KEY_BYTES, NULL, &bytes,
	    NULL) != 0 || bytes != NET_KEY_BYTES) {
		snprintf(err, CONF_ERR_MAX, "%s: not a cluster key: want 64 hexadecimal "
		    "digits", path);
		rc = -EINVAL;
	}
	sodium_memzero(text, sizeof(text));
	close(fd);
	return rc;
}

int
process_key_make(const char *path, char err[CONF_ERR_MAX])
{
	uint8_t key[NET_KEY_BYTES];
	char text[2 * NET_KEY_BYTES + 2];
	int fd, rc = 0;

	if (sodium_init() < 0)
		return -EIO;
	if ((fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0) {
		rc = -errno;
		snprintf(err, CONF_ERR_MAX, "%s: %s", path, strerror(errno));
		return rc;
	}
	randombytes_buf(key, sizeof(key));
	sodium_bin2hex(text, sizeof(text), key, sizeof(key));
	text[2 * NET_KEY_BYTES] = '\n';
	if (write(fd, text, 2 * NET_KEY_BYTES + 1) != 2 * NET_KEY_BYTES + 1 ||
	    fsync(fd) != 0) {
		rc = errno != 0 ? -errno : -EIO;
		snprintf(err, CONF_ERR_MAX, "%s: %s", path, strerror(-rc));
	}
	if (close(fd) != 0 && rc == 0)
		rc = -errno;
	sodium_memzero(key, sizeof(key));
	sodium_memzero(text, sizeof(text));
	if (rc != 0)
		unlink(path);
	return rc;
}
