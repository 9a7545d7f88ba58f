/* SPDX-License-Identifier: MIT */
/* test_metadata.c - what the metadata role answers: retries, truncations, removals, sessions. */
#include "meta/dirent.h"
#include "tests/metadata_rig.h"

START_TEST(create_and_retry)
{
	struct ask *a = create(1, "f", 7), *b;
	ino_id ino = entry(a)->attr.ino;

	ck_assert_uint_eq(entry(a)->attr.stripe, 3);
	ck_assert_uint_eq(entry(a)->attr.chunk_shift, 20);
	W.seq[1]--;
	b = create(1, "f", 7);
	ck_assert_uint_eq(entry(b)->attr.ino, ino);
	ck_assert_uint_eq(entry(b)->created, 1);
	ck_assert_uint_eq(entry(lookup(1, "f"))->attr.ino, ino);
	ck_assert_int_eq(await(lookup(1, "g")), -ENOENT);
	ck_assert_uint_eq((uintptr_t)map_get(&W.m->sessions.opens, ino), 1);
	kill_role();
	start();
	W.seq[1]--;
	b = create(1, "f", 7);
	ck_assert_uint_eq(entry(b)->attr.ino, ino);
	ck_assert(metadata_session_is_open(W.m, ino));
}
END_TEST

START_TEST(who_may_ask)
{
	struct msg_lookup q = { ctx(0, false), INO_ROOT, msg_str("f") };
	struct msg_create c = { ctx(1, false), INO_ROOT, msg_str("f"), 0644, 0, 1 };

	q.ctx.client = (struct uid128){ { 0 } };
	ck_assert_int_eq(await(ask(MSG_lookup, &q)), -EINVAL);
	ck_assert_int_eq(await(ask(MSG_create, &c)), -EINVAL);
	q.ctx.client.b[0] = 1;
	q.ctx.groups.n = META_GROUPS_MAX + 1;
	ck_assert_int_eq(await(ask(MSG_lookup, &q)), -EINVAL);
	metadata_lead(W.m, false);
	ck_assert_int_eq(await(lookup(1, "f")), ERR_NOT_LEADER);
}
END_TEST

/* The answer to a truncation comes behind all cuts; so does what depends on it. */
START_TEST(truncation_waits)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *t, *g, *o, *l;

	ck_assert_uint_eq(entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0))->attr.size,
	    3 << 20);
	W.mute = true;
	W.fail = 2;
	t = truncate_file(1, ino, (1 << 20) + 5);
	run_ms(10);
	g = getattr(1, ino);
	o = open_file(1, ino, O_WRONLY, 8);
	l = lookup(1, "f");
	run_ms(100);
	ck_assert(!t->answered && !g->answered && !o->answered);
	ck_assert_uint_eq(entry(l)->attr.epoch, 0);
	ck_assert_uint_eq(entry(l)->attr.size, (1 << 20) + 5);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_uint_eq(W.cut.index, 1);
	ck_assert_uint_eq(W.cut.keep, 5);
	ck_assert_uint_eq(W.cut.epoch, 1);
	W.mute = false;
	ck_assert_uint_eq(entry(t)->attr.epoch, 1);
	ck_assert_uint_eq(entry(g)->attr.epoch, 1);
	ck_assert_uint_eq(entry(o)->attr.epoch, 1);
	ck_assert_uint_eq(W.cuts, 5);		/* two of them twice */
	ck_assert_uint_ge(W.refreshes, 2);
}
END_TEST

/* A second truncation while the first is being cut: one job more, then both answers. */
START_TEST(truncation_overtaken)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *a, *b;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	W.mute = true;
	a = truncate_file(1, ino, 2 << 20);
	run_ms(20);
	b = truncate_file(1, ino, 1 << 20);
	run_ms(20);
	W.mute = false;
	ck_assert_uint_eq(entry(a)->attr.epoch, 1);
	ck_assert_uint_eq(entry(b)->attr.epoch, 2);
	ck_assert_uint_eq(W.cuts, 6);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.size, 1 << 20);
}
END_TEST

/* Storage is away for long: callers are answered at their deadlines, the work goes on. */
START_TEST(truncation_outlives_callers)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *a;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	W.fail = 100000;
	a = truncate_file(1, ino, 5);
	run_ms(6000);
	ck_assert(a->answered);
	ck_assert_int_eq(a->rc, ERR_BUSY);
	kill_role();
	start();
	run_ms(1000);
	W.fail = 0;
	W.seq[1]--;
	a = truncate_file(1, ino, 5);
	ck_assert_uint_eq(entry(a)->attr.epoch, 1);
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.epoch, 1);
}
END_TEST

START_TEST(removal)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct inode in;

	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 0);		/* it is open */
	ck_assert_uint_eq(entry(getattr(1, ino))->attr.nlink, 0);
	ck_assert_int_eq(await(open_file(1, ino, O_RDONLY, 8)), 0);
	ck_assert_int_eq(await(settle(1, MSG_close, ino, 7, 0, 0)), 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 0);
	ck_assert_int_eq(await(settle(1, MSG_close, ino, 8, 9, 0)), 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_uint_eq(W.cut.epoch, UINT32_MAX);
	ck_assert_uint_eq(W.cut.index, 0);
	ck_assert_uint_eq(W.cut.keep, 0);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
	ck_assert_int_eq(await(open_file(1, ino, O_RDONLY, 9)), -ESTALE);
	ck_assert_int_eq(await(settle(1, MSG_close, ino, 9, 0, 0)), -ESTALE);
}
END_TEST

/* Operators may want time in which what was removed is still on the disks. */
START_TEST(removal_may_be_put_off)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct inode in;

	W.conf.metadata_gc_delay = 5000;
	entry(settle(1, MSG_close, ino, 7, 9, 0));
	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(4900);
	ck_assert_uint_eq(W.cuts, 0);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
}
END_TEST

/* What is being removed cannot be opened any more, by no way. */
START_TEST(no_open_beside_removal)
{
	ino_id ino = entry(create(1, "f", 0))->attr.ino;
	struct msg_open_row row = { ino, 70 };

	W.mute = true;
	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(100);
	ck_assert_uint_eq(W.cuts, 3);
	ck_assert_int_eq(await(open_file(1, ino, O_RDONLY, 9)), -ESTALE);
	ck_assert_int_eq(await(open_file(1, ino, O_RDWR | O_TRUNC, 10)), -ESTALE);
	session(1, 0, &row, 1, false);
	ck_assert(!metadata_session_is_open(W.m, ino));
	W.mute = false;
	run_ms(100);
}
END_TEST

static void
plant_name(ino_id ino, const char *name)
{
	struct table *tab = group_table(W.m->group);
	struct msg_str s = msg_str(name);
	struct inode root;

	ck_assert_int_eq(inode_get(tab, INO_ROOT, &root), 0);
	root.size++;
	ck_assert_int_eq(inode_put(tab, &root), 0);
	ck_assert_int_eq(dirent_put(tab, INO_ROOT, &s, ino, S_IFREG), 0);
}

static struct ask *
give_links(ino_id ino, struct msg_repair_row *row)
{
	struct msg_repair q = { .ctx = ctx(2, true), .rows = { row, 1 } };
	struct inode in;

	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), 0);
	*row = (struct msg_repair_row){ .what = META_REPAIR_LINKS, .ino = ino,
		.change = in.change, .value = 1 };
	return ask(MSG_repair, &q);
}

/* A file whose chunks are being removed does not get its name back. */
START_TEST(no_repair_beside_removal)
{
	ino_id ino = entry(create(1, "f", 0))->attr.ino;
	struct msg_repair_row row;
	struct msg_name f2 = { ctx(1, true), INO_ROOT, msg_str("f2") };

	W.mute = true;
	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(100);
	ck_assert_uint_eq(W.cuts, 3);
	plant_name(ino, "f2");
	ck_assert_int_eq(await(give_links(ino, &row)), 0);
	ck_assert_int_eq(W.repaired, -EBUSY);
	W.mute = false;
	run_ms(100);
	ck_assert_int_eq(await(lookup(1, "f2")), -EUCLEAN);
	row = (struct msg_repair_row){ .what = META_REPAIR_ENTRY, .ino = ino,
		.parent = INO_ROOT, .hash = key_hash("f2", 2), .name = f2.name };
	ck_assert_int_eq(await(ask(MSG_repair, &(struct msg_repair){
		.ctx = ctx(2, true), .rows = { &row, 1 } })), 0);
	ck_assert_int_eq(W.repaired, 0);
}
END_TEST

/* And no removal begins while a name may be on its way. */
START_TEST(no_removal_beside_repair)
{
	ino_id ino = entry(create(1, "f", 0))->attr.ino;
	struct table *tab = group_table(W.m->group);
	struct msg_repair_row row;
	struct inode in;
	struct ask *a;

	ck_assert_int_eq(await(give_links(ino, &row)), 0);	/* client 2 is known */
	ck_assert_int_eq(inode_get(tab, ino, &in), 0);
	in.nlink = 0;
	inode_put(tab, &in);
	gc_put(tab, &(struct gc_row){ .ino = ino, .kind = GC_REMOVE,
		.epoch = GC_EPOCH_GONE });
	a = give_links(ino, &row);
	metadata_gc_look(W.m, ino);
	ck_assert_int_eq(await(a), 0);
	ck_assert_int_eq(W.repaired, 0);
	run_ms(1000);
	ck_assert_uint_eq(W.cuts, 0);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), 0);
	ck_assert_uint_eq(in.nlink, 1);
	/* A removal that a repair has made is done. */
	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(1000);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
}
END_TEST

START_TEST(never_written_needs_no_storage)
{
	struct msg_mknod q = { ctx(1, true), INO_ROOT, msg_str("n"), 0644, 0 };
	ino_id ino = entry(ask(MSG_mknod, &q))->attr.ino;
	struct inode in;

	ck_assert_int_eq(await(unlink_file(1, "n")), 0);
	run_ms(100);
	ck_assert_uint_eq(W.cuts, 0);
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
}
END_TEST

START_TEST(many_removals)
{
	static char names[600][16];
	uint64_t inodes;

	for (unsigned i = 0; i < 600; i++) {
		snprintf(names[i], sizeof(names[i]), "f%u", i);
		entry(create(1, names[i], 0));
	}
	W.fail = 300;
	for (unsigned i = 0; i < 600; i++)
		ck_assert_int_eq(await(unlink_file(1, names[i])), 0);
	run_ms(30000);
	ck_assert_int_eq(fs_inodes(W.m->fs, &inodes), 0);
	ck_assert_uint_eq(inodes, 1);
	ck_assert_uint_eq(W.cuts, 1800 + 300);
	ck_assert_uint_eq(W.m->sessions.opens.n, 0);
}
END_TEST

START_TEST(dead_clients_lose_their_opens)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	ino_id other = entry(create(1, "g", 8))->attr.ino;
	struct msg_open_row rows[] = { { ino, 7 }, { other, 8 } };
	struct msg_session_rep s = session(1, 0, NULL, 0, false), again;
	struct inode in;

	await(unlink_file(1, "f"));
	run_ms(W.conf.metadata_session + 1000);
	ck_assert(metadata_session_is_open(W.m, ino));	/* grace */
	ck_assert_uint_eq(W.m->sessions.live_n, 0);
	run_ms(W.conf.metadata_session + 1000);
	ck_assert(!metadata_session_is_open(W.m, ino));
	ck_assert_int_eq(fs_inode(W.m->fs, ino, &in), -ENOENT);
	ck_assert_uint_eq(s.ended, 0);
	again = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_ne(again.epoch, s.epoch);
	ck_assert_uint_eq(again.ended, 1);
	/* the answer may have been lost: it is said again */
	again = session(1, s.epoch, NULL, 0, false);
	ck_assert_uint_eq(again.ended, 1);
	again = session(1, again.epoch, rows, 2, false);
	ck_assert_uint_eq(again.gone.n, 1);
	ck_assert(metadata_session_is_open(W.m, other));
	/* Its records stay for a while, in case it tries something again. */
	W.seq[1]--;
	ck_assert_int_eq(await(unlink_file(1, "f")), 0);
	run_ms(1000 * 700);
	ck_assert_uint_eq(W.m->sessions.n, 0);
	run_ms(1000 * 700);
	W.seq[1]--;
	ck_assert_int_eq(await(unlink_file(1, "f")), -ENOENT);
}
END_TEST

static void
other_group(void)
{
	struct routing_group row = *routing_group(W.routing, 1);

	row.group.b[3] ^= 1;
	row.changed = routing_version(W.routing) + 1;
	ck_assert_int_eq(routing_put_group(W.routing, &row), 0);
	W.member.conf.changed(W.member.conf.ctx);
}

/* Who serves nobody for a time can have heard nobody: sessions begin anew when it does again. */
START_TEST(unheard_clients_keep_their_sessions)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	uint64_t session_ms = W.conf.metadata_session;

	session(1, session(1, 0, NULL, 0, false).epoch, NULL, 0, false);
	other_group();
	run_ms(3 * session_ms);
	ck_assert_int_eq(await(lookup(2, "f")), ERR_NO_LEASE);
	ck_assert(metadata_session_is_open(W.m, ino));
	other_group();				/* its own again */
	await(lookup(2, "f"));
	run_ms(2 * session_ms - 1000);
	ck_assert(metadata_session_is_open(W.m, ino));
	run_ms(2000);
	ck_assert(!metadata_session_is_open(W.m, ino));
}
END_TEST

/* A client whose session has ended asks for things before it has told its opens. */
START_TEST(truncation_before_opens_are_told)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct msg_session_rep s = session(1, 0, NULL, 0, false);

	session(1, s.epoch, NULL, 0, false);
	run_ms(2 * W.conf.metadata_session + 1000);
	ck_assert(!metadata_session_is_open(W.m, ino));
	/* It has written, and not reported that yet. */
	entry(truncate_file(1, ino, 1 << 20));
	ck_assert_uint_eq(W.cuts, 3);
	s = session(1, s.epoch, NULL, 0, false);
	session(1, s.epoch, NULL, 0, false);
	entry(truncate_file(1, ino, 1 << 20));
	ck_assert_uint_eq(W.cuts, 3);
}
END_TEST

/* Copies may be kept by a lone client; a second one waits until they have run out. */
START_TEST(second_client_waits)
{
	uint64_t ttl = W.conf.metadata_cache_ttl;
	struct ask *a, *b, *c;

	ck_assert_uint_eq(entry(getattr(1, INO_ROOT))->ttl_ms, 0);
	entry(create(1, "f", 0));		/* by now it is the holder */
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, ttl);
	run_ms(ttl / 2);
	b = lookup(2, "f");
	c = create(2, "g", 0);
	a = lookup(1, "f");
	ck_assert_uint_eq(entry(a)->ttl_ms, 0);
	run_ms(ttl / 2 + ttl / 8 - 20);		/* clocks may differ */
	ck_assert(!b->answered && !c->answered);
	run_ms(30);
	ck_assert(b->answered && c->answered);
	ck_assert_uint_eq(entry(b)->ttl_ms, 0);
	ck_assert_uint_eq(entry(lookup(2, "f"))->ttl_ms, 0);
	session(2, 0, NULL, 0, true);
	run_ms(10);
	entry(lookup(1, "f"));
	run_ms(10);
	ck_assert_uint_eq(entry(lookup(1, "f"))->ttl_ms, ttl);
}
END_TEST

START_TEST(old_epochs_ask_storage)
{
	ino_id ino = entry(create(1, "f", 7))->attr.ino;
	struct ask *a;

	entry(settle(1, MSG_sync, ino, 0, 3 << 20, 0));
	entry(truncate_file(1, ino, 100));
	W.end = 700;
	a = settle(1, MSG_close, ino, 7, 9 << 20, 0);
	ck_assert_uint_eq(entry(a)->attr.size, 700);
	ck_assert_uint_eq(entry(a)->attr.epoch, 1);
	ck_assert_uint_eq(W.lasts, 3);
	ck_assert(!metadata_session_is_open(W.m, ino));
	/* A truncation that is being cut comes first. */
	W.mute = true;
	truncate_file(1, ino, 10);
	run_ms(20);
	a = settle(1, MSG_sync, ino, 0, 9 << 20, 1);
	run_ms(100);
	ck_assert_uint_eq(W.lasts, 3);
	W.end = 10;
	W.mute = false;
	ck_assert_uint_eq(entry(a)->attr.size, 10);
	ck_assert_uint_eq(W.lasts, 6);
	/* Storage does not answer: the caller tries again. */
	W.fail = 100000;
	a = settle(1, MSG_sync, ino, 0, 9 << 20, 1);
	ck_assert_int_eq(await(a), ERR_BUSY);
	ck_assert_uint_eq(W.m->settles, 0);
	W.fail = 0;
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("metadata");
	TCase *t = tcase_create("role");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 0);
	tcase_add_test(t, create_and_retry);
	tcase_add_test(t, who_may_ask);
	tcase_add_test(t, truncation_waits);
	tcase_add_test(t, truncation_overtaken);
	tcase_add_test(t, truncation_outlives_callers);
	tcase_add_test(t, removal);
	tcase_add_test(t, removal_may_be_put_off);
	tcase_add_test(t, no_open_beside_removal);
	tcase_add_test(t, no_repair_beside_removal);
	tcase_add_test(t, no_removal_beside_repair);
	tcase_add_test(t, never_written_needs_no_storage);
	tcase_add_test(t, many_removals);
	tcase_add_test(t, dead_clients_lose_their_opens);
	tcase_add_test(t, unheard_clients_keep_their_sessions);
	tcase_add_test(t, truncation_before_opens_are_told);
	tcase_add_test(t, second_client_waits);
	tcase_add_test(t, old_epochs_ask_storage);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_set_fork_status(sr, CK_NOFORK);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
