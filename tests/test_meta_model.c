/* SPDX-License-Identifier: MIT */
/* test_meta_model.c - random operations against a small model of what POSIX says: the same
 * codes and the same attributes; and against crashes: a replay gives the same bytes. */
#include "tests/meta_model.h"

/* ---- both together ---- */

static void
same(const struct node *n, const struct msg_attr *a, unsigned epoch)
{
	ck_assert_uint_eq(a->ino, n->ino);
	ck_assert_uint_eq(a->mode, n->mode);
	ck_assert_uint_eq(a->nlink, n->nlink);
	ck_assert_uint_eq(a->uid, n->uid);
	ck_assert_uint_eq(a->gid, n->gid);
	ck_assert_uint_eq(a->size, n->size);
	ck_assert_uint_eq(a->rdev, n->rdev);
	ck_assert_int_eq(a->atime, n->atime);
	ck_assert_int_eq(a->mtime, n->mtime);
	ck_assert_int_eq(a->ctime, n->ctime);
	ck_assert_int_eq(a->btime, n->btime);
	ck_assert_uint_eq(a->epoch, epoch);
	ck_assert_uint_eq(a->parent, S_ISDIR(n->mode) ? n->parent->ino : 0);
}

static void
same_all(void)
{
	uint32_t uid = h->uid;

	h->uid = 0;
	for (ino_id i = 1; i <= made; i++) {
		struct node *n = &nodes[i];
		struct msg_entry_rep r;

		if (!n->there) {
			ck_assert_int_eq(h_getattr(h, i, &r), -ESTALE);
			continue;
		}
		ck_assert_int_eq(h_getattr(h, i, &r), 0);
		same(n, &r.attr, n->settled);
		for (unsigned e = 0; e < n->n; e++) {
			ck_assert_int_eq(h_lookup(h, i, n->ents[e].name, &r), 0);
			ck_assert_uint_eq(r.attr.ino, n->ents[e].to->ino);
		}
	}
	h->uid = uid;
	h_check(h);
}

static unsigned
dice(unsigned n)
{
	return (unsigned)rand_below(&h->rand, n);
}

static const char *
any_name(void)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g",
		"h", "i", "j" };
	static const char *const bad[] = { "", ".", "..", "a/b" };

	return dice(60) == 0 ? bad[dice(4)] : names[dice(10)];
}

static ino_id
any_ino(bool dir)
{
	if (dice(50) == 0)
		return dice(3) == 0 ? made + 5 : 1 + dice(made);
	for (unsigned tries = 0; tries < 30; tries++) {
		ino_id i = 1 + (made > 60 && dice(4) > 0 ?
		    made - 60 + dice(60) : dice(made));

		if (at(i) != NULL && (!dir || S_ISDIR(nodes[i].mode)))
			return i;
	}
	return INO_ROOT;
}

static void
any_user(void)
{
	static const uint32_t users[][4] = {	/* uid, gid, group, how many */
		{ 0, 0, 0, 0 }, { 1000, 100, 200, 1 }, { 1001, 100, 0, 0 },
		{ 1002, 300, 200, 1 },
	};
	const uint32_t *u = users[dice(4)];

	h_who(h, u[0], u[1]);
	h->groups[0] = u[2];
	h->group_n = u[3];
}

/* One operation on both; what effects ask for is done now or later. */
static void
step(void)
{
	static const uint32_t types[] = { S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR,
		S_IFBLK };
	static const unsigned modes[] = { 0777, 0755, 0644, 0600, 0700, 01777,
		02775, 04755, 06755, 0000, 02644 };
	const char *name = any_name(), *other = any_name();
	ino_id ino = any_ino(false), dir = any_ino(true), to = any_ino(true);
	unsigned mode = modes[dice(11)], flags = dice(4);
	struct msg_entry_rep r = { .ttl_ms = 0 };
	struct msg_unlink_rep u = { 0 };
	struct msg_setattr q = { .ino = ino };
	struct node *n = NULL;
	bool unlinks = false;
	int rc, want;

	any_user();
	h->cmd.flags = FS_LAYOUT | (dice(5) == 0 ? FS_UNSETTLED : 0);
	flags |= dice(4) == 0 ? O_EXCL : 0;
	flags |= dice(4) == 0 ? O_TRUNC : 0;
	switch (dice(13)) {
	case 0:
	case 1:
		rc = h_create(h, dir, name, mode, flags, &r);
		want = m_create(dir, name, mode, flags, &n);
		break;
	case 2:
		rc = h_mkdir(h, dir, name, mode, &r);
		want = m_mknod(dir, name, S_IFDIR | (mode & 01777), 0, &n);
		break;
	case 3:
		mode |= types[dice(5)];
		rc = h_mknod(h, dir, name, mode, 259, &r);
		want = m_mknod(dir, name, mode, 259, &n);
		break;
	case 4:
		rc = h_symlink(h, dir, name, "some/where", &r);
		want = m_mknod(dir, name, S_IFLNK | 0777, 0, &n);
		if (want == 0)
			n->size = 10;
		break;
	case 5:
		rc = h_link(h, ino, dir, name, &r);
		want = m_link(ino, dir, name, &n);
		break;
	case 6:
		unlinks = true;
		rc = h_remove(h, MSG_unlink, dir, name, &u);
		want = m_remove(dir, name, false, &n);
		break;
	case 7:
		unlinks = true;
		rc = h_remove(h, MSG_rmdir, dir, name, &u);
		want = m_remove(dir, name, true, &n);
		break;
	case 8:
	case 9:
		unlinks = true;
		flags = dice(9) < 6 ? 0 : dice(4);
		rc = h_rename(h, dir, name, to, other, flags, &u);
		want = m_rename(dir, name, to, other, flags, &n);
		break;
	case 10:
		q.valid = dice(3) == 0 ? META_SET_SIZE : dice(256);
		q.mode = modes[dice(11)];
		q.uid = 1000 + dice(3);
		q.gid = 100 * (1 + dice(3));
		q.size = dice(3) * 700000;
		q.atime = 5;
		q.mtime = 6;
		rc = h_setattr(h, &q, &r);
		want = m_setattr(&q, &n);
		break;
	case 11:
		flags &= ~(unsigned)O_EXCL;
		h->cmd.flags |= FS_HANDLE;
		rc = h_open_file(h, ino, flags, &r);
		n = at(ino);
		want = n == NULL ? -ESTALE : m_open(n, flags);
		break;
	default:
		n = at(ino);
		flags = n == NULL ? 0 : n->settled - (dice(8) == 0);
		q.size = dice(4) * 600000;
		q.mtime = h->wall - 500 + dice(600);
		rc = h_sync(h, ino, q.size, flags, q.mtime, &r);
		want = m_sync(ino, q.size, flags, q.mtime, &n);
		break;
	}
	ck_assert_msg(rc == want, "seq %llu: got %s, the model says %s",
	    (unsigned long long)h->seq, err_name(rc), err_name(want));
	rcs[-rc]++;
	if (rc != 0)
		return;
	if (unlinks) {
		ck_assert_uint_eq(u.ino, n == NULL ? 0 : n->ino);
		ck_assert_uint_eq(u.nlink, n == NULL ? 0 : n->nlink);
	} else {
		same(n, &r.attr, (h->res.effects & FS_TRUNCATES) != 0 ? n->epoch :
		    n->settled);
	}
}

/* Storage has worked on some file. */
static void
collect(void)
{
	ino_id ino = any_ino(false);
	struct node *n = at(ino);

	if (n == NULL || !S_ISREG(n->mode))
		return;
	if (n->nlink == 0) {
		h_gc_done(h, ino, GC_REMOVE, GC_EPOCH_GONE);
		n->there = false;
	} else if (n->settled != n->epoch) {
		h_gc_done(h, ino, GC_TRUNCATE, n->epoch);
		n->settled = n->epoch;
	}
}

static void
model_start(uint64_t seed)
{
	h_open(h, seed);
	memset(nodes, 0, sizeof(nodes));
	nodes[1] = (struct node){ .ino = 1, .there = true, .mode = S_IFDIR | 0755,
		.nlink = 2, .atime = h->wall, .mtime = h->wall,
		.ctime = h->wall, .btime = h->wall, .parent = &nodes[1] };
	made = 1;
	nodes[1].mode = S_IFDIR | 0777;
	h->uid = h->gid = h->group_n = 0;
	h_setattr(h, &(struct msg_setattr){ .ino = 1, .valid = META_SET_MODE,
	    .mode = 0777 }, NULL);
	nodes[1].ctime = h->wall;
}

START_TEST(like_the_model)
{
	model_start(h_seed() + 100 + (uint64_t)_i);
	for (unsigned i = 0; i < 6000; i++) {
		step();
		if (dice(3) == 0)
			collect();
		if (i % 500 == 0) {
			same_all();
			sim_clock_run(h->world, 1000000);
		}
	}
	same_all();
	h_close(h);
}
END_TEST

/* Every answer the model can give was given, or the test tests nothing. */
START_TEST(all_answers_seen)
{
	static const int want[] = { 0, ENOENT, EEXIST, EACCES, EPERM, EISDIR,
		ENOTDIR, ENOTEMPTY, EINVAL, ELOOP, ESTALE, EAGAIN, EOPNOTSUPP };

	for (unsigned i = 0; i < sizeof(want) / sizeof(*want); i++)
		ck_assert_msg(rcs[want[i]] > 0, "never saw %d", want[i]);
}
END_TEST

/* ---- crashes ---- */

static const uint8_t applied_key[] = { 0, 'a' };
static struct {
	uint8_t *bytes;
	int	 len;
} commands[3000];
static unsigned command_n;
static struct table_commit commits[3000];	/* some never call back */

static void
noted(unsigned index)
{
	ck_assert_int_eq(table_put(h->t, applied_key, sizeof(applied_key), &index,
	    sizeof(index)), 0);
}

static void
committed(struct table_commit *c)
{
	ck_assert_int_eq(c->rc, 0);
}

/* Play the log into a table that is made durable now and then and dies now and then;
 * return what is in it at the end. */
static uint64_t
play(uint64_t seed, unsigned crashes)
{
	unsigned i = 0, died = 0, commit_n = 0;
	uint64_t digest;

	h_open(h, seed);
	while (i < command_n) {
		h->len = commands[i].len;
		memcpy(h->bytes, commands[i].bytes, (size_t)h->len);
		h_apply(h);
		noted(++i);
		if (crashes > 0 && dice(20) == 0) {
			struct table_commit *c = &commits[commit_n++ % 3000];

			table_commit(h->t, c, committed);
			if (dice(2) == 0)
				sim_clock_run(h->world, dice(3000));
		}
		if (died < crashes && dice(command_n / crashes) == 0) {
			const void *v;
			size_t len;

			died++;
			sim_table_crash(h->disk);
			h_umount(h);
			h_mount(h);
			i = 0;
			if (table_get(h->t, applied_key, sizeof(applied_key), &v,
			    &len) == 0)
				memcpy(&i, v, sizeof(i));
			if (i == 0) {	/* not even the root was durable */
				h->len = fs_cmd_init(1000, h->bytes,
				    sizeof(h->bytes));
				h_apply(h);
			}
		}
	}
	h_check(h);
	digest = h_digest(h);
	sim_clock_run(h->world, 1000000);
	h_close(h);
	return digest;
}

START_TEST(replay_gives_the_same)
{
	uint64_t seed = h_seed() + 500 + (uint64_t)_i, want;

	model_start(seed);
	command_n = 0;
	/* The first one made by model_start() is left out: its table is its own. */
	while (command_n < 2000) {
		if (dice(3) == 0)
			collect();
		else
			step();
		commands[command_n].bytes = malloc((size_t)h->len);
		memcpy(commands[command_n].bytes, h->bytes, (size_t)h->len);
		commands[command_n++].len = h->len;
	}
	h_close(h);
	want = play(seed, 0);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(play(seed + i, 20), want);
	while (command_n > 0)
		free(commands[--command_n].bytes);
}
END_TEST

int
main(void)
{
	const char *n = getenv("N");
	int seeds = n != NULL && *n != '\0' ? atoi(n) : 4;
	Suite *s = suite_create("meta_model");
	TCase *t = tcase_create("model");
	SRunner *sr;
	int failed;

	tcase_set_timeout(t, 0);
	tcase_add_loop_test(t, like_the_model, 0, seeds);
	tcase_add_test(t, all_answers_seen);
	tcase_add_loop_test(t, replay_gives_the_same, 0, 2);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
