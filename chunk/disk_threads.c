/* SPDX-License-Identifier: MIT */
/* disk_threads.c - disk requests by blocking calls in a few threads, for kernels and
 * containers without io_uring.  Slower by two thread switches a request, same meaning. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "chunk/disk_io.h"
#include "conf/clock.h"

#define THREADS 4u

/* A block of its own: a wake-up on its way outlives the pool. */
struct wake {
	struct clock_post    post;
	struct disk_threads *pool;	/* NULL: closed; free me */
};

struct disk_threads {
	struct clock	*clock;
	disk_threads_fn *fn;
	void		*ctx;
	struct wake	*wake;
	pthread_t	 threads[THREADS];
	unsigned	 thread_n;
	pthread_mutex_t	 lock;		/* over all that follows */
	pthread_cond_t	 work;		/* queue or stop changed */
	pthread_cond_t	 ended;		/* a request ended */
	struct list	 queue, done;
	struct disk_file *running[THREADS];
	bool		 woken;		/* the wake-up is on its way */
	bool		 stop;
};

static int
move_bytes(struct disk_req *r, int fd)
{
	bool whole = false;

	while (!whole) {
		const struct iovec *v = &r->iov[r->impl[DISK_IO_PIECE]];
		uint64_t inner = r->impl[DISK_IO_INNER];
		off_t off = (off_t)(r->off + r->impl[DISK_IO_DONE]);
		ssize_t n;

		if (inner > 0 && r->op == DISK_READ)
			n = pread(fd, (char *)v->iov_base + inner,
			    v->iov_len - inner, off);
		else if (inner > 0)
			n = pwrite(fd, (char *)v->iov_base + inner,
			    v->iov_len - inner, off);
		else if (r->op == DISK_READ)
			n = preadv(fd, v, (int)(r->iov_n -
			    (unsigned)r->impl[DISK_IO_PIECE]), off);
		else
			n = pwritev(fd, v, (int)(r->iov_n -
			    (unsigned)r->impl[DISK_IO_PIECE]), off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		whole = disk_io_advance(r, (uint64_t)n);
	}
	return 0;
}

static int
perform(struct disk_req *r)
{
	int fd = disk_io_file_of(r)->fd;

	switch (r->op) {
	case DISK_READ:
	case DISK_WRITE:
		return move_bytes(r, fd);
	case DISK_SYNC:
		return fdatasync(fd) != 0 ? -errno : 0;
	case DISK_DISCARD:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    (off_t)r->off, (off_t)r->len) != 0 ? -errno : 0;
	}
	return -EINVAL;
}

static void
woken(struct clock_post *p)
{
	struct wake *w = container_of(p, struct wake, post);
	struct disk_threads *t = w->pool;

	if (t == NULL) {
		free(w);
		return;
	}
	pthread_mutex_lock(&t->lock);
	t->woken = false;
	pthread_mutex_unlock(&t->lock);
	t->fn(t->ctx);
}

struct start {
	struct disk_threads *t;
	unsigned	     i;
};

static void *
thread_main(void *arg)
{
	struct start s = *(struct start *)arg;
	struct disk_threads *t = s.t;
	struct list *n;

	free(arg);
	pthread_setname_np(pthread_self(), "disk");
	pthread_mutex_lock(&t->lock);
	for (;;) {
		struct disk_req *r;

		while ((n = list_pop_front(&t->queue)) == NULL && !t->stop)
			pthread_cond_wait(&t->work, &t->lock);
		if (n == NULL)
			break;
		r = list_entry(n, struct disk_req, node);
		t->running[s.i] = disk_io_file_of(r);
		pthread_mutex_unlock(&t->lock);
		r->rc = perform(r);
		pthread_mutex_lock(&t->lock);
		t->running[s.i] = NULL;
		list_push_back(&t->done, &r->node);
		pthread_cond_broadcast(&t->ended);
		if (!t->woken) {
			t->woken = true;
			clock_post(t->clock, &t->wake->post, woken);
		}
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

void
disk_threads_close(struct disk_threads *t)
{
	if (t == NULL)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->work);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->thread_n; i++)
		pthread_join(t->threads[i], NULL);
	assert(list_empty(&t->queue));
	assert(list_empty(&t->done));
	if (t->woken)
		t->wake->pool = NULL;
	else
		free(t->wake);
	pthread_cond_destroy(&t->work);
	pthread_cond_destroy(&t->ended);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int
disk_threads_open(struct disk_threads **out, struct clock *clock,
    disk_threads_fn *wake, void *ctx)
{
	struct disk_threads *t = calloc(1, sizeof(*t));
	int rc = -ENOMEM;

	*out = NULL;
	if (t == NULL)
		return -ENOMEM;
	t->clock = clock;
	t->fn = wake;
	t->ctx = ctx;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->work, NULL);
	pthread_cond_init(&t->ended, NULL);
	list_init(&t->queue);
	list_init(&t->done);
	if ((t->wake = calloc(1, sizeof(*t->wake))) == NULL)
		goto fail;
	t->wake->pool = t;
	while (t->thread_n < THREADS) {
		struct start *s = malloc(sizeof(*s));

		if (s == NULL)
			goto fail;
		*s = (struct start){ t, t->thread_n };
		rc = -pthread_create(&t->threads[t->thread_n], NULL, thread_main, s);
		if (rc != 0) {
			free(s);
			goto fail;
		}
		t->thread_n++;
	}
	*out = t;
	return 0;
fail:
	disk_threads_close(t);
	return rc;
}

void
disk_threads_submit(struct disk_threads *t, struct list *reqs)
{
	pthread_mutex_lock(&t->lock);
	list_splice_back(&t->queue, reqs);
	pthread_cond_broadcast(&t->work);
	pthread_mutex_unlock(&t->lock);
}

void
disk_threads_reap(struct disk_threads *t, struct list *done)
{
	pthread_mutex_lock(&t->lock);
	list_splice_back(done, &t->done);
	pthread_mutex_unlock(&t->lock);
}

static bool
runs(const struct disk_threads *t, const struct disk_file *f)
{
	for (unsigned i = 0; i < THREADS; i++)
		if (t->running[i] == f)
			return true;
	return false;
}

void
disk_threads_cancel(struct disk_threads *t, struct disk_file *f,
    struct list *done)
{
	pthread_mutex_lock(&t->lock);
	list_for_each_safe(it, tmp, &t->queue) {
		struct disk_req *r = list_entry(it, struct disk_req, node);

		if (disk_io_file_of(r) != f)
			continue;
		r->rc = -ECANCELED;
		list_remove(&r->node);
		list_push_back(done, &r->node);
	}
	while (runs(t, f))
		pthread_cond_wait(&t->ended, &t->lock);
	pthread_mutex_unlock(&t->lock);
}
