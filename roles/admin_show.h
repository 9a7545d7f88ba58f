/* SPDX-License-Identifier: MIT */
/* admin_show.h - answers of the manager as tables of text, or as JSON. */
#ifndef ROLES_ADMIN_SHOW_H
#define ROLES_ADMIN_SHOW_H

#include <stdbool.h>
#include <stdio.h>

#include "net/msg_manager.h"
#include "roles/admin_rdma.h"

/* What a command asked for; NULL what it did not. */
struct admin_facts {
	const struct msg_routing_rep *routing;
	const struct msg_status_rep  *status;
	const struct msg_clients_rep *clients;
	const struct msg_managers_rep *managers;
};

/* As a JSON string. */
void	admin_show_string(FILE *to, const char *text);

void	admin_show_nodes(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_disks(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_targets(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_chains(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_tables(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_clients(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_managers(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_metadata(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_space(FILE *to, const struct admin_facts *f, bool json);
void	admin_show_rdma(FILE *to, const struct admin_rdma *r, bool json);

#endif
