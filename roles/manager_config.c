/* SPDX-License-Identifier: MIT */
/* manager_config.c - option sets per role: checked before they are taken, versioned. */
#include "roles/manager_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

static const char *const set_names[SET_N] = {
	[SET_MANAGER] = "manager", [SET_METADATA] = "metadata",
	[SET_STORAGE] = "storage", [SET_CLIENT] = "client",
};

static int
find(const struct msg_str *role)
{
	for (int i = 0; i < SET_N; i++)
		if (strlen(set_names[i]) == role->n &&
		    memcmp(set_names[i], role->p, role->n) == 0)
			return i;
	return -ENOENT;
}

static void
reply(struct manager *m, struct net_req *req, int set)
{
	struct msg_config_rep rep = { .version = m->state.config_versions[set] };

	if (m->state.config_texts[set] != NULL)
		rep.text = msg_str(m->state.config_texts[set]);
	net_reply(req, 0, &rep, NULL, 0, NULL, NULL);
}

void
manager_config_get(struct manager *m, struct net_req *req)
{
	const struct msg_config_get *q = req->msg;
	int set = find(&q->role);

	if (set < 0)
		net_reply(req, set, NULL, NULL, 0, NULL, NULL);
	else
		reply(m, req, set);
}

static void
set_done(struct manager_call *c, int rc, uint64_t value)
{
	const struct msg_config_set *q = c->req->msg;

	if (rc != 0) {
		net_reply(c->req, rc, NULL, NULL, 0, NULL, NULL);
		return;
	}
	log_info(&c->m->env.log, "options changed", "role=%.*s version=%" PRIu64,
	    (int)q->role.n, q->role.p, value);
	reply(c->m, c->req, find(&q->role));
}

/* The text must be what fsd.conf may hold, on top of the defaults. */
static int
check(struct manager *m, const struct msg_config_set *q)
{
	char err[CONF_ERR_MAX];
	struct conf c;
	int rc;

	if (q->text.n > MANAGER_CONFIG_MAX)
		return -EMSGSIZE;
	if (q->text.n > 0 && memchr(q->text.p, '\0', q->text.n) != NULL)
		return ERR_CONFIG;
	if ((rc = conf_init(&c)) != 0)
		return rc;
	rc = conf_parse(&c, "options", q->text.p, q->text.n, err);
	conf_fini(&c);
	if (rc != 0)
		log_warn(&m->env.log, "options refused", "reason=\"%s\"", err);
	return rc;
}

void
manager_config_set(struct manager *m, struct net_req *req)
{
	const struct msg_config_set *q = req->msg;
	struct bytes_writer w;
	uint8_t *buf = NULL;
	int set = find(&q->role), rc;

	if ((rc = set < 0 ? set : check(m, q)) != 0)
		goto fail;
	if ((buf = malloc(GROUP_CMD_MAX)) == NULL) {
		rc = ERR_BUSY;
		goto fail;
	}
	bytes_writer_init(&w, buf, GROUP_CMD_MAX);
	manager_cmd_config(&w, (enum manager_set)set, q->have, q->text.p, q->text.n);
	rc = manager_propose(m, req, 0, &w, set_done);
fail:
	free(buf);
	if (rc != 0)
		net_reply(req, rc, NULL, NULL, 0, NULL, NULL);
}
