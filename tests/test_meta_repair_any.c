/* SPDX-License-Identifier: MIT */
/* test_meta_repair_any.c - anything is planted, in any order, while the tree is used: all that
 * can be mended is in the end, and requests of somebody who has seen another tree do no
 * harm. */
#include "tests/meta_repair_rig.h"
#include "tests/suite.h"

#define SEEDS	300
#define NODES	40u
#define HITS	6u

static ino_id
any(void)
{
	return INO_ROOT + rand_below(&h->rand, NODES);
}

static const char *
any_name(void)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h" };

	return names[rand_below(&h->rand, 8)];
}

static void
use(bool unlink)
{
	struct msg_entry_rep r;
	ino_id at = any();

	switch (rand_below(&h->rand, unlink ? 8 : 6)) {
	case 0:
		h_mkdir(h, at, any_name(), 0755, &r);
		break;
	case 1:
	case 2:
		h_create(h, at, any_name(), 0644, O_RDWR, &r);
		break;
	case 3:
		h_link(h, any(), at, any_name(), &r);
		break;
	case 4:
		h_symlink(h, at, any_name(), "to", &r);
		break;
	case 5:
		h_rename(h, at, any_name(), any(), any_name(),
		    unlink ? 0 : RENAME_EXCHANGE, NULL);
		break;
	case 6:
		h_remove(h, MSG_unlink, at, any_name(), NULL);
		break;
	default:
		h_remove(h, MSG_rmdir, at, any_name(), NULL);
		break;
	}
}

static void
hit(void)
{
	static const uint32_t types[] = { S_IFREG, S_IFDIR, S_IFLNK };
	struct inode in;
	struct op_counters c;

	if (inode_get(h->t, any(), &in) != 0)
		return;
	switch (rand_below(&h->rand, 12)) {
	case 0:
		inode_del(h->t, in.ino);
		return;
	case 1:
	case 2:
		lose_entry(in.ino, any_name());
		return;
	case 3:
	case 4:
		plant_entry(in.ino, any_name(), any(), types[rand_below(&h->rand, 3)]);
		return;
	case 5:
		in.nlink = rand_below(&h->rand, 4);
		break;
	case 6:
		in.size = rand_below(&h->rand, 4);
		break;
	case 7:
		in.parent = S_ISDIR(in.mode) ? any() : 0;
		break;
	case 8:
		in.epoch = rand_below(&h->rand, 3);
		in.settled = rand_below(&h->rand, 3);
		break;
	case 9:
		gc_put(h->t, &(struct gc_row){ .ino = in.ino, .epoch =
			rand_below(&h->rand, 3), .kind = 1 + rand_below(&h->rand, 2) });
		return;
	case 10:
		plant_hash(in.ino, rand_below(&h->rand, 99), any_name(), any(), S_IFREG);
		return;
	default:
		ck_assert_int_eq(op_counters_get(h->t, &c), 0);
		c.inodes += rand_below(&h->rand, 9);
		op_counters_put(h->t, &c);
		return;
	}
	inode_put(h->t, &in);
}

/* What is done about a place that is taken: it is left to the operator, who renames. */
static void
free_places(void)
{
	for (unsigned i = 0; i < F.n; i++)
		if (F.fixes[i].what == META_REPAIR_KEY) {
			uint8_t k[KEY_LEN_MAX];

			table_del(h->t, k, key_dirent(k, F.fixes[i].parent,
			    F.fixes[i].hash, F.fixes[i].name.p,
			    F.fixes[i].name.n));
		}
}

/* Requests of somebody who has seen nothing, or another tree: a whole one stays whole. */
START_TEST(any_request)
{
	uint64_t inodes;

	rand_seed(&h->rand, (uint64_t)_i + 1);
	for (unsigned i = 0; i < 100; i++)
		use(true);
	h_check(h);
	ck_assert_int_eq(fs_inodes(h->fs, &inodes), 0);
	for (unsigned i = 0; i < 200; i++) {
		const char *name = any_name(), *keep = any_name();
		struct msg_repair_row row = {
			.what = (uint8_t)rand_below(&h->rand, 17), .ino = any(),
			.parent = any(), .hash = rand_below(&h->rand, 3) == 0 ?
			    rand_u64(&h->rand) : key_hash(name, strlen(name)),
			.name = msg_str(name), .keep = msg_str(keep),
			.change = 1000 + rand_below(&h->rand, 99),
			.value = rand_below(&h->rand, 3) == 0 ? UINT64_MAX : any(),
			.subdirs = (int64_t)rand_u64(&h->rand),
		};
		struct msg_repair_rep rep;

		if (rand_below(&h->rand, 8) == 0)
			row.ino = rand_u64(&h->rand);
		ck_assert_int_eq(repair(&row, 1, &rep), 0);
		h_check(h);
	}
	/* The next number is as good as it was. */
	ck_assert_int_eq(h_create(h, INO_ROOT, "last", 0644, 0, NULL), 0);
	h_check(h);
}
END_TEST

START_TEST(any_damage)
{
	bool unlink = _i % 2;
	bool there[NODES + 1] = { false };
	struct msg_repair_rep rep;

	rand_seed(&h->rand, (uint64_t)_i + 1);
	for (unsigned i = 0; i < 200; i++)
		use(true);
	h_check(h);
	for (unsigned i = 0; i < HITS; i++)
		hit();
	if (inode_get(h->t, INO_ROOT, &(struct inode){ 0 }) == 0)
		for (ino_id i = 1; i <= NODES; i++)
			there[i] = inode_get(h->t, i, &(struct inode){ 0 }) == 0;
	for (unsigned round = 0; look() > 0; round++) {
		ck_assert_msg(round < 12, "seed %d:\n%s", _i + 1, F.text);
		/* Symlinks that have lost their target, which nothing brings back. */
		if (F.n == 0)
			break;
		if (round < 4)
			for (unsigned i = 0; i < 5; i++)
				use(unlink);
		if (rand_below(&h->rand, 4) == 0)
			F.n = 1 + rand_below(&h->rand, F.n);
		ck_assert_int_eq(repair(F.fixes, F.n, &rep), 0);
		if (round == 6)
			free_places();
	}
	for (ino_id i = 1; !unlink && i <= NODES; i++)
		ck_assert_msg(!there[i] || inode_get(h->t, i,
		    &(struct inode){ 0 }) == 0, "seed %d: lost %d", _i + 1, (int)i);
	ck_assert_msg(F.faults == F.unfixed, "seed %d:\n%s", _i + 1, F.text);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("any");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, any_request, 0, 20);
	tcase_add_loop_test(t, any_damage, 0, SEEDS);
	return suite_run("meta_repair_any", t);
}
