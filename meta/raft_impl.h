/* SPDX-License-Identifier: MIT */
/* raft_impl.h - between the files of the Raft core; nobody else includes it. */
#ifndef META_RAFT_IMPL_H
#define META_RAFT_IMPL_H

#include "meta/raft.h"

/* ---- raft_members.c ---- */
/* @to is one change of one member away from @from, or only addresses are. */
bool	raft_members_step(const struct raft_members *from, const struct raft_members *to);

#endif
