/* SPDX-License-Identifier: MIT */
/* test_meta_repair.c - rows that do not fit are planted in the table of a small tree; what
 * the check of the tree says mends them, is done as a command, and then nothing is wrong,
 * nothing is lost that another row shows, and doing it again changes nothing. */
#include "conf/bytes.h"
#include "tests/meta_repair_rig.h"
#include "tests/suite.h"

/* Until nothing is wrong; how often it was asked for. */
static unsigned
repair_all(const char *what)
{
	unsigned rounds = 0;

	for (; look() > F.unfixed && rounds < 5; rounds++) {
		struct msg_repair_rep rep;

		ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
		ck_assert_uint_eq(rep.results.n, F.n);
	}
	ck_assert_msg(F.faults == F.unfixed, "%s: after %u rounds:\n%s", what, rounds,
	    F.text);
	return rounds;
}

static struct inode
inode_of(ino_id ino)
{
	struct inode in;

	ck_assert_int_eq(inode_get(h->t, ino, &in), 0);
	return in;
}

#define PLANT(INO, FIELD, OP) do { \
	struct inode in_ = inode_of(INO); \
	in_.FIELD OP; \
	inode_put(h->t, &in_); \
} while (0)

static bool
leads(ino_id dir, const char *name, ino_id ino)
{
	struct msg_str s = msg_str(name);
	struct entry e;

	return dirent_get(h->t, dir, &s, &e) == 0 && e.ino == ino;
}

static ino_id
lost_found(void)
{
	struct msg_str s = msg_str("lost+found");
	struct entry e;

	return dirent_get(h->t, INO_ROOT, &s, &e) == 0 ? e.ino : 0;
}

static bool
in_lost_found(ino_id ino)
{
	char name[32];

	snprintf(name, sizeof(name), "#%llu", (unsigned long long)ino);
	return lost_found() != 0 && leads(lost_found(), name, ino);
}

enum what { DANGLING, DANGLING_DIR, OF_FILE, OF_NOTHING, OF_HIGHEST, OF_GONE,
	TYPE, HASH, HASH_TAKEN, BAD_ENTRY,
	LINKS_HIGH, LINKS_LOW, LINKS_ZERO, NAMES_AND_ROW, SIZE, NLINK, PARENT, TWICE,
	TWICE_HERE, TWICE_NO_HOME, TO_ROOT, ORPHAN, ORPHAN_DIR, ORPHAN_LINK, ORPHAN_ZERO,
	LOOP, LOOP_SELF, LOOP_TAIL, SYMLINK_SIZE, SYMLINK_ROW, GC_NOBODY, GC_MISSING,
	GC_STALE, GC_EPOCH, SETTLED, COUNT, NEXT, ROOT_PARENT, ROOT_GONE, LOST_LOST,
	MUCH };

static void
plant(enum what what)
{
	uint8_t k[KEY_LEN_MAX];
	struct op_counters c;

	switch (what) {
	case DANGLING:
		plant_entry(I.d, "gone", 900, S_IFREG);
		break;
	case DANGLING_DIR:
		plant_entry(I.d, "gone", 900, S_IFDIR);
		break;
	case OF_FILE:
		plant_entry(I.f, "in", I.g, S_IFREG);
		break;
	case OF_NOTHING:
		plant_entry(777, "in", I.g, S_IFREG);
		break;
	case OF_HIGHEST:
		plant_entry(UINT64_MAX, "in", UINT64_MAX, S_IFDIR);
		plant_entry(I.d, "up", UINT64_MAX, S_IFDIR);
		break;
	case OF_GONE:
		inode_del(h->t, I.x);
		plant_entry(I.x, "in", I.g, S_IFREG);
		lose_entry(INO_ROOT, "x");
		break;
	case TYPE:
		plant_entry(INO_ROOT, "f", I.f, S_IFDIR);
		plant_entry(INO_ROOT, "d", I.d, S_IFREG);
		break;
	case HASH:
		lose_entry(INO_ROOT, "f");
		plant_hash(INO_ROOT, 55, "f", I.f, S_IFREG);
		break;
	case HASH_TAKEN:	/* a second /f under a wrong hash: cannot be put right */
		plant_hash(INO_ROOT, 55, "f", I.g, S_IFREG);
		break;
	case BAD_ENTRY:
		table_put(h->t, k, key_dirent(k, I.e, key_hash("g", 1), "g", 1),
		    "\1\1\1", 3);
		break;
	case LINKS_HIGH:
		PLANT(I.f, nlink, = 7);
		break;
	case LINKS_LOW:
		PLANT(I.h, nlink, = 1);
		break;
	case LINKS_ZERO:
		PLANT(I.f, nlink, = 0);
		break;
	case NAMES_AND_ROW:
		PLANT(I.f, nlink, = 0);
		gc_put(h->t, &(struct gc_row){ .ino = I.f, .kind = GC_REMOVE,
			.epoch = GC_EPOCH_GONE });
		break;
	case SIZE:
		PLANT(I.d, size, = 0);
		PLANT(INO_ROOT, size, = 99);
		break;
	case NLINK:
		PLANT(I.d, nlink, = 2);
		PLANT(INO_ROOT, nlink, = 99);
		break;
	case PARENT:
		PLANT(I.e, parent, = I.x);
		break;
	case TWICE:
		plant_entry(I.x, "a", I.e, S_IFDIR);
		break;
	case TWICE_HERE:
		plant_entry(I.d, "a", I.e, S_IFDIR);
		plant_entry(I.d, "b", I.e, S_IFDIR);
		break;
	case TWICE_NO_HOME:
		plant_entry(I.x, "a", I.e, S_IFDIR);
		PLANT(I.e, parent, = I.f);
		break;
	case TO_ROOT:
		plant_entry(I.x, "up", INO_ROOT, S_IFDIR);
		break;
	case ORPHAN:
		lose_entry(INO_ROOT, "f");
		break;
	case ORPHAN_DIR:
		lose_entry(I.d, "e");
		break;
	case ORPHAN_LINK:
		lose_entry(INO_ROOT, "l");
		break;
	case ORPHAN_ZERO:
		lose_entry(INO_ROOT, "f");
		PLANT(I.f, nlink, = 0);
		break;
	case LOOP:
		lose_entry(INO_ROOT, "d");
		plant_entry(I.e, "d", I.d, S_IFDIR);
		PLANT(I.d, parent, = I.e);
		break;
	case LOOP_SELF:
		lose_entry(INO_ROOT, "x");
		plant_entry(I.x, "x", I.x, S_IFDIR);
		PLANT(I.x, parent, = I.x);
		break;
	case LOOP_TAIL:		/* e is below a loop of one */
		lose_entry(INO_ROOT, "d");
		plant_entry(I.d, "d", I.d, S_IFDIR);
		PLANT(I.d, parent, = I.d);
		break;
	case SYMLINK_SIZE:
		PLANT(I.l, size, = 3);
		break;
	case SYMLINK_ROW:
		table_put(h->t, k, key_ino(k, KEY_SYMLINK, I.f), "\1x", 2);
		table_put(h->t, k, key_ino(k, KEY_SYMLINK, 900), "\1x", 2);
		break;
	case GC_NOBODY:
		gc_put(h->t, &(struct gc_row){ .ino = 900, .kind = GC_REMOVE });
		gc_put(h->t, &(struct gc_row){ .ino = I.d, .kind = GC_TRUNCATE });
		break;
	case GC_MISSING:
		PLANT(I.f, epoch, ++);
		break;
	case GC_STALE:
		gc_put(h->t, &(struct gc_row){ .ino = I.f, .kind = GC_TRUNCATE });
		break;
	case GC_EPOCH:
		PLANT(I.f, epoch, += 2);
		gc_put(h->t, &(struct gc_row){ .ino = I.f, .kind = GC_TRUNCATE,
			.epoch = 1, .at = 5 });
		break;
	case SETTLED:
		PLANT(I.f, settled, = 4);
		break;
	case COUNT:
	case NEXT:
		ck_assert_int_eq(op_counters_get(h->t, &c), 0);
		if (what == COUNT)
			c.inodes += 5;
		else
			c.next_ino = I.d;
		op_counters_put(h->t, &c);
		break;
	case ROOT_PARENT:
		PLANT(INO_ROOT, parent, = I.d);
		break;
	case ROOT_GONE:
		inode_del(h->t, INO_ROOT);
		break;
	case LOST_LOST:		/* lost+found itself has no name any more */
		lose_entry(INO_ROOT, "f");
		repair_all("first");
		lose_entry(INO_ROOT, "lost+found");
		break;
	case MUCH:		/* the directory that most is in has no inode */
		inode_del(h->t, I.d);
		plant_entry(I.x, "y", I.f, S_IFREG);
		PLANT(I.h, nlink, = 9);
		break;
	}
}

static const struct {
	const char *what;
	enum what   how;
	char	    number;		/* of one of the faults */
	unsigned    unfixed;		/* faults that stay */
	unsigned    rounds;
} cases[] = {
	{ "an entry leads to nothing", DANGLING, '2', 0, 1 },
	{ "so does one of a directory", DANGLING_DIR, '2', 0, 1 },
	{ "an entry of a file", OF_FILE, '2', 0, 1 },
	{ "an entry of nothing", OF_NOTHING, '2', 0, 1 },
	{ "of the highest number", OF_HIGHEST, '2', 0, 1 },
	{ "entries of a directory that was", OF_GONE, '2', 0, 2 },
	{ "types of entries", TYPE, '2', 0, 1 },
	{ "an entry in a wrong place", HASH, '2', 0, 1 },
	{ "whose place is taken", HASH_TAKEN, '2', 1, 5 },
	{ "an entry that does not parse", BAD_ENTRY, '1', 0, 1 },
	{ "too many links", LINKS_HIGH, '3', 0, 1 },
	{ "too few links", LINKS_LOW, '3', 0, 1 },
	{ "no links", LINKS_ZERO, '3', 0, 1 },
	{ "being removed under a name", NAMES_AND_ROW, '7', 0, 1 },
	{ "sizes of directories", SIZE, '3', 0, 1 },
	{ "links of directories", NLINK, '3', 0, 1 },
	{ "parent", PARENT, '3', 0, 1 },
	{ "a directory in two others", TWICE, '3', 0, 1 },
	{ "a directory under three names", TWICE_HERE, '3', 0, 1 },
	{ "in two, and says a third", TWICE_NO_HOME, '3', 0, 1 },
	{ "the root in a directory", TO_ROOT, '2', 0, 1 },
	{ "a file without a name", ORPHAN, '4', 0, 1 },
	{ "a directory without a name", ORPHAN_DIR, '4', 0, 1 },
	{ "a symlink without a name", ORPHAN_LINK, '4', 0, 1 },
	{ "neither name nor links", ORPHAN_ZERO, '4', 0, 1 },
	{ "a loop", LOOP, '5', 0, 1 },
	{ "a directory in itself", LOOP_SELF, '5', 0, 1 },
	{ "a tree below a loop", LOOP_TAIL, '5', 0, 1 },
	{ "size of a symlink", SYMLINK_SIZE, '6', 0, 1 },
	{ "targets without symlink", SYMLINK_ROW, '6', 0, 1 },
	{ "gc rows of no file", GC_NOBODY, '7', 0, 1 },
	{ "a truncation without row", GC_MISSING, '7', 0, 1 },
	{ "a row without truncation", GC_STALE, '7', 0, 1 },
	{ "a row of another epoch", GC_EPOCH, '7', 0, 1 },
	{ "settled before it began", SETTLED, '7', 0, 1 },
	{ "number of inodes", COUNT, '1', 0, 1 },
	{ "next inode", NEXT, '1', 0, 1 },
	{ "parent of the root", ROOT_PARENT, '4', 0, 1 },
	{ "no root", ROOT_GONE, '4', 0, 2 },
	{ "lost+found has no name", LOST_LOST, '4', 0, 1 },
	{ "much at once", MUCH, '1', 0, 2 },
};

/* What must hold after it was mended, beside that nothing is wrong. */
static void
expect(int what)
{
	ck_assert_int_eq(inode_get(h->t, I.f, &(struct inode){ 0 }), 0);
	ck_assert_int_eq(inode_get(h->t, I.g, &(struct inode){ 0 }), 0);
	switch (what) {
	case OF_FILE:
		ck_assert(leads(I.e, "g", I.g));
		break;
	case HASH:
		ck_assert(leads(INO_ROOT, "f", I.f));
		break;
	case BAD_ENTRY:
		ck_assert(in_lost_found(I.g));
		break;
	case LINKS_LOW:
		ck_assert_uint_eq(inode_of(I.h).nlink, 2);
		break;
	case PARENT: case TWICE:
		ck_assert(leads(I.d, "e", I.e));
		ck_assert_uint_eq(inode_of(I.e).parent, I.d);
		break;
	case ORPHAN: case ORPHAN_ZERO:
		ck_assert(in_lost_found(I.f));
		ck_assert_uint_eq(inode_of(lost_found()).mode, S_IFDIR | 0700);
		ck_assert_uint_eq(inode_of(lost_found()).uid, 0);
		break;
	case ORPHAN_DIR:
		ck_assert(in_lost_found(I.e));
		ck_assert(leads(I.e, "g", I.g));
		break;
	case LOOP: case LOOP_TAIL:
		ck_assert(in_lost_found(I.d));
		ck_assert(leads(I.d, "e", I.e));
		break;
	case GC_MISSING: {
		struct gc_row row;

		ck_assert_int_eq(gc_get(h->t, I.f, GC_TRUNCATE, &row), 0);
		ck_assert_uint_eq(row.epoch, 1);
		break;
	}
	case GC_EPOCH: {
		struct gc_row row;

		ck_assert_int_eq(gc_get(h->t, I.f, GC_TRUNCATE, &row), 0);
		ck_assert_uint_eq(row.epoch, 2);
		ck_assert_uint_eq(row.at, 5);
		break;
	}
	case LOST_LOST:
		ck_assert_uint_eq(inode_of(lost_found()).size, 1);
		break;
	case ROOT_GONE:
		ck_assert(leads(INO_ROOT, "d", I.d));
		ck_assert(leads(I.d, "e", I.e));
		ck_assert_uint_eq(lost_found(), 0);
		break;
	case OF_NOTHING:
		ck_assert(leads(I.e, "g", I.g));
		ck_assert_uint_eq(inode_of(I.g).nlink, 1);
		break;
	case OF_GONE:
		ck_assert(in_lost_found(I.x));
		ck_assert(leads(I.x, "in", I.g));
		break;
	case MUCH:
		ck_assert(leads(INO_ROOT, "d", I.d));
		ck_assert_uint_eq(inode_of(I.d).mode, S_IFDIR | 0700);
		ck_assert(leads(I.d, "e", I.e));
		ck_assert_uint_eq(inode_of(I.e).parent, I.d);
		ck_assert(leads(I.e, "g", I.g));
		ck_assert_uint_eq(inode_of(I.f).nlink, 2);
		ck_assert_uint_eq(inode_of(I.h).nlink, 2);
		break;
	default:
		break;
	}
}

START_TEST(mends)
{
	unsigned rounds;

	plant(cases[_i].how);
	ck_assert_msg(look() > 0, "%s", cases[_i].what);
	ck_assert_msg(F.text[0] == cases[_i].number || strstr(F.text,
	    (char[]){ '\n', cases[_i].number, ':', '\0' }) != NULL, "%s: %s",
	    cases[_i].what, F.text);
	if (cases[_i].unfixed > 0) {
		struct msg_repair_rep rep;
		struct inode before = inode_of(I.f);

		ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
		ck_assert_int_eq(rep.results.v[0].rc, -EEXIST);
		ck_assert_uint_eq(before.change, inode_of(I.f).change);
		return;
	}
	rounds = repair_all(cases[_i].what);
	ck_assert_msg(rounds == cases[_i].rounds, "%s: %u rounds", cases[_i].what,
	    rounds);
	expect(cases[_i].how);
}
END_TEST

/* ---- the tree changes between the look and the repair ---- */

static const struct {
	const char *what;
	enum what   how;
	int	    rc;			/* of the first fix; 1: any */
} races[] = {
	{ "the entry that led nowhere is another one", DANGLING, -ESTALE },
	{ "a name more", LINKS_HIGH, -ESTALE },
	{ "the lost one has got a name", ORPHAN, 1 },
	{ "the directory has moved", PARENT, -ESTALE },
	{ "one of its two names has gone", TWICE, 1 },
	{ "counts of a directory in use", SIZE, 0 },
	{ "the file has gone", NAMES_AND_ROW, -ESTALE },
};

static void
meanwhile(int what)
{
	struct msg_entry_rep r;

	switch (what) {
	case DANGLING:		/* cannot be by any call: the row is written over */
		plant_entry(I.d, "gone", I.h, S_IFREG);
		PLANT(I.h, nlink, ++);
		break;
	case LINKS_HIGH:
		ck_assert_int_eq(h_link(h, I.f, I.x, "f2", &r), 0);
		break;
	case ORPHAN:
		ck_assert_int_eq(h_link(h, I.f, I.x, "f2", &r), 0);
		break;
	case PARENT:
		ck_assert_int_eq(h_rename(h, I.d, "e", I.x, "e", 0, NULL), 0);
		break;
	case TWICE:
		ck_assert_int_eq(h_rename(h, I.d, "e", I.x, "moved", 0, NULL), 0);
		break;
	case SIZE:
		ck_assert_int_eq(h_create(h, I.d, "new", 0644, 0, &r), 0);
		ck_assert_int_eq(h_create(h, INO_ROOT, "new", 0644, 0, &r), 0);
		break;
	case NAMES_AND_ROW:
		lose_entry(INO_ROOT, "f");
		PLANT(INO_ROOT, size, --);
		inode_del(h->t, I.f);
		gc_del(h->t, I.f, GC_REMOVE);
		{
			struct op_counters c;

			ck_assert_int_eq(op_counters_get(h->t, &c), 0);
			c.inodes--;
			op_counters_put(h->t, &c);
		}
		break;
	default:
		break;
	}
}

START_TEST(raced)
{
	struct msg_repair_rep rep;

	plant(races[_i].how);
	look();
	meanwhile(races[_i].how);
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	if (races[_i].rc != 1)
		ck_assert_msg(rep.results.v[0].rc == races[_i].rc, "%s: %s",
		    races[_i].what, err_name(rep.results.v[0].rc));
	repair_all(races[_i].what);
	if (races[_i].how == ORPHAN) {
		ck_assert(leads(I.x, "f2", I.f));
		ck_assert(!in_lost_found(I.f));
	}
	if (races[_i].how == PARENT)
		ck_assert(leads(I.x, "e", I.e));
	if (races[_i].how == DANGLING)
		ck_assert(leads(I.d, "gone", I.h));
}
END_TEST

/* The same request again gives the same answer and changes nothing; so does another one
 * with the same rows. */
START_TEST(once)
{
	struct msg_repair_rep rep;
	uint8_t first[FS_RESULT_MAX];
	struct inode in;
	size_t n;

	plant(COUNT);
	plant(LINKS_HIGH);
	look();
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	memcpy(first, h->result, n = h->result_len);
	in = inode_of(I.f);
	h_apply(h);			/* the counter is not idempotent by itself */
	ck_assert_uint_eq(h->result_len, n);
	ck_assert_mem_eq(h->result, first, n);
	ck_assert_uint_eq(look(), 0);
	ck_assert_uint_eq(inode_of(I.f).change, in.change);
	look();
	plant(LINKS_HIGH);
	look();
	in = inode_of(I.f);
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	ck_assert_uint_eq(inode_of(I.f).change, in.change + 1);
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	ck_assert_uint_eq(inode_of(I.f).change, in.change + 1);
}
END_TEST

/* Found in an image from before the repair: the number of inodes is not raised twice. */
START_TEST(old_image)
{
	struct msg_repair_rep rep;

	plant(COUNT);
	look();
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	ck_assert_int_eq(rep.results.v[0].rc, 0);
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	ck_assert_int_eq(rep.results.v[0].rc, -ESTALE);
	ck_assert_uint_eq(look(), 0);
	plant(COUNT);
	repair_all("again");
}
END_TEST

START_TEST(who_may)
{
	struct msg_repair_row rows[META_REPAIRS_MAX + 1] = { { .what = 99 } };
	struct msg_repair_rep rep;

	ck_assert_int_eq(repair(rows, META_REPAIRS_MAX + 1, &rep), -EINVAL);
	ck_assert_int_eq(repair(rows, 0, &rep), -EINVAL);
	ck_assert_int_eq(repair(rows, 1, &rep), 0);
	ck_assert_int_eq(rep.results.v[0].rc, -EINVAL);
	h_who(h, 1000, 1000);
	ck_assert_int_eq(repair(rows, 1, &rep), -EPERM);
	h_who(h, 0, 0);
	/* Somebody else made it, and may look into it. */
	h_mkdir(h, INO_ROOT, "lost+found", 0755, NULL);
	plant(ORPHAN);
	look();
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	ck_assert_int_eq(rep.results.v[0].rc, 0);	/* size of the root */
	ck_assert_int_eq(rep.results.v[1].rc, -EPERM);
	h_rename(h, INO_ROOT, "lost+found", INO_ROOT, "theirs", 0, NULL);
	repair_all("the name is free");
}
END_TEST

/* ---- what is worked out by one is written by all ---- */

/* The next row of a command. */
static bool
next_told(struct bytes_reader *r, const void **key, size_t *n, const void **value, size_t *len)
{
	uint32_t value_len;

	if (bytes_left(r) == 0)
		return false;
	*n = bytes_get_u16(r);
	value_len = bytes_get_u32(r);
	*key = bytes_get_raw(r, *n);
	*len = value_len == UINT32_MAX ? 0 : value_len;
	*value = value_len == UINT32_MAX ? NULL : bytes_get_raw(r, *len);
	ck_assert(!r->failed);
	return true;
}

static void
told_of(const struct harness *from, struct bytes_reader *r)
{
	bytes_reader_init(r, from->bytes, (size_t)from->len);
	(void)bytes_get_raw(r, FS_HEAD_LEN + 40);
	(void)bytes_get_raw(r, bytes_get_u32(r));
}

/* Whatever has become of the rows of one member, it ends with the same. */
START_TEST(as_told)
{
	static struct harness other;
	const void *key, *value, *there;
	size_t n, len, there_len;
	struct bytes_reader r;
	struct msg_repair q = { .rows = { F.fixes, 0 } };

	h = &other;
	setup();
	plant(cases[_i].how);
	h = &H;
	plant(cases[_i].how);
	look();
	q.ctx = h_ctx(h, true);
	q.rows.n = F.n;
	h->len = fs_cmd_repair(h->fs, &q, 7, h->wall, h->clock, h->bytes, sizeof(h->bytes));
	ck_assert_int_gt(h->len, 0);
	memcpy(other.bytes, h->bytes, (size_t)h->len);
	other.len = h->len;
	told_of(h, &r);
	for (unsigned i = 0; next_told(&r, &key, &n, &value, &len); i++)
		if (i % 2 == 0)
			table_put(other.t, key, n, "?", 1);
		else
			table_del(other.t, key, n);
	fs_at(h->fs, 8);
	h_apply(h);
	fs_at(other.fs, 8);
	h_apply(&other);
	ck_assert_uint_eq(other.result_len, h->result_len);
	ck_assert_mem_eq(other.result, h->result, h->result_len);
	told_of(h, &r);
	while (next_told(&r, &key, &n, &value, &len)) {
		ck_assert_int_eq(table_get(other.t, key, n, &there, &there_len),
		    value == NULL ? -ENOENT : 0);
		if (value != NULL) {
			ck_assert_uint_eq(there_len, len);
			ck_assert_mem_eq(there, value, len);
		}
	}
	/* It is the next one, or none. */
	h->len = fs_cmd_repair(h->fs, &q, 7, h->wall, h->clock, h->bytes, sizeof(h->bytes));
	fs_at(h->fs, 9);
	h_apply(h);
	ck_assert_int_eq(h->res.rc, -EAGAIN);
	h = &other;
	teardown();
	h = &H;
}
END_TEST

/* All names that come to mind are taken. */
START_TEST(names_taken)
{
	struct msg_entry_rep r;
	char name[32];

	h_mkdir(h, INO_ROOT, "lost+found", 0700, &r);
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), i == 0 ? "#%u" : "#%u.%u", (unsigned)I.d, i);
		h_create(h, r.attr.ino, name, 0600, 0, NULL);
		snprintf(name, sizeof(name), i == 0 ? "#%u" : "#%u.%u", (unsigned)I.f, i);
		h_create(h, r.attr.ino, name, 0600, 0, NULL);
	}
	plant(_i == 0 ? LOOP : ORPHAN);
	repair_all("names are taken");
	if (_i == 0)
		ck_assert_uint_eq(inode_of(I.d).parent, r.attr.ino);
	ck_assert_uint_eq(inode_of(r.attr.ino).size, 25);
}
END_TEST

/* A directory too large to be counted in one command. */
START_TEST(large)
{
	struct msg_repair_rep rep;
	unsigned n;

	for (unsigned i = 0; i < 17000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%u", i);
		ck_assert_int_eq(h_create(h, I.x, name, 0644, 0, NULL), 0);
	}
	PLANT(I.x, size, = 5);
	plant(SIZE);
	look();
	/* First what is counted from there, which leaves too little for the large one. */
	ck_assert_uint_eq(n = F.n, 3);
	ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
	ck_assert_int_eq(rep.results.v[0].rc, 0);
	ck_assert_int_eq(rep.results.v[2].rc, -EAGAIN);
	h_create(h, I.x, "new", 0644, 0, NULL);
	ck_assert_int_eq(repair(&F.fixes[2], 1, &rep), 0);
	ck_assert_int_eq(rep.results.v[0].rc, -ESTALE);	/* what was counted is old */
	ck_assert_uint_eq(repair_all("large"), 1);
	ck_assert_uint_eq(inode_of(I.x).size, 17001);
}
END_TEST

/* An inode that does not parse is one fault; all that is around it is right. */
START_TEST(one_bad_inode)
{
	const ino_id inos[] = { I.f, I.d, I.e, I.g, I.l, I.h, I.x };
	uint8_t k[KEY_INO_LEN];
	char text[64];

	table_put(h->t, k, key_ino(k, KEY_INODE, inos[_i]), "?", 1);
	look();
	snprintf(text, sizeof(text), "1: inode row of %u\n", (unsigned)inos[_i]);
	ck_assert_str_eq(F.text, text);
	ck_assert_uint_eq(F.unfixed, 1);
}
END_TEST

/* Calls that run into such rows are told so, and the file system goes on. */
START_TEST(in_the_way)
{
	struct msg_entry_rep r;

	plant(DANGLING);
	plant(LINKS_ZERO);
	ck_assert_int_eq(h_lookup(h, I.d, "gone", &r), -EUCLEAN);
	ck_assert_int_eq(h_remove(h, MSG_unlink, I.d, "gone", NULL), -EUCLEAN);
	ck_assert_int_eq(h_rename(h, I.d, "gone", I.x, "a", 0, NULL), -EUCLEAN);
	ck_assert_int_eq(h_create(h, I.d, "gone", 0644, 0, NULL), -EUCLEAN);
	ck_assert_int_eq(h_remove(h, MSG_unlink, INO_ROOT, "f", NULL), -EUCLEAN);
	ck_assert_int_eq(h_rename(h, INO_ROOT, "f", I.x, "a", 0, NULL), -EUCLEAN);
	PLANT(I.d, size, = 0);
	ck_assert_int_eq(h_remove(h, MSG_unlink, I.d, "h2", NULL), -EUCLEAN);
	ck_assert_int_eq(h_remove(h, MSG_rmdir, INO_ROOT, "d", NULL), -ENOTEMPTY);
	ck_assert_int_eq(h_rename(h, INO_ROOT, "x", INO_ROOT, "d", 0, NULL),
	    -ENOTEMPTY);
	PLANT(INO_ROOT, nlink, = 2);
	ck_assert_int_eq(h_remove(h, MSG_rmdir, INO_ROOT, "x", NULL), -EUCLEAN);
	plant(LOOP_SELF);
	ck_assert_int_eq(h_rename(h, INO_ROOT, "l", I.x, "x", 0, NULL), -EISDIR);
	plant_entry(I.x, "y", I.d, S_IFDIR);
	ck_assert_int_eq(h_rename(h, I.x, "y", INO_ROOT, "y", 0, NULL), -EUCLEAN);
	h->len = fs_cmd_gc_done(9, &(struct gc_row){ .ino = 900, .kind = GC_REMOVE }, 1,
	    h->bytes, sizeof(h->bytes));
	plant(GC_NOBODY);
	h_apply(h);
	repair_all("all of it");
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("planted");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, mends, 0, (int)(sizeof(cases) / sizeof(*cases)));
	tcase_add_loop_test(t, raced, 0, (int)(sizeof(races) / sizeof(*races)));
	tcase_add_loop_test(t, as_told, 0, (int)(sizeof(cases) / sizeof(*cases)));
	tcase_add_test(t, once);
	tcase_add_test(t, old_image);
	tcase_add_test(t, who_may);
	tcase_add_loop_test(t, names_taken, 0, 2);
	tcase_add_test(t, large);
	tcase_add_loop_test(t, one_bad_inode, 0, 7);
	tcase_add_test(t, in_the_way);
	return suite_run("meta_repair", t);
}
